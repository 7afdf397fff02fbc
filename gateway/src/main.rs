//! The command line of Tyr. Everything else is in the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use gateway::commands;

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
    /// Say what would happen to a request, and why; needs TYR_ADMIN_TOKEN.
    Explain(gateway::explain::Arguments),
    /// Print the JSON Schema of the YAML.
    Schema,
    /// Turn another gateway's configuration into one for `conf/`; what has no
    /// counterpart is listed on stderr.
    #[command(subcommand)]
    Import(Source),
    /// The audit log of changes made through the admin API.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The nodes of a cluster, as one of them sees them; needs TYR_ADMIN_TOKEN.
    #[command(subcommand)]
    Cluster(commands::cluster::Question),
    /// Seal all stored secrets with the first key of `encryption.keys`; nodes
    /// may run meanwhile, and have to know that key.
    RotateKeys(Conf),
    /// Bring the store's schema up to date.
    Migrate(Conf),
}

#[derive(Subcommand)]
enum Source {
    /// Bifrost's `config.json`.
    Bifrost {
        /// The file.
        file: PathBuf,
    },
    /// LiteLLM's `config.yaml`.
    Litellm {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Check that no row was altered, removed, inserted or moved.
    Verify(Conf),
}

#[derive(Args)]
struct Conf {
    /// One YAML file, or a folder whose `*.yaml` are merged.
    #[arg(long, default_value = "conf/tyr.yaml")]
    conf: PathBuf,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { conf, upgrade } => gateway::startup::serve(&conf, upgrade),
        Command::Check { conf, resolve } => gateway::startup::check(&conf, resolve),
        Command::Explain(arguments) => {
            gateway::explain::explain(&arguments, std::env::var("TYR_ADMIN_TOKEN").ok())
        }
        Command::Schema => gateway::startup::schema(),
        Command::Import(Source::Bifrost { file }) => commands::bifrost(&file),
        Command::Import(Source::Litellm { file }) => commands::litellm(&file),
        Command::Audit(AuditCommand::Verify(Conf { conf })) => commands::verify_audit(&conf),
        Command::Cluster(question) => {
            commands::cluster::ask(&question, std::env::var("TYR_ADMIN_TOKEN").ok())
        }
        Command::RotateKeys(Conf { conf }) => commands::rotate_keys(&conf),
        Command::Migrate(Conf { conf }) => commands::migrate(&conf),
    }
}
