//! Takes `log` records (Pingora, rustls) into tracing and quiets those that
//! tell of a client's business or of a benign race at ERROR.
//!
//! Must not lose a record that tells of our own or an upstream's failure: a
//! record is judged by its target and its text together, and what is judged
//! noise is shown at `debug` under the target `tyr::noise`.

use tracing::Level;
use tracing_log::LogTracer;
use tracing_log::log::{self, Log, Metadata, Record};
use tracing_subscriber::filter::LevelFilter;

/// Crates that print whole heads or bodies below `info`, credentials included.
/// They are never shown below that level, whatever the filter says.
pub const WIRE_TARGETS: [&str; 7] = [
    "pingora_core",
    "pingora_proxy",
    "pingora_http",
    "hyper",
    "hyper_util",
    "h2",
    "rustls",
];

/// Target and start of the messages that are noise.
const NOISE: [(&str, &str); 7] = [
    // A pooled connection taken in the moment of its release: a new one is made.
    (
        "pingora_core::connectors",
        "failed to acquire reusable stream",
    ),
    // The client went away or never spoke HTTP; the access line has the facts.
    ("pingora_proxy", "Fail to proxy: Downstream"),
    (
        "pingora_proxy",
        "failed to send error response to downstream",
    ),
    (
        "pingora_core::apps",
        "HTTP server fails to read from downstream",
    ),
    (
        "pingora_core::apps",
        "HTTP server fails to write to downstream",
    ),
    ("pingora_core::apps", "H2 handshake error"),
    ("pingora_core::services", "Downstream handshake"),
];

/// Whether a record of `target` may be shown at `level`.
pub(super) fn may_show(target: &str, level: Level) -> bool {
    level <= Level::INFO || !WIRE_TARGETS.iter().any(|wire| is_within(target, wire))
}

/// `target` is the module `parent` or inside it.
fn is_within(target: &str, parent: &str) -> bool {
    target
        .strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn is_noise(target: &str, message: &str) -> bool {
    NOISE
        .iter()
        .any(|(module, start)| is_within(target, module) && message.starts_with(start))
}

/// Makes the bridge the process's logger.
pub(super) fn install(max_level: LevelFilter) -> Result<(), log::SetLoggerError> {
    log::set_boxed_logger(Box::new(Bridge::default()))?;
    log::set_max_level(match max_level.into_level() {
        None => log::LevelFilter::Off,
        Some(Level::ERROR) => log::LevelFilter::Error,
        Some(Level::WARN) => log::LevelFilter::Warn,
        Some(Level::INFO) => log::LevelFilter::Info,
        Some(Level::DEBUG) => log::LevelFilter::Debug,
        Some(Level::TRACE) => log::LevelFilter::Trace,
    });
    Ok(())
}

#[derive(Default)]
pub(super) struct Bridge {
    tracer: LogTracer,
}

impl Log for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.tracer.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if record.target().starts_with("pingora") {
            let message = record.args().to_string();
            if is_noise(record.target(), &message) {
                tracing::debug!(target: "tyr::noise", from = record.target(), message);
                return;
            }
        }
        self.tracer.log(record);
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_the_client_or_the_pool_race_is_noise() {
        let cases = [
            (
                "pingora_core::connectors",
                "failed to acquire reusable stream",
                true,
            ),
            (
                "pingora_proxy",
                "Fail to proxy: Downstream ConnectionClosed",
                true,
            ),
            (
                "pingora_proxy",
                "Fail to proxy: Upstream ConnectRefused",
                false,
            ),
            (
                "pingora_core::apps::http_app",
                "HTTP server fails to read from downstream: x",
                true,
            ),
            (
                "pingora_core::services::listening",
                "Downstream handshake timeout",
                true,
            ),
            (
                "pingora_core::services::listening",
                "Accept() failed x",
                false,
            ),
            ("other", "failed to acquire reusable stream", false),
        ];
        for (target, message, noise) in cases {
            assert_eq!(is_noise(target, message), noise, "{target} {message}");
        }
    }

    #[test]
    fn crates_that_print_heads_stay_at_info() {
        assert!(may_show("pingora_proxy", Level::INFO));
        assert!(!may_show("pingora_proxy", Level::TRACE));
        assert!(!may_show("hyper::proto::h1", Level::DEBUG));
        assert!(may_show("hyperspace", Level::DEBUG));
        assert!(may_show("gateway::proxy", Level::TRACE));
    }
}
