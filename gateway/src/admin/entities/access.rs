//! What admin tokens and roles have of their own: nobody gives, takes or
//! changes more than they have.
//!
//! Enforced twice: a write that would go beyond the caller's rights is refused,
//! and a token keeps the rights of its maker as a ceiling that cuts its role's
//! at each use, so a role that grows later lifts nobody above that.

use serde_json::{Value, json};

use super::body::problem;
use super::{Entities, Kind, Shown};
use crate::admin::Shared;
use crate::admin::answer::Failure;
use crate::admin::auth::Caller;
use crate::admin::rights::{RightError, Rights};

/// The field of a token that holds its maker's rights.
const CEILING: &str = "ceiling";

/// Judges a write of `body` over `found` (`None`: it is not there; no body: it
/// goes), and puts the ceiling into a token.
pub(super) fn vouch(
    shared: &Shared,
    kind: Kind,
    caller: &Caller,
    found: Option<&Shown>,
    body: Option<&mut Value>,
) -> Result<(), Failure> {
    if !matches!(kind, Kind::AdminToken | Kind::Role) {
        return Ok(());
    }
    let entities = shared.state.entities.as_ref();
    let mut rights = Vec::with_capacity(2);
    // What is there counts as far as it reaches; what is to come counts in
    // full, as the ceiling is no licence to name any role.
    if let Some(found) = found {
        rights.push(match kind {
            Kind::Role => of_role(&found.body)?,
            _ => of_token(entities, &found.body)?.intersection(ceiling(&found.body)?),
        });
    }
    if let Some(body) = body {
        rights.push(match kind {
            Kind::Role => of_role(body)?,
            _ => of_token(entities, body)?,
        });
        if kind == Kind::AdminToken {
            body[CEILING] = json!(caller.rights.short_texts());
        }
    }
    let beyond = rights
        .into_iter()
        .fold(Rights::NONE, Rights::union)
        .beyond(caller.rights);
    if beyond == Rights::NONE {
        return Ok(());
    }
    let beyond = beyond.short_texts().join(", ");
    let message = format!("this is about rights that the caller's token lacks: {beyond}");
    Err(Failure::forbidden(message))
}

/// The rights that a role's body names.
fn of_role(body: &Value) -> Result<Rights, Failure> {
    let permissions = body.get("permissions").and_then(Value::as_array);
    let mut rights = Rights::NONE;
    for (index, permission) in permissions.into_iter().flatten().enumerate() {
        let wrong =
            |error: RightError| problem(&format!("/permissions/{index}"), &error.to_string());
        let resource = permission["resource"].as_str().unwrap_or_default();
        let operations = permission["operations"].as_array();
        for operation in operations.into_iter().flatten() {
            let text = format!("{resource}:{}", operation.as_str().unwrap_or_default());
            rights = rights.union(Rights::parse(&text).map_err(wrong)?);
        }
    }
    Ok(rights)
}

/// The rights of a token's role. A role that is not there gives none, and is
/// refused by who writes.
fn of_token(entities: &dyn Entities, body: &Value) -> Result<Rights, Failure> {
    let role = body["role"].as_str().unwrap_or_default();
    if let Some(rights) = Rights::built_in(role) {
        return Ok(rights);
    }
    match entities.show(Kind::Role, role) {
        Some(shown) => of_role(&shown.body),
        None => Ok(Rights::NONE),
    }
}

/// The most that a token may do.
fn ceiling(body: &Value) -> Result<Rights, Failure> {
    let Some(texts) = body.get(CEILING).and_then(Value::as_array) else {
        return Ok(Rights::ALL);
    };
    let texts = texts.iter().map(|text| text.as_str().unwrap_or_default());
    Rights::parse_all(texts).map_err(|error| problem("/ceiling", &error.to_string()))
}
