//! What goes to the store, and what comes back.
//!
//! Promise: a cell that the store does not have stays in the set of those to be written until it is
//! there or its window has passed, however long the store is away. Of a dead process's cells one
//! survivor takes care.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use super::{Core, Effect, Now, StoreReply, StoreRequest};
use crate::cell::CellKey;
use crate::enforcement::rendezvous;
use crate::message::{BATCH_CELLS, CellBatch, WireCell};
use crate::origin::Origin;
use crate::replication::Wording;

/// How often changed cells are written.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// How soon the next part follows while there are more: at most 5,000 cells a second.
const NEXT_PART: Duration = Duration::from_millis(400);

/// How soon the stored cells, and what tasks found, are asked for again.
const RELOAD_EVERY: Duration = Duration::from_secs(1);

/// When a process died, its last usage is in the store a little later.
pub(super) const RELOAD_AFTER_DEATH: Duration = Duration::from_secs(5);

/// What the store knows and does not know.
#[derive(Debug, Default)]
pub(super) struct Flush {
    dirty: BTreeSet<(Origin, CellKey)>,
    /// The last of them that was written, so that all have their turn.
    written: Option<(Origin, CellKey)>,
    /// When the oldest of what the store does not have was counted.
    dirty_since: Option<Duration>,
    /// When the present round over all of them began: the next one has no older ones.
    round: Duration,
    /// The oldest that is left once the store has what it was asked last.
    then_since: Option<Duration>,
    /// Whether cells are being written.
    flushing: bool,
    next_flush: Duration,
    /// Dead processes that this node flushes for.
    heir_of: BTreeSet<Origin>,
    next_load: Option<Duration>,
    /// The last time that was asked for, beside the next one.
    last_load: Option<Duration>,
    asked_load: Option<Duration>,
    next_outcomes: Option<Duration>,
    /// The node's own copy, until cluster time is known.
    pub(super) kept: Option<Vec<(Origin, WireCell)>>,
    /// Whether the last answer was one.
    pub(super) ok: bool,
}

// === impl Flush ===

