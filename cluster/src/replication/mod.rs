//! Which cells go over one link, and what has come over it.
//!
//! Promise: a peer's acknowledgement never covers a cell that it lacks; whatever was lost is sent
//! again from the last acknowledgement; a slow peer gets fewer and newer cells, never a backlog.
//! Owner of what was sent and received over one link. Failure: a batch after a gap is merged but not
//! acknowledged, and the sender goes back.

mod lag;
mod outgoing;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) use self::lag::WindowMax;
use self::outgoing::Outgoing;

use crate::cell::{CellKey, CellState, CellStore};
use crate::message::{BATCH_CELLS, CellBatch, WireCell};
use crate::origin::Origin;

/// Batches of one origin on their way before the next one waits for an acknowledgement.
const WINDOW: usize = 8;

/// Batches that claim nothing, at once: nobody acknowledges them.
const UNCLAIMED_BATCHES: usize = 1;

/// Makes a cell ready to be sent.
pub(crate) trait Wording {
    /// `None`: its counter was given up meanwhile.
    fn wire(&self, key: CellKey, state: CellState) -> Option<WireCell>;
}

/// What a batch did to the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Something before it is missing.
    pub(crate) gap: bool,
    /// Everything of the origin up to here has come.
    pub(crate) seen: Option<u64>,
}

/// One link's cells, both ways.
#[derive(Debug)]
pub(crate) struct LinkSync {
    me: Origin,
    peer: Origin,
    out: BTreeMap<Origin, Outgoing>,
    /// Up to which version batches came without a gap, where that is more than what was seen.
    chained: BTreeMap<Origin, u64>,
    /// What came and was not taken: acknowledged, so that it does not come again, but not here.
    declined: BTreeMap<Origin, u64>,
    to_ack: BTreeSet<Origin>,
    /// Until the peer's first digest nothing is sent.
    asked: bool,
    /// Origins that the first digest asked for and that are not sent yet.
    first: BTreeSet<Origin>,
    told_caught_up: bool,
    lag: WindowMax,
}

// === impl LinkSync ===

impl LinkSync {
    pub(crate) fn new(me: Origin, peer: Origin) -> Self {
        Self {
            me,
            peer,
            out: BTreeMap::new(),
            chained: BTreeMap::new(),
            declined: BTreeMap::new(),
            to_ack: BTreeSet::new(),
            asked: false,
            first: BTreeSet::new(),
            told_caught_up: false,
            lag: WindowMax::default(),
        }
    }

    /// Whether the peer has asked, so that cells may go.
    pub(crate) fn is_open(&self) -> bool {
        self.asked
    }

    /// Takes in what the peer has.
    pub(crate) fn digest(&mut self, has: &[(Origin, u64)], store: &CellStore) {
        let mut has: BTreeMap<Origin, u64> = has.iter().copied().collect();
        if has
            .get(&self.me)
            .is_some_and(|ver| *ver > store.seen(self.me))
        {
            // More than there is: somebody misled the peer, so it may have nothing.
            has.remove(&self.me);
        }
        let first = !std::mem::replace(&mut self.asked, true);
        for (origin, cells) in store.origins() {
            // Of an origin without cells nothing is worth a word: who forgot it need not hear again.
            if origin == self.peer || origin != self.me && cells.is_empty() {
                continue;
            }
            let known = has.get(&origin).copied();
            if origin == self.me && !first {
                // Goes on by itself; a digest is older than what is on its way.
                continue;
            }
            let versioned = cells.seen() > known.unwrap_or(0);
            let unversioned = known.is_none() && !cells.some(None, 1, false).is_empty();
            let past = first && self.is_past(origin) && !cells.is_empty();
            if !versioned && !unversioned && !past {
                continue;
            }
            let out = self.out.entry(origin).or_default();
            let goal = if origin == self.me {
                u64::MAX
            } else {
                cells.seen()
            };
            out.restart(known.unwrap_or(0), goal, unversioned);
            if past {
                out.send_whole();
            }
            if first {
                self.first.insert(origin);
            }
        }
        if first {
            let known = has.get(&self.me).copied().unwrap_or(0);
            self.out
                .entry(self.me)
                .or_insert_with(|| Outgoing::between(known, u64::MAX));
        }
    }

    /// More is known of an earlier process of this node than it told: what it settled last came to
    /// the store by its usage files only.
    pub(crate) fn past_grew(&mut self, origin: Origin, store: &CellStore) {
        if self.asked
            && self.is_past(origin)
            && let Some(cells) = store.origin(origin)
        {
            let out = self.out.entry(origin);
            out.or_insert_with(|| Outgoing::between(cells.seen(), cells.seen()))
                .send_whole();
        }
    }

    fn is_past(&self, origin: Origin) -> bool {
        origin.node == self.me.node && origin != self.me
    }

