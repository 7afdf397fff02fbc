//! What only virtual keys can: a new value, and refusal for good.

use std::time::Duration;

use cluster::{Change, Expect};
use policy::{KeyHash, Timestamp};
use serde_json::{Value, json};

use super::body::hash_of;
use super::entries::Stored;
use super::kind::{Class, Kind};
use super::write::{Step, writable};
use super::{Actor, Catalogue, Revoked, WriteRefusal, Written, value};
use crate::config::file::Moment;
use crate::state::Live;

/// The finest step of the wall clock as it is read.
const CLOCK_STEP: Duration = Duration::from_millis(1);

impl Catalogue {
    /// Gives a virtual key of the API a new value. The old one is accepted for
    /// `grace`; without grace, neither it nor any older one is.
    pub fn rotate(
        &self,
        name: &str,
        grace: Duration,
        actor: &Actor,
    ) -> Result<Written, WriteRefusal> {
        let mut state = self.running.lock();
        let live = self.running.live.load_full();
        let stored = writable(&live, Kind::VirtualKey, name)?;
        let now = self.running.parts.clock.now();
        let made = value::virtual_key();
        let mut body = stored.value();
        let retiring = retiring(&body, now, grace);
        if let Some(fields) = body.as_object_mut() {
            fields.insert("sha256".to_owned(), hash_of(made.expose()).into());
            fields.remove("retiring");
            if !retiring.is_empty() {
                fields.insert("retiring".to_owned(), retiring.into());
            }
        }
        let step = Step {
            class: Kind::VirtualKey.into(),
            name,
            expect: Expect::Revision(stored.revision),
            body: Some(body.to_string()),
            action: "rotate",
            actor,
        };
        self.write(&mut state, &live, step)?;
        let shown = self.show(Kind::VirtualKey, name);
        Ok(Written {
            shown: shown.ok_or(WriteRefusal::NotFound)?,
            created: false,
            value: Some(made),
        })
    }

    /// Refuses a virtual key in memory, here and on all nodes in reach,
    /// whoever waits for what; `revoke` makes it last. The hashes that are
    /// refused now; none: there is no such key.
    pub fn refuse(&self, name: &str, actor: &Actor) -> Vec<KeyHash> {
        let hashes = values(&self.running.live.load(), name);
        if !hashes.is_empty() {
            self.running.refuse(&hashes);
            self.spread(&hashes, &self.revocation(name, actor));
        }
        hashes
    }

    /// Makes the refusal of these hashes of the key `name` last on this node,
    /// and in the store once that takes it: for a `revoke` that waits for
    /// another change. Waits for the disk alone.
    pub fn keep_refused(&self, hashes: &[String], name: &str, actor: &Actor) {
        let Some(ledger) = self.running.ledger.get() else {
            return;
        };
        let change = self.revocation(name, actor);
        for hash in hashes {
            ledger.adopt_revocation(hash, &change);
        }
    }

    /// Refuses a virtual key from now on, and all its former values, whoever
    /// made it and whether the store is there or not.
    pub fn revoke(&self, name: &str, actor: &Actor) -> Result<Revoked, WriteRefusal> {
        // At once, even while a write waits for the store with the lock held;
        // and again behind it, as it may have given the key another value.
        let mut hashes = self.refuse(name, actor);
        {
            let mut state = self.running.lock();
            let live = self.running.live.load_full();
            let begun = hashes.len();
            hashes.extend(values(&live, name));
            if hashes.is_empty() {
                return Err(WriteRefusal::NotFound);
            }
            let refused = hashes[..begun].to_vec();
            hashes.sort_unstable_by_key(|hash| hash.0);
            hashes.dedup();
            let next = live.refusing(state.revision + 1, &hashes);
            self.running.swap_written(&mut state, next, &[]);
            self.running.refused_for_good(&refused);
        }
        let change = self.revocation(name, actor);
        self.spread(&hashes, &change);
        let hashes: Vec<String> = hashes.iter().map(|hash| hex::encode(hash.0)).collect();
        let Some(ledger) = self.running.ledger.get() else {
            let persisted = false;
            return Ok(Revoked { persisted, hashes });
        };
        let mut persisted = true;
        for hash in &hashes {
            match ledger.revoke(hash, &change) {
                Ok(kept) => persisted &= kept.0,
                Err(error) => {
                    tracing::error!(%error, key = name, "a revocation is in memory only");
                    persisted = false;
                }
            }
        }
        Ok(Revoked { persisted, hashes })
    }

    /// Tells all nodes to refuse these; to be told twice changes nothing.
    fn spread(&self, hashes: &[KeyHash], change: &Change) {
        if let Some(fleet) = self.running.fleet.get() {
            for hash in hashes {
                fleet.revoke(&hex::encode(hash.0), change);
            }
        }
    }

    fn revocation(&self, name: &str, actor: &Actor) -> Change {
        Change {
            at: self.running.parts.clock.now(),
            actor: actor.name.clone(),
            peer: actor.peer.clone(),
            action: "revoke".to_owned(),
            kind: Kind::VirtualKey.store_word().to_owned(),
            name: name.to_owned(),
            before: None,
            after: None,
        }
    }
}

/// The hashes of a key's present and former values; none if there is no key.
fn values(live: &Live, name: &str) -> Vec<KeyHash> {
    let Some(key) = live.policy.key_named(name) else {
        return Vec::new();
    };
    let former = key.retiring.iter().map(|(hash, _)| *hash);
    std::iter::once(key.hash).chain(former).collect()
}

impl Live {
    /// Whether this hash is refused for good.
    pub(in crate::config) fn is_refusing(&self, hash: &KeyHash) -> bool {
        let stored = self.entries.stored(Class::Revocation, &hex::encode(hash.0));
        stored.is_some()
    }

    /// The same configuration that refuses these hashes.
    pub(in crate::config) fn refusing(&self, revision: u64, hashes: &[KeyHash]) -> Live {
        let mut next = self.clone();
        for hash in hashes {
            let stored = Stored {
                revision: 0,
                body: "{}".into(),
            };
            next.entries
                .put(Class::Revocation, &hex::encode(hash.0), stored);
            next.policy = next.policy.with_revoked(revision, *hash);
        }
        next
    }
}

/// Former values that are still accepted, the present one among them.
fn retiring(body: &Value, now: Timestamp, grace: Duration) -> Vec<Value> {
    if grace.is_zero() {
        return Vec::new();
    }
    let until = |former: &Value| {
        let text = former["until"].as_str()?.to_owned();
        Moment(text).at()
    };
    let former = body["retiring"].as_array().into_iter().flatten();
    let kept = former.filter(|former| until(former).is_some_and(|until| until > now));
    // `now` is up to a step in the past: without it the grace would be shorter
    // than was promised.
    let until = now.plus(grace).plus(CLOCK_STEP);
    let present = json!({
        "sha256": body["sha256"],
        "until": Moment::of(until).0,
    });
    kept.cloned().chain([present]).collect()
}