impl Flush {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            next_load: Some(now),
            ok: true,
            ..Self::default()
        }
    }

    /// Own cells that changed.
    pub(super) fn note(&mut self, origin: Origin, keys: &[CellKey], now: Duration) {
        if !keys.is_empty() {
            self.dirty_since.get_or_insert(now);
            self.dirty.extend(keys.iter().map(|key| (origin, *key)));
        }
    }

    /// The one to be written next; it is none of them any more.
    pub(super) fn next_dirty(&mut self) -> Option<(Origin, CellKey)> {
        let after = self.written.map_or(Bound::Unbounded, Bound::Excluded);
        let mut next = self.dirty.range((after, Bound::Unbounded));
        let next = *next.next().or_else(|| self.dirty.first())?;
        self.dirty.remove(&next);
        self.written = Some(next);
        Some(next)
    }

    /// Reads the stored cells again then; what was to be read sooner or later still is.
    pub(super) fn reload_at(&mut self, at: Duration) {
        self.next_load = Some(self.next_load.map_or(at, |next| next.min(at)));
        self.last_load = self.last_load.max(Some(at));
    }

    /// The stored cells came: what was to be read after the question still is.
    fn loaded(&mut self) {
        let asked = self.asked_load.take();
        let is_open = |at: &Duration| asked.is_none_or(|asked| *at > asked);
        self.last_load = self.last_load.filter(is_open);
        self.next_load = self.next_load.filter(is_open).or(self.last_load);
    }

    pub(super) fn unflushed(&self) -> u64 {
        self.dirty.len() as u64
    }

    pub(super) fn lag(&self, now: Duration) -> Duration {
        self.dirty_since
            .map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

// === impl Core ===

impl Core {
    /// Asks the store for what is due.
    pub(super) fn tend_store(&mut self, now: Now) {
        // Each request is answered, however late: to ask again would only make the store later.
        let mono = now.mono;
        let may_load = self.ready.clock_known && self.flush.asked_load.is_none();
        if may_load && self.flush.next_load.is_some_and(|at| mono >= at) {
            self.flush.asked_load = Some(mono);
            if !self.ready.loaded {
                // Who was this node before is known before it counts.
                self.ask(StoreRequest::Heartbeats);
            }
            self.ask(StoreRequest::LoadCells);
        }
        self.beat(mono);
        if self.flush.next_outcomes.take_if(|at| mono >= *at).is_some() {
            self.ask(StoreRequest::LoadOutcomes);
        }
        if mono >= self.flush.next_flush && !self.flush.flushing {
            self.flush.next_flush = mono + FLUSH_EVERY;
            self.inherit(mono);
            self.flush_some(mono);
        }
    }

    pub(super) fn ask(&mut self, request: StoreRequest) {
        self.effects.push(Effect::Store(request));
    }

    fn flush_some(&mut self, now: Duration) {
        let flush = &mut self.flush;
        let (mut cells, before) = (Vec::new(), flush.written);
        while cells.len() < BATCH_CELLS {
            let Some((origin, key)) = flush.next_dirty() else {
                break;
            };
            // One that is no more has expired.
            let state = self
                .counting
                .store
                .origin(origin)
                .and_then(|cells| cells.state(key));
            if let Some(cell) = state
                // Holds are not kept there.
                .filter(|state| state.used > 0)
                .and_then(|state| self.counting.counters.wire(key, state))
            {
                cells.push((origin, cell));
            }
        }
        if cells.is_empty() {
            flush.dirty_since = None;
            return;
        }
        if flush.dirty.is_empty() {
            (flush.then_since, flush.round) = (Some(now), now);
        } else if flush.written < before {
            // It came round to the first of them.
            (flush.then_since, flush.round) = (Some(flush.round), now);
        } else {
            flush.then_since = flush.dirty_since;
        }
        if !flush.dirty.is_empty() {
            flush.next_flush = now + NEXT_PART;
        }
        flush.flushing = true;
        self.ask(StoreRequest::FlushCells(cells));
    }

    /// What is left goes to the store at once: there is no next time.
    pub(super) fn flush_last(&mut self, now: Duration) {
        while !self.flush.dirty.is_empty() {
            self.flush_some(now);
        }
    }

    fn flushed(&mut self, cells: &[(Origin, WireCell)], ok: bool, now: Now) {
        self.flush.flushing = false;
        if ok {
            let flush = &mut self.flush;
            let left = !flush.dirty.is_empty();
            flush.dirty_since = flush.then_since.filter(|_| left);
            return;
        }
        self.flush.round = self.flush.dirty_since.unwrap_or(now.mono);
        for (origin, cell) in cells {
            if let Some(slot) = self.counting.counters.find(&cell.counter) {
                self.flush.note(*origin, &[(slot, cell.epoch)], now.mono);
            }
        }
    }

    /// Takes care of the cells of processes that are gone, if this node is chosen.
    fn inherit(&mut self, now: Duration) {
        let live = self.live_origins();
        let me = self.config.me;
        let dead: Vec<Origin> = self
            .counting
            .store
            .origins()
            .filter(|(origin, cells)| {
                *origin != me && !live.contains(origin) && cells.newer(0).next().is_some()
            })
            .map(|(origin, _)| origin)
            .collect();
        let mut heir_of = BTreeSet::new();
        for origin in dead {
            let nodes = live.iter().map(|origin| origin.node).chain([me.node]);
            if rendezvous::chosen(&origin.to_string(), nodes) != Some(me.node) {
                continue;
            }
            if !self.flush.heir_of.contains(&origin)
                && let Some(cells) = self.counting.store.origin(origin)
            {
                let keys: Vec<CellKey> = cells.newer(0).map(|(key, _)| key).collect();
                self.flush.note(origin, &keys, now);
            }
            heir_of.insert(origin);
        }
        self.flush.heir_of = heir_of;
    }

    /// More of a dead process's cells came.
    pub(super) fn note_for_survivors(&mut self, origin: Origin, batch: &CellBatch, now: Now) {
        if !self.flush.heir_of.contains(&origin) {
            return;
        }
        for cell in &batch.cells {
            if let Some(slot) = self.counting.counters.find(&cell.counter) {
                self.flush.note(origin, &[(slot, cell.epoch)], now.mono);
            }
        }
    }

    pub(super) fn store_answered(&mut self, reply: StoreReply, now: Now) {
        if let StoreReply::KeptCells(cells) = reply {
            match self.ready.clock_known {
                true => self.stored_cells_came(&cells, now),
                false => self.flush.kept = Some(cells),
            }
            return;
        }
        self.flush.ok = reply.is_ok();
        match reply {
            StoreReply::Heartbeat(result) => self.heartbeats.answered(result.is_ok()),
            StoreReply::Heartbeats(result) => {
                self.heartbeats.looked();
                let Ok(rows) = result else { return };
                self.watch_predecessors(&rows, now);
                self.heartbeats.read(self.config.me.node, &rows, now.mono);
            }
            StoreReply::LoadCells(result) => self.cells_loaded(result.as_deref(), now),
            StoreReply::FlushCells { cells, result } => self.flushed(&cells, result.is_ok(), now),
            StoreReply::TakeTerm {
                scope,
                task,
                result,
            } => self.term_answered(&scope, &task, result, now),
            StoreReply::SaveOutcome {
                task,
                scope,
                term,
                result,
            } => self.outcome_saved(&task, &scope, term, result),
            StoreReply::ReadTerm {
                scope,
                task,
                result,
            } => self.term_read(scope, task, result, now),
            StoreReply::LoadOutcomes(Ok(outcomes)) => self.outcomes_loaded(outcomes),
            StoreReply::LoadOutcomes(Err(())) => {
                self.flush.next_outcomes = Some(now.mono + RELOAD_EVERY);
            }
            StoreReply::EntitiesSince { after, result } => self.entities_found(after, result),
            StoreReply::SealWindows { term, result } => {
                self.windows_sealed(term, result.is_ok(), now);
            }
            StoreReply::KeptCells(_) | StoreReply::ReleaseTerm(_) => {}
        }
    }

    fn cells_loaded(&mut self, result: Result<&[(Origin, WireCell)], &()>, now: Now) {
        if result.is_ok() && !self.ready.clock_known {
            // Of the process before this one; they are asked for once cluster time is known.
            return;
        }
        match result {
            Ok(cells) => {
                self.flush.loaded();
                self.stored_cells_came(cells, now);
                if !std::mem::replace(&mut self.ready.loaded, true) {
                    self.flush.next_outcomes = Some(now.mono);
                }
            }
            Err(()) => {
                self.ready.store_away = true;
                self.flush.asked_load = None;
                self.flush.next_load = Some(now.mono + RELOAD_EVERY);
                self.flush.last_load = self.flush.last_load.max(self.flush.next_load);
            }
        }
    }
}

// === impl StoreReply ===

impl StoreReply {
    fn is_ok(&self) -> bool {
        match self {
            Self::Heartbeat(result) | Self::ReleaseTerm(result) => result.is_ok(),
            Self::FlushCells { result, .. } => result.is_ok(),
            Self::Heartbeats(result) => result.is_ok(),
            Self::LoadCells(result) => result.is_ok(),
            Self::TakeTerm { result, .. } | Self::ReadTerm { result, .. } => result.is_ok(),
            Self::SaveOutcome { result, .. } => result.is_ok(),
            Self::LoadOutcomes(result) => result.is_ok(),
            Self::EntitiesSince { result, .. } => result.is_ok(),
            Self::SealWindows { result, .. } => result.is_ok(),
            // Of the node's own disk.
            Self::KeptCells(_) => false,
        }
    }
}
