//! Taking over a folder whose old process still lives, on the thread `tyr-store`.
//!
//! Promise: usage files of the old process are neither read nor removed before it has gone; then
//! what is left in them is stored as its usage. Only after that may a third process come.
//! Failure: everything here is asked for again, several times a second.

use std::sync::Arc;

use super::backlog::Backlog;
use super::segment::Folder;
use crate::data_dir::DataDir;
use crate::error::StartError;

/// What is left to do until the folder is ours alone.
#[derive(Debug)]
pub(super) struct Succession {
    data_dir: Arc<DataDir>,
    predecessor: u64,
    gone: bool,
}

// === impl Succession ===

impl Succession {
    /// `None` when nobody was there at the start.
    pub(super) fn of(data_dir: &Arc<DataDir>) -> Option<Self> {
        data_dir.predecessor().map(|predecessor| Self {
            data_dir: Arc::clone(data_dir),
            predecessor,
            gone: false,
        })
    }

    /// The boot of the old process.
    pub(super) fn predecessor(&self) -> u64 {
        self.predecessor
    }

    /// Does what can be done now; `true` when nothing is left to do.
    pub(super) fn advance(
        &mut self,
        folder: &Folder,
        backlog: &Backlog,
    ) -> Result<bool, StartError> {
        if !self.gone {
            if !self.data_dir.has_folder()? {
                return Ok(false);
            }
            let segments = folder.segments().map_err(|source| StartError::DataDir {
                action: "list",
                path: self.data_dir.path().to_owned(),
                source,
            })?;
            for (id, len) in segments {
                if id.boot == self.predecessor {
                    backlog.adopt(id, len);
                }
            }
            self.gone = true;
        }
        if backlog.knows(self.predecessor) {
            return Ok(false);
        }
        self.data_dir.admit_next();
        Ok(true)
    }
}
