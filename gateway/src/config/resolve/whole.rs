//! A new `Live` from a document, from a changed base, or with one key changed.

use std::sync::Arc;

use policy::{Snapshot, VirtualKey};

use super::build::{self, BuiltBase};
use super::key::{KeyPlan, plan as plan_one};
use super::merge::merge;
use super::names::Names;
use super::{BasePlan, Checks, ResolveInto, Source, Startup, base_plan, dangling, in_order, plan};
use crate::config::catalogue::{Entries, Kind};
use crate::config::file;
use crate::config::load::Document;
use crate::config::problem::{FieldPath, Problem, api_place};
use crate::config::reference::References;
use crate::prices::Pricing;
use crate::state::{AdminAccess, Live, RequestBounds};
use crate::vault::KeyRing;

/// A document turned into what runs.
#[derive(Debug)]
pub struct Resolved {
    /// For the request path.
    pub live: Live,
    /// What is read at the start only.
    pub startup: Startup,
    /// What an operator should know, though it works.
    pub warnings: Vec<Problem>,
    /// The keys for secrets at rest.
    pub ring: KeyRing,
}

/// What of a base is not in `policy`.
struct BaseRest {
    names: Names,
    bounds: RequestBounds,
    admin: AdminAccess,
}

/// Resolves a document beside the entities of the API that run already, or
/// says all that is wrong with them together.
pub fn resolve(document: &Document, into: &ResolveInto<'_>) -> Result<Resolved, Vec<Problem>> {
    let references = References::Resolve(into.environment);
    let (plan, warnings) = plan(document, references)?;
    let mut entries = match into.previous {
        Some(live) => live.entries.with_file(document),
        None => Entries::default().with_file(document),
    };
    let judged = judge_base(document, plan.base, &entries, references, &plan.ring);
    let mut problems = clashes(document, &plan.keys, into.previous, &entries);
    let (merged, base) = match judged {
        Ok(judged) => judged,
        Err(more) => {
            problems.extend(more);
            return Err(in_order(problems));
        }
    };
    problems.extend(dangling::keys(into.previous, &base.names, &entries));
    if !problems.is_empty() {
        return Err(in_order(problems));
    }
    let redacted = crate::config::redacted(document);
    let document = merged.as_ref().unwrap_or(document);
    let (built, rest) = build_base(document, base, into, &entries)?;
    let names = Arc::new(rest.names);
    entries.set_names(Arc::clone(&names));
    let mut policy = match into.previous {
        Some(live) => live.policy.with_base(into.revision, built.parts),
        None => Snapshot::new(into.revision, built.parts, []),
    };
    for name in gone(into.previous, &entries) {
        policy = policy.without_key(into.revision, &name);
    }
    for key in plan.keys {
        let key = build::key(key, into, &entries);
        policy = policy.with_key(into.revision, key);
    }
    let mut live = Live {
        policy,
        upstreams: built.upstreams,
        bounds: rest.bounds,
        budget_status: document.file.governance.budget_status,
        users: built.users,
        pricing: Pricing {
            source: built.prices,
            list: match into.previous {
                Some(live) => Arc::clone(&live.pricing.list),
                None => Arc::default(),
            },
        },
        admin: Arc::new(rest.admin),
        redacted: Arc::new(redacted),
        entries,
        unresolved: into
            .previous
            .map(|live| live.unresolved.clone())
            .unwrap_or_default(),
        misfit: None,
    };
    settle_unresolved(&mut live, into);
    Ok(Resolved {
        live,
        startup: plan.startup,
        warnings,
        ring: plan.ring,
    })
}

/// `previous` with the base of `document` and these entities, which differ
/// from its own in the base only.
pub(in crate::config) fn base(
    document: &Document,
    previous: &Live,
    entries: &Entries,
    ring: &KeyRing,
    into: &ResolveInto<'_>,
) -> Result<Live, Vec<Problem>> {
    let references = References::Resolve(into.environment);
    let merged = merge(document, entries)?;
    let base = judge_merged(&merged, entries, references, ring)?;
    let lost = dangling::keys(Some(previous), &base.names, entries);
    if !lost.is_empty() {
        return Err(lost);
    }
    let (built, rest) = build_base(&merged, base, into, entries)?;
    let mut entries = entries.clone();
    entries.set_names(Arc::new(rest.names));
    let mut live = Live {
        policy: previous.policy.with_base(into.revision, built.parts),
        upstreams: built.upstreams,
        bounds: rest.bounds,
        users: built.users,
        pricing: Pricing {
            source: built.prices,
            list: Arc::clone(&previous.pricing.list),
        },
        admin: Arc::new(rest.admin),
        entries,
        misfit: None,
        ..previous.clone()
    };
    settle_unresolved(&mut live, into);
    Ok(live)
}

/// One key of the API, or all that is wrong with it.
pub(in crate::config) fn one_key(
    key: &file::VirtualKey,
    names: &Names,
) -> Result<KeyPlan, Vec<Problem>> {
    let place = api_place(Kind::VirtualKey.path(), &key.name);
    judge_key(
        Source::Api(&place),
        References::Skip,
        &FieldPath::root(),
        key,
        names,
    )
}

