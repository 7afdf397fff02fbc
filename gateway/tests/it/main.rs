//! The outside tests: the real binary as a process, spoken to over sockets,
//! with a provider that is either the mock or a script of the test.
//!
//! `TYR_BIN` and `MOCK_BIN` name the binaries under test; without them cargo's
//! own build of this run is taken.

// A test that fails may say so by any means.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_debug_implementations,
    unreachable_pub
)]

mod harness;

mod adjust;
mod admin;
mod at_once;
mod auth;
mod bad_input;
mod canary;
mod catalogue;
mod cluster;
mod credentials;
mod crowd;
mod deadline;
mod degraded;
mod disconnect;
mod edges;
mod entities;
mod explain;
mod failover;
mod fleet;
mod framing;
mod import;
mod keys_state;
mod lifecycle;
mod limits;
mod metering;
mod money;
mod names;
mod outage;
mod own_usage;
mod passthrough;
mod queries;
mod races;
mod reload;
mod restart;
mod roles;
mod rules;
mod scopes;
mod streaming;
mod tidy;
mod tight;
mod tls;
mod trail;
mod upgrade;
mod users;
mod writes;
