//! What writes of providers have of their own.

use serde_json::Value;

use super::body::problem;
use crate::admin::answer::Failure;

/// What a secret is shown as; in a write it stands for the secret that is kept.
const MASKED: &str = "***";

/// Refuses to send kept credentials to another place, or to one that another
/// authority vouches for: who may change a provider could otherwise read them
/// there without knowing them.
pub(super) fn keep_credentials_where_they_are(found: &Value, body: &Value) -> Result<(), Failure> {
    let field = |body: &Value, name: &str| body.get(name).cloned().unwrap_or_default();
    let mut places = ["base_url", "tls"].into_iter();
    let moved = places.find(|name| field(found, name) != field(body, name));
    let Some(moved) = moved else {
        return Ok(());
    };
    let keys = body.get("keys").and_then(Value::as_array);
    let kept = keys.and_then(|keys| {
        let is_kept = |key: &Value| key.get("value").is_some_and(|value| value == MASKED);
        keys.iter().position(is_kept)
    });
    match kept {
        None => Ok(()),
        Some(index) => Err(problem(
            &format!("/keys/{index}/value"),
            &format!(
                "must be given anew, as {moved} changes: a kept credential stays where it was \
                 meant for"
            ),
        )),
    }
}
