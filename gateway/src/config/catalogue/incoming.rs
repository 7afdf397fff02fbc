//! Entities that this process did not write: what the store has at the start,
//! what other processes write since, and revocations that peers tell of.
//!
//! What the store tells follows the lock of all changes. A revocation does not:
//! it is in force before anything that may wait.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::{Change, Entity};
use policy::{CounterId, KeyHash, VirtualKey};
use tokio::sync::Notify;

use super::entries::{Entries, Stored};
use super::kind::{Applied, Class, Effect, Kind};
use super::write::{twin, with_key, wrong_key};
use super::{Actor, Catalogue, Fleet, Gone, Ledger, WriteRefusal, limits};
use crate::config::file;
use crate::config::problem::Problem;
use crate::config::resolve;
use crate::config::running::State;
use crate::state::Live;

/// What a batch of entities touches.
#[derive(Clone, Default)]
struct Touched {
    base: bool,
    keys: BTreeSet<Arc<str>>,
    revoked: Vec<(KeyHash, bool)>,
    effects: Vec<Effect>,
    /// How many of the batch were news.
    many: usize,
}

impl Catalogue {
    /// Takes over what the store has, and tells `fleet` of what changes from
    /// now on. Fails when the file and the entities do not fit together, except
    /// for single virtual keys: those that name what this node lacks are refused
    /// to clients and told of in `Live`.
    pub fn open(
        &self,
        ledger: Arc<dyn Ledger>,
        loaded: Vec<Entity>,
        fleet: Option<Arc<dyn Fleet>>,
    ) -> Result<(), Vec<Problem>> {
        let mut state = self.running.lock();
        let ledger = self.running.ledger.get_or_init(|| ledger);
        if !loaded.is_empty() {
            let live = self.running.live.load_full();
            let twice = in_both(&live, &loaded);
            if !twice.is_empty() {
                return Err(twice);
            }
            let mut entries = live.entries.clone();
            let touched = touch(&mut state.gone, &mut entries, loaded);
            let effects = touched.effects.clone();
            let next = self.take_in(&state, &live, entries, touched)?;
            self.running.swap_written(&mut state, next, &effects);
        }
        if let Some(fleet) = fleet {
            let fleet = self.running.fleet.get_or_init(|| fleet);
            fleet.set_configuration(self.running.mark(&state));
            fleet.applied(ledger.revision());
        }
        Ok(())
    }

