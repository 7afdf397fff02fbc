//! Brings journal segments into the store, on the thread `tyr-store`.
//!
//! Promise: a segment is removed only after the store has committed all of its records. The store
//! follows the files: each offset is passed once it has what lies before. What was just written is
//! taken from memory; a replay, a retry and what memory had no room for are read back, so memory
//! stays bounded however long the store is away.
//! Failure: a store that fails is tried again with growing pauses; files stay until it recovers.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::Timestamp;

use super::Keeping;
use super::backlog::{Backlog, Finished, Round, Source};
use super::segment::{CHUNK_RECORDS, Folder, SegmentId};
use super::succession::Succession;
use super::throttle::Throttle;
use crate::data_dir::NodeKey;
use crate::error::{FlushError, StartError, StoreError, WriteError};
use crate::origin::Origin;
use crate::record::UsageRecord;
use crate::settled::Mark;
use crate::status::NodeStatus;
use crate::store::Store;

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How often in a row the store is brought up to date before it is asked what it has.
const CATCH_UP_PASSES: u32 = 16;

/// Takes segments, feeds the store, removes what is done.
#[derive(Debug)]
pub(super) struct Follower {
    node: NodeKey,
    folder: Arc<Folder>,
    backlog: Arc<Backlog>,
    store: Arc<dyn Store>,
    status: Arc<NodeStatus>,
    succession: Option<Succession>,
    keeping: Keeping,
    complaints: Throttle,
}

