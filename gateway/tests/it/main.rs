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

mod admin;
mod auth;
mod bad_input;
mod credentials;
mod deadline;
mod disconnect;
mod edges;
mod failover;
mod framing;
mod limits;
mod metering;
mod money;
mod passthrough;
mod reload;
mod restart;
mod streaming;
mod tidy;
mod tls;
mod upgrade;
