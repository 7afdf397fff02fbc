//! What the core keeps of one counter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use policy::{Counter, CounterId, Enforcement, Fleet, Timestamp};

use crate::data_dir::NodeKey;
use crate::enforcement::{Peak, Rate};

/// How long requests are thought to be in flight, in milliseconds.
const IN_FLIGHT_MS: u64 = 60_000;

/// One counter that this node or another one uses.
#[derive(Debug)]
pub(super) struct Tracked {
    /// `None`: no counter of this version has this text; its cells are only passed on.
    pub(super) counter: Option<Arc<Counter>>,
    /// What the counter was told that others have, by epoch.
    told: BTreeMap<i64, u128>,
    /// What of it is held.
    held: u128,
    /// Cells of any origin.
    pub(super) cells: usize,
    /// It changed since it was published.
    pub(super) dirty: bool,
    pub(super) published_at: Option<Duration>,
    /// This node's total when it was.
    pub(super) published: u64,
    pub(super) limited: Option<Box<Limited>>,
}

/// What is kept of a counter whose limit is known.
#[derive(Debug)]
pub(super) struct Limited {
    pub(super) limit: u64,
    pub(super) enforcement: Enforcement,
    pub(super) own: Rate,
    pub(super) others: BTreeMap<NodeKey, Rate>,
    pub(super) peak: Peak,
    /// When parts of the rest were last given, and up to where.
    pub(super) round: Option<(Duration, u64)>,
    /// What all members are known to have known.
    pub(super) base: Base,
    /// What the counter was told last.
    pub(super) fleet: Option<Fleet>,
    pub(super) beyond: Beyond,
    pub(super) apart: Apart,
    pub(super) elsewhere: Elsewhere,
}

/// What those who are apart have.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// How often it was others who were apart when it was last looked at.
    split: u64,
    pub(super) sum: u64,
    /// What they took since they are, as the store told: by node and epoch.
    grown: BTreeMap<(NodeKey, i64), u64>,
}

/// What all sides may have taken before a split was noticed, while that is in the window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Apart {
    amount: u64,
    until: Timestamp,
    /// What it becomes more if a side's part is taken.
    taken: u64,
    /// How often parts were taken, of which this knows.
    times: u64,
}

/// Totals by epoch at a moment that every member has been heard from since.
#[derive(Debug, Default)]
pub(super) struct Base {
    confirmed: Vec<(i64, u64)>,
    candidate: Vec<(i64, u64)>,
    candidate_at: Option<Duration>,
}

/// What requests took beyond their holds: how much the total grew while nothing could be admitted.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    full: Option<(Duration, u64)>,
    pub(super) largest: u64,
}

// === impl Tracked ===

impl Tracked {
    pub(super) fn new(counter: Option<Arc<Counter>>) -> Self {
        Self {
            counter,
            told: BTreeMap::new(),
            held: 0,
            cells: 0,
            dirty: false,
            published_at: None,
            published: 0,
            limited: None,
        }
    }

    /// What others have in an epoch changed; `past`: what earlier starts of this node have.
    pub(super) fn change(&mut self, past: bool, epoch: i64, from: u64, to: u64, now: Timestamp) {
        let told = self.told.entry(epoch).or_default();
        let before = clamped(*told);
        *told = (*told + u128::from(to)).saturating_sub(u128::from(from));
        let after = clamped(*told);
        if *told == 0 {
            self.told.remove(&epoch);
        }
        match &self.counter {
            Some(counter) if past => counter.change_past(epoch, before, after, now),
            Some(counter) if before != after => {
                counter.change_remote(epoch, before, after, now);
            }
            _ => {}
        }
    }

    /// What others hold changed.
    pub(super) fn change_held(&mut self, from: u64, to: u64) {
        if from == to {
            return;
        }
        self.held = (self.held + u128::from(to)).saturating_sub(u128::from(from));
        if let Some(counter) = &self.counter {
            counter.set_remote_held(clamped(self.held));
        }
    }

    /// What others have, by epoch.
    pub(super) fn told(&self) -> impl Iterator<Item = (i64, u64)> {
        self.told
            .iter()
            .map(|(epoch, told)| (*epoch, clamped(*told)))
    }

    pub(super) fn counter_id(&self) -> Option<&CounterId> {
        self.counter.as_ref().map(|counter| counter.id())
    }

    /// The limit as admission last asked for it.
    pub(super) fn limited(&mut self) -> Option<&mut Limited> {
        let (limit, enforcement) = self.counter.as_ref()?.asked_limit()?;
        let limited = self
            .limited
            .get_or_insert_with(|| Box::new(Limited::new(limit, enforcement)));
        limited.limit = limit;
        limited.enforcement = enforcement;
        Some(limited)
    }

