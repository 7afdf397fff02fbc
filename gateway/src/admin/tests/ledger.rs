//! Entities in memory, with the refusals of the real ones.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::admin::Entities;
use crate::config::catalogue::{
    Actor, Kind, PointerProblem, Revoked, Shown, Source, WriteRefusal, Written,
};
use crate::config::file;
use crate::upstream::Secret;

/// What a key or token is given as its value.
pub(super) const MADE: &str = "sk-tyr-made-canary-0123456789";

#[derive(Default)]
pub(super) struct Ledger {
    rows: Mutex<BTreeMap<(&'static str, String), Shown>>,
    revision: AtomicU64,
    /// Whether the store is away.
    pub(super) away: AtomicBool,
    /// Held while the store lets its callers wait.
    pub(super) slow: Mutex<()>,
    /// The revision that the last replacement had to find.
    pub(super) expected: Mutex<Option<u64>>,
    /// Keys that are refused in memory.
    pub(super) refused: Mutex<Vec<String>>,
    /// Each change, as `action kind/name by actor from peer`.
    pub(super) trail: Mutex<Vec<String>>,
}

impl Ledger {
    /// Puts an entity there that nobody made through the API.
    pub(super) fn put(&self, kind: Kind, source: Source, body: Value) {
        let revision = self.next_revision();
        let name = name_of(kind, &body);
        let shown = Shown {
            kind,
            name: name.clone(),
            source,
            revision,
            body,
        };
        let mut rows = self.rows.lock().expect("no panic holds it");
        rows.insert((kind.path(), name), shown);
    }

    fn next_revision(&self) -> u64 {
        self.revision.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn found(&self, kind: Kind, name: &str) -> Option<Shown> {
        let rows = self.rows.lock().expect("no panic holds it");
        rows.get(&(kind.path(), name.to_owned())).cloned()
    }

    fn owned(&self, kind: Kind, name: &str, expected: Option<u64>) -> Result<Shown, WriteRefusal> {
        let found = self.found(kind, name).ok_or(WriteRefusal::NotFound)?;
        if let Source::File { place } = &found.source {
            let place = place.clone();
            return Err(WriteRefusal::FileOwned { place });
        }
        match expected.is_some_and(|expected| expected != found.revision) {
            true => Err(WriteRefusal::Stale {
                found: Some(found.revision),
            }),
            false => Ok(found),
        }
    }

    fn write(
        &self,
        action: &str,
        kind: Kind,
        mut body: Value,
        actor: &Actor,
    ) -> Result<Written, WriteRefusal> {
        check(kind, &body)?;
        self.store()?;
        let name = name_of(kind, &body);
        let created = self.found(kind, &name).is_none();
        let secret = matches!(kind, Kind::VirtualKey | Kind::AdminToken);
        let made = secret && (action == "rotate" || created) && body.get("value").is_none();
        if secret {
            body["sha256"] = json!("***");
        }
        self.note_change(action, kind, &name, actor);
        self.put(kind, Source::Api, body);
        Ok(Written {
            shown: self.found(kind, &name).expect("it was put there"),
            created,
            value: made.then(|| Secret::new(MADE.to_owned())),
        })
    }

    fn store(&self) -> Result<(), WriteRefusal> {
        drop(self.slow.lock().expect("no panic holds it"));
        match self.away.load(Ordering::Relaxed) {
            true => Err(WriteRefusal::Store("the store is away".to_owned())),
            false => Ok(()),
        }
    }

    fn note_change(&self, action: &str, kind: Kind, name: &str, actor: &Actor) {
        let (by, peer) = (&actor.name, &actor.peer);
        let line = format!("{action} {}/{name} by {by} from {peer}", kind.path());
        self.trail.lock().expect("no panic holds it").push(line);
    }
}

impl Entities for Ledger {
    fn list(&self, kind: Kind, after: Option<&str>, limit: usize) -> Vec<Shown> {
        let rows = self.rows.lock().expect("no panic holds it");
        let of_kind = rows.values().filter(|row| row.kind == kind);
        let later = of_kind.filter(|row| after.is_none_or(|after| *row.name > *after));
        later.take(limit).cloned().collect()
    }

    fn show(&self, kind: Kind, name: &str) -> Option<Shown> {
        self.found(kind, name)
    }

    fn create(&self, kind: Kind, body: Value, actor: &Actor) -> Result<Written, WriteRefusal> {
        check(kind, &body)?;
        match self.found(kind, &name_of(kind, &body)) {
            Some(Shown { source, .. }) => Err(WriteRefusal::Exists { source }),
            None => self.write("create", kind, body, actor),
        }
    }

