//! `tyr cluster status` and `tyr cluster diagnose`: what a node sees of the
//! others, for people or, with `--json`, as it came.
//!
//! `diagnose` prints each finding as it comes and ends with 0 only when every
//! check was made and passed.

mod text;

use std::io::Write;
use std::process::ExitCode;

use http::Method;

use super::{CommandError, complain, conclude};
use crate::admin::{ClusterShown, DiagnosisLine};
use crate::ask::{AdminPort, AskError};

/// What is asked of the node.
#[derive(Debug, clap::Subcommand)]
pub enum Question {
    /// The nodes, who leads, how far behind each is, and what is wrong.
    Status(Arguments),
    /// Check the way to every node, now.
    Diagnose(Arguments),
}

/// Whom to ask, and how to print the answer.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The node's admin port.
    #[arg(long, default_value = "http://127.0.0.1:9090")]
    admin: String,
    /// Print the answer of the node as it is.
    #[arg(long)]
    json: bool,
}

/// Asks and prints. `token` is what the environment has.
pub fn ask(question: &Question, token: Option<String>) -> ExitCode {
    match question {
        Question::Status(arguments) => conclude(status(arguments, token)),
        Question::Diagnose(arguments) => match diagnose(arguments, token) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&format!("tyr: {error}"));
                ExitCode::FAILURE
            }
        },
    }
}

fn status(arguments: &Arguments, token: Option<String>) -> Result<String, CommandError> {
    let port = AdminPort::new(&arguments.admin, token)?;
    let answer = port.ask(Method::GET, "/api/cluster", None)?;
    if arguments.json {
        return Ok(format!("{answer:#}\n"));
    }
    let shown: ClusterShown = serde_json::from_value(answer).map_err(AskError::Unreadable)?;
    Ok(text::of(&shown))
}

fn diagnose(arguments: &Arguments, token: Option<String>) -> Result<(), CommandError> {
    let port = AdminPort::new(&arguments.admin, token)?;
    let mut out = std::io::stdout().lock();
    let (mut end, mut unread) = (None, None);
    port.ask_lines("/api/cluster/diagnose", |line| {
        let text = line.to_string();
        match serde_json::from_value(line) {
            Ok(DiagnosisLine::Found(finding)) => {
                let printed = match arguments.json {
                    true => text,
                    false => text::of_finding(&finding),
                };
                // A reader that left wants no more lines.
                writeln!(out, "{printed}")
                    .and_then(|()| out.flush())
                    .is_ok()
            }
            Ok(DiagnosisLine::End { done, failed }) => {
                end = Some((done, failed));
                false
            }
            Err(error) => {
                unread = Some(error);
                false
            }
        }
    })?;
    match (unread, end) {
        (Some(error), _) => Err(AskError::Unreadable(error).into()),
        (None, Some((true, 0))) => Ok(()),
        (None, Some((true, failed))) => Err(CommandError::Found(format!("{failed} checks failed"))),
        (None, _) => Err(CommandError::Found(
            "the diagnosis was cut off before its end".to_owned(),
        )),
    }
}
