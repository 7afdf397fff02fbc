//! What the entity routes ask of the configuration. `list`, `show` and `refuse`
//! answer from memory, so that they go on while a write waits for the store;
//! every other call may block, `keep_refused` for the disk alone.

use std::time::Duration;

use serde_json::Value;

use crate::config::Catalogue;
use crate::config::catalogue::{Actor, Kind, Revoked, Shown, WriteRefusal, Written};

/// Entities of the file and of the store together.
pub trait Entities: Send + Sync {
    /// At most `limit` of them by name, those after `after`.
    fn list(&self, kind: Kind, after: Option<&str>, limit: usize) -> Vec<Shown>;
    /// One of them.
    fn show(&self, kind: Kind, name: &str) -> Option<Shown>;
    /// Makes one; the body names it.
    fn create(&self, kind: Kind, body: Value, actor: &Actor) -> Result<Written, WriteRefusal>;
    /// Puts `body` in the place of what is there, if that has the revision
    /// `expected` or none is.
    fn replace(
        &self,
        kind: Kind,
        name: &str,
        body: Value,
        expected: Option<u64>,
        actor: &Actor,
    ) -> Result<Written, WriteRefusal>;
    /// Takes one away; the revision without it.
    fn delete(
        &self,
        kind: Kind,
        name: &str,
        expected: Option<u64>,
        actor: &Actor,
    ) -> Result<u64, WriteRefusal>;
    /// Gives a virtual key a new value; the old one is accepted for `grace`.
    fn rotate(&self, name: &str, grace: Duration, actor: &Actor) -> Result<Written, WriteRefusal>;
    /// Refuses a virtual key in memory, here and on all nodes in reach, if there
    /// is one: the hashes of its values. Must not block, whoever waits for the
    /// store.
    fn refuse(&self, name: &str, actor: &Actor) -> Vec<String>;
    /// Makes this refusal last on this node, and in the store as soon as that
    /// can be; waits for neither the store nor another change.
    fn keep_refused(&self, hashes: &[String], name: &str, actor: &Actor);
    /// Refuses a virtual key from now on, whatever made it, and makes it last.
    fn revoke(&self, name: &str, actor: &Actor) -> Result<Revoked, WriteRefusal>;
    /// Starts the count of a limit at zero; the revision of that.
    fn reset_limit(&self, id: &str, actor: &Actor) -> Result<u64, WriteRefusal>;
    /// Notes in the audit trail what was done to the node itself.
    fn note(&self, action: &str, actor: &Actor) -> Result<(), WriteRefusal>;
}

impl Entities for Catalogue {
    fn list(&self, kind: Kind, after: Option<&str>, limit: usize) -> Vec<Shown> {
        Catalogue::list(self, kind, after, limit)
    }

    fn show(&self, kind: Kind, name: &str) -> Option<Shown> {
        Catalogue::show(self, kind, name)
    }

    fn create(&self, kind: Kind, body: Value, actor: &Actor) -> Result<Written, WriteRefusal> {
        Catalogue::create(self, kind, body, actor)
    }

    fn replace(
        &self,
        kind: Kind,
        name: &str,
        body: Value,
        expected: Option<u64>,
        actor: &Actor,
    ) -> Result<Written, WriteRefusal> {
        Catalogue::replace(self, kind, name, body, expected, actor)
    }

    fn delete(
        &self,
        kind: Kind,
        name: &str,
        expected: Option<u64>,
        actor: &Actor,
    ) -> Result<u64, WriteRefusal> {
        Catalogue::delete(self, kind, name, expected, actor)
    }

    fn rotate(&self, name: &str, grace: Duration, actor: &Actor) -> Result<Written, WriteRefusal> {
        Catalogue::rotate(self, name, grace, actor)
    }

    fn refuse(&self, name: &str, actor: &Actor) -> Vec<String> {
        let hashes = Catalogue::refuse(self, name, actor);
        hashes.iter().map(|hash| hex::encode(hash.0)).collect()
    }

    fn keep_refused(&self, hashes: &[String], name: &str, actor: &Actor) {
        Catalogue::keep_refused(self, hashes, name, actor);
    }

    fn revoke(&self, name: &str, actor: &Actor) -> Result<Revoked, WriteRefusal> {
        Catalogue::revoke(self, name, actor)
    }

    fn reset_limit(&self, id: &str, actor: &Actor) -> Result<u64, WriteRefusal> {
        Catalogue::reset_limit(self, id, actor)
    }

    fn note(&self, action: &str, actor: &Actor) -> Result<(), WriteRefusal> {
        Catalogue::note(self, action, actor)
    }
}
