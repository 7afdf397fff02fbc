//! The request path's end of the journal.
//!
//! Promise: handing over a record costs one allocation and one push to a bounded queue, and wakes
//! nobody except after a silence; when the queue is full, one write of one line to a file of the
//! callers' own. It never waits for the store, and it never drops a record as long as the disk or
//! memory takes it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::Timestamp;

use super::backlog::{Backlog, Reply};
use super::bell::Bell;
use super::line;
use super::segment::{Folder, SegmentWriter};
use crate::data_dir::DataDir;
use crate::error::FlushError;
use crate::record::UsageRecord;
use crate::status::NodeStatus;

/// Takes settled requests from the request path. Cheap to clone; any thread may use it.
#[derive(Clone, Debug)]
pub struct Recorder {
    inlet: Arc<Inlet>,
    pub(super) shared: Arc<Shared>,
}

/// The open end of the queue. Its fields are dropped in this order: the queue is closed when the
/// journal thread is woken to see that.
#[derive(Debug)]
struct Inlet {
    queue: SyncSender<Box<UsageRecord>>,
    _parting: Parting,
}

/// Wakes the journal thread when the last recorder has gone.
#[derive(Debug)]
struct Parting(Arc<Shared>);

/// What recorders and the journal thread both use.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) folder: Arc<Folder>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) status: Arc<NodeStatus>,
    /// Wakes the journal thread.
    pub(super) bell: Bell,
    /// Queued records at which the journal thread is woken before its time.
    crowd: u64,
    orders: Mutex<Orders>,
    /// Segment of callers that found the queue full. Held for one write of one line.
    /// Only the last one grows; more than one when a disk fault spoilt one.
    overflow: Mutex<Vec<Overflow>>,
    /// The journal thread has begun its last pass over the queue.
    pub(super) stopped: AtomicBool,
    /// Kept locked as long as anybody may write a usage file.
    _data_dir: Arc<DataDir>,
}

/// A file of whole lines that no thread has synced yet.
#[derive(Debug)]
pub(super) struct Overflow {
    pub(super) writer: SegmentWriter,
    pub(super) records: u64,
}

/// What the journal thread is told besides records.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// One for each thread that waits now.
    pub(super) flushes: Vec<Reply>,
    pub(super) stop: bool,
    /// The journal thread takes no more.
    refused: bool,
}

// === impl Recorder ===

impl Recorder {
    pub(super) fn new(queue: SyncSender<Box<UsageRecord>>, shared: Arc<Shared>) -> Self {
        let inlet = Arc::new(Inlet {
            queue,
            _parting: Parting(Arc::clone(&shared)),
        });
        Self { inlet, shared }
    }

    /// Keeps the record. Never waits for the store, and only for the disk when 8,192 records wait
    /// already; then the caller appends its own line. Free text over 512 bytes is cut.
    pub fn record(&self, record: UsageRecord) {
        let record = Box::new(record.bounded());
        let shared = &*self.shared;
        let depth = &shared.status.queue_depth;
        // Counted before the look at `stopped`: the last pass waits for whoever did not see it.
        let waiting = depth.fetch_add(1, Ordering::SeqCst) + 1;
        if shared.stopped.load(Ordering::SeqCst) {
            depth.fetch_sub(1, Ordering::SeqCst);
            shared.write_overflow(record, true);
            return;
        }
        match self.inlet.queue.try_send(record) {
            // Only the one that makes it so: the thread needs no second call.
            Ok(()) if waiting == shared.crowd => shared.bell.ring(),
            Ok(()) => shared.bell.ring_if_asleep(),
            Err(TrySendError::Full(record)) => {
                depth.fetch_sub(1, Ordering::SeqCst);
                shared.write_overflow(record, false);
                shared.bell.ring();
            }
            Err(TrySendError::Disconnected(record)) => {
                depth.fetch_sub(1, Ordering::SeqCst);
                shared.write_overflow(record, true);
            }
        }
    }

