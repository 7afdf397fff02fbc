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
//! A member of a cluster has `tyr-cluster-store`, too, for what the cluster wants of the store: the
//! thread `tyr-cluster`, which talks to the other nodes, must never wait for it.
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
mod cell;
mod config;
mod convert;
mod core;
mod data_dir;
mod driver;
mod enforcement;
mod entity;
mod error;
mod frame;
mod handle;
mod journal;
mod leader;
mod membership;
mod message;
mod node;
mod origin;
mod record;
mod replication;
mod settled;
#[cfg(test)]
mod simulation;
mod status;
mod store;
#[cfg(test)]
mod testing;
mod transport;
pub mod view;

pub use self::core::{Command, Diagnosis, Incoming};
pub use config::{ClusterConfig, Partition, Task, TaskScope, TlsFiles};
pub use data_dir::NodeKey;
pub use driver::{ClusterError, IncomingReceiver, NoNews};
pub use entity::{Change, Entity, EntityLog, EntityWrite, Expect, Persisted, REVOCATION};
pub use error::{FlushError, StartError, StoreError, WriteError};
pub use handle::ClusterHandle;
pub use journal::{COMMIT_INTERVAL, Recorder};
pub use message::{ConfigurationMark, OUTCOME_BYTES, Outcome, PROTOCOL_MAX};
pub use node::{
    Node, NodeConfig, OpenStore, Predecessor, StoreConfig, UsageLog, open_store, start,
};
pub use origin::Origin;
pub use record::{Basis, EndReason, UnknownWord, UsageRecord};
pub use status::{NodeStatus, StatusSnapshot};
pub use store::{PasswordSource, PostgresConfig, PostgresUrlError, TlsMode, UsagePage};
pub use transport::keys::{KeyError, KeyId, MOST_SECRETS, SHORTEST_SECRET};
pub use transport::tls::TlsError;
pub use view::{AppliedOn, ClusterView, DegradedReason, LimitView, MemberView};
