//! A panic becomes a log line with its place and a count, instead of text on
//! standard error that no log pipeline reads.

use std::sync::Arc;

use super::Metrics;

/// Installs a panic hook that logs and adds to `tyr_panics_total`.
///
/// Whoever catches a panic must not count it again.
pub fn count_panics(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |info| {
        metrics.panic();
        let place = info.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(
            place = place.as_deref().unwrap_or("unknown"),
            thread = thread.name().unwrap_or("unnamed"),
            reason = info.payload_as_str().unwrap_or("not a text"),
            "panic"
        );
    }));
}
