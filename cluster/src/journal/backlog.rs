//! What is written but not yet in the store: the meeting point of the journal and the store thread.
//!
//! Owner: this value, behind one short mutex; no file or store is touched while it is held.
//! Positions only grow: `stored <= durable <= file length`, and all three stand at line starts, so
//! a crash between any two steps makes the store see a record again and never makes it miss one.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use policy::Timestamp;

use super::segment::SegmentId;
use super::throttle::Throttle;
use crate::error::FlushError;
use crate::record::UsageRecord;
use crate::settled::Mark;
use crate::status::NodeStatus;

/// Answer to one flush.
pub(super) type Reply = SyncSender<Result<(), FlushError>>;

/// Shared list of segments and of records that no disk took.
#[derive(Debug)]
pub(super) struct Backlog {
    state: Mutex<State>,
    changed: Condvar,
    status: Arc<NodeStatus>,
    /// Most records held in memory because no file took them.
    hold_limit: usize,
    /// Most records kept in memory besides their files.
    hand_limit: usize,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<SegmentId, Progress>,
    held: VecDeque<UsageRecord>,
    /// Copies of what is durable, in the order of writing. Any may be missing.
    handed: VecDeque<Batch>,
    handed_records: usize,
    waiters: Vec<Reply>,
    prune: Option<Timestamp>,
    succeed: bool,
    revoke: bool,
    recover: Option<Timestamp>,
    closing: bool,
    closed: bool,
    losses: Throttle,
}

/// How far one segment is, in bytes.
#[derive(Debug, Default)]
struct Progress {
    durable: u64,
    stored: u64,
    /// Nothing will be appended any more.
    sealed: bool,
    damaged: bool,
}

/// Records that are durable, still in memory.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) segment: SegmentId,
    /// Their lines in the segment.
    pub(super) bytes: Range<u64>,
    pub(super) records: Vec<UsageRecord>,
}

/// Where the next records of a segment are to be had.
#[derive(Debug)]
pub(super) enum Source {
    Memory(Batch),
    /// In the file, up to this offset.
    File {
        to: u64,
    },
}

/// The work of one pass of the store thread.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Bytes to read per segment; empty for one that only waits to be removed.
    pub(super) segments: Vec<(SegmentId, Range<u64>)>,
    pub(super) waiters: Vec<Reply>,
    /// Remove cells that no longer matter at this time.
    pub(super) prune: Option<Timestamp>,
    /// Look whether the predecessor has gone.
    pub(super) succeed: bool,
    /// Bring revocations that wait for the store.
    pub(super) revoke: bool,
    /// See whether the store is back, and learn what it has at this time.
    pub(super) recover: Option<Timestamp>,
    /// This is the last round.
    pub(super) closing: bool,
}

/// What to do with a file that is fully in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    Remove,
    SetAside,
}

