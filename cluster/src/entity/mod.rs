//! Entities made through the API: what they are, how they are written, what is told of a change.
//!
//! An entity is a kind, a name and a JSON text that this crate never reads. Every transaction that
//! changes entities raises one revision, which all of them carry; a deleted one stays as a
//! tombstone, so that whoever reads by revision learns of it. The store is the only authority;
//! [`EntityLog`] is the way to it.

mod last_good;
mod log;

use std::collections::HashSet;

use policy::Timestamp;

pub(crate) use self::last_good::LastGood;
#[cfg(test)]
pub(crate) use self::log::Offers;
pub(crate) use self::log::announce;
pub use self::log::{EntityLog, Persisted};

/// The kind of an entity that says: whatever key has this hash is refused. Its name is the hash in
/// hexadecimal digits.
pub const REVOCATION: &str = "revocation";

/// One entity as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// The store's word for its kind, such as `virtual_key`.
    pub kind: String,
    pub name: String,
    /// Of the transaction that wrote it; larger than that of every transaction before.
    pub revision: u64,
    /// JSON, byte for byte as it was written. `None`: deleted.
    pub body: Option<Box<str>>,
    pub changed_at: Timestamp,
}

/// What must be true of an entity for a write to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing. To delete what is not there is stale even so.
    Any,
    /// It does not exist, or was deleted.
    Absent,
    /// It exists and its last change had this revision.
    Revision(u64),
}

/// One entity to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityWrite {
    pub kind: String,
    pub name: String,
    pub expect: Expect,
    /// JSON; `None` deletes.
    pub body: Option<String>,
}

/// Who changed what, for the audit log. Secrets in the texts are masked by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub at: Timestamp,
    /// Name of the admin token, or of the command.
    pub actor: String,
    /// Address of the caller.
    pub peer: String,
    /// `create`, `replace`, `delete`, `rotate`, `revoke`, `reset`, `override`, `reload` or
    /// `rotate_keys`.
    pub action: String,
    pub kind: String,
    pub name: String,
    /// Masked JSON; absent for what was created.
    pub before: Option<String>,
    /// Masked JSON; absent for what was deleted.
    pub after: Option<String>,
}

/// Keeps only the newest state of each entity, of what was read page by page: one that was changed
/// between two pages is in both.
pub(crate) fn keep_newest(entities: &mut Vec<Entity>) {
    let mut known = HashSet::with_capacity(entities.len());
    let newest: Vec<bool> = entities
        .iter()
        .rev()
        .map(|entity| known.insert((entity.kind.as_str(), entity.name.as_str())))
        .collect();
    let mut newest = newest.into_iter().rev();
    entities.retain(|_| newest.next().unwrap_or(true));
}
