//! Entities that the store has and this process did not write: at the start,
//! and those of other processes since.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::{Change, Entity};
use policy::{CounterId, KeyHash, VirtualKey};

use super::entries::{Entries, Stored};
use super::kind::{Class, Kind};
use super::write::{twin, with_key, wrong_key};
use super::{Actor, Catalogue, Ledger, WriteRefusal, limits};
use crate::config::file;
use crate::config::problem::Problem;
use crate::config::resolve;
use crate::config::running::State;
use crate::state::Live;

/// What a batch of entities touches.
#[derive(Default)]
struct Touched {
    base: bool,
    keys: BTreeSet<Arc<str>>,
    revoked: Vec<(KeyHash, bool)>,
}

impl Catalogue {
    /// Takes over what the store has. Fails when the file and the entities do
    /// not fit together, except for single virtual keys: those that name what
    /// this node lacks are refused to clients and told of in `Live`.
    pub fn open(&self, ledger: Arc<dyn Ledger>, loaded: Vec<Entity>) -> Result<(), Vec<Problem>> {
        let mut state = self.running.lock();
        state.ledger = Some(ledger);
        if loaded.is_empty() {
            return Ok(());
        }
        let live = self.running.live.load_full();
        let twice = in_both(&live, &loaded);
        if !twice.is_empty() {
            return Err(twice);
        }
        let next = self.take_in(&state, &live, loaded)?;
        self.running.swap_written(&mut state, next, true);
        Ok(())
    }

    /// Takes over what other processes wrote since the last time. What cannot
    /// be read now is read the next time.
    pub fn poll(&self) {
        loop {
            // Not with the lock held: the store may let a caller wait.
            let Some(ledger) = self.running.lock().ledger.clone() else {
                return;
            };
            let entities = match ledger.poll() {
                Ok(entities) if entities.is_empty() => return,
                Ok(entities) => entities,
                Err(error) => {
                    tracing::debug!(%error, "entities of others cannot be read now");
                    return;
                }
            };
            let mut state = self.running.lock();
            let live = self.running.live.load_full();
            let many = entities.len();
            match self.take_in(&state, &live, entities.clone()) {
                Ok(next) => self.running.swap_written(&mut state, next, true),
                Err(problems) => {
                    for problem in &problems {
                        tracing::error!(%problem, "an entity written elsewhere does not fit here");
                    }
                    let mut next = self.keys_only(&state, &live, entities);
                    next.misfit = problems.first().map(|first| first.to_string().into());
                    self.running.swap_written(&mut state, next, false);
                }
            }
            tracing::info!(entities = many, "took over what was written elsewhere");
        }
    }

    /// Keeps an audit row of what was done to the node itself.
    pub fn note(&self, action: &str, actor: &Actor) -> Result<(), WriteRefusal> {
        let state = self.running.lock();
        let change = Change {
            at: self.running.parts.clock.now(),
            actor: actor.name.clone(),
            peer: actor.peer.clone(),
            action: action.to_owned(),
            kind: "node".to_owned(),
            name: String::new(),
            before: None,
            after: None,
        };
        match &state.ledger {
            Some(ledger) => ledger
                .record(&change)
                .map_err(|error| WriteRefusal::Store(error.to_string())),
            None => Err(WriteRefusal::Store("there is none yet".to_owned())),
        }
    }

    /// The configuration with all of these entities.
    fn take_in(
        &self,
        state: &State,
        live: &Live,
        entities: Vec<Entity>,
    ) -> Result<Live, Vec<Problem>> {
        let mut entries = live.entries.clone();
        let touched = touch(&mut entries, entities);
        let into = self.running.resolve_with(state, Some(live));
        let mut next = match touched.base {
            true => resolve::base(&state.document, live, &entries, &state.ring, &into)?,
            false => Live {
                entries,
                ..live.clone()
            },
        };
        self.take_keys(state, &mut next, touched);
        Ok(next)
    }

    /// The same on the base that runs: what else there is waits for a file
    /// that fits it.
    fn keys_only(&self, state: &State, live: &Live, entities: Vec<Entity>) -> Live {
        let mut next = live.clone();
        let touched = touch(&mut next.entries, entities);
        self.take_keys(state, &mut next, touched);
        next
    }