    /// Takes away what holds the counter back: nobody looks after it until it is used again.
    pub(super) fn let_go(&self) {
        if let Some(counter) = &self.counter {
            counter.unset_ceiling();
        }
    }

    /// Whether nothing is left to keep.
    pub(super) fn is_idle(&self) -> bool {
        self.cells == 0 && !self.dirty
    }
}

// === impl Limited ===

impl Limited {
    pub(super) fn new(limit: u64, enforcement: Enforcement) -> Self {
        Self {
            limit,
            enforcement,
            own: Rate::default(),
            others: BTreeMap::new(),
            peak: Peak::default(),
            round: None,
            base: Base::default(),
            fleet: None,
            beyond: Beyond::default(),
            apart: Apart::default(),
            elsewhere: Elsewhere::default(),
        }
    }

    /// Of all nodes, per second.
    pub(super) fn rate(&self, now: Duration) -> f64 {
        let others: f64 = self.others.values().map(|rate| rate.at_time(now)).sum();
        self.own.at_time(now) + others
    }

    /// Takes in what those who are apart have now.
    pub(super) fn note_elsewhere(&mut self, split: u64, sum: u64) {
        self.elsewhere.sum = sum;
        if std::mem::replace(&mut self.elsewhere.split, split) != split {
            // The total stood at another ceiling.
            self.beyond.full = None;
        }
    }
}

// === impl Base ===

impl Base {
    /// Takes what is seen now as the next candidate, once every member has been heard from since the
    /// last one; `heard` is when the most silent of them was.
    pub(super) fn note(
        &mut self,
        heard: Duration,
        now: Duration,
        totals: impl FnOnce() -> Vec<(i64, u64)>,
    ) {
        if self.candidate_at.is_some_and(|at| at >= heard) {
            return;
        }
        let next = totals();
        self.confirmed = std::mem::replace(&mut self.candidate, next);
        self.candidate_at = Some(now);
    }

    /// What of it still counts.
    pub(super) fn live(&self, counts: impl Fn(i64) -> bool) -> u64 {
        let live = self.confirmed.iter().filter(|(epoch, _)| counts(*epoch));
        live.fold(0, |sum, (_, amount)| sum.saturating_add(*amount))
    }
}

// === impl Elsewhere ===

impl Elsewhere {
    /// The store told that a node which is apart has so much more.
    pub(super) fn grew(&mut self, node: NodeKey, epoch: i64, more: u64) {
        let grown = self.grown.entry((node, epoch)).or_default();
        *grown = grown.saturating_add(more);
    }

    /// Who is heard again, and what has expired, counts no longer.
    pub(super) fn keep(&mut self, counts: impl Fn(NodeKey, i64) -> bool) {
        self.grown.retain(|(node, epoch), _| counts(*node, *epoch));
    }

    pub(super) fn grown(&self) -> u64 {
        let grown = self.grown.values();
        grown.fold(0, |sum, more| sum.saturating_add(*more))
    }
}

// === impl Apart ===

impl Apart {
    /// Takes in what may have been taken unnoticed, and what more if a side's part was taken, while
    /// there is a split; and how often that happened. What is taken now leaves at `until`; `None`:
    /// when its requests end, which is not known.
    pub(super) fn follow(
        &mut self,
        split: Option<(u64, u64)>,
        times: u64,
        until: Option<Timestamp>,
        now: Timestamp,
    ) {
        if let Some((unnoticed, taken)) = split {
            self.amount = self.amount.max(unnoticed);
            self.taken = self.taken.max(taken);
        }
        let was_taken = std::mem::replace(&mut self.times, times) != times;
        if was_taken {
            self.amount = self.amount.saturating_add(self.taken);
        }
        if split.is_some() || was_taken {
            self.until = until.unwrap_or(Timestamp(now.0.saturating_add(IN_FLIGHT_MS)));
        }
        if split.is_none() || was_taken {
            self.taken = 0;
        }
    }

    pub(super) fn at_time(&mut self, now: Timestamp) -> u64 {
        if self.until <= now {
            self.amount = 0;
        }
        self.amount
    }
}

// === impl Beyond ===

impl Beyond {
    /// Notes the total; growth counts once it has stood at `ceiling` for longer than `staleness`, so
    /// that no admission anywhere can be behind it.
    pub(super) fn note(&mut self, total: u64, ceiling: u64, staleness: Duration, now: Duration) {
        if total < ceiling {
            self.full = None;
            return;
        }
        match self.full {
            None => self.full = Some((now, total)),
            Some((since, _)) if now.saturating_sub(since) <= staleness => {
                self.full = Some((since, total));
            }
            Some((_, then)) => self.largest = self.largest.max(total.saturating_sub(then)),
        }
    }
}

fn clamped(sum: u128) -> u64 {
    u64::try_from(sum).unwrap_or(u64::MAX)
}
