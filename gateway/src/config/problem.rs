//! What is wrong with a configuration, and where.
//!
//! Promise: a problem names the file and the line that an operator has to
//! edit, and never shows a secret.

use std::fmt;
use std::path::PathBuf;

/// One finding. Shown as `file:line: path: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the operator named it (or below the folder they named);
    /// `api: teams/search` for an entity that the API made.
    pub file: PathBuf,
    /// The line, from 1; 0 when the file could not be read at all, and for
    /// entities of the API.
    pub line: u32,
    /// The field, such as `virtual_keys[0].budgets[1].limit_usd`; empty for
    /// the whole document. List positions count within the file. In an entity
    /// of the API, a JSON pointer.
    pub path: String,
    /// What is wrong and what would be right; lowercase, no full stop.
    pub message: String,
}

/// How the place of an entity of the API begins, where files have a path.
const API: &str = "api: ";

/// Where an entity of the API stands: its kind's path and its name.
pub(crate) fn api_place(path: &str, name: &str) -> PathBuf {
    PathBuf::from(format!("{API}{path}/{name}"))
}

impl Problem {
    /// `teams/search`, for a problem with an entity of the API.
    pub(crate) fn entity(&self) -> Option<&str> {
        let file = self.file.to_str().filter(|_| self.line == 0)?;
        file.strip_prefix(API)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entity().is_some() {
            let separator = if self.path.is_empty() { "" } else { ": " };
            let file = self.file.display();
            return write!(f, "{file}{separator}{}: {}", self.path, self.message);
        }
        let path = match self.path.as_str() {
            "" => "document",
            path => path,
        };
        let file = self.file.display();
        write!(f, "{file}:{}: {path}: {}", self.line, self.message)
    }
}

impl std::error::Error for Problem {}

/// The way from the document's root to a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldPath(Vec<Step>);

/// One step of a `FieldPath`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Into the field of a mapping.
    Key(String),
    /// Into an item of a list, from 0.
    Index(usize),
}

impl FieldPath {
    /// The whole document.
    pub(crate) fn root() -> Self {
        FieldPath::default()
    }

    /// The field `name` below this one.
    pub(crate) fn key(&self, name: &str) -> Self {
        self.with(Step::Key(name.to_owned()))
    }

    /// The item `index` of this list, from 0.
    pub(crate) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// What is left below the item of a list that it leads into; the whole
    /// where it leads into none.
    pub(crate) fn within_item(&self) -> Self {
        let item = self
            .0
            .iter()
            .position(|step| matches!(step, Step::Index(_)));
        let from = item.map_or(0, |index| index + 1);
        FieldPath(self.0[from..].to_vec())
    }

    /// As a JSON pointer (RFC 6901).
    pub(crate) fn pointer(&self) -> String {
        let mut pointer = String::new();
        for step in &self.0 {
            pointer.push('/');
            match step {
                Step::Key(name) => pointer.push_str(&name.replace('~', "~0").replace('/', "~1")),
                Step::Index(index) => pointer.push_str(&index.to_string()),
            }
        }
        pointer
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        FieldPath(steps)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(name) if at == 0 => f.write_str(name)?,
                Step::Key(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
