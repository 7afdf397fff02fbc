//! What the process says about itself: log lines and metrics.
//!
//! Promises: a log line never blocks a request (a reader that stops reading
//! costs lines, which are counted, never latency); foreign crates that print
//! heads and bodies below `info` are capped there, so that no level of detail
//! shows a credential; label values come from the configuration only.
//!
//! Owns: the subscriber and the bridge of `log` records (both process-wide,
//! set once by [`init`]) and the metric registry. Failure answer: [`init`]
//! returns an error and changes nothing; everything after it cannot fail.

mod bridge;
mod cluster;
mod governance;
mod lines;
pub mod metrics;
mod panics;
mod prices;
mod process;
pub mod series;
#[cfg(test)]
mod tests;

use tracing::Subscriber;
use tracing_subscriber::filter::{FilterExt, FilterFn, LevelFilter};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{EnvFilter, Registry, fmt};

pub use bridge::WIRE_TARGETS;
pub use governance::Governance;
pub use lines::{LogGuard, dropped_lines};
pub use metrics::Metrics;
pub use panics::count_panics;
pub use prices::Prices;
pub use series::{Finished, ModelSeries};

/// The level when neither a filter nor `RUST_LOG` is given.
pub const DEFAULT_FILTER: &str = "info";

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, fields at its top level.
    Json,
    /// For people at a terminal.
    Text,
}

/// Why logging could not be set up. Nothing was changed; the operator acts.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter is not in the syntax of `RUST_LOG`.
    #[error("log filter '{filter}' is invalid")]
    Filter {
        /// The text as given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Another subscriber or logger is installed already.
    #[error("logging is already set up in this process")]
    AlreadySet,
    /// The thread that writes lines could not be started.
    #[error("cannot start the log writer")]
    Thread(#[source] std::io::Error),
}

/// Sets up logging to standard output for the whole process.
///
/// `filter` wins over `RUST_LOG`, which wins over [`DEFAULT_FILTER`]. Keep the
/// guard until the very end: dropping it writes what is still queued.
pub fn init(filter: Option<&str>, format: LogFormat) -> Result<LogGuard, InitError> {
    let filter = env_filter(filter)?;
    let max_level = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
    let (lines, guard) = lines::start(std::io::stdout()).map_err(InitError::Thread)?;
    tracing::subscriber::set_global_default(subscriber(filter, format, lines))
        .map_err(|_| InitError::AlreadySet)?;
    bridge::install(max_level).map_err(|_| InitError::AlreadySet)?;
    Ok(guard)
}

fn subscriber<W>(filter: EnvFilter, format: LogFormat, lines: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = filter.and(FilterFn::new(|metadata| {
        bridge::may_show(metadata.target(), *metadata.level())
    }));
    let layer = fmt::layer().with_writer(lines);
    let layer = match format {
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_filter(filter)
            .boxed(),
        LogFormat::Text => layer.with_ansi(false).with_filter(filter).boxed(),
    };
    Registry::default().with(layer)
}

fn env_filter(given: Option<&str>) -> Result<EnvFilter, InitError> {
    let from_environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let text = given
        .or(from_environment.as_deref())
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .unwrap_or(DEFAULT_FILTER);
    EnvFilter::try_new(text).map_err(|source| InitError::Filter {
        filter: text.to_owned(),
        source,
    })
}

#[cfg(test)]
mod init_tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing_log::log::{self, Log, Record};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic holds it").extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `log` leaves under `filter`, parsed.
    fn logged(filter: &str, log: impl FnOnce()) -> Vec<serde_json::Value> {
        let sink = Sink::default();
        let writer = sink.clone();
        let filter = env_filter(Some(filter)).expect("a valid filter");
        let subscriber = subscriber(filter, LogFormat::Json, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        let written = sink.0.lock().expect("no panic holds it").clone();
        let text = String::from_utf8(written).expect("text");
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().expect("JSON lines")
    }

    #[test]
    fn a_line_is_one_flat_object() {
        let lines = logged("info", || {
            tracing::info!(target: "tyr::access", request_id = "r1", status = 200, "request");
            tracing::debug!(target: "tyr::access", "not shown");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["request_id"], "r1");
        assert_eq!(lines[0]["status"], 200);
        assert_eq!(lines[0]["message"], "request");
        assert_eq!(lines[0]["target"], "tyr::access");
    }

    #[test]
    fn no_level_of_detail_shows_heads() {
        let lines = logged("trace,pingora_proxy=trace,h2=trace", || {
            tracing::trace!(target: "pingora_proxy", "Request header: canary");
            tracing::debug!(target: "h2::codec", "canary");
            tracing::trace!(target: "gateway::proxy", "shown");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["message"], "shown");
    }

    #[test]
    fn records_of_log_arrive_under_their_own_target_and_noise_does_not() {
        let bridge = bridge::Bridge::default();
        let record = |target: &str, message: std::fmt::Arguments<'_>| {
            let mut record = Record::builder();
            record.target(target).level(log::Level::Error);
            bridge.log(&record.args(message).build());
        };
        let lines = logged("info", || {
            record(
                "pingora_core::connectors",
                format_args!("failed to acquire reusable stream"),
            );
            record("pingora_core::server", format_args!("worth {}", "knowing"));
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["message"], "worth knowing");
        assert_eq!(lines[0]["target"], "pingora_core::server");
        assert_eq!(lines[0]["level"], "ERROR");
    }

    #[test]
    fn a_bad_filter_is_an_error_that_names_it() {
        let error = env_filter(Some("gateway=loud")).expect_err("no such level");
        assert!(error.to_string().contains("gateway=loud"), "{error}");
    }

    #[test]
    fn an_empty_filter_means_the_default() {
        let filter = env_filter(Some(" ")).expect("the default is valid");
        assert_eq!(filter.max_level_hint(), Some(LevelFilter::INFO));
    }
}
