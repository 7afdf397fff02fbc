//! The one value that the request path reads: configuration resolved into an
//! immutable `Live`, swapped as a whole.
//!
//! Owner: `config::watch` and `config::catalogue`, one after the other, are
//! the only writers. A request loads it once and keeps it until it ends, so a
//! reload never changes a request in flight.

use std::fmt;
use std::sync::Arc;

use policy::{KeyHash, Snapshot};
use rpds::RedBlackTreeMapSync;

use crate::admin::rights::Rights;
use crate::config::Entries;
use crate::prices::Pricing;
use crate::upstream::Upstream;
use crate::users::UserRule;

/// Everything a request needs, resolved from one revision of the configuration.
/// A clone shares all parts.
#[derive(Clone, Debug)]
pub struct Live {
    /// Who may call what, within which limits, at which price.
    pub policy: Snapshot,
    /// How to reach each provider; the index is `ProviderId.0`.
    pub upstreams: Arc<[Arc<Upstream>]>,
    /// Limits on what a client may send.
    pub bounds: RequestBounds,
    /// HTTP status of a refusal for a spent budget; `None` = the dialect's own.
    pub budget_status: Option<u16>,
    /// Who the end user of a request is.
    pub users: Arc<UserRule>,
    /// Where prices come from that the configuration leaves to a list.
    pub pricing: Pricing,
    /// Who may use the admin API.
    pub admin: Arc<AdminAccess>,
    /// The configuration file as `GET /api/config` shows it, secrets masked.
    pub redacted: Arc<serde_json::Value>,
    /// Entities as they can be read and written, of the file and of the API.
    pub entries: Entries,
    /// Virtual keys that name what this node does not know, and why; they are
    /// in `policy` as inactive ones.
    pub unresolved: RedBlackTreeMapSync<Arc<str>, Arc<str>>,
    /// Why what another process wrote, other than virtual keys, does not run
    /// here: it does not fit this node's file. `None` when all of it runs.
    pub misfit: Option<Arc<str>>,
}

/// Limits on one request, from `server`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestBounds {
    /// Largest decoded body in bytes.
    pub max_body: u64,
    /// Most bytes of request bodies that all requests may hold together.
    pub max_held_bodies: u64,
    /// Slowest accepted upload in bytes a second, judged after ten seconds.
    pub body_min_rate: u64,
    /// Deepest nesting of a JSON body.
    pub max_json_depth: usize,
    /// How long a client may refuse to read before it is cut.
    pub write_stall: std::time::Duration,
    /// Silence on a stream after which a keep-alive comment is sent.
    pub keep_alive: std::time::Duration,
}

/// Who may use the admin API. Default: nobody.
#[derive(Clone, Default)]
pub struct AdminAccess {
    /// Of the file and of the API; empty = nobody.
    pub tokens: Vec<AdminToken>,
}

/// A bearer of rights on the admin port.
#[derive(Clone, Debug)]
pub struct AdminToken {
    /// The name in the audit trail.
    pub name: Arc<str>,
    /// The name of its role.
    pub role: Arc<str>,
    /// What the bearer may do: what the role allows, within the token's ceiling.
    pub rights: Rights,
    /// SHA-256 of the token; the token itself is not kept.
    pub hash: KeyHash,
}

impl fmt::Debug for AdminAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.tokens.iter().map(|token| &token.name))
            .finish()
    }
}
