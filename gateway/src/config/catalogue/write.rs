//! A change of one entity.
//!
//! In this order: the body is judged; a new `Live` is resolved with it; the
//! store takes entity and audit row in one transaction; only then the new
//! `Live` runs and the caller is answered. All under the lock that reloads
//! take too.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::{Change, EntityWrite, Expect, WriteError};
use policy::KeyHash;
use serde_json::Value;

use super::body::{Draft, invalid, judge};
use super::entries::{Entries, Stored};
use super::kind::{Class, Kind};
use super::{Actor, Catalogue, PointerProblem, WriteRefusal, Written, shown};
use crate::config::file::{RoutingRule, RuleScope, VirtualKey};
use crate::config::problem::{Problem, api_place};
use crate::config::resolve;
use crate::config::running::{Running, State};
use crate::state::Live;

/// A change on its way.
pub(super) struct Step<'a> {
    pub(super) class: Class,
    pub(super) name: &'a str,
    pub(super) expect: Expect,
    /// What is stored; `None` deletes.
    pub(super) body: Option<String>,
    /// The word of the audit trail.
    pub(super) action: &'static str,
    pub(super) actor: &'a Actor,
}

impl Catalogue {
    /// Makes an entity; the body names it.
    pub fn create(&self, kind: Kind, body: Value, actor: &Actor) -> Result<Written, WriteRefusal> {
        let mut state = self.running.lock();
        let live = self.running.live.load_full();
        let draft = self.draft(&state, &live, kind, body, None)?;
        if let Some(there) = shown(&live, kind, &draft.name) {
            return Err(WriteRefusal::Exists {
                source: there.source,
            });
        }
        self.put(&mut state, &live, kind, draft, Expect::Absent, actor)
    }

    /// Puts a body in the place of what is there, or makes it. `if_match`: only
    /// if that has this revision, judged before the body.
    pub fn replace(
        &self,
        kind: Kind,
        name: &str,
        body: Value,
        if_match: Option<u64>,
        actor: &Actor,
    ) -> Result<Written, WriteRefusal> {
        let mut state = self.running.lock();
        let live = self.running.live.load_full();
        let there = writable(&live, kind, name);
        let stored = match (&there, if_match) {
            (Ok(stored), Some(wanted)) if stored.revision != wanted => {
                return Err(WriteRefusal::Stale {
                    found: Some(stored.revision),
                });
            }
            (Ok(stored), _) => Some(stored.value()),
            (Err(WriteRefusal::NotFound), None) => None,
            (Err(refusal), _) => return Err(refusal.clone()),
        };
        let draft = self.draft(&state, &live, kind, body, stored.as_ref())?;
        if draft.name != name {
            let message = format!("the path names '{name}', the body '{}'", draft.name);
            return Err(invalid("/name", &message));
        }
        let expect = match there {
            Ok(stored) => Expect::Revision(stored.revision),
            Err(_) => Expect::Absent,
        };
        self.put(&mut state, &live, kind, draft, expect, actor)
    }

    /// Takes an entity away that nobody refers to; the revision without it.
    pub fn delete(
        &self,
        kind: Kind,
        name: &str,
        if_match: Option<u64>,
        actor: &Actor,
    ) -> Result<u64, WriteRefusal> {
        let mut state = self.running.lock();
        let live = self.running.live.load_full();
        let stored = writable(&live, kind, name)?;
        if if_match.is_some_and(|wanted| wanted != stored.revision) {
            return Err(WriteRefusal::Stale {
                found: Some(stored.revision),
            });
        }
        let step = Step {
            class: kind.into(),
            name,
            expect: Expect::Revision(stored.revision),
            body: None,
            action: "delete",
            actor,
        };
        if kind == Kind::VirtualKey {
            let by = rules_of_key(&live, name);
            if !by.is_empty() {
                return Err(WriteRefusal::InUse { by });
            }
        }
        let mut entries = live.entries.clone();
        entries.remove(kind, name);
        let next = next(&self.running, &state, &live, entries, kind.into(), name);
        let next = next.map_err(|problems| WriteRefusal::InUse {
            by: problems
                .iter()
                .map(place)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        })?;
        self.commit(&mut state, &live, next, step)
    }

