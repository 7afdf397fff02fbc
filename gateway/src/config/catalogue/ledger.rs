//! Where entities of the API are kept.

use std::fmt::Debug;

use cluster::audit::AuditKey;
use cluster::{Change, Entity, EntityLog, EntityWrite, Persisted, StoreError, WriteError};

use crate::vault::{KeyRing, WorkingKey};

/// The store of entities, as the catalogue needs it. Calls block.
pub trait Ledger: Send + Sync + Debug {
    /// Writes all of them and the change's audit row, or nothing.
    fn write(&self, writes: &[EntityWrite], change: &Change) -> Result<Vec<Entity>, WriteError>;

    /// What others wrote since the last call; empty when there is no more.
    fn poll(&self) -> Result<Vec<Entity>, StoreError>;

    /// Makes the revocation of the key with this hash (hexadecimal) last, with
    /// or without the store.
    fn revoke(&self, hash: &str, change: &Change) -> Result<Persisted, WriteError>;

    /// Makes a revocation last that a peer told of: on this node at once, in
    /// the store when somebody brings it there.
    fn adopt_revocation(&self, hash: &str, change: &Change);

    /// Up to which revision everything that was written has been told by
    /// `poll`, or was written here.
    fn revision(&self) -> u64;

    /// Keeps the audit row of a change that wrote no entities.
    fn record(&self, change: &Change) -> Result<(), StoreError>;

    /// The key for audit rows from now on.
    fn use_audit_key(&self, key: AuditKey);
}

impl Ledger for EntityLog {
    fn write(&self, writes: &[EntityWrite], change: &Change) -> Result<Vec<Entity>, WriteError> {
        EntityLog::write(self, writes, change)
    }

    fn poll(&self) -> Result<Vec<Entity>, StoreError> {
        EntityLog::poll(self)
    }

    fn revoke(&self, hash: &str, change: &Change) -> Result<Persisted, WriteError> {
        EntityLog::revoke(self, hash, change)
    }

    fn adopt_revocation(&self, hash: &str, change: &Change) {
        if !EntityLog::adopt_revocation(self, hash, change) {
            tracing::error!(hash, "a revocation of a peer is in memory only");
        }
    }

    fn revision(&self) -> u64 {
        EntityLog::revision(self)
    }

    fn record(&self, change: &Change) -> Result<(), StoreError> {
        EntityLog::record(self, change)
    }

    fn use_audit_key(&self, key: AuditKey) {
        EntityLog::use_audit_key(self, key);
    }
}

/// The key that rows of the audit log are made with.
pub fn audit_key(ring: &KeyRing) -> AuditKey {
    let key = |key: &WorkingKey| AuditKey::from_secret(key.id(), key.expose());
    match ring.audit_key() {
        Some(current) => key(current).with_former(ring.audit_keys().iter().map(key)),
        None => AuditKey::keyless(),
    }
}
