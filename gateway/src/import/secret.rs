//! Where secrets of the source go: into the environment, never into the result.

use std::collections::BTreeSet;

use super::source::{Node, Notes, Value};

/// The environment variables that were made up so far.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    names: BTreeSet<String>,
}

impl Secrets {
    /// What stands for a secret: the source's own reference, or a variable
    /// named after `hint` with a note that says what to put into it.
    pub(super) fn reference(&mut self, notes: &mut Notes, node: &Node, hint: &[&str]) -> String {
        if let Some(variable) = variable(node) {
            node.see_all();
            return format!("env.{variable}");
        }
        let name = self.name(hint);
        let why = match &node.value {
            Value::Text(text) if text.starts_with("vault.") => {
                format!("set {name}: values are not read from a vault")
            }
            _ => format!("set {name} to the value that stands here"),
        };
        notes.add(node, why);
        format!("env.{name}")
    }

    /// A variable for a secret that the source does not have.
    pub(super) fn missing(
        &mut self,
        notes: &mut Notes,
        node: &Node,
        hint: &[&str],
        why: &str,
    ) -> String {
        let name = self.name(hint);
        notes.at(&node.at, format!("set {name}: {why}"));
        format!("env.{name}")
    }

    /// `OPENAI_MAIN_KEY`, with a number when it is taken.
    fn name(&mut self, hint: &[&str]) -> String {
        let word = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        };
        let mut stem: String = hint.join("_").chars().map(word).collect();
        stem.truncate(80);
        let stem = format!("TYR_{}", stem.trim_matches('_'));
        let mut name = stem.clone();
        let mut number = 1;
        while !self.names.insert(name.clone()) {
            number += 1;
            name = format!("{stem}_{number}");
        }
        name
    }
}

/// The variable that a value refers to, in any of the sources' ways:
/// `env.NAME`, `os.environ/NAME`, `{type: env, ref: NAME}`, `{env_var: NAME}`.
pub(super) fn variable(node: &Node) -> Option<String> {
    let text = match &node.value {
        Value::Text(text) => text.as_str(),
        Value::Map(_) => {
            let named = |name: &str| match &node.field(name)?.value {
                Value::Text(text) => Some(text.as_str()),
                _ => None,
            };
            let is_env = named("type") == Some("env");
            match named("ref").filter(|_| is_env).or_else(|| named("env_var")) {
                Some(name) => return is_name(name.trim_start_matches("env.")),
                None => named("value")?,
            }
        }
        _ => return None,
    };
    let name = text
        .strip_prefix("env.")
        .or_else(|| text.strip_prefix("os.environ/"))?;
    is_name(name)
}

fn is_name(name: &str) -> Option<String> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (starts && plain).then(|| name.to_owned())
}

/// An address of the source as ours: its text, or the variable that holds it.
/// One that carries a password counts as a secret.
pub(super) fn address(
    secrets: &mut Secrets,
    notes: &mut Notes,
    node: &Node,
    hint: &[&str],
) -> Option<String> {
    if let Some(variable) = variable(node) {
        node.see_all();
        return Some(format!("env.{variable}"));
    }
    let text = node.as_text()?;
    if super::vendor::has_password(text) || text.starts_with("file.") {
        return Some(secrets.reference(notes, node, hint));
    }
    Some(text.to_owned())
}
