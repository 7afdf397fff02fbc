//! From what a caller sent to what is stored.
//!
//! Promise: every problem is told at once, with its JSON pointer; what comes
//! out holds no secret in the clear and no reference to what this node could
//! read for the caller.

use std::path::Path;
use std::sync::Arc;

use policy::KeyHash;
use serde_json::{Map, Value};

use super::kind::Kind;
use super::{PointerProblem, WriteRefusal, value};
use crate::config::file::text::is_reference;
use crate::config::problem::{Problem, api_place};
use crate::config::tree::{Entry, Node, Value as Tree};
use crate::config::validate::validate_entity;
use crate::upstream::Secret;
use crate::vault::{BodyError, KeyRing, MASK, SealError, keep_unchanged};

/// What answers add to a body; on a write it means nothing.
const READ_ONLY: [&str; 4] = ["source", "revision", "standing", "applied_on"];

/// Fewest characters of a value that a caller chose.
const LEAST_VALUE: usize = 16;

/// What is to be stored.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) body: Value,
    /// A value that was made here.
    pub(super) value: Option<Secret>,
}

/// Judges a body for its form; `stored` is what it takes the place of.
pub(super) fn judge(
    kind: Kind,
    body: Value,
    stored: Option<&Value>,
    ring: &KeyRing,
) -> Result<Draft, WriteRefusal> {
    let Value::Object(mut fields) = body else {
        return Err(invalid("", "expected a mapping of fields"));
    };
    for name in READ_ONLY {
        fields.remove(name);
    }
    let mut problems = Vec::new();
    let value = match kind {
        Kind::VirtualKey | Kind::AdminToken => credential(kind, &mut fields, stored, &mut problems),
        _ => None,
    };
    let mut body = Value::Object(fields);
    money_as_text(&mut body);
    let nothing = Value::Object(Map::new());
    if let Err(unkept) = keep_unchanged(kind.store_word(), &mut body, stored.unwrap_or(&nothing)) {
        problems.extend(unkept.into_iter().map(|unkept| PointerProblem {
            message: unkept.to_string(),
            pointer: unkept.pointer,
        }));
    }
    problems.extend(form(kind, &body));
    references(kind, &body, &mut problems);
    if !problems.is_empty() {
        return Err(WriteRefusal::Invalid(problems));
    }
    let name = name_of(kind, &body);
    if let Err(error) = ring.seal_body(kind.store_word(), &name, &mut body) {
        return Err(not_sealed(&error));
    }
    Ok(Draft { name, body, value })
}

/// Money is read from its text only. A JSON number gets the shortest text that
/// means it: what was written, up to 15 digits.
fn money_as_text(value: &mut Value) {
    fn as_text(value: &mut Value) {
        let Value::Number(number) = value else { return };
        let text = match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(number)) => number.to_string(),
            (None, None) => return,
        };
        *value = Value::String(text);
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("limit_usd", value) => as_text(value),
                    ("price", Value::Object(prices)) => prices.values_mut().for_each(as_text),
                    (_, value) => money_as_text(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(money_as_text),
        _ => {}
    }
}

fn not_sealed(error: &BodyError) -> WriteRefusal {
    match error {
        BodyError::Seal {
            source: SealError::NoKey,
            ..
        } => WriteRefusal::NoEncryptionKey,
        BodyError::Seal { cell, source } => invalid(&cell.pointer, &source.to_string()),
        BodyError::Open { cell, source } => invalid(&cell.pointer, &source.to_string()),
    }
}

/// A refusal for one reason.
pub(super) fn invalid(pointer: &str, message: &str) -> WriteRefusal {
    WriteRefusal::Invalid(vec![PointerProblem {
        pointer: pointer.to_owned(),
        message: message.to_owned(),
    }])
}

/// The name under which a body is kept; what is wrong with it, its form says.
pub(super) fn name_of(kind: Kind, body: &Value) -> String {
    let text = |field: &str| body[field].as_str();
    match (kind, text("provider")) {
        (Kind::LimitOverride, _) => text("limit").unwrap_or_default().to_owned(),
        (Kind::Model, Some(provider)) => {
            format!("{provider}/{}", text("name").unwrap_or_default())
        }
        _ => text("name").unwrap_or_default().to_owned(),
    }
}

