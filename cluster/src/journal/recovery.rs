//! From a start without the store to a node that knows all that the store does.
//!
//! Promise: the store's cells are given once, when it has everything that this node ever settled;
//! until then the node counts with its own copy of them.
//! Owner: `tyr-store` fulfils it; `tyr-cluster` asks for that; the node's owner takes the cells.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use policy::Cell;

/// Whether the node still goes without the store, and what it learnt then.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    pending: AtomicBool,
    cells: Mutex<Option<Vec<Cell>>>,
}

// === impl Recovery ===

impl Recovery {
    pub(crate) fn new(pending: bool) -> Self {
        Self {
            pending: AtomicBool::new(pending),
            cells: Mutex::default(),
        }
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Ends it with the store's cells.
    pub(super) fn fulfil(&self, cells: Vec<Cell>) {
        *self.slot() = Some(cells);
        self.pending.store(false, Ordering::Release);
    }

    /// The store's cells, once.
    pub(crate) fn take(&self) -> Option<Vec<Cell>> {
        self.slot().take()
    }

    fn slot(&self) -> MutexGuard<'_, Option<Vec<Cell>>> {
        // Each change is one assignment.
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
