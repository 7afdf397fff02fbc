//! `tyr import bifrost|litellm FILE`.

use std::path::Path;
use std::process::ExitCode;

use super::{complain, print};
use crate::import::{Format, import};

/// Prints what a Bifrost `config.json` is here; notes go to stderr.
pub fn bifrost(file: &Path) -> ExitCode {
    run(Format::Bifrost, file)
}

/// Prints what a LiteLLM `config.yaml` is here; notes go to stderr.
pub fn litellm(file: &Path) -> ExitCode {
    run(Format::LiteLlm, file)
}

fn run(format: Format, file: &Path) -> ExitCode {
    let imported = std::fs::read_to_string(file)
        .map_err(|error| error.to_string())
        .and_then(|text| import(format, &text).map_err(|error| error.to_string()));
    let imported = match imported {
        Ok(imported) => imported,
        Err(error) => {
            complain(&format!("tyr: {}: {error}", file.display()));
            return ExitCode::FAILURE;
        }
    };
    for note in &imported.notes {
        complain(&format!("{}: {}", note.path, note.why));
    }
    let printed = print(&imported.yaml);
    if imported.problems.is_empty() {
        return printed;
    }
    complain("tyr: the result has problems: correct these lines of it");
    for problem in &imported.problems {
        complain(&problem.to_string());
    }
    ExitCode::FAILURE
}
