//! Cells and counters: what this node counts becomes its cells, and the cells of others count here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use policy::{Counter, CounterId, CounterTable, Timestamp};

use super::horizon::{ENDED_KEPT_MS, is_ahead, kept_until};
use super::tracked::Tracked;
use super::{Core, Effect, Now};
use crate::cell::{Amounts, CellKey, CellState, CellStore, MOST_CELLS, Merged, Slot, Slots};
use crate::data_dir::NodeKey;
use crate::enforcement;
use crate::message::{CellBatch, Frame, WireCell};
use crate::origin::Origin;
use crate::replication::Wording;

/// Counters taken over at once, and at most in one tick.
const TAKE: usize = 4_096;
const TAKE_MOST: usize = 65_536;

/// Cells looked at by one step of the sweep.
const SWEEP: usize = 2_000;

/// How long after its last change a node still says that nothing is new, so that its silence is not
/// taken for use.
const STILL_SAYING: Duration = Duration::from_millis(1_500);

/// Who was heard this recently over its own link speaks for itself.
const SPEAKING: Duration = Duration::from_secs(2);

/// Cells, and the counters they are of.
#[derive(Debug)]
pub(super) struct Counting {
    pub(super) me: Origin,
    pub(super) table: Arc<CounterTable>,
    pub(super) store: CellStore,
    pub(super) counters: Slots<Tracked>,
    /// Changed here and not published.
    pub(super) dirty: BTreeSet<Slot>,
    /// To be judged again.
    pub(super) stale: BTreeSet<Slot>,
    /// Processes whose holds no longer count.
    pub(super) gone: BTreeSet<Origin>,
    /// Earlier processes under this node's name that had another key: its disk was lost.
    pub(super) predecessors: BTreeSet<Origin>,
    /// Whether all live members tell their holds.
    pub(super) holds: bool,
    pub(super) next_sync: Duration,
    last_published: Option<Duration>,
    next_nothing: Duration,
    refused: bool,
    /// Some counter changed for the first time.
    first: bool,
}

// === impl Counting ===

impl Counting {
    pub(super) fn new(me: Origin, table: Arc<CounterTable>, now: Duration) -> Self {
        Self {
            me,
            table,
            store: CellStore::new(MOST_CELLS),
            counters: Slots::new(),
            dirty: BTreeSet::new(),
            stale: BTreeSet::new(),
            gone: BTreeSet::new(),
            predecessors: BTreeSet::new(),
            holds: true,
            next_sync: now,
            last_published: None,
            next_nothing: now,
            refused: false,
            first: false,
        }
    }

    /// Whether cells of others were refused because there are too many.
    pub(super) fn is_full(&self) -> bool {
        self.refused
    }

    /// Whether what others hold counts.
    pub(super) fn counts_holds(&self) -> bool {
        self.holds
    }

    fn slot(&mut self, text: &Arc<str>) -> Slot {
        let table = &self.table;
        self.counters.find_or_insert(text, || {
            let id = text.parse::<CounterId>().ok();
            Tracked::new(id.map(|id| table.counter(&id)))
        })
    }

    fn slot_of(&mut self, counter: &Arc<Counter>) -> Slot {
        self.counters
            .find_or_insert(counter.text(), || Tracked::new(Some(Arc::clone(counter))))
    }

    /// Takes over one cell of another origin; tells by how much its total grew.
    fn merge(
        &mut self,
        origin: Origin,
        cell: &WireCell,
        now: Timestamp,
    ) -> Result<Option<(Slot, u64)>, Merged> {
        if crate::cell::is_expired(cell.expires_at, now) {
            return Err(Merged::Expired);
        }
        let slot = self.slot(&cell.counter);
        let id = self.counters.at(slot).and_then(Tracked::counter_id);
        if id.is_some_and(|id| is_ahead(id, cell.epoch, now)) {
            return Err(Merged::Ahead);
        }
        let state = CellState {
            ver: cell.ver,
            used: cell.used,
            held: cell.held,
            // Nobody makes a cell stay for longer than its window.
            expires_at: kept_until(id, cell.epoch, now).min(cell.expires_at),
        };
        let new = self
            .store
            .origin(origin)
            .is_none_or(|cells| cells.state((slot, cell.epoch)).is_none());
        match self.store.merge(origin, (slot, cell.epoch), state, now) {
            Merged::News { before, after } => {
                let (counts, past) = (self.holds_count(origin), self.is_past(origin));
                if let Some(tracked) = self.counters.at_mut(slot) {
                    tracked.cells += usize::from(new);
                    let (from, to) = (counted(before, counts), counted(after, counts));
                    tracked.change(past, cell.epoch, from, to, now);
                    if counts {
                        tracked.change_held(before.held, after.held);
                    }
                    self.stale.insert(slot);
                    return Ok(Some((slot, to.saturating_sub(from))));
                }
                Ok(None)
            }
            Merged::Known => Ok(None),
            refused => {
                self.stale.insert(slot);
                Err(refused)
            }
        }
    }

