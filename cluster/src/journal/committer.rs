//! The thread `tyr-journal`: gathers records and has them made durable, batch by batch.
//!
//! It touches nothing but usage files, so a record's age at its commit depends on the disk alone.
//! It is woken by time, not by records: at most once in a commit interval by the first record after
//! a silence, else only by a flush, the end, or a queue that runs full.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::recorder::{Overflow, Shared};
use super::writer::{self, Writer};
use crate::record::UsageRecord;

/// Least time between two syncs of the usage file, and so the age below which a record can be lost
/// with the process. A flush, or a queue that runs full, syncs at once.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

/// The journal thread before and while it runs.
#[derive(Debug)]
pub(super) struct Committer {
    queue: Receiver<Box<UsageRecord>>,
    shared: Arc<Shared>,
    writer: Writer,
    batch_limit: usize,
    last_commit: Option<Instant>,
}

// === impl Committer ===

impl Committer {
    /// `batch_limit` is the most records in one batch: no fewer than the queue can hold, so that
    /// what was queued before a flush is in the batch that it waits for.
    pub(super) fn new(
        queue: Receiver<Box<UsageRecord>>,
        shared: Arc<Shared>,
        writer: Writer,
        batch_limit: usize,
    ) -> Self {
        Self {
            queue,
            shared,
            writer,
            batch_limit,
            last_commit: None,
        }
    }

    /// Works until told to stop, or until the last recorder is gone.
    pub(super) fn run(mut self) {
        loop {
            self.pause();
            // Before the queue: what was recorded before a flush is then seen.
            let orders = self.shared.take_orders();
            let (mut batch, open) = self.gather();
            let stop = orders.stop || !open;
            if stop {
                self.shared.stopped.store(true, Ordering::SeqCst);
                self.drain(&mut batch);
            }
            let urgent = stop || !orders.flushes.is_empty();
            if !batch.is_empty() {
                self.last_commit = Some(Instant::now());
            }
            self.writer.commit(batch, urgent);
            for Overflow { writer, records } in self.shared.take_overflow() {
                self.writer.adopt(writer, records);
            }
            for reply in orders.flushes {
                self.shared.backlog.request(reply);
            }
            if stop {
                self.writer.seal();
                self.shared.backlog.close();
                return;
            }
        }
    }

    /// Waits for something to do, then until a commit is due: at once after a silence, else one
    /// interval after the last commit.
    fn pause(&self) {
        let shared = &self.shared;
        let retry = shared.backlog.holds().then_some(writer::RETRY);
        let is_idle = || self.depth() == 0 && !shared.has_orders();
        shared.bell.sleep(retry, is_idle);
        if shared.is_crowded(self.depth()) || shared.has_orders() {
            return;
        }
        let due = self.last_commit.map(|last| last + COMMIT_INTERVAL);
        let rest = due.map_or(Duration::ZERO, |due| {
            due.saturating_duration_since(Instant::now())
        });
        if !rest.is_zero() {
            shared.bell.rest(rest);
        }
    }

    /// What is queued, and whether more can come.
    fn gather(&self) -> (Vec<UsageRecord>, bool) {
        let waiting = usize::try_from(self.depth()).unwrap_or(usize::MAX);
        let mut batch = Vec::with_capacity(waiting.min(self.batch_limit));
        let mut open = true;
        while batch.len() < self.batch_limit {
            match self.queue.try_recv() {
                Ok(record) => batch.push(*record),
                Err(error) => {
                    open = error != TryRecvError::Disconnected;
                    break;
                }
            }
        }
        if batch.is_empty() && waiting > 0 {
            // Who has counted itself shall get on with it.
            thread::yield_now();
        }
        let depth = &self.shared.status.queue_depth;
        depth.fetch_sub(batch.len() as u64, Ordering::SeqCst);
        (batch, open)
    }

    /// Takes what came in before the end: whoever has counted itself and not seen the end is about
    /// to queue its record.
    fn drain(&self, batch: &mut Vec<UsageRecord>) {
        while self.depth() > 0 {
            match self.queue.try_recv() {
                Ok(record) => {
                    batch.push(*record);
                    let depth = &self.shared.status.queue_depth;
                    depth.fetch_sub(1, Ordering::SeqCst);
                }
                Err(TryRecvError::Empty) => thread::yield_now(),
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }

    fn depth(&self) -> u64 {
        self.shared.status.queue_depth.load(Ordering::SeqCst)
    }
}

impl Drop for Committer {
    /// Also after a panic: nobody shall wait for a thread that is gone.
    fn drop(&mut self) {
        self.shared.refuse_orders();
    }
}
