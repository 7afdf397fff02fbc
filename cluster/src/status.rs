//! What the node can say about itself, without a lock on any request's path.
//!
//! Written by the node's threads and by recorders, read by the admin API and by metrics at any
//! time. Figures are independent of each other: a reader may see one before the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Live figures of one node; shared by `Arc`.
#[derive(Debug)]
pub struct NodeStatus {
    store_ok: AtomicBool,
    journal_ok: AtomicBool,
    taking_over: AtomicBool,
    last_error: Mutex<Option<String>>,
    pub(crate) queue_depth: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) overflowed: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) damaged: AtomicU64,
    pub(crate) held: AtomicU64,
    pub(crate) waiting_segments: AtomicU64,
    pub(crate) waiting_bytes: AtomicU64,
    pub(crate) expired_cells: AtomicU64,
}

/// One reading of [`NodeStatus`]. Counts are since start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusSnapshot {
    /// Whether the last call to the store succeeded.
    pub store_ok: bool,
    /// Whether the last write to the usage file succeeded.
    pub journal_ok: bool,
    /// Whether the process before this one still lives, or has left usage that is not stored yet.
    pub taking_over: bool,
    /// The newest failure, kept after recovery so that it can be read.
    pub last_error: Option<String>,
    /// Records that wait for the journal now.
    pub queue_depth: u64,
    /// Records made durable in a usage file.
    pub records_written: u64,
    /// Records taken over by the store, those of earlier runs included.
    pub records_stored: u64,
    /// Records written by their own caller because the queue was full.
    pub records_overflowed: u64,
    /// Records given up: neither the disk nor the store took them and memory was full.
    pub records_lost: u64,
    /// Lines of usage files that could not be read and were set aside.
    pub damaged_lines: u64,
    /// Records held in memory because the disk refused them.
    pub records_held: u64,
    /// Usage files with records that the store does not have yet, and their bytes.
    pub waiting_segments: u64,
    pub waiting_bytes: u64,
    /// Cells removed after their window had passed.
    pub expired_cells: u64,
}

impl NodeStatus {
    pub(crate) fn new() -> Self {
        Self {
            store_ok: AtomicBool::new(true),
            journal_ok: AtomicBool::new(true),
            taking_over: AtomicBool::new(false),
            last_error: Mutex::new(None),
            queue_depth: AtomicU64::new(0),
            written: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            held: AtomicU64::new(0),
            waiting_segments: AtomicU64::new(0),
            waiting_bytes: AtomicU64::new(0),
            expired_cells: AtomicU64::new(0),
        }
    }

    /// Whether the last call to the store succeeded.
    pub fn store_ok(&self) -> bool {
        self.store_ok.load(Ordering::Relaxed)
    }

    /// Whether the last write to the usage file succeeded.
    pub fn journal_ok(&self) -> bool {
        self.journal_ok.load(Ordering::Relaxed)
    }

    /// Whether the process before this one still lives, or has left usage that is not stored yet.
    pub fn taking_over(&self) -> bool {
        self.taking_over.load(Ordering::Acquire)
    }

    /// Set to `false` only once the store has everything of the old process: who sees that, sees it.
    pub(crate) fn set_taking_over(&self, taking_over: bool) {
        self.taking_over.store(taking_over, Ordering::Release);
    }

    /// All figures at once.
    pub fn snapshot(&self) -> StatusSnapshot {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        StatusSnapshot {
            store_ok: self.store_ok(),
            journal_ok: self.journal_ok(),
            taking_over: self.taking_over(),
            last_error: self.last_error_slot().clone(),
            queue_depth: read(&self.queue_depth),
            records_written: read(&self.written),
            records_stored: read(&self.stored),
            records_overflowed: read(&self.overflowed),
            records_lost: read(&self.lost),
            damaged_lines: read(&self.damaged),
            records_held: read(&self.held),
            waiting_segments: read(&self.waiting_segments),
            waiting_bytes: read(&self.waiting_bytes),
            expired_cells: read(&self.expired_cells),
        }
    }

    /// Notes how a call to the store went; returns whether that is a change.
    pub(crate) fn note_store<E: ToString>(&self, failure: Option<&E>) -> bool {
        self.note(&self.store_ok, failure)
    }

    /// Notes how a write to the usage file went; returns whether that is a change.
    pub(crate) fn note_journal<E: ToString>(&self, failure: Option<&E>) -> bool {
        self.note(&self.journal_ok, failure)
    }

    pub(crate) fn add(&self, figure: &AtomicU64, amount: u64) {
        figure.fetch_add(amount, Ordering::Relaxed);
    }

    fn note<E: ToString>(&self, flag: &AtomicBool, failure: Option<&E>) -> bool {
        if let Some(failure) = failure {
            *self.last_error_slot() = Some(failure.to_string());
        }
        flag.swap(failure.is_none(), Ordering::Relaxed) != failure.is_none()
    }

    fn last_error_slot(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        // Held for one assignment or clone only, which leaves it whole.
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
