//! Judges a tree by the schema and says what is wrong in the words of the file.
//!
//! Promise: every unknown field, missing field, wrong type and malformed value
//! is reported at once, each with its line. Values of secrets are not shown.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value as Json;

use super::catalogue::Kind;
use super::file::text::expectation;
use super::problem::{FieldPath, Problem};
use super::schema::{Compiled, entity_validator, validator};
use super::tree::{Node, Value};
use super::unbuilt;

/// What is wrong with a document by its schema.
#[derive(Default)]
pub(super) struct Verdict {
    /// In order of file and line; empty when the document fits.
    pub problems: Vec<Problem>,
    /// The unknown fields, if they are all that is wrong: without them the
    /// rest can be judged in the same run.
    pub unknown: Option<Vec<FieldPath>>,
}

/// All that is wrong with the document by the schema.
pub(super) fn validate(root: &Node) -> Verdict {
    verdict(root, validator())
}

/// All that is wrong with an entity of the API by the schema.
pub(super) fn validate_entity(kind: Kind, root: &Node) -> Vec<Problem> {
    verdict(root, entity_validator(kind)).problems
}

fn verdict(root: &Node, compiled: &Compiled) -> Verdict {
    let json = root.to_json();
    let mut findings = Findings {
        root,
        compiled,
        problems: Vec::new(),
        unknown: Vec::new(),
        others: false,
    };
    for error in compiled.validator.iter_errors(&json) {
        findings.add(&error);
    }
    let mut problems = findings.problems;
    problems.sort_by(|a, b| (&a.file, a.line, &a.path).cmp(&(&b.file, b.line, &b.path)));
    problems.dedup();
    let unknown = (!findings.others).then_some(findings.unknown);
    Verdict { problems, unknown }
}

struct Findings<'a> {
    root: &'a Node,
    compiled: &'a Compiled,
    problems: Vec<Problem>,
    unknown: Vec<FieldPath>,
    others: bool,
}

impl Findings<'_> {
    fn add(&mut self, error: &ValidationError<'_>) {
        let path = self.field_path(error.instance_path().as_str());
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let known = self.known_fields(error.schema_path().as_str());
                for name in unexpected {
                    let message = unknown_field(name, &known);
                    let path = path.key(name);
                    self.problems.push(self.root.problem(&path, message));
                    self.unknown.push(path);
                }
            }
            ValidationErrorKind::AnyOf { context }
            | ValidationErrorKind::OneOfNotValid { context } => {
                match closest(context, error.instance_path().as_str()) {
                    Some(branch) => branch.iter().for_each(|error| self.add(error)),
                    None => self.report(&path, alternatives(&path, context, error.instance())),
                }
            }
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                self.report(&path, format!("`{name}` is missing"));
            }
            // A wrong type is a finding of its own.
            ValidationErrorKind::Constant { expected_value }
                if std::mem::discriminant(&**expected_value)
                    != std::mem::discriminant(&**error.instance()) => {}
            kind => {
                let message = value_problem(&path, kind, error);
                self.report(&path, message);
            }
        }
    }

    fn report(&mut self, path: &FieldPath, message: String) {
        self.others = true;
        self.problems.push(self.root.problem(path, message));
    }

    /// A JSON pointer as a path of ours.
    fn field_path(&self, pointer: &str) -> FieldPath {
        let mut path = FieldPath::root();
        let mut node = Some(self.root);
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let (next, below) = match node.map(|node| &node.value) {
                Some(Value::List(items)) => {
                    let index = token.parse().unwrap_or(usize::MAX);
                    (path.index(index), items.get(index))
                }
                _ => {
                    let below = node.and_then(|node| node.entry(&token));
                    (path.key(&token), below.map(|entry| &entry.node))
                }
            };
            (path, node) = (next, below);
        }
        path
    }

    /// The fields that the schema object around `schema_path` declares.
    fn known_fields(&self, schema_path: &str) -> Vec<String> {
        let object = schema_path
            .rsplit_once('/')
            .and_then(|(object, _)| self.compiled.schema.pointer(object));
        object
            .and_then(|object| object.get("properties"))
            .and_then(Json::as_object)
            .map(|fields| fields.keys().cloned().collect())
            .unwrap_or_default()
    }
}

