//! `env.NAME` and `file.PATH`: values that stand elsewhere.
//!
//! Promise: nothing is read unless asked for; what was read is never part of a
//! message. Relative paths are relative to the working folder.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use super::load::bytes;

/// Where references are read from.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `None`: those of this process.
    variables: Option<BTreeMap<String, String>>,
    /// What relative paths are relative to; empty: the working folder.
    folder: PathBuf,
}

impl Environment {
    /// This process's variables and working folder.
    pub fn of_process() -> Self {
        Environment {
            variables: None,
            folder: PathBuf::new(),
        }
    }

    /// These variables, and files relative to `folder`.
    pub fn of(variables: BTreeMap<String, String>, folder: PathBuf) -> Self {
        Environment {
            variables: Some(variables),
            folder,
        }
    }

    /// What a text stands for, itself or by reference.
    ///
    /// # Errors
    /// Why it cannot be read; nothing of the value.
    pub fn secret(&self, text: &str) -> Result<String, String> {
        match References::Resolve(self).read(text)? {
            Found::Text(text) => Ok(text),
            Found::Unread => Err("it was not read".to_owned()),
        }
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        let value = match &self.variables {
            Some(variables) => variables.get(name).cloned(),
            None => match env::var(name) {
                Ok(value) => Some(value),
                Err(env::VarError::NotPresent) => None,
                Err(env::VarError::NotUnicode(_)) => {
                    return Err(format!("the environment variable {name} is not UTF-8"));
                }
            },
        };
        match value {
            None => Err(format!("the environment variable {name} is not set")),
            Some(value) if value.is_empty() => {
                Err(format!("the environment variable {name} is empty"))
            }
            Some(value) => Ok(value),
        }
    }

    /// `path` as it is opened.
    pub(super) fn locate(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn content(&self, path: &str) -> Result<String, String> {
        let content = bytes(&self.locate(path))
            .map_err(|error| format!("the file {path} cannot be read: {error}"))?;
        let text =
            String::from_utf8(content).map_err(|_| format!("the file {path} is not UTF-8"))?;
        // Editors and `echo` end files with a line break that is no part of a secret.
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(format!("the file {path} is empty")),
            text => Ok(text.to_owned()),
        }
    }
}

/// The machine's name, where the system tells it.
pub(super) fn host_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = text.trim();
    let plain = name.chars().all(|c| c.is_ascii_graphic());
    (plain && !name.is_empty()).then(|| name.to_owned())
}

/// Whether references are read.
#[derive(Clone, Copy, Debug)]
pub enum References<'a> {
    /// From there; a missing one is a problem at its line.
    Resolve(&'a Environment),
    /// Only their form is judged.
    Skip,
}

/// What a text stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This, itself or read from where it points.
    Text(String),
    /// A reference that was not read.
    Unread,
}

/// A text taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written<'a> {
    Literal(&'a str),
    Variable(&'a str),
    File(&'a str),
}

/// Tells references from literals; `Err` says what is wrong with a reference.
pub(super) fn written(text: &str) -> Result<Written<'_>, String> {
    if let Some(name) = text.strip_prefix("env.") {
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        return match starts && plain {
            true => Ok(Written::Variable(name)),
            false => Err("expected the name of an environment variable after `env.`".to_owned()),
        };
    }
    if let Some(path) = text.strip_prefix("file.") {
        return match path.trim().is_empty() || path.contains('\0') {
            false => Ok(Written::File(path)),
            true => Err("expected a path after `file.`".to_owned()),
        };
    }
    Ok(Written::Literal(text))
}

impl References<'_> {
    /// What `text` stands for.
    pub(super) fn read(&self, text: &str) -> Result<Found, String> {
        Ok(match (written(text)?, self) {
            (Written::Literal(text), _) => Found::Text(text.to_owned()),
            (_, References::Skip) => Found::Unread,
            (Written::Variable(name), References::Resolve(environment)) => {
                Found::Text(environment.variable(name)?)
            }
            (Written::File(path), References::Resolve(environment)) => {
                Found::Text(environment.content(path)?)
            }
        })
    }

    /// Whether a file that is only named can be opened; always, when skipping.
    pub(super) fn opens(&self, path: &Path) -> Result<(), String> {
        let References::Resolve(environment) = self else {
            return Ok(());
        };
        bytes(&environment.folder.join(path))
            .map(|_| ())
            .map_err(|error| format!("the file {} cannot be read: {error}", path.display()))
    }
}