/// Why a segment was not finished.
#[derive(Debug, thiserror::Error)]
enum Setback {
    #[error("{0}")]
    Store(#[source] StoreError),
    #[error("cannot read {segment}: {source}")]
    File {
        segment: SegmentId,
        #[source]
        source: io::Error,
    },
    #[error("a revocation waits for the store: {0}")]
    Revocation(#[source] WriteError),
    #[error("cannot see whether the old process has gone: {0}")]
    Succession(#[source] StartError),
}

impl Follower {
    pub(super) fn new(
        folder: Arc<Folder>,
        backlog: Arc<Backlog>,
        store: Arc<dyn Store>,
        status: Arc<NodeStatus>,
        succession: Option<Succession>,
        (node, keeping): (NodeKey, Keeping),
    ) -> Self {
        Self {
            node,
            folder,
            backlog,
            store,
            status,
            succession,
            keeping,
            complaints: Throttle::default(),
        }
    }

    /// Works until the backlog is closed.
    pub(super) fn run(mut self) {
        let mut not_before = None;
        let mut backoff = BACKOFF_MIN;
        loop {
            let mut round = self.backlog.next_round(not_before);
            let waiters = std::mem::take(&mut round.waiters);
            let outcome = self.follow(&round);
            if outcome.is_ok() {
                not_before = None;
                backoff = BACKOFF_MIN;
            } else {
                not_before = Some(Instant::now() + backoff);
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            for waiter in waiters {
                // The channel holds one answer; a caller that gave up does not matter.
                let _ = waiter.try_send(outcome.clone());
            }
            if round.closing {
                self.backlog.closed();
                return;
            }
        }
    }

    /// Does one round of work; what failed stays in the backlog.
    pub(super) fn follow(&mut self, round: &Round) -> Result<(), FlushError> {
        let outcome = self.segments(&round.segments).and_then(|()| self.held());
        if let Err(setback) = &outcome {
            self.complain(setback);
        }
        if let Some(now) = round.prune {
            self.prune(now);
            self.tidy_settled(now);
        }
        if let Some(now) = round.recover {
            self.recover(now);
        }
        if round.revoke || round.closing {
            self.bring_revocations();
        }
        if round.succeed {
            self.succeed();
        }
        outcome.map_err(|setback| FlushError::NotStored {
            reason: setback.to_string(),
        })
    }

    fn segments(&mut self, segments: &[(SegmentId, Range<u64>)]) -> Result<(), Setback> {
        let mut unreadable = Ok(());
        for (id, range) in segments {
            match self.segment(*id, range.clone()) {
                Ok(()) => {}
                Err(setback @ Setback::Store(_)) => return Err(setback),
                // The other segments are as good as before.
                Err(setback) => unreadable = Err(setback),
            }
        }
        unreadable
    }

    fn segment(&mut self, id: SegmentId, mut rest: Range<u64>) -> Result<(), Setback> {
        while rest.start < rest.end {
            rest.start = match self.backlog.source(id, &rest) {
                // If the store refuses them, the next try reads the file.
                Source::Memory(batch) => {
                    self.store(id.boot, &batch.records)?;
                    self.note(id, batch.bytes.end, &batch.records);
                    self.backlog.stored(id, batch.bytes.end, 0);
                    batch.bytes.end
                }
                Source::File { to } => match self.chunk(id, rest.start..to)? {
                    Some(next) => next,
                    None => return Ok(()),
                },
            };
        }
        if let Some(finished) = self.backlog.finish(id) {
            self.discard(id, finished);
        }
        Ok(())
    }

    /// Stores a part of a file; returns where it ended, or `None` when the file is gone.
    fn chunk(&mut self, id: SegmentId, bytes: Range<u64>) -> Result<Option<u64>, Setback> {
        let chunk = match self.folder.read(id, bytes.start, bytes.end) {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::error!(segment = %id, "usage file was removed before it was stored");
                self.backlog.forget(id);
                return Ok(None);
            }
            Err(source) => {
                return Err(Setback::File {
                    segment: id,
                    source,
                });
            }
        };
        self.store(id.boot, &chunk.records)?;
        self.note(id, chunk.next, &chunk.records);
        if chunk.damaged > 0 {
            self.status.add(&self.status.damaged, chunk.damaged);
            tracing::warn!(segment = %id, lines = chunk.damaged, "damaged lines in a usage file");
        }
        self.backlog.stored(id, chunk.next, chunk.damaged);
        Ok(Some(chunk.next))
    }

    fn held(&mut self) -> Result<(), Setback> {
        loop {
            let held = self.backlog.take_held(CHUNK_RECORDS);
            if held.is_empty() {
                return Ok(());
            }
            if let Err(setback) = self.store(self.folder.boot(), &held) {
                self.backlog.hold(held);
                return Err(setback);
            }
            if let Some(settled) = &self.keeping.settled {
                let origin = self.origin(self.folder.boot());
                settled.append(origin, None, held.iter().map(|record| &*record.charges));
            }
        }
    }

    fn store(&mut self, boot: u64, records: &[UsageRecord]) -> Result<(), Setback> {
        if records.is_empty() {
            return Ok(());
        }
        let fresh = self
            .store
            .record_usage(self.origin(boot), records)
            .map_err(|error| {
                self.status.note_store(Some(&error));
                Setback::Store(error)
            })?;
        self.status.add(&self.status.stored, fresh);
        if self.status.note_store(None::<&StoreError>) {
            tracing::info!("store takes usage again");
        }
        Ok(())
    }

    /// A process of this node.
    fn origin(&self, boot: u64) -> Origin {
        let node = self.node;
        Origin { node, boot }
    }

    /// Adds what the store has taken to the node's own copy of the cells. What the old process
    /// settled gets there by whoever follows it.
    fn note(&self, id: SegmentId, to: u64, records: &[UsageRecord]) {
        let is_followed = |succession: &Succession| succession.predecessor() == id.boot;
        if self.succession.as_ref().is_some_and(is_followed) {
            return;
        }
        if let Some(settled) = &self.keeping.settled {
            let mark = Mark {
                boot: id.boot,
                number: id.number,
                to,
            };
            let charges = records.iter().map(|record| &*record.charges);
            settled.append(self.origin(id.boot), Some(mark), charges);
        }
    }

    fn discard(&self, id: SegmentId, finished: Finished) {
        if let Some(settled) = &self.keeping.settled {
            settled.sync();
        }
        // A file that stays is read again at the next start, and counts nothing twice.
        match finished {
            Finished::Remove => {
                if let Err(error) = self.folder.remove(id) {
                    tracing::warn!(segment = %id, %error, "cannot remove a stored usage file");
                }
            }
            Finished::SetAside => match self.folder.set_aside(id) {
                Ok(path) => {
                    tracing::warn!(path = %path.display(), "usage file with damaged lines set aside");
                }
                Err(error) => {
                    tracing::warn!(segment = %id, %error, "cannot set a damaged usage file aside");
                }
            },
        }
    }

    fn prune(&mut self, now: Timestamp) {
        let expired = match self.keeping.in_cluster {
            true => self.store.expire_windows(now),
            false => self.store.expire_cells(now),
        };
        match expired {
            Ok(removed) => self.status.add(&self.status.expired_cells, removed),
            // The next request comes by itself; cells that stay longer change no total.
            Err(error) => {
                self.status.note_store(Some(&error));
                self.complain(&Setback::Store(error));
            }
        }
    }

    /// Keeps the node's own copy of the cells small and whole.
    fn tidy_settled(&self, now: Timestamp) {
        let Some(settled) = &self.keeping.settled else {
            return;
        };
        // While another process adds cells, what the store has is not what is told of it.
        if settled.is_broken() && self.succession.is_none() {
            if let Ok(loaded) = self.store.load_cells(now) {
                settled.replace(&loaded.by_origin, &self.backlog.marks());
            }
            return;
        }
        let there = |boot, number| self.folder.has(SegmentId { boot, number });
        settled.compact(now, there);
    }

    /// Learns what the store has once it has everything of ours.
    fn recover(&mut self, now: Timestamp) {
        if !self.keeping.recovery.is_pending() {
            return;
        }
        // Under load there is always some more; each pass leaves less.
        let mut passes = CATCH_UP_PASSES;
        while !self.backlog.is_drained() {
            passes -= 1;
            if passes == 0 || self.segments(&self.backlog.waiting()).is_err() {
                return;
            }
        }
        match self.store.load_cells(now) {
            Ok(loaded) => {
                if let Some(settled) = &self.keeping.settled {
                    settled.replace(&loaded.by_origin, &self.backlog.marks());
                }
                let cells = loaded.cells();
                tracing::info!(cells = cells.len(), "the node has caught up with the store");
                self.status.note_store(None::<&StoreError>);
                self.keeping.recovery.fulfil(cells);
            }
            // Asked again soon.
            Err(error) => {
                self.status.note_store(Some(&error));
                self.complain(&Setback::Store(error));
            }
        }
    }

    fn bring_revocations(&mut self) {
        let Some(entities) = &self.keeping.entities else {
            return;
        };
        // Asked again each second while any wait.
        if let Err(error) = entities.bring_revocations() {
            self.complain(&Setback::Revocation(error));
        }
    }

    fn succeed(&mut self) {
        let Some(succession) = &mut self.succession else {
            return;
        };
        match succession.advance(&self.folder, &self.backlog) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!("the old process has gone and its usage is in the store");
                self.succession = None;
                // In a cluster nobody tells the node's own copy what the old process settled.
                if let Some(settled) = &self.keeping.settled
                    && self.keeping.in_cluster
                {
                    settled.renew();
                }
                self.status.set_taking_over(false);
            }
            // Asked again soon.
            Err(error) => self.complain(&Setback::Succession(error)),
        }
    }

    fn complain(&mut self, setback: &Setback) {
        if let Some(silent) = self.complaints.allow(Instant::now()) {
            tracing::error!(error = %setback, silent, "the store is behind for now");
        }
    }
}