    /// What may be sent now.
    pub(crate) fn pump(
        &mut self,
        store: &CellStore,
        wording: &impl Wording,
        now: Duration,
    ) -> Vec<CellBatch> {
        let mut batches = Vec::new();
        for (origin, out) in &mut self.out {
            let Some(cells) = store.origin(*origin) else {
                continue;
            };
            for _ in 0..UNCLAIMED_BATCHES {
                let some = out.next_unversioned(cells, BATCH_CELLS);
                if some.is_empty() {
                    break;
                }
                let some = words(wording, some);
                batches.push(out.batch_without_claim(*origin, cells.seen(), some));
            }
            let mut unclaimed = 0;
            while out.has_more(cells) && out.in_flight() < WINDOW && unclaimed < UNCLAIMED_BATCHES {
                let next = out.next(cells, BATCH_CELLS);
                let cells = words(wording, next.cells);
                batches.push(CellBatch {
                    origin: *origin,
                    from_ver: next.from,
                    to_ver: next.to,
                    head: next.head,
                    cells,
                });
                if next.to > next.from {
                    out.note_sent(next.to, now);
                } else {
                    unclaimed += 1;
                }
            }
            if !out.has_more(cells) && out.unversioned_done() {
                self.first.remove(origin);
            }
        }
        let me = self.me;
        self.out
            .retain(|origin, out| *origin == me || out.is_wanted(store.origin(*origin)));
        // What an origin had may have expired meanwhile.
        let out = &self.out;
        self.first.retain(|origin| out.contains_key(origin));
        batches
    }

    /// A batch that says that nothing is new.
    pub(crate) fn nothing_new(&self, store: &CellStore) -> Option<CellBatch> {
        let out = self.out.get(&self.me)?;
        Some(out.batch_without_claim(self.me, store.seen(self.me), Vec::new()))
    }

    /// Whether the peer is to be told, now and once, that it has all it first asked for.
    pub(crate) fn take_caught_up(&mut self) -> bool {
        let now = self.asked && self.first.is_empty() && !self.told_caught_up;
        self.told_caught_up |= now;
        now
    }

    /// Takes in the order of a batch; its cells are merged in any case.
    pub(crate) fn received(&mut self, batch: &CellBatch, seen: u64) -> Received {
        let chained = self.chained.get(&batch.origin).copied().unwrap_or(0);
        let have = chained.max(seen);
        let gap = batch.from_ver > have;
        let claims = batch.to_ver > batch.from_ver;
        if claims {
            self.to_ack.insert(batch.origin);
        }
        if gap {
            return Received { gap, seen: None };
        }
        let have = have.max(batch.to_ver);
        if claims {
            self.chained.insert(batch.origin, have);
        }
        let complete = have >= batch.head && batch.head > seen;
        Received {
            gap,
            seen: complete.then_some(batch.head),
        }
    }

    /// Takes a batch whose cells are not merged for sent: another one tells them better. Nothing of
    /// it is here, so who goes on with it later has to begin anew.
    pub(crate) fn declined(&mut self, batch: &CellBatch) {
        if batch.to_ver > batch.from_ver {
            self.declined.insert(batch.origin, batch.to_ver);
            self.to_ack.insert(batch.origin);
        }
    }

    /// What is to be acknowledged.
    pub(crate) fn take_acks(&mut self, store: &CellStore) -> Vec<(Origin, u64)> {
        let declined = std::mem::take(&mut self.declined);
        std::mem::take(&mut self.to_ack)
            .into_iter()
            .map(|origin| {
                let of = |known: &BTreeMap<Origin, u64>| known.get(&origin).copied().unwrap_or(0);
                let known = of(&self.chained).max(of(&declined));
                (origin, known.max(store.seen(origin)))
            })
            .collect()
    }

    /// Takes in an acknowledgement.
    pub(crate) fn acked(&mut self, origin: Origin, ver: u64, now: Duration) {
        if let Some(out) = self.out.get_mut(&origin)
            && let Some(took) = out.acked(ver, now)
        {
            self.lag.add(took, now);
        }
    }

    /// Goes back to the last acknowledgement where none has come for too long.
    pub(crate) fn check(&mut self, now: Duration) {
        let patience = Duration::from_secs(1).max(self.lag.largest(now) * 2);
        for out in self.out.values_mut() {
            if let Some(late) = out.give_up_waiting(patience, now) {
                self.lag.add(late, now);
            }
        }
    }

    /// The longest from sending to acknowledgement in the last seconds; what is still on its way
    /// counts as soon as it takes longer.
    pub(crate) fn lag(&self, now: Duration) -> Option<Duration> {
        let waiting = self.out.get(&self.me).and_then(|out| out.waiting(now));
        match self.lag.known(now) {
            None => waiting,
            Some(lag) => Some(lag.max(waiting.unwrap_or_default())),
        }
    }

    /// The longest from sending to acknowledgement in the last seconds, as far as that came.
    pub(crate) fn usual_lag(&self, now: Duration) -> Duration {
        self.lag.largest(now)
    }

    /// Versions of this process's cells that the peer has not acknowledged.
    pub(crate) fn unacked(&self, head: u64) -> u64 {
        let acked = self.out.get(&self.me).map_or(0, Outgoing::acked_to);
        head.saturating_sub(acked)
    }
}

fn words(wording: &impl Wording, cells: Vec<(CellKey, CellState)>) -> Vec<WireCell> {
    cells
        .into_iter()
        .filter_map(|(key, state)| wording.wire(key, state))
        .collect()
}
