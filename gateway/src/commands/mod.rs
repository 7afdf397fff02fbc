//! Commands that run beside a node, or without one, and end.
//!
//! Promise: each prints its result on stdout and what is wrong on stderr, and
//! ends with 0 only when all of it was done. They read only the parts of the
//! configuration they need, so that a job needs no secrets of providers.

mod audit;
pub mod cluster;
mod import;
mod migrate;
mod rotate;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use ::cluster::{OpenStore, StartError, StoreConfig, StoreError};

use crate::ask::AskError;
use crate::config::{self, Environment, Problem};
use crate::startup::store_config;
use crate::vault::KeyRing;

pub use self::audit::verify_audit;
pub use self::import::{bifrost, litellm};
pub use self::migrate::migrate;
pub use self::rotate::rotate_keys;

/// Why a command could not do its work. What it says was done before is done.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// The operator corrects the file.
    #[error("the configuration has problems\n{}", lines(.0))]
    Configuration(Vec<Problem>),
    /// The store is described wrongly.
    #[error("store: {0}")]
    Settings(String),
    /// The store could not be opened.
    #[error("the store cannot be opened: {0}")]
    Open(#[from] StartError),
    /// The store failed while it was used; the command can be repeated.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// The node could not be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// What the command looked at is not as it should be.
    #[error("{0}")]
    Found(String),
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// The store of a configuration and the keys of its secrets.
struct Opened {
    store: OpenStore,
    ring: KeyRing,
}

/// Opens the store of the configuration at `conf`, with `change` applied to
/// how it is reached.
fn open(
    conf: &Path,
    change: impl FnOnce(StoreConfig) -> StoreConfig,
) -> Result<Opened, CommandError> {
    let environment = Environment::of_process();
    let settings = config::load(conf)
        .and_then(|document| config::store_and_keys(&document, &environment))
        .map_err(CommandError::Configuration)?;
    let (settings, ring) = settings;
    let config = store_config(&settings, &environment)
        .map_err(|error| CommandError::Settings(format!("{error:#}")))?;
    let store = ::cluster::open_store(&change(config))?;
    Ok(Opened { store, ring })
}

/// Prints the outcome of a command.
fn conclude(outcome: Result<String, CommandError>) -> ExitCode {
    match outcome {
        Ok(text) => print(&text),
        Err(error) => {
            complain(&format!("tyr: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints whole text; fails when nobody takes it.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Writes a line to stderr; one that nobody takes is lost.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