    fn replace(
        &self,
        kind: Kind,
        name: &str,
        body: Value,
        expected: Option<u64>,
        actor: &Actor,
    ) -> Result<Written, WriteRefusal> {
        *self.expected.lock().expect("no panic holds it") = expected;
        self.owned(kind, name, expected)?;
        self.write("replace", kind, body, actor)
    }

    fn delete(
        &self,
        kind: Kind,
        name: &str,
        expected: Option<u64>,
        actor: &Actor,
    ) -> Result<u64, WriteRefusal> {
        self.owned(kind, name, expected)?;
        self.store()?;
        let teams = self.list(Kind::Team, None, usize::MAX);
        let mut users = teams.iter().filter(|team| team.body["customer"] == name);
        if let (Kind::Customer, Some(team)) = (kind, users.next()) {
            let by = vec![format!("team '{}'", team.name)];
            return Err(WriteRefusal::InUse { by });
        }
        self.note_change("delete", kind, name, actor);
        let mut rows = self.rows.lock().expect("no panic holds it");
        rows.remove(&(kind.path(), name.to_owned()));
        Ok(self.next_revision())
    }

    fn rotate(&self, name: &str, grace: Duration, actor: &Actor) -> Result<Written, WriteRefusal> {
        let found = self.owned(Kind::VirtualKey, name, None)?;
        assert!(grace.is_zero() || grace == Duration::from_secs(3_600));
        self.write("rotate", Kind::VirtualKey, found.body, actor)
    }

    fn refuse(&self, name: &str, _actor: &Actor) -> Vec<String> {
        let found = self.found(Kind::VirtualKey, name);
        if let Some(found) = &found {
            let mut refused = self.refused.lock().expect("no panic holds it");
            refused.push(found.name.clone());
        }
        found
            .map(|found| format!("hash-of-{}", found.name))
            .into_iter()
            .collect()
    }

    fn keep_refused(&self, hashes: &[String], name: &str, actor: &Actor) {
        self.note_change("keep", Kind::VirtualKey, name, actor);
        assert_eq!(hashes, [format!("hash-of-{name}")]);
    }

    fn revoke(&self, name: &str, actor: &Actor) -> Result<Revoked, WriteRefusal> {
        self.found(Kind::VirtualKey, name)
            .ok_or(WriteRefusal::NotFound)?;
        self.note_change("revoke", Kind::VirtualKey, name, actor);
        let persisted = self.store().is_ok();
        let hashes = vec![format!("hash-of-{name}")];
        Ok(Revoked { persisted, hashes })
    }

    fn reset_limit(&self, id: &str, actor: &Actor) -> Result<u64, WriteRefusal> {
        self.store()?;
        id.parse::<policy::CounterId>()
            .map_err(|_| WriteRefusal::NotFound)?;
        self.note_change("reset", Kind::LimitOverride, id, actor);
        Ok(self.next_revision())
    }

    fn note(&self, action: &str, actor: &Actor) -> Result<(), WriteRefusal> {
        self.store()?;
        let line = format!("{action} by {} from {}", actor.name, actor.peer);
        self.trail.lock().expect("no panic holds it").push(line);
        Ok(())
    }
}

pub(super) fn name_of(kind: Kind, body: &Value) -> String {
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    match (kind, body.get("provider")) {
        (Kind::Model, Some(_)) => format!("{}/{}", text("provider"), text("name")),
        (Kind::LimitOverride, _) => text("limit"),
        _ => text("name"),
    }
}

/// What the real ones say of a body, as far as its shape goes.
fn check(kind: Kind, body: &Value) -> Result<(), WriteRefusal> {
    fn reads<T: DeserializeOwned>(body: &Value) -> Result<(), WriteRefusal> {
        let read = serde_json::from_value::<T>(body.clone()).map(|_| ());
        read.map_err(|error| {
            WriteRefusal::Invalid(vec![PointerProblem {
                pointer: String::new(),
                message: error.to_string(),
            }])
        })
    }
    match kind {
        Kind::Customer => reads::<file::Customer>(body),
        Kind::Team => reads::<file::Team>(body),
        Kind::Provider => reads::<file::Provider>(body),
        Kind::Model => reads::<file::ModelEntry>(body),
        Kind::VirtualKey => reads::<file::VirtualKey>(body),
        Kind::RoutingRule => reads::<file::RoutingRule>(body),
        Kind::AdminToken => reads::<file::AdminTokenEntry>(body),
        Kind::Role => reads::<file::RoleEntry>(body),
        Kind::LimitOverride => reads::<file::LimitOverride>(body),
    }
}
