//! Durable state of a Tyr node, and its spread.
//!
//! Promise: a settled request is on disk within [`COMMIT_INTERVAL`] and in the store soon after,
//! each exactly once, whatever is killed, torn or full in between. A request never waits for it.
//!
//! A single node has three threads of its own, besides those that serve requests:
//! - `tyr-journal` appends records to usage files in `data_dir` and syncs them. Nothing else, so
//!   that what a kill can take is bounded by its interval alone.
//! - `tyr-store` brings what these files hold into the store and removes them, and revocations
//!   that were made while it was away. It may be slow or fail.
//! - `tyr-cluster` does what is due by time, on its own runtime, and never waits for a disk.
//!
//! With Postgres there is `tyr-postgres`, too, which serves the connections. Any number of nodes
//! share one database. A node that has run before starts without it: with the last-good entities, its
//! own copy of the settled cells and its usage files ([`Node::degraded`]).
//!
//! A new process may take over from one that still serves its last streams: both settle into one
//! store, each under its own boot, and the new one learns what the old one adds ([`Predecessor`]).
//!
//! What was made through the API lives in the store too ([`EntityLog`]), with an audit log of who
//! changed what ([`audit`]); a copy in `data_dir` is what a node falls back to.
//!
//! This crate reads no clock of its own except to pace its threads, parses no configuration, and
//! knows neither HTTP nor providers.

pub mod audit;
mod data_dir;
mod driver;
mod entity;
mod error;
mod frame;
mod journal;
mod node;
mod record;
mod settled;
mod status;
mod store;
#[cfg(test)]
mod testing;

pub use data_dir::NodeKey;
pub use entity::{Change, Entity, EntityLog, EntityWrite, Expect, Persisted, REVOCATION};
pub use error::{FlushError, StartError, StoreError, WriteError};
pub use journal::{COMMIT_INTERVAL, Recorder};
pub use node::{
    Node, NodeConfig, OpenStore, Predecessor, StoreConfig, UsageLog, open_store, start,
};
pub use record::{Basis, EndReason, UnknownWord, UsageRecord};
pub use status::{NodeStatus, StatusSnapshot};
pub use store::{PasswordSource, PostgresConfig, PostgresUrlError, TlsMode, UsagePage};
