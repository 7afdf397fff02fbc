//! Everything of Tyr that touches HTTP, providers, files and the environment.
//!
//! The binary `tyr` is a thin wrapper around this library; see `startup` for
//! the one place where the parts are put together.

pub mod admin;
pub mod api;
pub mod ask;
pub mod clock;
pub mod commands;
pub mod config;
pub mod edge;
pub mod explain;
pub mod import;
pub mod peers;
pub mod prices;
pub mod proxy;
pub mod sidecar;
pub mod startup;
pub mod state;
pub mod telemetry;
pub mod upstream;
pub mod users;
pub mod vault;
