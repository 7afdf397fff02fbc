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

use super::backlog::{Backlog, Finished, Round, Source};
use super::segment::{CHUNK_RECORDS, Folder, SegmentId};
use super::succession::Succession;
use super::throttle::Throttle;
use crate::error::{FlushError, StartError, StoreError};
use crate::record::UsageRecord;
use crate::status::NodeStatus;
use crate::store::Store;

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Takes segments, feeds the store, removes what is done.
#[derive(Debug)]
pub(super) struct Follower {
    folder: Arc<Folder>,
    backlog: Arc<Backlog>,
    store: Arc<dyn Store>,
    status: Arc<NodeStatus>,
    succession: Option<Succession>,
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
    ) -> Self {
        Self {
            folder,
            backlog,
            store,
            status,
            succession,
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
        let outcome = self.segments(round).and_then(|()| self.held());
        if let Err(setback) = &outcome {
            self.complain(setback);
        }
        if let Some(now) = round.prune {
            self.prune(now);
        }
        if round.succeed {
            self.succeed();
        }
        outcome.map_err(|setback| FlushError::NotStored {
            reason: setback.to_string(),
        })
    }

    fn segments(&mut self, round: &Round) -> Result<(), Setback> {
        let mut unreadable = Ok(());
        for (id, range) in &round.segments {
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
        }
    }

    fn store(&mut self, boot: u64, records: &[UsageRecord]) -> Result<(), Setback> {
        if records.is_empty() {
            return Ok(());
        }
        let fresh = self.store.record_usage(boot, records).map_err(|error| {
            self.status.note_store(Some(&error));
            Setback::Store(error)
        })?;
        self.status.add(&self.status.stored, fresh);
        if self.status.note_store(None::<&StoreError>) {
            tracing::info!("store takes usage again");
        }
        Ok(())
    }

    fn discard(&self, id: SegmentId, finished: Finished) {
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
        match self.store.expire_cells(now) {
            Ok(removed) => self.status.add(&self.status.expired_cells, removed),
            // The next request comes by itself; cells that stay longer change no total.
            Err(error) => {
                self.status.note_store(Some(&error));
                self.complain(&Setback::Store(error));
            }
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
                self.status.set_taking_over(false);
            }
            // Asked again soon.
            Err(error) => self.complain(&Setback::Succession(error)),
        }
    }

    fn complain(&mut self, setback: &Setback) {
        if let Some(silent) = self.complaints.allow(Instant::now()) {
            tracing::error!(error = %setback, silent, "usage stays in its files for now");
        }
    }
}