    /// Removes what has expired, a part at a time.
    fn sweep(&mut self, me: Origin, live: &BTreeSet<Origin>, now: Timestamp) {
        let mut removed = Vec::new();
        self.store.sweep(
            SWEEP,
            now,
            |origin| origin == me || live.contains(&origin),
            |cell| removed.push(cell),
        );
        for cell in removed {
            let counts = self.holds_count(cell.origin);
            let past = self.is_past(cell.origin);
            let (slot, epoch) = cell.key;
            let Some(tracked) = self.counters.at_mut(slot) else {
                continue;
            };
            tracked.cells = tracked.cells.saturating_sub(1);
            if cell.origin == me {
                continue;
            }
            tracked.change(past, epoch, counted(cell.amounts, counts), 0, now);
            if counts {
                tracked.change_held(cell.amounts.held, 0);
            }
        }
        self.refused &= self.store.len() >= MOST_CELLS;
    }

    /// Takes over which counters changed here.
    fn collect(&mut self) {
        let mut left = TAKE_MOST;
        while left > 0 {
            let changed = self.table.take_changed(TAKE);
            let last = changed.len() < TAKE;
            left -= changed.len().min(left);
            for counter in &changed {
                let slot = self.slot_of(counter);
                let Some(tracked) = self.counters.at_mut(slot) else {
                    continue;
                };
                tracked.dirty = true;
                // The first change goes at once: no trigger was set yet.
                self.first |= tracked.published_at.is_none();
                self.dirty.insert(slot);
                if tracked.limited.is_none() {
                    self.stale.insert(slot);
                }
            }
            if last {
                return;
            }
        }
    }

    /// Makes cells of what a counter counts here; tells which, and by how much its total grew.
    fn publish(&mut self, me: Origin, slot: Slot, now: Now) -> (Vec<CellKey>, u64) {
        let (mut keys, mut grown) = (Vec::new(), 0_u64);
        self.dirty.remove(&slot);
        let Some(tracked) = self.counters.at_mut(slot) else {
            return (keys, grown);
        };
        tracked.dirty = false;
        tracked.published_at = Some(now.mono);
        let Some(counter) = tracked.counter.clone() else {
            return (keys, grown);
        };
        // First, so that what comes meanwhile is at worst told twice.
        counter.note_published();
        let mut told = BTreeSet::new();
        let store = &mut self.store;
        let mut cells = store.len();
        counter.own(now.wall, |cell| {
            told.insert(cell.epoch);
            let amounts = Amounts {
                used: cell.used,
                held: cell.held,
            };
            let key = (slot, cell.epoch);
            if let Some(before) = store.publish(me, key, amounts, cell.expires_at) {
                let growth = counted(amounts, true).saturating_sub(counted(before, true));
                grown = grown.saturating_add(growth);
                keys.push(key);
            }
        });
        let over: Vec<(i64, CellState)> = store.origin(me).map_or_else(Vec::new, |cells| {
            let held = |(epoch, state): &(i64, CellState)| state.held > 0 && !told.contains(epoch);
            cells.of(slot).filter(held).collect()
        });
        let kept_until = Timestamp(now.wall.0.saturating_add(ENDED_KEPT_MS));
        for (epoch, state) in over {
            let amounts = Amounts {
                used: state.used,
                held: 0,
            };
            let expires_at = state.expires_at.min(kept_until);
            let expires_at = match counter.id().expires_at(epoch) {
                None => expires_at,
                Some(end) => end,
            };
            store.publish(me, (slot, epoch), amounts, expires_at);
            keys.push((slot, epoch));
        }
        cells = store.len() - cells;
        tracked.cells += cells;
        tracked.published = counter.own_total(now.wall);
        (keys, grown)
    }