    fn take_keys(&self, state: &State, next: &mut Live, touched: Touched) {
        let revision = state.revision + 1;
        for name in touched.keys {
            match self.one_key(state, next, &name) {
                Ok(resolved) => *next = resolved,
                Err(problems) => refuse_key(next, &name, revision, &problems),
            }
        }
        for (hash, revoked) in touched.revoked {
            next.policy = match revoked {
                true => next.policy.with_revoked(revision, hash),
                false => next.policy.without_revoked(revision, &hash),
            };
        }
        if next.policy.revision() != revision {
            // Some reader may compare them: every change has a number.
            next.policy = next.policy.without_key(revision, "");
        }
    }

    /// A key that was written or deleted elsewhere, or whose limit was changed.
    fn one_key(&self, state: &State, live: &Live, name: &str) -> Result<Live, Vec<Problem>> {
        let entries = live.entries.clone();
        let stored = entries.stored(Kind::VirtualKey, name).is_some();
        match entries.owned(Kind::VirtualKey, name) {
            Some(owned) if stored => Err(vec![also_in_file(name, &owned.place)]),
            Some(_) => limits::rebuild_key(&self.running, state, live, entries, name),
            None => with_key(&self.running, state, live, entries, name),
        }
    }
}

/// Virtual keys that the file has too.
fn in_both(live: &Live, loaded: &[Entity]) -> Vec<Problem> {
    let keys = loaded
        .iter()
        .filter(|entity| entity.kind == Kind::VirtualKey.store_word());
    let problems = keys.filter_map(|entity| {
        let owned = live.entries.owned(Kind::VirtualKey, &entity.name)?;
        Some(also_in_file(&entity.name, &owned.place))
    });
    problems.collect()
}

fn also_in_file(name: &str, place: &str) -> Problem {
    let message = format!("virtual key '{name}' is already defined at {place}");
    wrong_key(name, "/name", &message)
}

/// Writes the entities into the index and tells what has to be resolved.
fn touch(entries: &mut Entries, entities: Vec<Entity>) -> Touched {
    let mut touched = Touched::default();
    for entity in entities {
        let Some(class) = Class::from_store_word(&entity.kind) else {
            tracing::warn!(
                kind = entity.kind,
                name = entity.name,
                "an entity of an unknown kind"
            );
            continue;
        };
        // This process wrote it since: only who knows a revision can replace it.
        let newer = entries.stored(class, &entity.name);
        if newer.is_some_and(|stored| stored.revision > entity.revision) {
            continue;
        }
        let there = entity.body.is_some();
        match class {
            Class::Of(Kind::VirtualKey) => {
                touched.keys.insert(entity.name.as_str().into());
            }
            Class::Revocation => {
                let mut hash = [0; 32];
                if hex::decode_to_slice(&entity.name, &mut hash).is_ok() {
                    touched.revoked.push((KeyHash(hash), there));
                }
            }
            Class::Of(Kind::LimitOverride) | Class::LimitReset => {
                let id: Option<CounterId> = entity.name.parse().ok();
                match id.as_ref().and_then(resolve::is_of_key) {
                    Some(key) => {
                        touched.keys.insert(key.into());
                    }
                    None => touched.base = true,
                }
            }
            _ => touched.base = true,
        }
        match entity.body {
            Some(body) => {
                let stored = Stored {
                    revision: entity.revision,
                    body,
                };
                entries.put(class, &entity.name, stored);
            }
            None => entries.remove(class, &entity.name),
        }
    }
    touched
}

/// Puts a key that cannot be resolved: it is known, and refused.
fn refuse_key(live: &mut Live, name: &Arc<str>, revision: u64, problems: &[Problem]) {
    let why = problems
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    tracing::error!(key = %name, problem = why, "a virtual key cannot be used on this node");
    let stored = live.entries.stored(Kind::VirtualKey, name);
    let key = stored.and_then(|stored| serde_json::from_str::<file::VirtualKey>(&stored.body).ok());
    let hash = key.and_then(|key| {
        let mut hash = [0; 32];
        hex::decode_to_slice(key.sha256?, &mut hash).ok()?;
        Some(KeyHash(hash))
    });
    live.unresolved.insert_mut(Arc::clone(name), why.into());
    let Some(hash) = hash else { return };
    if live.entries.owned(Kind::VirtualKey, name).is_some()
        || twin(live, name, std::iter::once(hash)).is_some()
    {
        // The key of the file, or the one that has the value, stays.
        return;
    }
    let key = VirtualKey {
        name: Arc::clone(name),
        hash,
        retiring: Vec::new(),
        team: None,
        customer: None,
        grants: Vec::new(),
        scope: None,
        active: false,
        not_before: None,
        expires_at: None,
    };
    live.policy = live.policy.with_key(revision, key);
}
