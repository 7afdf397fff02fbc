//! What a node's file says, as hashes that the nodes of a cluster compare.
//!
//! Promise: two files that mean the same have the same hash: references are
//! read, defaults are filled in, entities are sorted by name, and what is each
//! node's own (addresses, secrets of providers) is left out. The value of a
//! virtual key is in it as its hash. Nothing is ever merged by it.

use std::collections::BTreeMap;

use cluster::ConfigurationMark;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::file::File;
use super::file::text::is_reference;
use super::reference::Environment;
use super::running::{Running, State};
use crate::state::Live;

impl Running {
    /// The hashes of the file that runs. Whoever calls holds the lock.
    pub(super) fn mark(&self, state: &State) -> ConfigurationMark {
        let file = &state.document.file;
        mark(file, &self.live.load(), &self.parts.environment)
    }
}

/// The hashes of a file, as it is in `live`.
pub(super) fn mark(file: &File, live: &Live, environment: &Environment) -> ConfigurationMark {
    let keys = section(&file.virtual_keys, |key| without_value(key, live));
    let parts = [
        ("customers", section(&file.customers, |_| {})),
        ("models", section(&file.models, |_| {})),
        ("providers", section(&file.providers, without_secrets)),
        ("routing_rules", section(&file.routing_rules, |_| {})),
        ("teams", section(&file.teams, |_| {})),
        ("virtual_keys", keys),
    ];
    let parts: Vec<(String, [u8; 32])> = parts
        .into_iter()
        .map(|(name, entities)| (name.to_owned(), hash(entities, environment)))
        .collect();
    let mut whole = Sha256::new();
    for (name, hash) in &parts {
        whole.update(name.as_bytes());
        whole.update(hash);
    }
    ConfigurationMark {
        hash: whole.finalize().into(),
        revision: file.revision.as_ref().and_then(|label| label.number()),
        parts,
    }
}

/// Entities of a section by name, each without what is not compared.
fn section<T: Serialize>(
    entities: &[T],
    mut strip: impl FnMut(&mut Value),
) -> BTreeMap<String, Value> {
    let stripped = entities.iter().map(|entity| {
        let mut body = serde_json::to_value(entity)
            .expect("the types hold texts, numbers and lists under text keys");
        strip(&mut body);
        let text = |field: &str| body[field].as_str().unwrap_or_default();
        (format!("{}/{}", text("provider"), text("name")), body)
    });
    stripped.collect()
}

fn without_secrets(provider: &mut Value) {
    for key in provider["keys"].as_array_mut().into_iter().flatten() {
        if let Some(key) = key.as_object_mut() {
            key.remove("value");
        }
    }
}

/// A key is compared by the hash of its value, which both forms of it have.
fn without_value(key: &mut Value, live: &Live) {
    let name = key["name"].as_str().unwrap_or_default();
    let hash = live
        .policy
        .key_named(name)
        .map(|key| hex::encode(key.hash.0));
    if let Some(fields) = key.as_object_mut() {
        fields.remove("value");
        fields.insert("sha256".to_owned(), hash.into());
    }
}

fn hash(entities: BTreeMap<String, Value>, environment: &Environment) -> [u8; 32] {
    let mut digest = Sha256::new();
    for (name, mut body) in entities {
        resolve(&mut body, environment);
        // A JSON map is sorted by its keys.
        let text = body.to_string();
        for part in [name.as_bytes(), text.as_bytes()] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
    }
    digest.finalize().into()
}

/// Puts what references name in their place; what cannot be read stays.
fn resolve(value: &mut Value, environment: &Environment) {
    match value {
        Value::String(text) if is_reference(text) => {
            if let Ok(read) = environment.secret(text) {
                *text = read;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| resolve(item, environment)),
        Value::Object(fields) => {
            let values = fields.values_mut();
            values.for_each(|value| resolve(value, environment));
        }
        _ => {}
    }
}
