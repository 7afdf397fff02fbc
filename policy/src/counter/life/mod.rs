//! Whether a counter may still be handed out.
//!
//! The table drops a counter only when nobody else has it. Between that look
//! and the removal somebody may fetch it; both sides therefore leave a mark
//! before they look for the other's, and one of them always sees it:
//! a counter that was handed out is never removed from the table, so there
//! are never two of one identity.

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU8, Ordering, fence};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU8, Ordering, fence};

/// Alive, about to end, or ended.
#[derive(Debug, Default)]
pub(super) struct Life {
    state: AtomicU8,
}

const ALIVE: u8 = 0;
const ENDING: u8 = 1;
const ENDED: u8 = 2;

// === impl Life ===

impl Life {
    /// For whoever has just taken a reference: `false` when it came too late.
    pub(super) fn keep(&self) -> bool {
        // The reference was counted before the state is read.
        fence(Ordering::SeqCst);
        match self.state.load(Ordering::SeqCst) {
            ALIVE => true,
            // Stop the one who is about to end it, unless that has happened.
            _ => {
                let stopped =
                    self.state
                        .compare_exchange(ENDING, ALIVE, Ordering::SeqCst, Ordering::SeqCst);
                stopped != Err(ENDED)
            }
        }
    }

    /// Ends the life unless `in_use` or somebody calls `keep` meanwhile.
    pub(super) fn end(&self, in_use: impl FnOnce() -> bool) -> bool {
        let step = |from, to| {
            self.state
                .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
        };
        if step(ALIVE, ENDING).is_err() {
            return false;
        }
        // The mark is made before the references are counted.
        fence(Ordering::SeqCst);
        if in_use() {
            // Whoever has it may have brought it back already.
            let _ = step(ENDING, ALIVE);
            return false;
        }
        step(ENDING, ENDED).is_ok()
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
