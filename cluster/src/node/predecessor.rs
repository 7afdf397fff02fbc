//! What the process before this one goes on settling while it drains.
//!
//! Both count in the same store, each as an origin of its own, so nothing is lost or counted twice there.
//! In memory each has a count of its own: this is how the new one learns of the old one's. What the
//! old one has admitted and not yet settled is not seen, nor does the old one see what the new one
//! admits; both end with the old one's last stream.

use std::sync::Arc;

use policy::Cell;

use crate::error::StoreError;
use crate::origin::Origin;
use crate::settled::SettledLog;
use crate::status::NodeStatus;
use crate::store::{Position, Store};

/// Records read at once, and how often in one look.
const PAGE: u32 = 1_024;
const PAGES: u32 = 64;

/// The old process, as far as its usage is seen.
#[derive(Debug)]
pub struct Predecessor {
    origin: Origin,
    position: Position,
    store: Arc<dyn Store>,
    status: Arc<NodeStatus>,
    settled: Option<Arc<SettledLog>>,
    ended: bool,
}

// === impl Predecessor ===

impl Predecessor {
    pub(crate) fn new(
        origin: Origin,
        position: Position,
        store: Arc<dyn Store>,
        status: Arc<NodeStatus>,
        settled: Option<Arc<SettledLog>>,
    ) -> Self {
        Self {
            origin,
            position,
            store,
            status,
            settled,
            ended: false,
        }
    }

    /// What it settled since the last look, or since the node's own cells were loaded: amounts to
    /// add. Reads 65,536 records at most, the rest next time. Blocks for the disk.
    pub fn settled(&mut self) -> Result<Vec<Cell>, StoreError> {
        let mut cells = Vec::new();
        // Asked before the store is read: what comes later is of nobody.
        let gone = !self.status.taking_over();
        for _ in 0..PAGES {
            let added = match self.store.added_cells(self.origin, self.position, PAGE) {
                Ok(added) => added,
                // What was read is told now; the rest, and the fault, with the next look.
                Err(_) if !cells.is_empty() => return Ok(cells),
                Err(error) => return Err(error),
            };
            self.position = added.position;
            if let Some(settled) = &self.settled {
                settled.append_cells(self.origin, &added.cells);
            }
            cells.extend(added.cells);
            if added.complete {
                self.ended = gone;
                break;
            }
        }
        Ok(cells)
    }

    /// Whether it has gone and everything it settled has been told.
    pub fn has_ended(&self) -> bool {
        self.ended
    }
}
