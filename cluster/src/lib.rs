//! Durable state of a Tyr node, and its spread.
//!
//! Promise: a settled request is on disk within [`COMMIT_INTERVAL`] and in the store soon after,
//! each exactly once, whatever is killed, torn or full in between. A request never waits for it.
//!
//! A single node has three threads of its own, besides those that serve requests:
//! - `tyr-journal` appends records to usage files in `data_dir` and syncs them. Nothing else, so
//!   that what a kill can take is bounded by its interval alone.
//! - `tyr-store` brings what these files hold into the store and removes them. It may be slow or
//!   fail.
//! - `tyr-cluster` does what is due by time, on its own runtime, and never waits for a disk.
//!
//! A new process may take over from one that still serves its last streams: both settle into one
//! store, each under its own boot, and the new one learns what the old one adds ([`Predecessor`]).
//!
//! This crate reads no clock of its own except to pace its threads, parses no configuration, and
//! knows neither HTTP nor providers.

mod data_dir;
mod driver;
mod error;
mod journal;
mod node;
mod record;
mod status;
mod store;
#[cfg(test)]
mod testing;

pub use data_dir::NodeKey;
pub use error::{FlushError, StartError, StoreError};
pub use journal::{COMMIT_INTERVAL, Recorder};
pub use node::{Node, NodeConfig, Predecessor, StoreConfig, UsageLog, start};
pub use record::{Basis, EndReason, UnknownWord, UsageRecord};
pub use status::{NodeStatus, StatusSnapshot};