    /// Rung when `poll` is to be called now rather than in its turn.
    pub fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.running.news)
    }

    /// Takes over what other processes wrote since the last time. What cannot
    /// be read now is read the next time.
    pub fn poll(&self) {
        self.keep_refusing();
        let Some(ledger) = self.running.ledger.get() else {
            return;
        };
        let is_all = self.running.polling(|| self.take_all(&**ledger));
        if !is_all && ledger.revision() == 0 {
            // What there is was never read.
            return;
        }
        // With the lock: a write of this node counts once it runs. Also when
        // the store is away: what peers sent runs even so.
        let _state = self.running.lock();
        self.running.tell_applied();
    }

    /// Whether it came to the end of what there is.
    fn take_all(&self, ledger: &dyn Ledger) -> bool {
        loop {
            // Not with the lock held: the store may let a caller wait.
            match ledger.poll() {
                Ok(entities) if entities.is_empty() => return true,
                Ok(entities) => self.take_over(entities),
                Err(error) => {
                    tracing::debug!(%error, "entities of others cannot be read now");
                    return false;
                }
            }
        }
    }

    /// Refuses a key that a peer says is revoked, at once: neither the store
    /// nor a write that waits for it is in the way.
    pub fn adopt(&self, hash: &str, change: &Change) {
        let mut key = [0; 32];
        if hex::decode_to_slice(hash, &mut key).is_err() {
            tracing::warn!(hash, "a peer revoked what is no hash of a key");
            return;
        }
        self.running.refuse(&[KeyHash(key)]);
        if let Some(fleet) = self.running.fleet.get() {
            fleet.revocation_applied(hash);
        }
        if let Some(ledger) = self.running.ledger.get() {
            ledger.adopt_revocation(hash, change);
        }
        self.running.news.notify_one();
    }

    /// Makes what was refused at once a part of what runs.
    fn keep_refusing(&self) {
        if self.running.refused().is_empty() {
            return;
        }
        let mut state = self.running.lock();
        let refused = self.running.refused();
        let live = self.running.live.load_full();
        let next = live.refusing(state.revision + 1, &refused);
        self.running.swap_written(&mut state, next, &[]);
        self.running.refused_for_good(&refused);
    }

    fn take_over(&self, entities: Vec<Entity>) {
        let mut state = self.running.lock();
        let live = self.running.live.load_full();
        let mut entries = live.entries.clone();
        let touched = touch(&mut state.gone, &mut entries, entities);
        let (many, effects) = (touched.many, touched.effects.clone());
        if many == 0 {
            return;
        }
        match self.take_in(&state, &live, entries.clone(), touched.clone()) {
            Ok(next) => self.running.swap_written(&mut state, next, &effects),
            Err(problems) => {
                for problem in &problems {
                    tracing::error!(%problem, "an entity written elsewhere does not fit here");
                }
                let mut next = self.keys_only(&state, &live, entries, touched);
                next.misfit = problems.first().map(|first| first.to_string().into());
                self.running.swap_written(&mut state, next, &[]);
            }
        }
        tracing::info!(entities = many, "took over what was written elsewhere");
    }

    /// Keeps an audit row of what was done to the node itself.
    pub fn note(&self, action: &str, actor: &Actor) -> Result<(), WriteRefusal> {
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
        match self.running.ledger.get() {
            Some(ledger) => ledger
                .record(&change)
                .map_err(|error| WriteRefusal::Store(error.to_string())),
            None => Err(WriteRefusal::Store("there is none yet".to_owned())),
        }
    }

    /// The configuration with these entities, of which `touched` are new.
    fn take_in(
        &self,
        state: &State,
        live: &Live,
        entries: Entries,
        touched: Touched,
    ) -> Result<Live, Vec<Problem>> {
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
    fn keys_only(&self, state: &State, live: &Live, entries: Entries, touched: Touched) -> Live {
        let mut next = Live {
            entries,
            ..live.clone()
        };
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

/// Writes the entities into the index and tells what has to be resolved. What
/// is no news, because it came before or something newer did, changes nothing.
fn touch(gone: &mut Gone, entries: &mut Entries, entities: Vec<Entity>) -> Touched {
    let mut touched = Touched::default();
    for entity in entities {
        let (kind, name) = (entity.kind.as_str(), entity.name.as_str());
        let Some(class) = Class::from_store_word(kind) else {
            tracing::warn!(kind, name, "an entity of an unknown kind");
            continue;
        };
        let newest = entries.stored(class, name).map(|stored| stored.revision);
        // What waits for the store has no revision, and may be told twice.
        let known = entity.revision > 0 && newest >= Some(entity.revision);
        if known || gone.is_after(class, name, entity.revision) {
            continue;
        }
        touched.note(class, name, entity.body.is_some());
        match entity.body {
            Some(body) => {
                let stored = Stored {
                    revision: entity.revision,
                    body,
                };
                entries.put(class, name, stored);
            }
            None => {
                gone.note(class, name, entity.revision);
                entries.remove(class, name);
            }
        }
    }
    touched
}

impl Touched {
    /// Adds what a change of this entity resolves anew.
    fn note(&mut self, class: Class, name: &str, there: bool) {
        self.many += 1;
        let row = class.row();
        self.effects.extend(row.effects);
        match row.applied {
            Applied::Base => self.base = true,
            Applied::Key => {
                self.keys.insert(name.into());
            }
            Applied::Limit => {
                let id: Option<CounterId> = name.parse().ok();
                match id.as_ref().and_then(resolve::is_of_key) {
                    Some(key) => {
                        self.keys.insert(key.into());
                    }
                    None => self.base = true,
                }
            }
            Applied::Refusal => {
                let mut hash = [0; 32];
                if hex::decode_to_slice(name, &mut hash).is_ok() {
                    self.revoked.push((KeyHash(hash), there));
                }
            }
        }
    }
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