    /// Gives up a counter that nothing is left of.
    pub(super) fn give_up_idle(&mut self, slot: Slot) -> bool {
        let idle = self.counters.at(slot).is_some_and(Tracked::is_idle);
        if idle {
            if let Some(tracked) = self.counters.at(slot) {
                tracked.let_go();
            }
            self.counters.free(slot);
            self.stale.remove(&slot);
        }
        idle
    }
}

impl Wording for Slots<Tracked> {
    fn wire(&self, (slot, epoch): CellKey, state: CellState) -> Option<WireCell> {
        Some(WireCell {
            counter: Arc::clone(self.text(slot)?),
            epoch,
            ver: state.ver,
            used: state.used,
            held: state.held,
            expires_at: state.expires_at,
        })
    }
}

// === impl Core ===

impl Core {
    /// Publishes what is due, and sends it.
    pub(super) fn sync_cells(&mut self, now: Now) {
        self.counting.collect();
        let urgent = self.counting.table.take_urgent();
        let due = now.mono >= self.counting.next_sync;
        let first = std::mem::take(&mut self.counting.first);
        if due || urgent || first {
            self.publish_due(due, now);
        }
        if due {
            self.counting.next_sync = now.mono + self.config.sync_interval;
            let live = self.live_origins();
            self.counting.sweep(self.config.me, &live, now.wall);
        }
        self.pump(now);
        self.say_nothing_new(now);
    }

    /// Publishes all that changed, and sends it.
    pub(super) fn publish_all(&mut self, now: Now) {
        self.counting.collect();
        let dirty: Vec<Slot> = self.counting.dirty.iter().copied().collect();
        for slot in dirty {
            let (keys, _) = self.counting.publish(self.config.me, slot, now);
            self.flush.note(self.config.me, &keys, now.mono);
        }
        self.pump(now);
    }

    fn publish_due(&mut self, on_time: bool, now: Now) {
        let nodes = self.sight(now.mono).nodes;
        let dirty: Vec<Slot> = self.counting.dirty.iter().copied().collect();
        for slot in dirty {
            if self.is_due(slot, on_time, nodes, now) {
                let (keys, grown) = self.counting.publish(self.config.me, slot, now);
                if !keys.is_empty() {
                    self.counting.last_published = Some(now.mono);
                }
                if let Some(tracked) = self.counting.counters.at_mut(slot)
                    && let Some(limited) = tracked.limited()
                {
                    limited.own.add(grown, now.mono);
                }
                self.counting.stale.insert(slot);
                self.flush.note(self.config.me, &keys, now.mono);
            }
        }
    }

    fn is_due(&self, slot: Slot, on_time: bool, nodes: u64, now: Now) -> bool {
        let Some(tracked) = self.counting.counters.at(slot) else {
            return true;
        };
        let Some(counter) = &tracked.counter else {
            return true;
        };
        let Some(published_at) = tracked.published_at else {
            return true;
        };
        let limit = tracked.limited.as_ref().map(|limited| limited.limit);
        let total = counter.total(now.wall);
        let base = self.config.sync_interval;
        let interval = enforcement::interval(base, total, limit, nodes);
        // Rounds are not exact to the millisecond.
        if on_time && now.mono + base / 2 >= published_at + interval {
            return true;
        }
        let unsent = counter
            .own_total(now.wall)
            .saturating_sub(tracked.published);
        limit.is_some_and(|limit| unsent >= enforcement::trigger(limit, total, nodes))
    }

    /// Sends what each link may take.
    pub(super) fn pump(&mut self, now: Now) {
        let knows = self.ready.caught_up || !self.ready.knows_nothing();
        for peer in self.peers.values_mut() {
            let Some(link) = &mut peer.link else {
                continue;
            };
            link.sync.check(now.mono);
            let batches = link
                .sync
                .pump(&self.counting.store, &self.counting.counters, now.mono);
            link.said |= !batches.is_empty();
            for mut batch in batches {
                if link.protocol < 2 {
                    batch.cells.iter_mut().for_each(|cell| cell.held = 0);
                }
                self.figures.batches_sent += 1;
                self.figures.cells_sent += batch.cells.len() as u64;
                self.effects.push(Effect::Frame {
                    link: link.id,
                    frame: Frame::Cells(batch),
                });
            }
            // Who knows nothing yet has nothing that another could go by.
            if knows && link.sync.take_caught_up() {
                self.effects.push(Effect::Frame {
                    link: link.id,
                    frame: Frame::CaughtUp,
                });
            }
            let acks = link.sync.take_acks(&self.counting.store);
            if !acks.is_empty() {
                self.effects.push(Effect::Frame {
                    link: link.id,
                    frame: Frame::Ack(acks),
                });
            }
        }
    }

