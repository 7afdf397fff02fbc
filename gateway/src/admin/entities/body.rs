//! Bodies of writes, and names in paths.

use std::fmt::Write;

use serde_json::Value;

use super::{Kind, PointerProblem, READ_ONLY};
use crate::admin::answer::Failure;

/// The entity in a body, without what only a read shows.
pub(super) fn entity(body: &[u8]) -> Result<Value, Failure> {
    let mut entity: Value = parse(body)?;
    let Some(fields) = entity.as_object_mut() else {
        return Err(problem("", "expected a JSON object"));
    };
    for field in READ_ONLY {
        fields.remove(field);
    }
    Ok(entity)
}

/// A JSON body of a type, without a field that stands twice; the refusal names
/// what is wrong.
pub(in crate::admin) fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let twice = super::twice::fields(body);
    if !twice.is_empty() {
        return Err(Failure::invalid_body(twice));
    }
    serde_json::from_slice(body).map_err(|error| problem("", &format!("not readable: {error}")))
}

/// Puts the path's name into a body without one, and refuses another.
pub(super) fn name(kind: Kind, body: &mut Value, name: &str) -> Result<(), Failure> {
    let field = match kind {
        // Named by two of its fields, or an alias: judged by who reads it.
        Kind::Model => return Ok(()),
        Kind::LimitOverride => "limit",
        _ => "name",
    };
    match body.get(field) {
        None => {
            body[field] = Value::from(name);
            Ok(())
        }
        Some(written) if written == name => Ok(()),
        Some(_) => {
            let message = format!("must be '{name}' as in the path: an entity keeps its name");
            Err(problem(&format!("/{field}"), &message))
        }
    }
}

pub(in crate::admin) fn problem(pointer: &str, message: &str) -> Failure {
    Failure::invalid_body(vec![PointerProblem {
        pointer: pointer.to_owned(),
        message: message.to_owned(),
    }])
}

/// A name as one segment of a path (RFC 3986, unreserved characters stay).
pub(super) fn percent_encoded(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