/// One key of the file, judged before and judged again for its limits.
pub(in crate::config) fn key_of_file(
    document: &Document,
    index: usize,
    names: &Names,
    into: &ResolveInto<'_>,
) -> Result<KeyPlan, Vec<Problem>> {
    let at = FieldPath::root().key("virtual_keys").index(index);
    let Some(key) = document.file.virtual_keys.get(index) else {
        return Err(vec![document.problem(&at, "is not there any more")]);
    };
    let references = References::Resolve(into.environment);
    judge_key(Source::Document(document), references, &at, key, names)
}

/// A judged key with its counters.
pub(in crate::config) fn build_key(
    plan: KeyPlan,
    into: &ResolveInto<'_>,
    entries: &Entries,
) -> VirtualKey {
    build::key(plan, into, entries)
}

fn judge_key(
    source: Source<'_>,
    references: References<'_>,
    at: &FieldPath,
    key: &file::VirtualKey,
    names: &Names,
) -> Result<KeyPlan, Vec<Problem>> {
    let nothing = KeyRing::default();
    let mut checks = Checks::new(source, references, &nothing);
    let plan = plan_one(&mut checks, names, at, key);
    checks.verdict().map(|_| plan)
}

/// The base of the file and of the API together; that of the file alone has
/// been judged.
fn judge_base(
    document: &Document,
    alone: BasePlan,
    entries: &Entries,
    references: References<'_>,
    ring: &KeyRing,
) -> Result<(Option<Document>, BasePlan), Vec<Problem>> {
    if !Kind::ALL
        .iter()
        .any(|kind| kind.is_base() && entries.has_stored(*kind))
    {
        return Ok((None, alone));
    }
    let merged = merge(document, entries)?;
    let base = judge_merged(&merged, entries, references, ring)?;
    Ok((Some(merged), base))
}

fn judge_merged(
    merged: &Document,
    entries: &Entries,
    references: References<'_>,
    ring: &KeyRing,
) -> Result<BasePlan, Vec<Problem>> {
    let mut checks = Checks::new(Source::Document(merged), references, ring);
    let base = base_plan(&mut checks, &merged.file, Some(entries));
    checks.verdict().map(|_| base)
}

fn build_base(
    document: &Document,
    mut base: BasePlan,
    into: &ResolveInto<'_>,
    entries: &Entries,
) -> Result<(BuiltBase, BaseRest), Vec<Problem>> {
    let rest = BaseRest {
        names: std::mem::take(&mut base.names),
        bounds: base.bounds,
        admin: std::mem::take(&mut base.admin),
    };
    let built = build::base(document, base, into, entries)?;
    Ok((built, rest))
}

/// Keys of the file that the API has as well, by name or by value.
fn clashes(
    document: &Document,
    keys: &[KeyPlan],
    previous: Option<&Live>,
    entries: &Entries,
) -> Vec<Problem> {
    let Some(previous) = previous else {
        return Vec::new();
    };
    let all = FieldPath::root().key("virtual_keys");
    let mut problems = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let at = all.index(index);
        let place = |name: &str| api_place(Kind::VirtualKey.path(), name);
        if entries.stored(Kind::VirtualKey, key.name()).is_some() {
            let place = place(key.name());
            let message = format!(
                "virtual key '{}' is made by the API too: {}",
                key.name(),
                place.display()
            );
            problems.push(document.problem(&at.key("name"), message));
        }
        let twins = key.hashes().filter_map(|hash| previous.policy.key(&hash));
        let twin = twins
            .filter(|twin| entries.stored(Kind::VirtualKey, &twin.name).is_some())
            .find(|twin| twin.name != *key.name());
        if let Some(twin) = twin {
            let place = place(&twin.name);
            let message = format!("has the same value as {}", place.display());
            problems.push(document.problem(&at, message));
        }
    }
    problems
}

/// Keys that the previous file had and this one has not.
fn gone(previous: Option<&Live>, entries: &Entries) -> Vec<Arc<str>> {
    let before = previous
        .into_iter()
        .flat_map(|live| live.entries.all_owned(Kind::VirtualKey));
    before
        .map(|(name, _)| name)
        .filter(|name| entries.owned(Kind::VirtualKey, name).is_none())
        .cloned()
        .collect()
}

/// Takes in keys whose names are all known by now.
fn settle_unresolved(live: &mut Live, into: &ResolveInto<'_>) {
    let waiting: Vec<Arc<str>> = live.unresolved.keys().cloned().collect();
    for name in waiting {
        let Some(stored) = live.entries.stored(Kind::VirtualKey, &name) else {
            live.unresolved.remove_mut(&name);
            continue;
        };
        let Ok(key) = serde_json::from_str::<file::VirtualKey>(&stored.body) else {
            continue;
        };
        if let Ok(plan) = one_key(&key, live.entries.names()) {
            let key = build::key(plan, into, &live.entries);
            live.policy = live.policy.with_key(into.revision, key);
            live.unresolved.remove_mut(&name);
        }
    }
}
