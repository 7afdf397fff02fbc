//! Reading single raw values of a request body.
//!
//! Promise: a value is what its bytes say or a refusal naming the field.
//! State: none. Failure: a [`BodyProblem`].

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::BodyProblem;

/// Keeps a value as its bytes; unlike a plain `Option`, `null` is present.
pub(super) fn raw<'de, D>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error>
where
    D: Deserializer<'de>,
{
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Where a raw value stands in the body that it was parsed from.
pub(super) fn span(body: &[u8], value: &RawValue) -> Range<usize> {
    let text = value.get();
    let start = text.as_ptr() as usize - body.as_ptr() as usize;
    start..start + text.len()
}

/// Whether a document starts like an object.
pub(super) fn is_object(text: &str) -> bool {
    text.trim_ascii_start().starts_with('{')
}

/// The name of the field that stands twice, when that is what failed.
pub(super) fn duplicate<'m>(error: &serde_json::Error, message: &'m str) -> Option<&'m str> {
    if !error.is_data() {
        return None;
    }
    let rest = message.strip_prefix("duplicate field `")?;
    rest.split_once('`').map(|(name, _)| name)
}

/// The model's name and the span of its value, quotes included.
pub(super) fn model<'a>(
    body: &[u8],
    value: Option<&'a RawValue>,
) -> Result<(Cow<'a, str>, Range<usize>), BodyProblem> {
    let value = value.ok_or(BodyProblem::MissingModel)?;
    let text = value.get();
    let wrong = BodyProblem::WrongType {
        field: "model",
        expected: "a string",
    };
    let Some(inside) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
        return Err(wrong);
    };
    let name = if inside.contains('\\') {
        // Half a surrogate pair is valid JSON but no text.
        Cow::Owned(serde_json::from_str::<String>(text).map_err(|_| wrong)?)
    } else {
        Cow::Borrowed(inside)
    };
    if name.is_empty() {
        return Err(BodyProblem::MissingModel);
    }
    Ok((name, span(body, value)))
}

/// `true`, `false`, or nothing for absent and `null`.
pub(super) fn flag(
    field: &'static str,
    value: Option<&RawValue>,
) -> Result<Option<bool>, BodyProblem> {
    match value.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(BodyProblem::WrongType {
            field,
            expected: "a boolean",
        }),
    }
}

/// A whole number, saturating; nothing for absent, `null` and negative ones.
pub(super) fn count(
    field: &'static str,
    value: Option<&RawValue>,
) -> Result<Option<u64>, BodyProblem> {
    let text = match value.map(RawValue::get) {
        None | Some("null") => return Ok(None),
        Some(text) => text,
    };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BodyProblem::WrongType {
            field,
            expected: "an integer",
        });
    }
    if negative {
        return Ok(None);
    }
    // Only digits are left, so the one error is too many of them.
    Ok(Some(digits.parse().unwrap_or(u64::MAX)))
}

/// The JSON string literal of a name.
pub(super) fn json_string(name: &str) -> Cow<'static, str> {
    let plain = name
        .bytes()
        .all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
    let mut literal = String::with_capacity(name.len() + 2);
    literal.push('"');
    if plain {
        literal.push_str(name);
    } else {
        for letter in name.chars() {
            match letter {
                '"' | '\\' => literal.extend(['\\', letter]),
                '\0'..='\u{1f}' => literal.push_str(&format!("\\u{:04x}", letter as u32)),
                _ => literal.push(letter),
            }
        }
    }
    literal.push('"');
    Cow::Owned(literal)
}