impl Backlog {
    pub(super) fn new(status: Arc<NodeStatus>, hold_limit: usize, hand_limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            status,
            hold_limit,
            hand_limit,
        }
    }

    /// Takes in a whole segment: one of an earlier run, or a finished overflow.
    pub(super) fn adopt(&self, id: SegmentId, len: u64) {
        self.change(|state| {
            let progress = state.segments.entry(id).or_default();
            progress.durable = len;
            progress.sealed = true;
        });
    }

    /// The segment is there, and empty.
    pub(super) fn opened(&self, id: SegmentId) {
        self.change(|state| state.segments.entry(id).or_default().durable = 0);
    }

    /// The segment is durable up to the end of the batch. The records are kept for the store if
    /// there is room, else it reads the file.
    pub(super) fn wrote(&self, batch: Batch) {
        let mut spare = None;
        self.change(|state| {
            let progress = state.segments.entry(batch.segment).or_default();
            progress.durable = batch.bytes.end;
            let records = state.handed_records + batch.records.len();
            match records <= self.hand_limit {
                true => {
                    state.handed_records = records;
                    state.handed.push_back(batch);
                }
                // Dropped after the lock.
                false => spare = Some(batch),
            }
        });
    }

    /// Where the records of a segment from an offset on are, at most up to another: in memory if
    /// they were handed over, else in the file up to the next that were.
    pub(super) fn source(&self, id: SegmentId, bytes: &Range<u64>) -> Source {
        let mut passed = Vec::new();
        let mut state = self.lock();
        loop {
            let Some(first) = state.handed.front() else {
                return Source::File { to: bytes.end };
            };
            match (first.segment, first.bytes.start).cmp(&(id, bytes.start)) {
                // Read from the file before, or about to be.
                Less => passed.extend(state.take_handed()),
                Equal => break,
                Greater if first.segment == id => {
                    let to = first.bytes.start.min(bytes.end);
                    return Source::File { to };
                }
                Greater => return Source::File { to: bytes.end },
            }
        }
        let batch = state.take_handed();
        drop(state);
        batch.map_or(Source::File { to: bytes.end }, Source::Memory)
    }

    /// Nothing will be appended to the segment any more.
    pub(super) fn seal(&self, id: SegmentId) {
        self.change(|state| state.segments.entry(id).or_default().sealed = true);
    }

    /// Keeps records in memory that no file took. Beyond the limit they are lost, and counted.
    pub(super) fn hold(&self, records: impl IntoIterator<Item = UsageRecord>) {
        let mut lost = 0_u64;
        let mut complaint = None;
        self.change(|state| {
            for record in records {
                if state.held.len() < self.hold_limit {
                    state.held.push_back(record);
                } else {
                    lost += 1;
                }
            }
            if lost > 0 {
                complaint = state.losses.allow(Instant::now());
            }
        });
        self.status.add(&self.status.lost, lost);
        if let Some(silent) = complaint {
            let total = self.status.lost.load(Ordering::Relaxed);
            tracing::error!(
                lost,
                total,
                silent,
                "usage records lost: disk and store refuse them and memory is full"
            );
        }
    }

    /// Up to `most` of the records held in memory, which are the caller's from now on.
    pub(super) fn take_held(&self, most: usize) -> Vec<UsageRecord> {
        let mut state = self.lock();
        let count = state.held.len().min(most);
        let taken = state.held.drain(..count).collect();
        self.publish(&state);
        taken
    }

    /// Whether records wait in memory for a disk.
    pub(super) fn holds(&self) -> bool {
        !self.lock().held.is_empty()
    }

    /// Answers `reply` once everything known now was tried. Dropped when the thread has ended.
    pub(super) fn request(&self, reply: Reply) {
        self.change(|state| {
            if !state.closed {
                state.waiters.push(reply);
            }
        });
    }

    /// Asks for cells that no longer matter at `now` to be removed.
    pub(super) fn request_prune(&self, now: Timestamp) {
        self.change(|state| state.prune = Some(now));
    }

    /// Asks whether the predecessor has gone.
    pub(super) fn request_succession(&self) {
        self.change(|state| state.succeed = true);
    }

    /// Asks for revocations to be brought to the store.
    pub(super) fn request_revocations(&self) {
        self.change(|state| state.revoke = true);
    }

    /// Asks to see whether the store is back.
    pub(super) fn request_recovery(&self, now: Timestamp) {
        self.change(|state| state.recover = Some(now));
    }

    /// The segments with work, and their bytes to read.
    pub(super) fn waiting(&self) -> Vec<(SegmentId, Range<u64>)> {
        self.lock().waiting()
    }

    /// How far the segments that are still there are in the store.
    pub(super) fn marks(&self) -> Vec<Mark> {
        let state = self.lock();
        let begun = state.segments.iter().filter(|(_, one)| one.stored > 0);
        begun
            .map(|(id, progress)| Mark {
                boot: id.boot,
                number: id.number,
                to: progress.stored,
            })
            .collect()
    }

    /// Whether everything known is in the store.
    pub(super) fn is_drained(&self) -> bool {
        let state = self.lock();
        let waits = |progress: &Progress| progress.stored < progress.durable;
        state.held.is_empty() && !state.segments.values().any(waits)
    }

    /// Whether a segment of this boot is known.
    pub(super) fn knows(&self, boot: u64) -> bool {
        self.lock().segments.keys().any(|id| id.boot == boot)
    }

    /// Asks for one last round.
    pub(super) fn close(&self) {
        self.change(|state| state.closing = true);
    }

    /// The store thread has ended; nobody answers any more.
    pub(super) fn closed(&self) {
        self.change(|state| {
            state.closed = true;
            state.waiters.clear();
        });
    }

    /// Waits for work. Before `not_before` only a flush or the end breaks the wait.
    pub(super) fn next_round(&self, not_before: Option<Instant>) -> Round {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let pause = not_before
                .map(|at| at.saturating_duration_since(now))
                .filter(|pause| !pause.is_zero());
            let urgent = state.closing || !state.waiters.is_empty();
            if urgent || (pause.is_none() && state.has_work()) {
                return state.round();
            }
            state = match pause {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(pause) => {
                    let waited = self.changed.wait_timeout(state, pause);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// All work known now, without waiting.
    pub(super) fn round(&self) -> Round {
        self.lock().round()
    }

    /// The store has the segment up to `next`.
    pub(super) fn stored(&self, id: SegmentId, next: u64, damaged: u64) {
        let mut state = self.lock();
        if let Some(progress) = state.segments.get_mut(&id) {
            progress.stored = next;
            progress.damaged |= damaged > 0;
        }
        self.publish(&state);
    }

    /// Forgets the segment if all of it is in the store and nothing will be added.
    pub(super) fn finish(&self, id: SegmentId) -> Option<Finished> {
        let mut state = self.lock();
        let progress = state.segments.get(&id)?;
        if !progress.sealed || progress.stored < progress.durable {
            return None;
        }
        let finished = match progress.damaged {
            true => Finished::SetAside,
            false => Finished::Remove,
        };
        state.segments.remove(&id);
        self.publish(&state);
        Some(finished)
    }

    /// Forgets a segment whose file is gone.
    pub(super) fn forget(&self, id: SegmentId) {
        let mut state = self.lock();
        state.segments.remove(&id);
        self.publish(&state);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        self.publish(&state);
        drop(state);
        self.changed.notify_all();
    }

    fn publish(&self, state: &State) {
        let waiting = |progress: &&Progress| progress.stored < progress.durable;
        let segments = state.segments.values().filter(waiting).count();
        let bytes: u64 = state
            .segments
            .values()
            .map(|progress| progress.durable.saturating_sub(progress.stored))
            .sum();
        let status = &self.status;
        status
            .held
            .store(state.held.len() as u64, Ordering::Relaxed);
        status
            .waiting_segments
            .store(segments as u64, Ordering::Relaxed);
        status.waiting_bytes.store(bytes, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a few assignments; a panic between them leaves positions that are true.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn take_handed(&mut self) -> Option<Batch> {
        let batch = self.handed.pop_front()?;
        self.handed_records -= batch.records.len();
        Some(batch)
    }

    fn has_work(&self) -> bool {
        self.prune.is_some()
            || self.succeed
            || self.revoke
            || self.recover.is_some()
            || !self.held.is_empty()
            || self.segments.values().any(Progress::has_work)
    }

    fn waiting(&self) -> Vec<(SegmentId, Range<u64>)> {
        self.segments
            .iter()
            .filter(|(_, progress)| progress.has_work())
            .map(|(id, progress)| (*id, progress.stored..progress.durable))
            .collect()
    }

    fn round(&mut self) -> Round {
        Round {
            segments: self.waiting(),
            waiters: std::mem::take(&mut self.waiters),
            prune: self.prune.take(),
            succeed: std::mem::take(&mut self.succeed),
            revoke: std::mem::take(&mut self.revoke),
            recover: self.recover.take(),
            closing: self.closing,
        }
    }
}

// === impl Progress ===

impl Progress {
    fn has_work(&self) -> bool {
        self.sealed || self.stored < self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    const FIRST: SegmentId = SegmentId { boot: 1, number: 1 };
    const SECOND: SegmentId = SegmentId { boot: 1, number: 2 };

    /// A batch of two records that is said to take ten bytes.
    fn write(backlog: &Backlog, segment: SegmentId, start: u64) {
        backlog.wrote(Batch {
            segment,
            bytes: start..start + 10,
            records: vec![record(start), record(start + 1)],
        });
    }

    /// Where the source ends, and whether it is memory.
    fn source(backlog: &Backlog, id: SegmentId, bytes: Range<u64>) -> (u64, bool) {
        match backlog.source(id, &bytes) {
            Source::Memory(batch) => {
                assert_eq!((batch.segment, batch.bytes.start), (id, bytes.start));
                (batch.bytes.end, true)
            }
            Source::File { to } => (to, false),
        }
    }

    #[test]
    fn what_memory_had_no_room_for_is_in_the_file() {
        let backlog = Backlog::new(Arc::new(NodeStatus::new()), 0, 4);
        for start in [0, 10, 20] {
            write(&backlog, FIRST, start);
        }
        assert_eq!(source(&backlog, FIRST, 0..30), (10, true));
        write(&backlog, FIRST, 30);
        assert_eq!(source(&backlog, FIRST, 10..40), (20, true));
        assert_eq!(source(&backlog, FIRST, 20..40), (30, false));
        assert_eq!(source(&backlog, FIRST, 30..40), (40, true));
        assert_eq!(source(&backlog, FIRST, 40..50), (50, false));
    }

    #[test]
    fn a_batch_that_was_passed_is_dropped_and_one_of_a_later_segment_kept() {
        let backlog = Backlog::new(Arc::new(NodeStatus::new()), 0, 100);
        write(&backlog, FIRST, 0);
        write(&backlog, FIRST, 10);
        write(&backlog, SECOND, 0);
        // The store refused the first: it is read back, as is what its file has beside it.
        assert_eq!(source(&backlog, FIRST, 0..20), (10, true));
        assert_eq!(source(&backlog, FIRST, 0..20), (10, false));
        assert_eq!(source(&backlog, FIRST, 15..20), (20, false));
        assert_eq!(source(&backlog, SECOND, 0..10), (10, true));
        assert_eq!(backlog.lock().handed_records, 0);
    }
}
