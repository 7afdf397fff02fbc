//! Entities of the file and of the API together: read, judged, written.
//!
//! Promise: a write is judged by the same schema, types and rules as the file,
//! and every problem is told at once; it reaches the store before it runs, and
//! when the store does not take it, nothing has changed. Entities of the file
//! are read-only here, and a name is never in both. Reading takes no lock.
//!
//! Owner of what the API made is the `Entries` of the running `Live`. Bodies
//! hold no secret in the clear: credentials are sealed, virtual keys and admin
//! tokens are kept as hashes. One virtual key changed costs the same among a
//! million as among ten; any other entity costs a resolution of the base.
//!
//! Read in this order: `kind`, `entries`, `body` (what a caller sent), `write`
//! (the order of a change), `keys` and `limits` (what only they can do),
//! `incoming` (what other processes wrote), `fleet` (what other nodes are told).

mod body;
mod entries;
mod fleet;
mod gone;
mod incoming;
mod keys;
mod kind;
mod ledger;
mod limits;
mod value;
mod write;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

pub use entries::Entries;
pub(super) use entries::Stored;
pub use fleet::Fleet;
pub(super) use gone::Gone;
pub use kind::Kind;
pub(super) use kind::{Class, Effect};
pub use ledger::{Ledger, audit_key};

use super::running::Running;
use crate::state::Live;
use crate::upstream::Secret;
use crate::vault::mask_body;

/// Who made an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file; read-only here.
    File {
        /// `file:line`.
        place: String,
    },
    /// The API.
    Api,
}

/// An entity as it is shown: what can be written, and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Its kind.
    pub kind: Kind,
    /// Its name, unique in its kind.
    pub name: String,
    /// Who made it.
    pub source: Source,
    /// Of its last change in the store; for entities of the file, of the
    /// configuration that runs.
    pub revision: u64,
    /// The fields of the YAML with all defaults; secrets and hashes are `***`.
    pub body: Value,
}

/// Who changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The name of the admin token.
    pub name: String,
    /// The caller's address.
    pub peer: String,
}

/// A write that was done.
#[derive(Clone, Debug)]
pub struct Written {
    /// As it is now.
    pub shown: Shown,
    /// Whether it was not there before.
    pub created: bool,
    /// A value that was made here: it is not kept and not shown again.
    pub value: Option<Secret>,
}

/// A virtual key that was revoked on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Whether the store has it already; if not, it is brought there later.
    pub persisted: bool,
    /// The hashes of its values, in hexadecimal digits.
    pub hashes: Vec<String>,
}

/// One thing that is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointerProblem {
    /// Where in the body (RFC 6901); empty for the whole, and for what is
    /// wrong elsewhere because of it.
    pub pointer: String,
    /// What is wrong and what would be right; no secret.
    pub message: String,
}

/// Why a write was not done. Nothing has changed, neither here nor, unless it
/// says so, in the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefusal {
    /// The body, or what it would make of the configuration, is wrong.
    #[error("the entity is not right")]
    Invalid(Vec<PointerProblem>),
    /// There is none of that name.
    #[error("there is none of that name")]
    NotFound,
    /// There is one of that name already.
    #[error("there is one of that name already")]
    Exists {
        /// Who made it.
        r#source: Source,
    },
    /// The file made it, so only the file changes it.
    #[error("it stands at {place} and is changed there")]
    FileOwned {
        /// `file:line`.
        place: String,
    },
    /// It is not as the caller last saw it.
    #[error("it has changed meanwhile")]
    Stale {
        /// The revision that it has; `None` when it is gone.
        found: Option<u64>,
    },
    /// Others refer to it.
    #[error("it is in use")]
    InUse {
        /// `teams/search` of the API, `file:line` of the file.
        by: Vec<String>,
    },
    /// It holds a secret, and the node has no key to seal it with.
    #[error("a secret can be stored only with `encryption.keys`")]
    NoEncryptionKey,
    /// The store is away or failed.
    #[error("the store did not take it: {0}")]
    Store(String),
}

/// The entities of the node. Reads are cheap; every other call may block for
/// the store and for files.
pub struct Catalogue {
    running: Arc<Running>,
}

// === impl Catalogue: reading ===

impl Catalogue {
    pub(super) fn new(running: Arc<Running>) -> Self {
        Catalogue { running }
    }

    /// At most `limit` entities of a kind by name, those after `after`.
    pub fn list(&self, kind: Kind, after: Option<&str>, limit: usize) -> Vec<Shown> {
        let live = self.running.live.load_full();
        let names = live.entries.names_after(kind, after, limit);
        let shown = names.iter().filter_map(|name| shown(&live, kind, name));
        shown.collect()
    }

    /// One entity.
    pub fn show(&self, kind: Kind, name: &str) -> Option<Shown> {
        shown(&self.running.live.load(), kind, name)
    }
}

/// An entity of this configuration.
fn shown(live: &Live, kind: Kind, name: &str) -> Option<Shown> {
    if let Some(stored) = live.entries.stored(kind, name) {
        return Some(Shown {
            kind,
            name: name.to_owned(),
            source: Source::Api,
            revision: stored.revision,
            body: presentable(kind, stored),
        });
    }
    let owned = live.entries.owned(kind, name)?;
    let section = kind.section()?.iter();
    let list = section.fold(&*live.redacted, |value, name| &value[*name]);
    let mut body = list.get(owned.index)?.clone();
    mask_body(kind.store_word(), &mut body);
    Some(Shown {
        kind,
        name: name.to_owned(),
        source: Source::File {
            place: owned.place.clone(),
        },
        revision: live.policy.revision(),
        body,
    })
}

/// A stored body with all defaults and nothing secret.
fn presentable(kind: Kind, stored: &Stored) -> Value {
    let mut body = kind
        .complete(&stored.body)
        .unwrap_or_else(|| stored.value());
    mask_body(kind.store_word(), &mut body);
    body
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue").finish_non_exhaustive()
    }
}
