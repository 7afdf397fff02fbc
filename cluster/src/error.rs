//! What can go wrong, one closed enum per boundary.
//!
//! Messages never hold a secret: this crate knows none.

use std::error::Error;
use std::io;
use std::path::PathBuf;

/// The store did not do what was asked. Whether the transaction was committed is unknown; every
/// call may be repeated as it is.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or could not be reached. Repeated by the thread that asked.
    #[error("store could not {action}: {source}")]
    Failed {
        action: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A newer program migrated this store. Nothing was changed; start that program instead.
    #[error("store has schema version {found}, this program knows {known} at most")]
    SchemaTooNew { found: i64, known: i64 },
}

/// The node did not start. Nothing was lost: usage files stay where they are.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operator gives the node a folder it may write.
    #[error("cannot {action} {}: {source}", path.display())]
    DataDir {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Another process works on this folder. Stop it, or give this node its own `data_dir`.
    #[error("{} is in use by another node: each node needs its own data_dir", path.display())]
    Locked { path: PathBuf },
    /// Another process is taking over this folder, or starts on it. Wait until it is alone.
    #[error("an upgrade is already running in {}", path.display())]
    Upgrading { path: PathBuf },
    /// A small file that the node wrote itself cannot be understood. The operator restores it, or
    /// removes it, which makes this a new node.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: &'static str },
    /// The store cannot be opened or brought up to date.
    #[error("cannot open the store: {0}")]
    Store(#[source] StoreError),
    /// Usage of the last run could not be brought into the store. Serving without it would hand out
    /// budgets twice, so the node refuses; the files stay for the next try.
    #[error("cannot bring the usage file into the store: {0}")]
    Replay(#[source] FlushError),
    /// The system refused a thread.
    #[error("cannot start thread {name}: {source}")]
    Thread {
        name: &'static str,
        #[source]
        source: io::Error,
    },
}

/// A flush did not reach its end. The records are safe in the usage file unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    /// The store failed; the node tries again by itself.
    #[error("usage is not in the store yet: {reason}")]
    NotStored { reason: String },
    /// The node has stopped; what is in its files is taken up by the next start.
    #[error("the node has stopped")]
    Stopped,
}
