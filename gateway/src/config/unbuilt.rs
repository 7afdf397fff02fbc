//! What the format will have, and this version does not.
//!
//! Promise: nothing is accepted and ignored, and an operator who follows a
//! newer document reads why, instead of "unknown field".

use serde_json::Value;

use super::problem::{FieldPath, Step};

/// (field without list positions, value).
const VALUES: &[(&str, &str)] = &[("cluster.type", "broker")];

const NOT_YET: &str = "is not supported by this version of Tyr";

/// The message for a value that is planned; `None` when it is unknown.
pub(super) fn value(path: &FieldPath, found: &Value) -> Option<String> {
    let (path, found) = (names(path), found.as_str()?);
    VALUES
        .contains(&(path.as_str(), found))
        .then(|| format!("`{found}` {NOT_YET}"))
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
