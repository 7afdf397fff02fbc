//! The secrets in the body of an entity.
//!
//! Promise: this is the only list of where secrets stand. Sealing, opening,
//! masking and sealing anew all walk it, so none of them can miss a field that
//! another one knows.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::MASK;
use super::ring::KeyRing;
use super::sealed::{OpenError, Place, SealError, is_sealed, key_id};
use crate::config::file::text::is_reference;
use crate::upstream::Secret;

/// One step into a body.
#[derive(Clone, Copy)]
enum Step {
    Field(&'static str),
    /// All items of a list, told apart by their `name`.
    Items,
}

use Step::{Field, Items};

/// Secrets that are needed again, by kind: these are sealed.
const SEALED: &[(&str, &[Step])] = &[("provider", &[Field("keys"), Items, Field("value")])];

/// What is never shown, by kind: also values that are stored as a hash only,
/// and the hashes, which are what a stolen key is looked for by.
const MASKED: &[(&str, &[Step])] = &[
    ("provider", &[Field("keys"), Items, Field("value")]),
    ("virtual_key", &[Field("value")]),
    ("virtual_key", &[Field("sha256")]),
    ("virtual_key", &[Field("retiring"), Items, Field("sha256")]),
    ("admin_token", &[Field("value")]),
    ("admin_token", &[Field("sha256")]),
];

/// Where a secret of an entity stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Store word of the entity's kind.
    pub kind: String,
    /// The entity's name.
    pub name: String,
    /// Which of its secrets: `keys/main/value`.
    pub field: String,
    /// JSON pointer of the secret in the body: `/keys/0/value`.
    pub pointer: String,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}', {}", self.kind, self.name, self.field)
    }
}

/// A secret of a body that could not be sealed or opened. The body is partly
/// changed and must be dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body must not be stored.
    #[error("{cell}: {source}")]
    Seal {
        /// Which secret.
        cell: Box<Cell>,
        /// Why.
        source: SealError,
    },
    /// The stored body cannot be used.
    #[error("{cell}: {source}")]
    Open {
        /// Which secret.
        cell: Box<Cell>,
        /// Why.
        source: OpenError,
    },
}

/// A `***` on a write that stands for nothing that is stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`***` keeps a stored secret, and there is none")]
pub struct Unkept {
    /// JSON pointer of the field in the body.
    pub pointer: String,
}

/// Where one secret stands.
struct Found<'a> {
    /// With list items by their name: `keys/main/value`.
    field: String,
    /// With list items by their position: `/keys/0/value`.
    pointer: String,
    /// A text, unless the body is not of the kind's form.
    value: &'a mut Value,
}

impl Found<'_> {
    fn text(&self) -> Option<&str> {
        self.value.as_str()
    }
}

/// Every value that stands where `steps` lead.
fn secrets<'a>(body: &'a mut Value, steps: &[Step]) -> Vec<Found<'a>> {
    let mut found = Vec::new();
    descend(body, steps, (String::new(), String::new()), &mut found);
    found
}

fn descend<'a>(
    value: &'a mut Value,
    steps: &[Step],
    (field, pointer): (String, String),
    found: &mut Vec<Found<'a>>,
) {
    let slash = if field.is_empty() { "" } else { "/" };
    match (steps.split_first(), value) {
        (None, Value::Null) => {}
        (None, value) => found.push(Found {
            field,
            pointer,
            value,
        }),
        (Some((Field(name), rest)), Value::Object(fields)) => {
            if let Some(value) = fields.get_mut(*name) {
                let path = (format!("{field}{slash}{name}"), format!("{pointer}/{name}"));
                descend(value, rest, path, found);
            }
        }
        (Some((Items, rest)), Value::Array(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                // Items without a name of their own keep their place in the list.
                let name = item["name"]
                    .as_str()
                    .map_or_else(|| index.to_string(), str::to_owned);
                let path = (
                    format!("{field}{slash}{name}"),
                    format!("{pointer}/{index}"),
                );
                descend(item, rest, path, found);
            }
        }
        // Not of the kind's form: whoever judges the body says so.
        _ => {}
    }
}

