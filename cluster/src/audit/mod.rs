//! The audit log: a chain of hashes over every change that was made through the API.
//!
//! Promise: each row's hash covers all of its fields and the hash of the row before it, so that
//! nobody alters, removes, inserts or moves a row unseen; a head kept beside the rows shows a tail
//! that was cut off, and nothing is appended to a log that does not end with it. With a key the hashes are HMAC-SHA256, and whoever can write the database but
//! lacks the key cannot mend the chain. Without one they are SHA-256: that shows accidents, not
//! intent.
//! Not promised: a database put back whole to an earlier state looks as it did then. Each row is
//! therefore also logged with its hash under the target `tyr::audit`: compare the two. (A row is
//! logged by who learns that it was committed: not if the answer was lost on the way.)
//! Rows are made here and written by the store, in the transaction of the change itself.

mod chain;
mod key;
mod verify;

pub(crate) use self::chain::{attest, next};
pub use self::key::AuditKey;
pub(crate) use self::verify::verify_store;
pub use self::verify::{Breach, Broken, Verified, Verifier, VerifyError, verify};

use crate::entity::Change;

/// One row of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Counts from 1 without gaps.
    pub seq: u64,
    pub change: Change,
    /// The revision of the entities after the change; raised by it if it wrote any.
    pub revision: u64,
    /// Which key the hash was made with; `None`: without one.
    pub key_id: Option<String>,
    /// The hash of the row before; zeros for the first.
    pub previous: [u8; 32],
    pub hash: [u8; 32],
}

/// The last row, as it is kept beside the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHead {
    pub seq: u64,
    pub hash: [u8; 32],
    /// The key of `mac`; `None`: without one.
    pub key_id: Option<String>,
    /// Over the fields above.
    pub mac: [u8; 32],
}

#[cfg(test)]
mod tests;
