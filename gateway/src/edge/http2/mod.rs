//! The bounds of HTTP/2 connections.
//!
//! Promise: memory per connection is bounded, and the known floods end it with
//! GOAWAY: too many CONTINUATION frames for the head's size, streams that are
//! reset before they are served, errors that force resets, and small DATA
//! frames. The `h2` crate enforces them; here they are set.

use std::time::Duration;

use pingora_core::apps::HttpServerOptions;
use pingora_core::protocols::http::v2::server::H2Options;

use super::EdgeBounds;

/// Unread body bytes of one stream, and of all streams of a connection. The
/// second one bounds the memory; the first lets one upload use a fair part.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Unsent answer bytes of one stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that were reset before they were served.
const PENDING_RESETS: usize = 20;
/// Streams that this side had to reset because of the client's errors.
const ERROR_RESETS: usize = 100;
/// Reset streams remembered, to ignore what is still on its way for them.
const REMEMBERED_RESETS: usize = 32;
const REMEMBERED_FOR: Duration = Duration::from_secs(1);

pub(super) fn h2_options(bounds: &EdgeBounds) -> H2Options {
    let mut options = H2Options::new();
    options
        .max_header_list_size(u32::try_from(bounds.head.max_head).unwrap_or(u32::MAX))
        .max_concurrent_streams(bounds.max_streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(ERROR_RESETS))
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(REMEMBERED_FOR);
    options
}

pub(super) fn server_options(bounds: &EdgeBounds) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    options.h2_idle_timeout = Some(bounds.idle_timeout);
    options
}

#[cfg(test)]
mod tests;
