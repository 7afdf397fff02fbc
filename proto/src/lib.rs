//! Messages between nodes; generated code only.
//!
//! `proto/cluster/v1/cluster.proto` is the source; the test `bootstrap` holds the generated code to
//! it and, with `UPDATE_EXPECT=1`, writes it anew.

/// Messages and service of the link between two nodes.
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    reason = "generated"
)]
pub mod v1 {
    include!("gen/tyr.cluster.v1.rs");
}

pub use prost::Message;
