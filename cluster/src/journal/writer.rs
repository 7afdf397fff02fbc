//! The journal's hand on the disk: turns a batch of records into durable lines.
//!
//! Owner of the active segment. A batch is written and synced as one, or not at all: on any fault
//! the segment is closed at its last durable line (after a failed sync the kernel may have dropped
//! what was written, so its tail is not trusted) and the batch stays in memory for a later try.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backlog::{Backlog, Batch};
use super::line;
use super::segment::{Folder, SegmentId, SegmentWriter};
use super::throttle::Throttle;
use crate::record::UsageRecord;
use crate::status::NodeStatus;

/// Pause between tries while the disk refuses.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// Writes batches to segments.
#[derive(Debug)]
pub(super) struct Writer {
    folder: Arc<Folder>,
    backlog: Arc<Backlog>,
    status: Arc<NodeStatus>,
    /// Size at which a segment is closed and the next one begun, in bytes.
    segment_bytes: u64,
    active: Option<SegmentWriter>,
    buffer: Vec<u8>,
    not_before: Option<Instant>,
    complaints: Throttle,
}

impl Writer {
    pub(super) fn new(
        folder: Arc<Folder>,
        backlog: Arc<Backlog>,
        status: Arc<NodeStatus>,
        segment_bytes: u64,
    ) -> Self {
        Self {
            folder,
            backlog,
            status,
            segment_bytes,
            active: None,
            buffer: Vec::new(),
            not_before: None,
            complaints: Throttle::default(),
        }
    }

    /// Makes the batch durable, with whatever waits in memory. Cannot fail for the caller: what the
    /// disk refuses is held. `urgent` tries even while the disk is known to refuse.
    pub(super) fn commit(&mut self, batch: Vec<UsageRecord>, urgent: bool) {
        let waits = self.not_before.is_some_and(|at| Instant::now() < at);
        if waits && !urgent {
            self.backlog.hold(batch);
            return;
        }
        let mut records = self.backlog.take_held(usize::MAX);
        match records.is_empty() {
            true => records = batch,
            false => records.extend(batch),
        }
        if records.is_empty() {
            return;
        }
        match self.write(&records) {
            Ok((segment, bytes)) => {
                self.status.add(&self.status.written, records.len() as u64);
                self.backlog.wrote(Batch {
                    segment,
                    bytes,
                    records,
                });
                self.succeeded();
            }
            Err(error) => {
                self.abandon();
                self.failed(&error);
                self.backlog.hold(records);
            }
        }
    }

    /// Takes in what callers wrote themselves: syncs it and passes it on to the store.
    pub(super) fn adopt(&mut self, overflow: SegmentWriter, records: u64) {
        let synced = overflow.sync().and_then(|()| self.folder.sync());
        match synced {
            Ok(()) => self.status.add(&self.status.written, records),
            // The lines are in the file as far as anybody can tell: the store shall have them.
            Err(error) => self.failed(&error),
        }
        self.backlog.adopt(overflow.id(), overflow.len());
    }

    /// Closes the active segment, so that it is removed once the store has it.
    pub(super) fn seal(&mut self) {
        if let Some(active) = self.active.take() {
            self.backlog.seal(active.id());
        }
    }

    /// Where the records are, in bytes.
    fn write(&mut self, records: &[UsageRecord]) -> io::Result<(SegmentId, Range<u64>)> {
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.len() >= self.segment_bytes)
        {
            self.seal();
        }
        let active = match &mut self.active {
            Some(active) => active,
            None => {
                let created = self.folder.create()?;
                self.backlog.opened(created.id());
                let active = self.active.insert(created);
                self.folder.sync()?;
                active
            }
        };
        self.buffer.clear();
        for record in records {
            line::encode(record, &mut self.buffer);
        }
        active.append(&self.folder, &self.buffer)?;
        if let Err(error) = active.sync() {
            active.cut(active.len() - self.buffer.len() as u64);
            return Err(error);
        }
        let start = active.len() - self.buffer.len() as u64;
        Ok((active.id(), start..active.len()))
    }

    fn abandon(&mut self) {
        self.seal();
        // One large batch must not keep its size for ever.
        self.buffer = Vec::new();
    }

    fn succeeded(&mut self) {
        self.not_before = None;
        self.buffer.shrink_to(1024 * 1024);
        if self.status.note_journal(None::<&io::Error>) {
            tracing::info!("usage file is written again");
        }
    }

    fn failed(&mut self, error: &io::Error) {
        let now = Instant::now();
        self.not_before = Some(now + RETRY);
        self.status.note_journal(Some(error));
        if let Some(silent) = self.complaints.allow(now) {
            tracing::error!(%error, silent, "usage file cannot be written, records stay in memory");
        }
    }
}
