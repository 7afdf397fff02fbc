//! What a write is judged by, and in which order it comes to run.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::world::{World, actor, invalid, json};
use crate::config::catalogue::{Kind, Source, WriteRefusal};

const PROVIDER: &str = r#"{"name": "own", "kind": "openai", "base_url": "https://own.example",
    "keys": [{"name": "main", "value": "sk-own-secret"}]}"#;

#[test]
fn an_entity_is_made_shown_changed_and_deleted() {
    let world = World::new();
    let catalogue = world.catalogue();
    let made = catalogue
        .create(
            Kind::Team,
            json(r#"{"name": "ads", "customer": "acme"}"#),
            &actor(),
        )
        .expect("it is right");
    assert!(made.created && made.value.is_none());
    assert_eq!((made.shown.source, made.shown.revision), (Source::Api, 1));
    assert!(world.live().policy.team("ads").is_some());
    // A read is written back as it is, with what a read adds.
    let mut body = catalogue.show(Kind::Team, "ads").expect("it is there").body;
    body["budgets"] = json(r#"[{"limit_usd": "10", "every": "1d"}]"#);
    body["revision"] = 1.into();
    body["source"] = "api".into();
    let changed = catalogue
        .replace(Kind::Team, "ads", body, Some(1), &actor())
        .expect("it is right");
    assert_eq!((changed.created, changed.shown.revision), (false, 2));
    let names: Vec<String> = catalogue
        .list(Kind::Team, None, 10)
        .into_iter()
        .map(|shown| shown.name)
        .collect();
    assert_eq!(names, ["ads", "search"]);
    assert_eq!(catalogue.list(Kind::Team, Some("ads"), 10).len(), 1);
    catalogue
        .delete(Kind::Team, "ads", Some(2), &actor())
        .expect("nobody uses it");
    assert!(world.live().policy.team("ads").is_none());
    assert!(catalogue.show(Kind::Team, "ads").is_none());
    let actions: Vec<String> = world
        .shelf
        .changes()
        .into_iter()
        .map(|c| c.action)
        .collect();
    assert_eq!(actions, ["create", "replace", "delete"]);
    let replaced = &world.shelf.changes()[1];
    assert!(
        replaced
            .before
            .as_deref()
            .is_some_and(|body| !body.contains("limit_usd\":\"10"))
    );
    assert!(
        replaced
            .after
            .as_deref()
            .is_some_and(|body| body.contains("limit_usd\":\"10"))
    );
}

const WRONG: &[(Kind, &str, &str)] = &[
    (Kind::Team, "[]", ": expected a mapping of fields"),
    (Kind::Team, "{}", ": `name` is missing"),
    (
        Kind::Team,
        r#"{"name": "a", "custmer": "acme", "budgets": [{"limit_usd": 1}]}"#,
        "/budgets/0: `every` is missing\n/custmer: unknown field `custmer`, did you mean `customer`?",
    ),
    (
        Kind::Team,
        r#"{"name": "a", "customer": "none", "budgets": [{"limit_usd": -1, "every": "1d"}]}"#,
        "/budgets/0/limit_usd: `-1`: must not be negative\n/customer: there is no customer 'none'",
    ),
    (
        Kind::VirtualKey,
        r#"{"name": "a", "team": "none", "providers": [{"name": "opena"}]}"#,
        "/providers/0/name: there is no provider 'opena', did you mean 'openai'?\n/team: there is no team 'none'",
    ),
    (
        Kind::VirtualKey,
        r#"{"name": "a", "value": "env.HOME", "expires_at": "soon"}"#,
        "/value: `env.` and `file.` are for the file only: a caller of the API must not read what the node can\n/expires_at: expected a time such as `2027-01-31T18:00:00Z`, found `soon`",
    ),
    (
        Kind::VirtualKey,
        r#"{"name": "a", "value": "sk-tyr-of-the-file-0"}"#,
        "/value: has the same value as virtual key 'filed'",
    ),
    (
        Kind::VirtualKey,
        r#"{"name": "a", "value": "***"}"#,
        "/value: `***` keeps a stored value, and there is none",
    ),
    (
        Kind::Provider,
        r#"{"name": "p", "kind": "openai", "base_url": "env.URL", "keys": [{"name": "k", "value": "file./etc/passwd"}]}"#,
        "/base_url: `env.` and `file.` are for the file only: a caller of the API must not read what the node can\n/keys/0/value: `env.` and `file.` are for the file only: a caller of the API must not read what the node can",
    ),
    (
        Kind::Provider,
        r#"{"name": "p", "kind": "openai", "base_url": "http://127.0.0.1", "keys": [{"name": "k", "value": "***"}]}"#,
        "/keys/0/value: `***` keeps a stored secret, and there is none",
    ),
    (
        Kind::Model,
        r#"{"name": "m", "choices": ["openai/none"]}"#,
        "/choices/0: there is no model of provider 'openai' called 'none'",
    ),
    (
        Kind::RoutingRule,
        r#"{"name": "r", "when": "modle == 'x'", "targets": [{"model": "gpt"}]}"#,
        "/when: unknown variable 'modle'",
    ),
    (
        Kind::Role,
        r#"{"name": "r", "permissions": [{"resource": "keys", "operations": ["read"]}]}"#,
        "/permissions/0/resource: expected ",
    ),
    (
        Kind::AdminToken,
        r#"{"name": "t", "role": "god"}"#,
        "/role: there is no role 'god'",
    ),
];

/// What is told begins with the table's text.
#[test]
fn every_problem_is_told_by_its_pointer_and_nothing_changes() {
    let world = World::new();
    let before = world.live();
    for (kind, body, expected) in WRONG {
        let refusal = world
            .catalogue()
            .create(*kind, json(body), &actor())
            .expect_err(body);
        let told = invalid(refusal);
        assert!(told.starts_with(expected), "{body}\n{told}");
        let dry = world.catalogue().dry_run(*kind, json(body));
        assert_eq!(invalid(dry.expect_err(body)), told);
    }
    assert!(Arc::ptr_eq(&before, &world.live()));
    assert!(world.shelf.changes().is_empty());
}

#[test]
fn a_stale_writer_is_told_the_revision() {
    let world = World::new();
    let catalogue = world.catalogue();
    let body = || json(r#"{"name": "big"}"#);
    catalogue
        .create(Kind::Customer, body(), &actor())
        .expect("it is right");
    let stale = WriteRefusal::Stale { found: Some(1) };
    let refused = catalogue.replace(Kind::Customer, "big", json("{}"), Some(7), &actor());
    assert_eq!(refused.expect_err("before the body is looked at"), stale);
    let refused = catalogue.delete(Kind::Customer, "big", Some(7), &actor());
    assert_eq!(refused.expect_err("stale"), stale);
    let refused = catalogue.replace(Kind::Customer, "none", body(), Some(7), &actor());
    assert_eq!(refused.expect_err("there is none"), WriteRefusal::NotFound);
    let refused = catalogue.replace(Kind::Customer, "other", body(), None, &actor());
    assert!(invalid(refused.expect_err("two names")).starts_with("/name: the path names"));
    let refused = catalogue.create(Kind::Customer, body(), &actor());
    let exists = WriteRefusal::Exists {
        source: Source::Api,
    };
    assert_eq!(refused.expect_err("it is there"), exists);
}

#[test]
fn without_the_store_nothing_changes() {
    let world = World::new();
    let before = world.live();
    world.shelf.away.store(true, Ordering::SeqCst);
    let catalogue = world.catalogue();
    for (kind, body) in [
        (Kind::Customer, r#"{"name": "big"}"#),
        (Kind::VirtualKey, r#"{"name": "k"}"#),
        (Kind::Provider, PROVIDER),
    ] {
        let refused = catalogue.create(kind, json(body), &actor());
        assert!(matches!(refused, Err(WriteRefusal::Store(_))), "{body}");
    }
    let refused = catalogue.reset_limit("team/search/requests/1m/sliding", &actor());
    assert!(matches!(refused, Err(WriteRefusal::Store(_))));
    assert!(Arc::ptr_eq(&before, &world.live()));
    world.shelf.away.store(false, Ordering::SeqCst);
    catalogue
        .create(Kind::Customer, json(r#"{"name": "big"}"#), &actor())
        .expect("the store is back");
}

#[test]
fn what_is_in_use_stays() {
    let world = World::new();
    let catalogue = world.catalogue();
    let create = |kind, body: &str| {
        catalogue.create(kind, json(body), &actor()).expect(body);
    };
    create(Kind::Customer, r#"{"name": "big"}"#);
    create(Kind::Team, r#"{"name": "ads", "customer": "big"}"#);
    create(Kind::VirtualKey, r#"{"name": "k", "team": "ads"}"#);
    create(
        Kind::RoutingRule,
        r#"{"name": "r", "scope": "virtual_key", "subject": "k", "targets": [{"model": "gpt"}]}"#,
    );
    for (kind, name, by) in [
        (Kind::Customer, "big", "teams/ads"),
        (Kind::Team, "ads", "virtual-keys/k"),
        (Kind::VirtualKey, "k", "routing-rules/r"),
    ] {
        let refused = catalogue.delete(kind, name, None, &actor());
        let by = vec![by.to_owned()];
        assert_eq!(refused.expect_err(name), WriteRefusal::InUse { by });
    }
    for (kind, name) in [
        (Kind::RoutingRule, "r"),
        (Kind::VirtualKey, "k"),
        (Kind::Team, "ads"),
        (Kind::Customer, "big"),
    ] {
        catalogue.delete(kind, name, None, &actor()).expect(name);
    }
}

#[test]
fn secrets_of_providers_are_sealed_masked_and_kept() {
    let world = World::new();
    let catalogue = world.catalogue();
    let made = catalogue
        .create(Kind::Provider, json(PROVIDER), &actor())
        .expect("it is right");
    assert_eq!(made.shown.body["keys"][0]["value"], "***");
    let secret = |name: &str| {
        let live = world.live();
        let id = live.policy.provider_named(name).expect("it is there");
        let upstream = &live.upstreams[usize::from(id.0)];
        upstream.config.credentials[0].expose().to_owned()
    };
    assert_eq!(secret("own"), "sk-own-secret");
    let stored = world.shelf.entities()[0].body.clone().expect("it is there");
    assert!(stored.contains("sealed:v1:k1:") && !stored.contains("sk-own-secret"));
    let told = format!("{:?} {:?}", world.shelf.changes(), world.live());
    assert!(
        !told.contains("sk-own-secret") && !told.contains("sealed:v1"),
        "{told}"
    );
    let mut body = made.shown.body;
    body["timeouts"]["total"] = "5s".into();
    catalogue
        .replace(Kind::Provider, "own", body, None, &actor())
        .expect("*** is unchanged");
    assert_eq!(secret("own"), "sk-own-secret");
    // After a restart too, and without the key not at all.
    let again = World::of(super::world::FILE, Arc::clone(&world.shelf));
    assert!(again.live().policy.provider_named("own").is_some());
    let keyless = super::world::FILE.replace("id: k1", "id: k2");
    let problems = World::try_of(&keyless, Arc::clone(&world.shelf));
    let problems = problems.err().expect("the key is missing");
    let told = super::super::lines(&problems);
    assert!(
        told.starts_with("api: providers/own: /keys/0/value: "),
        "{told}"
    );
    assert!(told.contains("'k1'"), "{told}");
    let without = super::world::FILE.replace("encryption:", "# encryption:");
    let world = World::of(&without, Arc::default());
    let refused = world
        .catalogue()
        .create(Kind::Provider, json(PROVIDER), &actor());
    assert_eq!(refused.expect_err("no key"), WriteRefusal::NoEncryptionKey);
}
