//! What the format will have, and this version does not.
//!
//! Promise: nothing is accepted and ignored, and an operator who follows a
//! newer document reads why, instead of "unknown field".

use serde_json::Value;

use super::problem::{FieldPath, Step};

/// (parent without list positions, field). A parent that starts with `*` may
/// stand below anything.
const FIELDS: &[(&str, &str)] = &[
    ("", "catalogue"),
    ("admin", "roles"),
    ("store", "url"),
    ("store", "host"),
    ("store", "port"),
    ("store", "user"),
    ("store", "password"),
    ("store", "database"),
    ("store", "tls"),
    ("store", "pool"),
    ("store", "migrate"),
    ("governance", "global"),
    ("governance", "users"),
    ("providers", "rate_limits"),
    ("providers", "budgets"),
    ("models", "rate_limits"),
    ("models", "budgets"),
    ("virtual_keys", "not_before"),
    ("virtual_keys", "expires_at"),
    ("virtual_keys.providers", "rate_limits"),
    ("virtual_keys.providers", "budgets"),
    ("*.rate_limits", "shadow"),
    ("*.budgets", "shadow"),
    ("*.budgets", "on_tight"),
    ("*.rate_limits", "on_tight"),
];

/// (field without list positions, value).
const VALUES: &[(&str, &str)] = &[("store.type", "postgres"), ("cluster.type", "broker")];

const NOT_YET: &str = "is not supported by this version of Tyr";

/// The message for a field that is planned; `None` when it is unknown.
pub(super) fn field(parent: &FieldPath, name: &str) -> Option<String> {
    let parent = names(parent);
    FIELDS
        .iter()
        .any(|(place, field)| {
            *field == name
                && match place.strip_prefix('*') {
                    Some(end) => parent.ends_with(end),
                    None => parent == *place,
                }
        })
        .then(|| format!("`{name}` {NOT_YET}"))
}

/// The message for a value that is planned; `None` when it is unknown.
pub(super) fn value(path: &FieldPath, found: &Value) -> Option<String> {
    let (path, found) = (names(path), found.as_str()?);
    VALUES
        .contains(&(path.as_str(), found))
        .then(|| format!("`{found}` {NOT_YET}"))
}

/// The message for a list that has to be empty.
pub(super) fn list(path: &FieldPath) -> String {
    format!("`{}` {NOT_YET}: only an empty list is", names(path))
}

/// `virtual_keys[0].budgets[1]` as `virtual_keys.budgets`.
fn names(path: &FieldPath) -> String {
    let names: Vec<&str> = path
        .steps()
        .iter()
        .filter_map(|step| match step {
            Step::Key(name) => Some(name.as_str()),
            Step::Index(_) => None,
        })
        .collect();
    names.join(".")
}
