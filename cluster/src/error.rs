//! What can go wrong, one closed enum per boundary.
//!
//! Messages never hold a secret: this crate knows none.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::driver::ClusterError;

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
    /// The database cannot be reached now. Nothing was changed; the store looks for it by itself,
    /// about once a second.
    #[error("store cannot be reached: {reason}")]
    Away { reason: String },
    /// The node may not migrate (`store.migrate: false`) and the schema is of an older program.
    /// Nothing was changed; migrate it first.
    #[error(
        "store has schema version {found}, this program needs {known} and store.migrate is false: \
         run `tyr migrate`"
    )]
    SchemaTooOld { found: i64, known: i64 },
    /// The audit log was begun with a key and this node has none. Nothing was changed; give the node
    /// `encryption.keys`.
    #[error("the audit log is kept with key '{known}' and this node has no key")]
    AuditKeyMissing { known: String },
    /// Somebody altered the end of the audit log, or the value of the key that it was written with.
    /// Nothing was changed: another row would hide it. The operator looks into it.
    #[error("the audit log does not end with row {seq} as it was written: run `tyr audit verify`")]
    AuditBroken {
        /// The last row, by the head; 0 without a head.
        seq: u64,
    },
}

/// Entities were not written. Unless the store failed, it is certain that nothing was.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// An entity is not as the writer expected. Read it again.
    #[error("the entity has changed meanwhile")]
    Stale {
        /// The revision that it has; `None` when it does not exist.
        found: Option<u64>,
    },
    /// The store failed: whether anything was written is unknown, but it was all or nothing.
    #[error(transparent)]
    Store(#[from] StoreError),
}

// === impl StoreError ===

impl StoreError {
    pub(crate) fn failed(
        action: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Failed {
            action,
            source: source.into(),
        }
    }
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
    /// The store cannot be reached, and this node has not run before with it. The operator makes the
    /// store reachable.
    #[error(
        "the store cannot be reached ({reason}), and {} holds nothing of an earlier run to start with",
        path.display()
    )]
    NothingKept { path: PathBuf, reason: String },
    /// The store cannot be opened or brought up to date.
    #[error("cannot open the store: {0}")]
    Store(#[source] StoreError),
    /// Usage of the last run could not be brought into the store. Serving without it would hand out
    /// budgets twice, so the node refuses; the files stay for the next try.
    #[error("cannot bring the usage file into the store: {0}")]
    Replay(#[source] FlushError),
    /// The node cannot take part in its cluster. The operator changes `cluster:` of its configuration.
    #[error("cannot take part in the cluster: {0}")]
    Cluster(#[from] ClusterError),
    /// The operator gives the nodes one Postgres, or switches the cluster off.
    #[error(
        "a cluster needs Postgres: its nodes share what they count, and one SQLite file is one node's"
    )]
    ClusterOnOneFile,
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
