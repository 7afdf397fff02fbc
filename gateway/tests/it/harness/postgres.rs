//! A private Postgres: the same as the cluster's own tests use.
#![allow(
    dead_code,
    unused_imports,
    reason = "a harness offers more than each test needs"
)]

#[path = "../../../../cluster/tests/postgres/mod.rs"]
mod server;

pub use server::{Identity, PASSWORD, Postgres, USER, shared};