    /// Whether a body would be taken; nothing is written.
    pub fn dry_run(&self, kind: Kind, body: Value) -> Result<(), WriteRefusal> {
        let state = self.running.lock();
        let live = self.running.live.load_full();
        let name = super::body::name_of(kind, &body);
        let stored = match writable(&live, kind, &name) {
            Ok(stored) => Some(stored.value()),
            Err(WriteRefusal::NotFound) => None,
            Err(refusal) => return Err(refusal),
        };
        let draft = self.draft(&state, &live, kind, body, stored.as_ref())?;
        let text = draft.body.to_string();
        let entries = with(&live, kind.into(), &draft.name, &text);
        next(
            &self.running,
            &state,
            &live,
            entries,
            kind.into(),
            &draft.name,
        )
        .map(|_| ())
        .map_err(|problems| refused(kind.into(), &draft.name, problems))
    }

    fn draft(
        &self,
        state: &State,
        live: &Live,
        kind: Kind,
        body: Value,
        stored: Option<&Value>,
    ) -> Result<Draft, WriteRefusal> {
        let draft = judge(kind, body, stored, &state.ring)?;
        match kind {
            Kind::LimitOverride => {
                super::limits::judge_override(live, draft, self.running.parts.clock.now())
            }
            _ => Ok(draft),
        }
    }

    fn put(
        &self,
        state: &mut State,
        live: &Live,
        kind: Kind,
        draft: Draft,
        expect: Expect,
        actor: &Actor,
    ) -> Result<Written, WriteRefusal> {
        let created = expect == Expect::Absent;
        let action = match (kind, created) {
            (Kind::LimitOverride, _) => "override",
            (_, true) => "create",
            (_, false) => "replace",
        };
        let step = Step {
            class: kind.into(),
            name: &draft.name,
            expect,
            body: Some(draft.body.to_string()),
            action,
            actor,
        };
        self.write(state, live, step)?;
        let shown = self.show(kind, &draft.name).ok_or(WriteRefusal::NotFound)?;
        Ok(Written {
            shown,
            created,
            value: draft.value,
        })
    }

    /// Resolves, stores and runs a change that puts something; its revision.
    pub(super) fn write(
        &self,
        state: &mut State,
        live: &Live,
        step: Step<'_>,
    ) -> Result<u64, WriteRefusal> {
        let text = step.body.as_deref().unwrap_or_default();
        let entries = with(live, step.class, step.name, text);
        let next = next(&self.running, state, live, entries, step.class, step.name)
            .map_err(|problems| refused(step.class, step.name, problems))?;
        self.commit(state, live, next, step)
    }

    /// Stores and runs a change that was resolved, and tells the other nodes;
    /// its revision.
    fn commit(
        &self,
        state: &mut State,
        live: &Live,
        mut next: Live,
        step: Step<'_>,
    ) -> Result<u64, WriteRefusal> {
        let ledger = self.running.ledger.get();
        let ledger = ledger.ok_or_else(|| WriteRefusal::Store("there is none yet".to_owned()))?;
        let before = told(live, step.class, step.name);
        let after = told(&next, step.class, step.name);
        let change = Change {
            at: self.running.parts.clock.now(),
            actor: step.actor.name.clone(),
            peer: step.actor.peer.clone(),
            action: step.action.to_owned(),
            kind: step.class.store_word().to_owned(),
            name: step.name.to_owned(),
            before,
            after,
        };
        let write = EntityWrite {
            kind: step.class.store_word().to_owned(),
            name: step.name.to_owned(),
            expect: step.expect,
            body: step.body.clone(),
        };
        let written = ledger
            .write(&[write], &change)
            .map_err(|error| match error {
                WriteError::Stale { found } => WriteRefusal::Stale { found },
                WriteError::Store(error) => WriteRefusal::Store(error.to_string()),
            })?;
        let revision = written.first().map_or(0, |entity| entity.revision);
        match step.body {
            Some(body) => {
                let body = body.into();
                let stored = Stored { revision, body };
                next.entries.put(step.class, step.name, stored);
            }
            None => state.gone.note(step.class, step.name, revision),
        }
        self.running
            .swap_written(state, next, step.class.row().effects);
        if let Some(fleet) = self.running.fleet.get() {
            fleet.announce(written);
            self.running.tell_applied();
            // What others wrote meanwhile may be between: then a poll is due.
            self.running.news.notify_one();
        }
        Ok(revision)
    }
}

/// An entity as the audit trail keeps it.
fn told(live: &Live, class: Class, name: &str) -> Option<String> {
    match class {
        Class::Of(kind) => shown(live, kind, name).map(|shown| shown.body.to_string()),
        Class::LimitReset | Class::Revocation => live
            .entries
            .stored(class, name)
            .map(|stored| stored.body.to_string()),
    }
}

