//! One origin's cells on their way to one peer.

use std::collections::VecDeque;
use std::time::Duration;

use crate::cell::{CellKey, CellState, OriginCells};
use crate::message::{CellBatch, WireCell};
use crate::origin::Origin;

/// How often a missing acknowledgement makes the sender go back at most.
const REWIND_EVERY: Duration = Duration::from_millis(200);

/// How far one origin's cells have gone to one peer.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    acked: u64,
    /// What the peer has once it got all that was sent.
    claimed: u64,
    /// The version of the last cell sent; ahead of `claimed` while a head is being reached.
    cursor: u64,
    /// What each batch claims, and when it went.
    flying: VecDeque<(u64, Duration)>,
    rewound: Option<Duration>,
    /// Where it ends: others' cells go as far as they were when they were asked for.
    goal: u64,
    unversioned: Unversioned,
    /// With those, all cells go: the store may know more of them than was told.
    whole: bool,
}

/// Whether cells without a version go, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Unversioned {
    #[default]
    Done,
    After(Option<CellKey>),
}

/// The next batch.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) head: u64,
    pub(super) cells: Vec<(CellKey, CellState)>,
}

// === impl Outgoing ===

impl Outgoing {
    /// To a peer that has everything up to `known`, until it has everything up to `goal`.
    pub(super) fn between(known: u64, goal: u64) -> Self {
        Self {
            acked: known,
            claimed: known,
            cursor: known,
            goal,
            ..Self::default()
        }
    }

    /// Begins again, unless what is missing is on its way.
    pub(super) fn restart(&mut self, known: u64, goal: u64, unversioned: bool) {
        if self.flying.is_empty() {
            *self = Self {
                unversioned: self.unversioned,
                whole: self.whole,
                ..Self::between(known, goal)
            };
        }
        if unversioned && self.unversioned == Unversioned::Done {
            self.unversioned = Unversioned::After(None);
        }
    }

    /// Sends all cells, beside the order.
    pub(super) fn send_whole(&mut self) {
        self.unversioned = Unversioned::After(None);
        self.whole = true;
    }

    pub(super) fn acked_to(&self) -> u64 {
        self.acked
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flying.len()
    }

    pub(super) fn has_more(&self, cells: &OriginCells) -> bool {
        self.claimed < cells.seen().min(self.goal)
    }

    pub(super) fn unversioned_done(&self) -> bool {
        self.unversioned == Unversioned::Done
    }

    /// Whether there is anything left to send or to wait for.
    pub(super) fn is_wanted(&self, cells: Option<&OriginCells>) -> bool {
        cells.is_some_and(|cells| {
            self.has_more(cells) || !self.flying.is_empty() || !self.unversioned_done()
        })
    }

    /// The next cells. All that are newer than the claim go before it is raised to the head: one
    /// whose version is beyond the head stands for an older one below it.
    pub(super) fn next(&mut self, cells: &OriginCells, most: usize) -> Next {
        let head = cells.seen();
        let from = self.claimed;
        let mut some: Vec<_> = cells.newer(self.cursor).take(most + 1).collect();
        let more = some.len() > most;
        some.truncate(most);
        let last = some.last().map_or(self.cursor, |(_, state)| state.ver);
        let to = if more { last.min(head - 1) } else { head };
        self.cursor = if more { last } else { head };
        self.claimed = to.max(from);
        Next {
            from,
            to: self.claimed,
            head,
            cells: some,
        }
    }

    pub(super) fn note_sent(&mut self, to: u64, now: Duration) {
        self.flying.push_back((to, now));
    }

    /// The next cells without a version; none left: none ever.
    pub(super) fn next_unversioned(
        &mut self,
        cells: &OriginCells,
        most: usize,
    ) -> Vec<(CellKey, CellState)> {
        let Unversioned::After(after) = self.unversioned else {
            return Vec::new();
        };
        let some = cells.some(after, most, self.whole);
        self.unversioned = match some.last() {
            Some((key, _)) if some.len() == most => Unversioned::After(Some(*key)),
            _ => Unversioned::Done,
        };
        some
    }

    /// A batch that changes nothing in the order, of one who has everything up to `head`.
    pub(super) fn batch_without_claim(
        &self,
        origin: Origin,
        head: u64,
        cells: Vec<WireCell>,
    ) -> CellBatch {
        CellBatch {
            origin,
            from_ver: self.claimed,
            to_ver: self.claimed,
            head,
            cells,
        }
    }

    /// Everything up to `ver` has arrived; how long the newest of it took. One that brings nothing
    /// new came after a gap: go back, and further if the peer no longer says that it needs no more.
    pub(super) fn acked(&mut self, ver: u64, now: Duration) -> Option<Duration> {
        if ver <= self.acked {
            if !self.flying.is_empty() {
                self.acked = ver;
                self.rewind(now);
            }
            return None;
        }
        self.acked = ver;
        let mut took = None;
        while let Some((to, sent)) = self.flying.front().copied() {
            if to > ver {
                break;
            }
            self.flying.pop_front();
            took = took.max(Some(now.saturating_sub(sent)));
        }
        if self.claimed < ver {
            self.claimed = ver;
            self.cursor = self.cursor.max(ver);
        }
        took
    }

    /// How long the oldest batch on its way has taken so far.
    pub(super) fn waiting(&self, now: Duration) -> Option<Duration> {
        let (_, sent) = self.flying.front()?;
        Some(now.saturating_sub(*sent))
    }

    /// Goes back when the oldest batch has taken longer than `patience`; tells how long.
    pub(super) fn give_up_waiting(
        &mut self,
        patience: Duration,
        now: Duration,
    ) -> Option<Duration> {
        let waited = self.waiting(now)?;
        if waited < patience {
            return None;
        }
        self.rewind(now);
        Some(waited)
    }

    fn rewind(&mut self, now: Duration) {
        if self
            .rewound
            .is_some_and(|last| now.saturating_sub(last) < REWIND_EVERY)
        {
            return;
        }
        self.rewound = Some(now);
        self.flying.clear();
        self.claimed = self.acked;
        self.cursor = self.acked;
    }
}