    /// Waits until everything recorded before is in the store, or until the store has refused it.
    /// Blocks for disk and store: not for threads that serve requests.
    pub fn flush(&self) -> Result<(), FlushError> {
        let (reply, answer) = sync_channel(1);
        {
            let mut orders = self.shared.orders();
            if orders.refused {
                return Err(FlushError::Stopped);
            }
            orders.flushes.push(reply);
        }
        self.shared.bell.ring();
        answer.recv().unwrap_or(Err(FlushError::Stopped))
    }

    /// Tells the journal thread to end once it has written what is queued.
    pub(super) fn end(&self) {
        self.shared.orders().stop = true;
        self.shared.bell.ring();
    }

    /// Asks for cells that no longer matter at `now` to be removed; returns at once.
    pub(crate) fn request_prune(&self, now: Timestamp) {
        self.shared.backlog.request_prune(now);
    }

    /// Asks whether the predecessor has gone; returns at once.
    pub(crate) fn request_succession(&self) {
        self.shared.backlog.request_succession();
    }

    /// Asks to end a start without the store, if it is back, as of `now`; returns at once.
    pub(crate) fn request_recovery(&self, now: Timestamp) {
        self.shared.backlog.request_recovery(now);
    }

    /// Asks for waiting revocations to be brought to the store; returns at once.
    pub(crate) fn request_revocations(&self) {
        self.shared.backlog.request_revocations();
    }

    pub(crate) fn status(&self) -> &Arc<NodeStatus> {
        &self.shared.status
    }
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(
        folder: Arc<Folder>,
        backlog: Arc<Backlog>,
        status: Arc<NodeStatus>,
        data_dir: Arc<DataDir>,
        queue: usize,
    ) -> Self {
        Self {
            folder,
            backlog,
            status,
            bell: Bell::default(),
            crowd: (queue as u64 * 3 / 4).max(1),
            orders: Mutex::default(),
            overflow: Mutex::default(),
            stopped: AtomicBool::new(false),
            _data_dir: data_dir,
        }
    }

    /// Whether so many queued records are a reason to commit before the time.
    pub(super) fn is_crowded(&self, depth: u64) -> bool {
        depth >= self.crowd
    }

    pub(super) fn has_orders(&self) -> bool {
        let orders = self.orders();
        orders.stop || !orders.flushes.is_empty()
    }

    /// Everything ordered so far, which is the caller's to do from now on.
    pub(super) fn take_orders(&self) -> Orders {
        std::mem::take(&mut *self.orders())
    }

    /// Nobody carries out orders any more; who waits is told.
    pub(super) fn refuse_orders(&self) {
        let mut orders = self.orders();
        orders.refused = true;
        orders.flushes.clear();
    }

    /// Everything callers have written so far, which is the caller's from now on.
    pub(super) fn take_overflow(&self) -> Vec<Overflow> {
        std::mem::take(&mut *self.overflow())
    }

    /// Appends the record's line on the caller's thread. `last` syncs at once, for when no thread
    /// is left that would; the line is then read at the next start.
    fn write_overflow(&self, record: Box<UsageRecord>, last: bool) {
        let mut lines = Vec::with_capacity(1_024);
        line::encode(&record, &mut lines);
        let mut overflow = self.overflow();
        if let Err(error) = self.append(&mut overflow, &lines, last) {
            drop(overflow);
            self.status.note_journal(Some(&error));
            self.backlog.hold([*record]);
            return;
        }
        self.status.add(&self.status.overflowed, 1);
    }

    fn append(&self, overflow: &mut Vec<Overflow>, lines: &[u8], sync: bool) -> io::Result<()> {
        if overflow.last().is_none_or(|last| last.writer.is_spoilt()) {
            overflow.push(Overflow {
                writer: self.folder.create()?,
                records: 0,
            });
        }
        let current = overflow
            .last_mut()
            .expect("one was pushed if there was none");
        current.writer.append(&self.folder, lines)?;
        current.records += 1;
        if sync {
            current.writer.sync()?;
            self.folder.sync()?;
        }
        Ok(())
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        // Each change is one assignment or push.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn overflow(&self) -> MutexGuard<'_, Vec<Overflow>> {
        // A panic inside leaves a segment whose length counts whole lines only.
        self.overflow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Parting ===

impl Drop for Parting {
    fn drop(&mut self) {
        self.0.bell.ring();
    }
}