/// Runs `change` on every secret of a kind; the first failure ends it.
fn each(
    list: &[(&str, &[Step])],
    kind: &str,
    body: &mut Value,
    mut change: impl FnMut(Found<'_>) -> Result<(), BodyError>,
) -> Result<(), BodyError> {
    for (_, steps) in list.iter().filter(|(of, _)| *of == kind) {
        secrets(body, steps).into_iter().try_for_each(&mut change)?;
    }
    Ok(())
}

impl KeyRing {
    /// Seals every secret of an entity's body that needs it. A value that is
    /// sealed for this very cell stays; one of another cell is refused.
    pub fn seal_body(&self, kind: &str, name: &str, body: &mut Value) -> Result<(), BodyError> {
        each(SEALED, kind, body, |found| {
            let place = place(kind, name, &found.field);
            let Some(text) = found.text() else {
                return Ok(());
            };
            let sealed = match is_sealed(text) {
                true if self.open(text, &place).is_ok() => return Ok(()),
                true => Err(SealError::Foreign),
                false => self.seal(text, &place),
            };
            *found.value = sealed
                .map_err(|source| seal_error(&place, &found.pointer, source))?
                .into();
            Ok(())
        })
    }

    /// Opens every sealed secret of a stored body. The body then holds secrets
    /// in the clear: it must not outlive what is built from it.
    pub fn open_body(&self, kind: &str, name: &str, body: &mut Value) -> Result<(), BodyError> {
        each(SEALED, kind, body, |found| {
            let place = place(kind, name, &found.field);
            let opened = match found.text() {
                Some(text) => self.open(text, &place),
                None => Err(OpenError::Malformed),
            };
            let secret = opened.map_err(|source| open_error(&place, &found.pointer, source))?;
            *found.value = secret.expose().into();
            Ok(())
        })
    }

    /// Seals with the first key what another one sealed. Tells whether the body
    /// changed. A secret that stands in the clear is sealed too.
    pub fn reseal_body(&self, kind: &str, name: &str, body: &mut Value) -> Result<bool, BodyError> {
        let first = self.sealing().map(|key| key.id().to_owned());
        let mut changed = false;
        each(SEALED, kind, body, |found| {
            let place = place(kind, name, &found.field);
            let opened = match found.text() {
                Some(text) if is_sealed(text) => self.open(text, &place),
                Some(text) => Ok(Secret::new(text.to_owned())),
                None => Err(OpenError::Malformed),
            };
            let secret = opened.map_err(|source| open_error(&place, &found.pointer, source))?;
            if first.is_none() || first.as_deref() != found.text().and_then(key_id) {
                let sealed = self.seal(secret.expose(), &place);
                *found.value = sealed
                    .map_err(|source| seal_error(&place, &found.pointer, source))?
                    .into();
                changed = true;
            }
            Ok(())
        })?;
        Ok(changed)
    }
}

fn place<'a>(kind: &'a str, name: &'a str, field: &'a str) -> Place<'a> {
    Place { kind, name, field }
}

fn cell(place: &Place<'_>, pointer: &str) -> Box<Cell> {
    Box::new(Cell {
        kind: place.kind.to_owned(),
        name: place.name.to_owned(),
        field: place.field.to_owned(),
        pointer: pointer.to_owned(),
    })
}

fn seal_error(place: &Place<'_>, pointer: &str, source: SealError) -> BodyError {
    let cell = cell(place, pointer);
    BodyError::Seal { cell, source }
}

fn open_error(place: &Place<'_>, pointer: &str, source: OpenError) -> BodyError {
    let cell = cell(place, pointer);
    BodyError::Open { cell, source }
}

/// Puts `***` for every secret and hash of a body. References (`env.NAME`)
/// stay: they name a secret and are none.
pub fn mask_body(kind: &str, body: &mut Value) {
    for (_, steps) in MASKED.iter().filter(|(of, _)| *of == kind) {
        for found in secrets(body, steps) {
            if !found.text().is_some_and(is_reference) {
                *found.value = MASK.into();
            }
        }
    }
}

/// Takes over from `stored` what a write left as `***`: the same field, list
/// items by their name. Reports every `***` that stands for nothing.
pub fn keep_unchanged(kind: &str, body: &mut Value, stored: &Value) -> Result<(), Vec<Unkept>> {
    let mut stored = stored.clone();
    let mut unkept = Vec::new();
    for (_, steps) in MASKED.iter().filter(|(of, _)| *of == kind) {
        let old = secrets(&mut stored, steps);
        for found in secrets(body, steps) {
            if found.text() != Some(MASK) {
                continue;
            }
            match old.iter().find(|old| old.field == found.field) {
                Some(old) if old.text() != Some(MASK) => *found.value = old.value.clone(),
                _ => unkept.push(Unkept {
                    pointer: found.pointer,
                }),
            }
        }
    }
    match unkept.is_empty() {
        true => Ok(()),
        false => Err(unkept),
    }
}

/// The ids of the keys that a stored body needs.
pub fn key_ids(kind: &str, body: &Value) -> BTreeSet<String> {
    let mut body = body.clone();
    let mut ids = BTreeSet::new();
    for (_, steps) in SEALED.iter().filter(|(of, _)| *of == kind) {
        for found in secrets(&mut body, steps) {
            ids.extend(found.text().and_then(key_id).map(str::to_owned));
        }
    }
    ids
}
