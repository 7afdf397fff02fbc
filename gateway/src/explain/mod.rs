//! `tyr explain`: asks a node's admin port what would happen to a request, and
//! prints it for people or, with `--json`, as it came.
//!
//! Failure answer: a node that cannot be reached or refuses is an error with
//! its own words; nothing is printed to stdout then.

mod text;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use http::Method;

use crate::admin::explain::{Explanation, Question};
use crate::ask::{AdminPort, AskError};

/// What `tyr explain` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The node's admin port.
    #[arg(long, default_value = "http://127.0.0.1:9090")]
    admin: String,
    /// The name of the virtual key.
    #[arg(long)]
    key: String,
    /// The model as a client would name it.
    #[arg(long)]
    model: String,
    /// Its path or name; default: /v1/chat/completions.
    #[arg(long)]
    endpoint: Option<String>,
    /// Most tokens of an answer.
    #[arg(long)]
    max_tokens: Option<u64>,
    /// Bytes of text of the prompt.
    #[arg(long, default_value_t = 0)]
    prompt_bytes: u64,
    /// A header that routing rules look at, as name=value; may be repeated.
    #[arg(long = "header", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// Answers asked for at once.
    #[arg(long, default_value_t = 1)]
    answers: u64,
    /// The end user.
    #[arg(long)]
    user: Option<String>,
    /// Whether the answer would be a stream.
    #[arg(long)]
    stream: bool,
    /// Print the answer of the node as it is.
    #[arg(long)]
    json: bool,
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The node did not explain.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// stdout is closed.
    #[error("cannot print")]
    Print(#[source] std::io::Error),
}

/// Asks and prints. `token` is what the environment has.
pub fn explain(arguments: &Arguments, token: Option<String>) -> ExitCode {
    match run(arguments, token) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(std::io::stderr().lock(), "tyr: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, token: Option<String>) -> Result<(), ExplainError> {
    let port = AdminPort::new(&arguments.admin, token)?;
    let question = Question {
        key: arguments.key.clone(),
        model: arguments.model.clone(),
        endpoint: arguments.endpoint.clone(),
        headers: arguments.headers.iter().cloned().collect(),
        params: BTreeMap::new(),
        max_tokens: arguments.max_tokens,
        prompt_bytes: arguments.prompt_bytes,
        answers: arguments.answers,
        user: arguments.user.clone(),
        stream: arguments.stream,
    };
    let question = serde_json::to_value(&question).map_err(AskError::Unreadable)?;
    let answer = port.ask(Method::POST, "/api/explain", Some(&question))?;
    let printed = match arguments.json {
        true => format!("{answer:#}\n"),
        false => {
            let explanation: Explanation =
                serde_json::from_value(answer).map_err(AskError::Unreadable)?;
            text::of(&explanation)
        }
    };
    let mut out = std::io::stdout().lock();
    out.write_all(printed.as_bytes())
        .map_err(ExplainError::Print)
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.to_owned()))
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| "expected name=value".to_owned())
}