/// What the API may change under this name.
pub(super) fn writable<'a>(
    live: &'a Live,
    kind: Kind,
    name: &str,
) -> Result<&'a Arc<Stored>, WriteRefusal> {
    if let Some(stored) = live.entries.stored(kind, name) {
        return Ok(stored);
    }
    match live.entries.owned(kind, name) {
        Some(owned) => Err(WriteRefusal::FileOwned {
            place: owned.place.clone(),
        }),
        None => Err(WriteRefusal::NotFound),
    }
}

/// The entities with this one; its revision is not known yet.
fn with(live: &Live, class: Class, name: &str, body: &str) -> Entries {
    let mut entries = live.entries.clone();
    let stored = Stored {
        revision: 0,
        body: body.into(),
    };
    entries.put(class, name, stored);
    entries
}

/// The configuration with `entries`, which differ from those of `live` in this
/// one entity.
pub(super) fn next(
    running: &Running,
    state: &State,
    live: &Live,
    entries: Entries,
    class: Class,
    name: &str,
) -> Result<Live, Vec<Problem>> {
    match class {
        Class::Of(Kind::VirtualKey) => with_key(running, state, live, entries, name),
        Class::Of(Kind::LimitOverride) | Class::LimitReset => {
            super::limits::next(running, state, live, entries, name)
        }
        _ => {
            let into = running.resolve_with(state, Some(live));
            resolve::base(&state.document, live, &entries, &state.ring, &into)
        }
    }
}

/// With one key of the API put or taken away.
pub(super) fn with_key(
    running: &Running,
    state: &State,
    live: &Live,
    entries: Entries,
    name: &str,
) -> Result<Live, Vec<Problem>> {
    let into = running.resolve_with(state, Some(live));
    let mut next = live.clone();
    next.entries = entries;
    next.unresolved.remove_mut(name);
    let Some(stored) = next.entries.stored(Kind::VirtualKey, name) else {
        next.policy = live.policy.without_key(into.revision, name);
        return Ok(next);
    };
    let key: VirtualKey = serde_json::from_str(&stored.body)
        .map_err(|error| vec![wrong_key(name, "", &error.to_string())])?;
    let plan = resolve::one_key(&key, next.entries.names())?;
    if let Some(twin) = twin(live, name, plan.hashes()) {
        let message = format!("has the same value as virtual key '{twin}'");
        return Err(vec![wrong_key(name, "/value", &message)]);
    }
    let key = resolve::build_key(plan, &into, &next.entries);
    next.policy = live.policy.with_key(into.revision, key);
    Ok(next)
}

/// Another key that one of these hashes leads to.
pub(super) fn twin(
    live: &Live,
    name: &str,
    mut hashes: impl Iterator<Item = KeyHash>,
) -> Option<Arc<str>> {
    hashes.find_map(|hash| {
        let other = live.policy.key(&hash)?;
        (&*other.name != name).then(|| Arc::clone(&other.name))
    })
}

pub(super) fn wrong_key(name: &str, pointer: &str, message: &str) -> Problem {
    Problem {
        file: api_place(Kind::VirtualKey.path(), name),
        line: 0,
        path: pointer.to_owned(),
        message: message.to_owned(),
    }
}

/// Rules of the API that look at the requests of this key.
fn rules_of_key(live: &Live, name: &str) -> Vec<String> {
    let rules = live.entries.all_stored(Kind::RoutingRule);
    let of_key = rules.filter(|(_, stored)| {
        serde_json::from_str::<RoutingRule>(&stored.body).is_ok_and(|rule| {
            rule.scope == RuleScope::VirtualKey && rule.subject.as_deref() == Some(name)
        })
    });
    of_key
        .map(|(rule, _)| format!("{}/{rule}", Kind::RoutingRule.path()))
        .collect()
}

/// Problems of this entity by their pointers; others in full.
fn refused(class: Class, name: &str, problems: Vec<Problem>) -> WriteRefusal {
    let own = match class {
        Class::Of(kind) => format!("{}/{name}", kind.path()),
        Class::LimitReset | Class::Revocation => String::new(),
    };
    let told = problems.into_iter().map(|problem| {
        if problem.entity() == Some(&own) {
            return PointerProblem {
                pointer: problem.path,
                message: problem.message,
            };
        }
        PointerProblem {
            pointer: String::new(),
            message: problem.to_string(),
        }
    });
    WriteRefusal::Invalid(told.collect())
}

/// Whose problem it is.
fn place(problem: &Problem) -> String {
    match problem.entity() {
        Some(entity) => entity.to_owned(),
        None => format!("{}:{}", problem.file.display(), problem.line),
    }
}
