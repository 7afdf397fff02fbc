//! The binary `mock-llm`: command line and runtime around the mock provider.
//!
//! It prints `mock-llm listening on ADDRESS` on stdout once it accepts connections, and ends at
//! SIGTERM, SIGINT.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use loadtest::{Mock, Options, serve};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BACKLOG: u32 = 4096;

/// A provider of language models that only pretends: OpenAI and Anthropic wire, faults on request.
#[derive(Debug, Parser)]
#[command(name = "mock-llm", version)]
struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// Milliseconds before the head of an answer.
    #[arg(long, default_value_t = 0)]
    ttft_ms: u64,
    /// Milliseconds between two output tokens.
    #[arg(long, default_value_t = 0)]
    token_ms: u64,
    /// Output tokens of an answer.
    #[arg(long, default_value_t = 20)]
    tokens: u64,
    /// Share of requests, 0 to 1, that fail.
    #[arg(long, default_value_t = 0.0)]
    error_rate: f64,
    /// Status of those.
    #[arg(long, default_value_t = 500)]
    error_status: u16,
    /// Start of the random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads that serve connections.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Directives for every request, e.g. "tokens=150 cached=10".
    #[arg(long, default_value = "")]
    directives: String,
    /// More names for the model list, separated by commas.
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,
    /// Count only: keep no headers, hashes and bodies (for benchmarks).
    #[arg(long)]
    no_record: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(
        (0.0..=1.0).contains(&args.error_rate),
        "--error-rate is a share from 0 to 1"
    );
    let mut builder = if args.workers <= 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(args.workers);
        builder
    };
    builder
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let listener =
        bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    let mock = Mock::new(Options {
        ttft: Duration::from_millis(args.ttft_ms),
        token_interval: Duration::from_millis(args.token_ms),
        tokens: args.tokens,
        error_rate: args.error_rate,
        error_status: args.error_status,
        seed: args.seed,
        directives: args.directives,
        models: args.models,
        record: !args.no_record,
    });
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut out = std::io::stdout();
    writeln!(out, "mock-llm listening on {address}")?;
    out.flush()?;
    tokio::select! {
        () = serve(listener, mock) => {}
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
