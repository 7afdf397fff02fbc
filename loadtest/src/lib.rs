//! `mock-llm`: a provider that answers like OpenAI and Anthropic, on request with the faults real
//! providers show, and that tells afterwards what it was sent and what it served.
//!
//! Promise: the same request gets the same text, the same tool calls and the same token counts.
//! State: one `stats::Stats` per server, in memory, bounded. It depends on no crate of the
//! gateway: what both sides believe about the wire is written down twice on purpose.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod anthropic;
mod control;
mod faults;
mod openai;
mod request;
mod routes;
mod server;
mod sse;
mod stats;

pub use server::{Mock, Options, serve};
