//! The one value that the request path reads: configuration resolved into an
//! immutable `Live`, swapped as a whole.
//!
//! Owner: `config::watch` is the only writer. A request loads it once and
//! keeps it until it ends, so a reload never changes a request in flight.

use std::sync::Arc;

use policy::{KeyHash, Snapshot};

use crate::upstream::Upstream;

/// Everything a request needs, resolved from one revision of the configuration.
#[derive(Debug)]
pub struct Live {
    /// Who may call what, within which limits, at which price.
    pub policy: Snapshot,
    /// How to reach each provider; the index is `ProviderId.0`.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Limits on what a client may send.
    pub bounds: RequestBounds,
    /// HTTP status of a refusal for a spent budget; `None` = the dialect's own.
    pub budget_status: Option<u16>,
    /// Who may use the admin API; empty = nobody.
    pub admin_tokens: Vec<AdminToken>,
    /// The configuration as `GET /api/config` shows it, secrets masked.
    pub redacted: serde_json::Value,
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

/// A bearer of rights on the admin port.
#[derive(Clone, Debug)]
pub struct AdminToken {
    /// The name in the audit trail.
    pub name: Arc<str>,
    /// What the bearer may do.
    pub role: AdminRole,
    /// SHA-256 of the token; the token itself is not kept.
    pub hash: KeyHash,
}

/// Rights on the admin port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminRole {
    /// Everything.
    Admin,
    /// Reload and reads.
    Operator,
    /// Reads.
    Viewer,
}
