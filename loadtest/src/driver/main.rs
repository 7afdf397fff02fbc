//! The binary `load-driver`: the promises of the k6 scripts, checked by a bounded driver of our
//! own where k6 cannot be had.
//!
//! Promise: it ends by itself (time and number of requests are capped) and its exit code is 1 when
//! a promise was broken. Latencies are taken from the moment a request was due, so a stalled
//! server is not flattered.

mod report;
mod scenarios;
mod target;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use report::Report;
use target::Target;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longest run.
const MAX_SECONDS: u64 = 600;
/// Most requests in one run.
const MAX_REQUESTS: u64 = 5_000_000;

#[derive(Debug, Parser)]
#[command(name = "load-driver", version)]
struct Command {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Args)]
struct At {
    /// Base URL without `/v1`.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    target: String,
    /// Virtual key; empty sends none.
    #[arg(long, default_value = "")]
    key: String,
    #[arg(long, default_value = "gpt-4o-mini")]
    model: String,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Whole answers at a fixed rate: no errors, every answer complete, usage present.
    Unary {
        #[command(flatten)]
        at: At,
        /// Requests per second.
        #[arg(long, default_value_t = 200)]
        rate: u64,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Requests under way at once, at most.
        #[arg(long, default_value_t = 64)]
        in_flight: usize,
    },
    /// Streams side by side: every one whole and ended by `[DONE]`.
    Streaming {
        #[command(flatten)]
        at: At,
        #[arg(long, default_value_t = 50)]
        streams: usize,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Output tokens of each.
        #[arg(long, default_value_t = 20)]
        tokens: u64,
        /// Milliseconds between two.
        #[arg(long, default_value_t = 5)]
        token_ms: u64,
    },
    /// A burst over a request limit: exactly the limit is admitted, the rest is told when to return.
    Limits {
        #[command(flatten)]
        at: At,
        /// The key's limit per window.
        #[arg(long, default_value_t = 50)]
        limit: u64,
        /// Requests of the burst.
        #[arg(long, default_value_t = 200)]
        requests: u64,
        #[arg(long, default_value_t = 32)]
        in_flight: usize,
    },
    /// A limit that several nodes share, asked in turn: `--target` names them with commas between.
    Cluster {
        #[command(flatten)]
        at: At,
        /// The key's limit per window, of all nodes together.
        #[arg(long, default_value_t = 50)]
        limit: u64,
        #[arg(long, default_value_t = 200)]
        requests: u64,
        /// Requests a second of all nodes; when absent, all of them take ten seconds.
        #[arg(long)]
        rate: Option<u64>,
        /// How many more than the limit may be admitted; when absent, what comes within 150 ms: so
        /// long it may take until all nodes hear of an admission.
        #[arg(long)]
        slack: Option<u64>,
        #[arg(long, default_value_t = 64)]
        in_flight: usize,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let command = Command::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(run(command.scenario))?;
    report.print(&mut std::io::stdout())?;
    Ok(if report.kept() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn run(scenario: Scenario) -> anyhow::Result<Report> {
    let target = |at: &At| Target::new(&at.target, &at.key, &at.model);
    let time = |seconds: u64| Duration::from_secs(seconds.clamp(1, MAX_SECONDS));
    match scenario {
        Scenario::Unary {
            at,
            rate,
            seconds,
            in_flight,
        } => {
            let count = (rate * seconds.clamp(1, MAX_SECONDS)).min(MAX_REQUESTS);
            Ok(scenarios::unary(target(&at)?, rate.max(1), count, in_flight.max(1)).await)
        }
        Scenario::Streaming {
            at,
            streams,
            seconds,
            tokens,
            token_ms,
        } => Ok(scenarios::streaming(
            target(&at)?,
            streams.max(1),
            time(seconds),
            tokens,
            token_ms,
        )
        .await),
        Scenario::Limits {
            at,
            limit,
            requests,
            in_flight,
        } => {
            let requests = requests.min(MAX_REQUESTS);
            Ok(scenarios::limits(target(&at)?, limit, requests, in_flight.max(1)).await)
        }
        Scenario::Cluster {
            at,
            limit,
            requests,
            rate,
            slack,
            in_flight,
        } => {
            let bases = at.target.split(',');
            let targets = bases.map(|base| Target::new(base, &at.key, &at.model));
            let targets = targets.collect::<anyhow::Result<Vec<Target>>>()?;
            let requests = requests.min(MAX_REQUESTS);
            let rate = rate.unwrap_or(requests.div_ceil(10)).max(1);
            let shared = scenarios::Shared {
                limit,
                requests,
                rate,
                slack: slack.unwrap_or((rate * 3).div_ceil(20)),
                in_flight: in_flight.max(1),
            };
            Ok(scenarios::cluster(&targets, shared).await)
        }
    }
}
