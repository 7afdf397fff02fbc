//! `tyr rotate-keys --conf PATH`.
//!
//! Promise: afterwards every stored secret is sealed with the first key, or is
//! named with the reason why not. It may run beside nodes, at any time and
//! again: a secret that somebody else changes meanwhile is read anew. Nodes
//! read the changed rows with their next poll, so they have to know the new
//! key before.

use std::path::Path;
use std::process::ExitCode;

use cluster::{Change, Entity, EntityWrite, Expect, OpenStore, StoreError, WriteError};
use policy::{Clock, Timestamp};
use serde_json::{Value, json};

use super::{CommandError, Opened, conclude, open};
use crate::clock::SystemClock;
use crate::startup::audit_key;
use crate::vault::{KeyRing, key_ids};

/// How often an entity that others keep changing is tried.
const ATTEMPTS: usize = 16;

/// Seals every stored secret with the first key.
pub fn rotate_keys(conf: &Path) -> ExitCode {
    conclude(open(conf, |config| config).and_then(|opened| rotated(&opened)))
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rotated {
    /// Entities that were sealed anew.
    resealed: u64,
    /// Entities that were sealed with the first key already.
    current: u64,
    /// Entities that could not be, and why.
    failed: Vec<String>,
}

fn rotated(opened: &Opened) -> Result<String, CommandError> {
    let Some(first) = opened.ring.audit_key() else {
        return Err(CommandError::Found(
            "there is no key in `encryption.keys`".to_owned(),
        ));
    };
    let done = rotate(&opened.store, &opened.ring, SystemClock.now())?;
    let (resealed, current) = (done.resealed, done.current);
    let text = format!(
        "sealed with key '{}': {resealed} entities anew, {current} already\n",
        first.id()
    );
    match done.failed.is_empty() {
        true => Ok(text),
        false => Err(CommandError::Found(format!(
            "{text}{}",
            done.failed.join("\n")
        ))),
    }
}

fn rotate(store: &OpenStore, ring: &KeyRing, now: Timestamp) -> Result<Rotated, StoreError> {
    let mut done = Rotated::default();
    for entity in store.entities()? {
        one(store, ring, now, entity, &mut done)?;
    }
    Ok(done)
}

/// Seals one entity anew, as often as somebody else was faster.
fn one(
    store: &OpenStore,
    ring: &KeyRing,
    now: Timestamp,
    mut entity: Entity,
    done: &mut Rotated,
) -> Result<(), StoreError> {
    for _ in 0..ATTEMPTS {
        let Some((write, change)) = resealed(ring, now, &entity, done) else {
            return Ok(());
        };
        match store.write(&[write], &change, &audit_key(ring)) {
            Ok(_) => {
                done.resealed += 1;
                return Ok(());
            }
            Err(WriteError::Store(error)) => return Err(error),
            Err(WriteError::Stale { .. }) => {}
        }
        let same = |other: &Entity| other.kind == entity.kind && other.name == entity.name;
        match store.entities()?.into_iter().find(same) {
            Some(newer) => entity = newer,
            // Deleted meanwhile: there is nothing left to seal.
            None => return Ok(()),
        }
    }
    let (kind, name) = (&entity.kind, &entity.name);
    done.failed
        .push(format!("{kind} '{name}' keeps changing: run it again"));
    Ok(())
}

/// The write that seals an entity anew; `None` when none is needed or possible,
/// which is counted.
fn resealed(
    ring: &KeyRing,
    now: Timestamp,
    entity: &Entity,
    done: &mut Rotated,
) -> Option<(EntityWrite, Change)> {
    let (kind, name) = (entity.kind.as_str(), entity.name.as_str());
    let mut body: Value = match serde_json::from_str(entity.body.as_deref()?) {
        Ok(body) => body,
        Err(error) => {
            done.failed
                .push(format!("{kind} '{name}' cannot be read: {error}"));
            return None;
        }
    };
    let before = key_ids(kind, &body);
    match ring.reseal_body(kind, name, &mut body) {
        Ok(true) => {}
        Ok(false) => {
            done.current += u64::from(!before.is_empty());
            return None;
        }
        Err(error) => {
            done.failed.push(error.to_string());
            return None;
        }
    }
    let ids = |ids| Some(json!({ "encryption_keys": ids }).to_string());
    let after = key_ids(kind, &body);
    let write = EntityWrite {
        kind: kind.to_owned(),
        name: name.to_owned(),
        expect: Expect::Revision(entity.revision),
        body: Some(body.to_string()),
    };
    let change = Change {
        at: now,
        actor: "tyr rotate-keys".to_owned(),
        peer: "command line".to_owned(),
        action: "rotate_keys".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        before: ids(before),
        after: ids(after),
    };
    Some((write, change))
}

#[cfg(test)]
mod tests;