/// The branch that was meant: the one whose own type fits.
fn closest<'a>(
    context: &'a [Vec<ValidationError<'static>>],
    pointer: &str,
) -> Option<&'a [ValidationError<'static>]> {
    context
        .iter()
        .find(|branch| {
            !branch.iter().any(|error| {
                error.instance_path().as_str() == pointer
                    && matches!(
                        error.kind(),
                        ValidationErrorKind::Type { .. } | ValidationErrorKind::Constant { .. }
                    )
            })
        })
        .map(Vec::as_slice)
}

fn alternatives(
    path: &FieldPath,
    context: &[Vec<ValidationError<'static>>],
    found: &Json,
) -> String {
    if let Some(message) = unbuilt::value(path, found) {
        return message;
    }
    if found.is_null() {
        return NO_VALUE.to_owned();
    }
    let mut expected = Vec::new();
    for error in context.iter().flatten() {
        let words = match error.kind() {
            ValidationErrorKind::Constant { expected_value } => shown(expected_value),
            ValidationErrorKind::Type { kind } => types(kind),
            _ => continue,
        };
        // A fixed word says more than its type.
        if words != "text" && !expected.contains(&words) {
            expected.push(words);
        }
    }
    format!(
        "expected {}, found {}",
        expected.join(" or "),
        found_value(found)
    )
}

const NO_VALUE: &str = "has no value: give it one or remove the line";

fn unknown_field(name: &str, known: &[String]) -> String {
    match nearest(name, known) {
        Some(close) => format!("unknown field `{name}`, did you mean `{close}`?"),
        None => format!("unknown field `{name}`; known are {}", quoted(known)),
    }
}

fn quoted(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn value_problem(
    path: &FieldPath,
    kind: &ValidationErrorKind,
    error: &ValidationError<'_>,
) -> String {
    let found: &Json = error.instance();
    match kind {
        ValidationErrorKind::Type { .. } if found.is_null() => NO_VALUE.to_owned(),
        ValidationErrorKind::Type { kind } => {
            let expected = types(kind);
            if expected == "a whole number" && found.is_number() {
                return format!("expected {expected}, found {}", found_value(found));
            }
            let hint = match found {
                Json::Number(_) | Json::Bool(_) if expected == "text" => "; put it in quotes",
                _ => "",
            };
            format!("expected {expected}, found {}{hint}", found_text(found))
        }
        ValidationErrorKind::Enum { options } => unbuilt::value(path, found).unwrap_or_else(|| {
            let words: Vec<_> = options
                .as_array()
                .into_iter()
                .flatten()
                .map(shown)
                .collect();
            format!(
                "expected one of {}, found {}",
                words.join(", "),
                found_value(found)
            )
        }),
        ValidationErrorKind::Constant { expected_value } => unbuilt::value(path, found)
            .unwrap_or_else(|| {
                format!(
                    "expected {}, found {}",
                    shown(expected_value),
                    found_value(found)
                )
            }),
        ValidationErrorKind::Pattern { pattern } => {
            let expected = expectation(pattern).unwrap_or("another form");
            format!("expected {expected}, found {}", found_value(found))
        }
        ValidationErrorKind::Minimum { limit } => format!("must be {limit} or more, is {found}"),
        ValidationErrorKind::Maximum { limit } => format!("must be {limit} or less, is {found}"),
        ValidationErrorKind::MinLength { .. } | ValidationErrorKind::MinItems { .. } => {
            "must not be empty".to_owned()
        }
        _ => error.masked().to_string(),
    }
}

/// A value that is a word, a number or a length: never a secret, those have no
/// pattern, no list of words and no range.
fn found_value(found: &Json) -> String {
    match found {
        Json::String(text) => format!("`{}`", text.escape_debug()),
        Json::Number(number) => format!("`{number}`"),
        other => found_text(other).to_owned(),
    }
}

fn found_text(found: &Json) -> &'static str {
    match found {
        Json::Null => "nothing",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) => "a list",
        Json::Object(_) => "a mapping",
    }
}

fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

fn types(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(one) => type_name(*one).to_owned(),
        TypeKind::Multiple(several) => {
            let names: Vec<_> = several.iter().map(type_name).collect();
            names.join(" or ")
        }
    }
}

fn type_name(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Array => "a list",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Null => "nothing",
        JsonType::Number => "a number",
        JsonType::Object => "a mapping",
        JsonType::String => "text",
    }
}

/// The known name that `name` was most likely meant to be.
pub(super) fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits that turn one name into the other; a swap of neighbours is one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        (before, last) = (last, row);
    }
    last[b.len()]
}
