//! From another gateway's configuration to ours.
//!
//! Promise: nothing of the source is dropped in silence: each of its values
//! either shapes the result or is named in a note with the reason. Secrets
//! never leave the source: the result refers to environment variables, and a
//! note says which value each of them needs. The same source gives the same
//! result. Nothing is read or written here but the given text.
//!
//! In order: `source` (the text as a tree that knows what was read), `bifrost`
//! and `litellm` (what the tree means), `plan` (ours, and how it is written).

mod amount;
mod bifrost;
mod litellm;
mod names;
mod plan;
mod reasons;
mod secret;
mod source;
#[cfg(test)]
mod tests;
mod vendor;
mod yaml;

use std::path::PathBuf;

use crate::config::{self, Problem, References};
use plan::Plan;
use source::Notes;

/// Whose configuration a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Bifrost's `config.json`.
    Bifrost,
    /// LiteLLM's `config.yaml`.
    LiteLlm,
}

/// A configuration of ours, and what to know about it.
#[derive(Debug)]
pub struct Imported {
    /// A file for `conf/`.
    pub yaml: String,
    /// In the order of the source.
    pub notes: Vec<Note>,
    /// Why `tyr check` refuses the result, if it does.
    pub problems: Vec<Problem>,
}

/// Something of the source that has no counterpart, or was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where in the source: `providers.openai.keys[0].value`.
    pub path: String,
    /// What became of it.
    pub why: String,
}

/// A source that is not what it was said to be. Nothing was made of it.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Not JSON.
    #[error("not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Not YAML, or more than can be followed.
    #[error("line {line}: {message}")]
    Yaml {
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Neither a mapping nor empty.
    #[error("expected a mapping of sections")]
    NoMapping,
}

/// Turns a configuration of another gateway into one of ours.
///
/// # Errors
/// When the text cannot be read as that configuration at all.
pub fn import(format: Format, text: &str) -> Result<Imported, ImportError> {
    let root = match format {
        Format::Bifrost => source::json(text)?,
        Format::LiteLlm => source::yaml(text)?,
    };
    let mut notes = Notes::default();
    let mut plan = match format {
        Format::Bifrost => bifrost::plan(&root, &mut notes),
        Format::LiteLlm => litellm::plan(&root, &mut notes),
    };
    notes.unread(&root, |path| match format {
        Format::Bifrost => bifrost::reason(path),
        Format::LiteLlm => litellm::reason(path),
    });
    let mut problems = judge(&plan);
    if leave_out_rules(&mut plan, &problems, &mut notes) {
        problems = judge(&plan);
    }
    Ok(Imported {
        yaml: plan.to_yaml(),
        notes: notes.in_order(),
        problems,
    })
}

/// What `tyr check` says of the result.
fn judge(plan: &Plan) -> Vec<Problem> {
    let text = [(PathBuf::from("imported.yaml"), plan.to_yaml())];
    let judged = config::parse_all(&text)
        .and_then(|document| config::check(&document, References::Skip).map(|_| ()));
    judged.err().unwrap_or_default()
}

/// Takes out the rules that are refused, so that the rest can be used; tells
/// whether there were any.
fn leave_out_rules(plan: &mut Plan, problems: &[Problem], notes: &mut Notes) -> bool {
    let rule = |problem: &Problem| {
        let rest = problem.path.strip_prefix("routing_rules[")?;
        rest.split_once(']')?.0.parse::<usize>().ok()
    };
    let mut refused: Vec<usize> = problems.iter().filter_map(rule).collect();
    refused.sort_unstable();
    refused.dedup();
    refused.retain(|index| *index < plan.rules.len());
    for index in refused.iter().rev() {
        let found = problems
            .iter()
            .find(|problem| rule(problem) == Some(*index));
        let message = found.map_or("", |problem| problem.message.as_str());
        let (at, _) = plan.rules.remove(*index);
        notes.at(&at, format!("the rule was left out: {message}"));
    }
    !refused.is_empty()
}