/// Puts a hash in the place of a value: of the one that was sent, else of the
/// stored one, else of one that is made here.
fn credential(
    kind: Kind,
    fields: &mut Map<String, Value>,
    stored: Option<&Value>,
    problems: &mut Vec<PointerProblem>,
) -> Option<Secret> {
    // Former values are put there by a rotation, and stay.
    fields.remove("retiring");
    if let Some(retiring) = stored.and_then(|stored| stored.get("retiring")) {
        fields.insert("retiring".to_owned(), retiring.clone());
    }
    let kept = stored.and_then(|stored| stored.get("sha256")).cloned();
    let is_masked = |value: Option<&Value>| value.and_then(Value::as_str) == Some(MASK);
    for field in ["value", "sha256"] {
        if kept.is_some() && is_masked(fields.get(field)) {
            fields.remove(field);
        }
    }
    match (fields.get("value"), fields.contains_key("sha256")) {
        (None, true) => None,
        (None, false) => match kept {
            Some(hash) => {
                fields.insert("sha256".to_owned(), hash);
                None
            }
            None => {
                let made = match kind {
                    Kind::AdminToken => value::admin_token(),
                    _ => value::virtual_key(),
                };
                fields.insert("sha256".to_owned(), hash_of(made.expose()).into());
                Some(made)
            }
        },
        (Some(Value::String(text)), false) => {
            match judged_value(text) {
                Err(message) => problems.push(PointerProblem {
                    pointer: "/value".to_owned(),
                    message,
                }),
                Ok(()) => {
                    let hash = hash_of(text);
                    fields.remove("value");
                    fields.insert("sha256".to_owned(), hash.into());
                }
            }
            None
        }
        // Both, or of another type: the form says what is wrong with it.
        (Some(_), has_hash) => {
            if has_hash {
                problems.push(PointerProblem {
                    pointer: "/sha256".to_owned(),
                    message: "stands beside `value`: give one of them".to_owned(),
                });
            }
            None
        }
    }
}

fn judged_value(text: &str) -> Result<(), String> {
    if text == MASK {
        return Err("`***` keeps a stored value, and there is none".to_owned());
    }
    if is_reference(text) {
        return Err(NO_REFERENCE.to_owned());
    }
    let printable = text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    if !printable || text.trim() != text {
        return Err("must be printable ASCII without a space at either end".to_owned());
    }
    if text.len() < LEAST_VALUE {
        return Err(format!("must have {LEAST_VALUE} or more characters"));
    }
    Ok(())
}

pub(super) fn hash_of(text: &str) -> String {
    hex::encode(KeyHash::of(text.as_bytes()).0)
}

const NO_REFERENCE: &str =
    "`env.` and `file.` are for the file only: a caller of the API must not read what the node can";

/// Everything that is wrong by the schema and by the types.
fn form(kind: Kind, body: &Value) -> Vec<PointerProblem> {
    let shown = body["name"].as_str().or(body["limit"].as_str());
    let place = api_place(kind.path(), shown.unwrap_or("(new)"));
    let node = node(&Arc::from(place.as_path()), body);
    let problems = validate_entity(kind, &node);
    if !problems.is_empty() {
        return problems.into_iter().map(told).collect();
    }
    match kind.judge(body) {
        Ok(()) => Vec::new(),
        Err(error) => vec![PointerProblem {
            pointer: String::new(),
            message: error.to_string(),
        }],
    }
}

/// A problem of the entity itself.
fn told(problem: Problem) -> PointerProblem {
    PointerProblem {
        pointer: problem.path,
        message: problem.message,
    }
}

/// Reports references where the file might have them.
fn references(kind: Kind, body: &Value, problems: &mut Vec<PointerProblem>) {
    if kind != Kind::Provider {
        return;
    }
    let mut pointers = vec!["/base_url".to_owned(), "/tls/ca".to_owned()];
    let keys = body["keys"].as_array().map_or(0, Vec::len);
    pointers.extend((0..keys).map(|index| format!("/keys/{index}/value")));
    for pointer in pointers {
        let text = body.pointer(&pointer).and_then(Value::as_str);
        if text.is_some_and(is_reference) {
            problems.push(PointerProblem {
                pointer,
                message: NO_REFERENCE.to_owned(),
            });
        }
    }
}

/// A body as the tree that a file becomes.
fn node(place: &Arc<Path>, value: &Value) -> Node {
    let below = |value: &Value| node(place, value);
    Node {
        file: Arc::clone(place),
        line: 0,
        value: match value {
            Value::Null => Tree::Null,
            Value::Bool(value) => Tree::Bool(*value),
            Value::Number(number) => Tree::Number(number.to_string()),
            Value::String(text) => Tree::Text(text.clone()),
            Value::Array(items) => Tree::List(items.iter().map(below).collect()),
            Value::Object(fields) => Tree::Map(
                fields
                    .iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        line: 0,
                        node: below(value),
                    })
                    .collect(),
            ),
        },
    }
}