    /// Some time after the last change, a word that nothing is new.
    fn say_nothing_new(&mut self, now: Now) {
        let counting = &mut self.counting;
        let Some(last) = counting.last_published else {
            return;
        };
        let quiet = now.mono.saturating_sub(last);
        if now.mono < counting.next_nothing
            || quiet < self.config.sync_interval
            || quiet > STILL_SAYING
        {
            return;
        }
        counting.next_nothing = now.mono + self.config.sync_interval;
        let links = self
            .peers
            .values_mut()
            .filter_map(|peer| peer.link.as_mut());
        for link in links {
            if let Some(batch) = link
                .sync
                .nothing_new(&counting.store)
                .filter(|_| link.sync.is_open())
            {
                link.said = true;
                self.effects.push(Effect::Frame {
                    link: link.id,
                    frame: Frame::Cells(batch),
                });
            }
        }
    }

    /// Takes in a batch from the node `from`.
    pub(super) fn cells_came(&mut self, from: NodeKey, batch: &CellBatch, now: Now) {
        self.figures.batches_received += 1;
        self.figures.cells_received += batch.cells.len() as u64;
        let origin = batch.origin;
        if origin == self.config.me {
            // Only this process knows its own cells.
            return;
        }
        if origin.node != from && self.speaks_for_itself(origin, now) {
            // It is not asked for again, and it does not count.
            if let Some(link) = self.link_mut(from) {
                link.sync.declined(batch);
            }
            return;
        }
        let first_hand = self
            .link(from)
            .is_some_and(|link| link.hello.origin == origin && link.caught_up);
        for cell in &batch.cells {
            match self.counting.merge(origin, cell, now.wall) {
                Ok(Some((slot, grown))) if first_hand && grown > 0 => {
                    if let Some(tracked) = self.counting.counters.at_mut(slot)
                        && let Some(limited) = tracked.limited()
                    {
                        let rate = limited.others.entry(from).or_default();
                        rate.add(grown, now.mono);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(Merged::Expired) => self.figures.cells_stale += 1,
                Err(refused) => self.cell_refused(refused),
            }
        }
        let seen = self.counting.store.seen(origin);
        let Some(link) = self
            .peers
            .get_mut(&from)
            .and_then(|peer| peer.link.as_mut())
        else {
            return;
        };
        let received = link.sync.received(batch, seen);
        self.figures.gaps += u64::from(received.gap);
        if let Some(seen) = received.seen {
            self.counting.store.advance(origin, seen);
        }
        self.note_for_survivors(origin, batch, now);
    }

    /// Whether a process tells its cells itself, so that nobody else is to be believed about them.
    fn speaks_for_itself(&self, origin: Origin, now: Now) -> bool {
        self.link(origin.node)
            .is_some_and(|link| link.hello.origin == origin && link.silent_for(now.mono) < SPEAKING)
    }

    /// Takes in what the store has.
    pub(super) fn stored_cells_came(&mut self, cells: &[(Origin, WireCell)], now: Now) {
        let me = self.config.me;
        let mut grown = BTreeSet::new();
        for (origin, cell) in cells.iter().filter(|(origin, _)| *origin != me) {
            match self.counting.merge(*origin, cell, now.wall) {
                Err(refused @ (Merged::Refused | Merged::Ahead)) => self.cell_refused(refused),
                Ok(Some(_)) if origin.node == me.node => drop(grown.insert(*origin)),
                Ok(Some((slot, more))) => self.store_told(origin.node, slot, cell.epoch, more),
                _ => {}
            }
        }
        let links = self.peers.values_mut();
        for link in links.filter_map(|peer| peer.link.as_mut()) {
            for origin in &grown {
                link.sync.past_grew(*origin, &self.counting.store);
            }
        }
    }

    fn cell_refused(&mut self, why: Merged) {
        if why == Merged::Ahead {
            self.figures.cells_ahead += 1;
            return;
        }
        self.figures.cells_refused += 1;
        if !std::mem::replace(&mut self.counting.refused, true) {
            tracing::error!(
                most = MOST_CELLS,
                "too many cells of other nodes: new ones do not count here"
            );
        }
    }
}

pub(super) fn counted(amounts: Amounts, holds: bool) -> u64 {
    match holds {
        true => amounts.used.saturating_add(amounts.held),
        false => amounts.used,
    }
}
