//! The command line of Tyr. Everything else is in the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Fewer page faults and less contention than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A gateway for LLM traffic.
#[derive(Parser)]
#[command(name = "tyr", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node.
    Serve {
        /// One YAML file, or a folder whose `*.yaml` are merged.
        #[arg(long, default_value = "conf/tyr.yaml")]
        conf: PathBuf,
        /// Take over the listening sockets of the running process; then send
        /// it SIGQUIT.
        #[arg(long)]
        upgrade: bool,
    },
    /// Validate the configuration; prints every error as `file:line: path: message`.
    Check {
        /// One YAML file, or a folder whose `*.yaml` are merged.
        #[arg(long, default_value = "conf/tyr.yaml")]
        conf: PathBuf,
        /// Also read what `env.` and `file.` references name.
        #[arg(long)]
        resolve: bool,
    },
    /// Print the JSON Schema of the YAML.
    Schema,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { conf, upgrade } => gateway::startup::serve(&conf, upgrade),
        Command::Check { conf, resolve } => gateway::startup::check(&conf, resolve),
        Command::Schema => gateway::startup::schema(),
    }
}
