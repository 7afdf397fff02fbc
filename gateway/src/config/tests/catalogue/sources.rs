//! File and API side by side, and other processes.

use std::sync::Arc;

use super::world::{FILE, World, actor, json};
use crate::config::catalogue::{Kind, Source, WriteRefusal};

fn create(world: &World, kind: Kind, body: &str) {
    let made = world.catalogue().create(kind, json(body), &actor());
    made.unwrap_or_else(|refusal| panic!("{body}: {refusal:?}"));
}

#[test]
fn what_the_file_has_is_shown_and_read_only() {
    let world = World::new();
    let catalogue = world.catalogue();
    for (kind, name, line) in [
        (Kind::Provider, "openai", 4),
        (Kind::Model, "openai/gpt", 6),
        (Kind::Customer, "acme", 7),
        (Kind::Team, "search", 8),
        (Kind::VirtualKey, "filed", 10),
    ] {
        let shown = catalogue.show(kind, name).expect(name);
        let Source::File { place } = shown.source else {
            panic!("{name} is of the file");
        };
        assert!(place.ends_with(&format!("t.yaml:{line}")), "{place}");
        let owned = WriteRefusal::FileOwned {
            place: place.clone(),
        };
        assert_eq!(
            catalogue.delete(kind, name, None, &actor()),
            Err(owned.clone())
        );
        let replaced = catalogue.replace(kind, name, shown.body.clone(), None, &actor());
        assert_eq!(replaced.expect_err(name), owned);
        assert!(!shown.body.to_string().contains("sk-"), "{}", shown.body);
    }
    let body = json(r#"{"name": "search"}"#);
    let refused = catalogue.create(Kind::Team, body, &actor());
    assert!(matches!(
        refused,
        Err(WriteRefusal::Exists {
            source: Source::File { .. }
        })
    ));
}

#[test]
fn a_name_in_both_is_refused_on_reload_and_at_the_start() {
    let world = World::new();
    create(&world, Kind::Team, r#"{"name": "ads"}"#);
    create(
        &world,
        Kind::VirtualKey,
        r#"{"name": "k", "value": "sk-tyr-0123456789"}"#,
    );
    let team = FILE.replace("teams: [", "teams: [{name: ads}, ");
    assert_eq!(
        world.reload(&team),
        Err("api: teams/ads: /name: team 'ads' is already defined at t.yaml:8".to_owned())
    );
    let named = format!("{FILE}  - {{name: k, value: sk-tyr-abcdefghij}}\n");
    assert_eq!(
        world.reload(&named),
        Err("t.yaml:11: virtual_keys[1].name: virtual key 'k' is made by the API too: api: virtual-keys/k".to_owned())
    );
    let valued = format!("{FILE}  - {{name: other, value: sk-tyr-0123456789}}\n");
    assert_eq!(
        world.reload(&valued),
        Err("t.yaml:11: virtual_keys[1]: has the same value as api: virtual-keys/k".to_owned())
    );
    for file in [&team, &named] {
        assert!(World::try_of(file, Arc::clone(&world.shelf)).is_err());
    }
    world.reload(FILE).expect("it is right");
}

#[test]
fn a_reload_that_leaves_something_dangling_is_refused_with_both_names() {
    let world = World::new();
    create(&world, Kind::Team, r#"{"name": "ads", "customer": "acme"}"#);
    create(
        &world,
        Kind::VirtualKey,
        r#"{"name": "k", "providers": [{"name": "openai", "models": ["gpt"]}]}"#,
    );
    create(
        &world,
        Kind::VirtualKey,
        r#"{"name": "l", "team": "search"}"#,
    );
    let before = world.live();
    let less = FILE
        .replace("customers: [{name: acme}]\n", "")
        .replace("customer: acme, ", "")
        .replace("- {name: gpt,", "- {name: gtp,")
        .replace("search", "find");
    let told = world.reload(&less).expect_err("it leaves them dangling");
    assert_eq!(
        told,
        "api: teams/ads: /customer: there is no customer 'acme'"
    );
    let less = FILE
        .replace("- {name: gpt,", "- {name: gtp,")
        .replace("search", "find");
    let told = world.reload(&less).expect_err("it leaves them dangling");
    assert_eq!(
        told,
        "api: virtual-keys/k: /providers: there would be no model 'gpt' of provider 'openai'\n\
         api: virtual-keys/l: /team: there would be no team 'search'"
    );
    assert!(Arc::ptr_eq(&before, &world.live()));
}

#[test]
fn entities_outlive_a_reload() {
    let world = World::new();
    create(&world, Kind::Team, r#"{"name": "ads"}"#);
    create(&world, Kind::VirtualKey, r#"{"name": "k", "team": "ads"}"#);
    let key = world
        .live()
        .policy
        .key_named("k")
        .cloned()
        .expect("it is there");
    let more = FILE.replace("sk-tyr-of-the-file-0", "sk-tyr-of-the-file-1");
    world.reload(&more).expect("it is right");
    let live = world.live();
    let same = live.policy.key_named("k").expect("it is there");
    assert!(Arc::ptr_eq(&key, same));
    assert!(live.policy.team("ads").is_some());
    let less = FILE.split("virtual_keys").next().expect("it has keys");
    world.reload(less).expect("it is right");
    assert!(world.live().policy.key_named("filed").is_none());
    assert!(world.live().policy.key_named("k").is_some());
}

#[test]
fn what_others_write_is_taken_over() {
    let world = World::new();
    let shelf = &world.shelf;
    shelf.elsewhere("team", "ads", Some(r#"{"name":"ads"}"#));
    let key = |team: &str| format!(r#"{{"name":"k","sha256":"{:064x}","team":"{team}"}}"#, 1);
    shelf.elsewhere("virtual_key", "k", Some(&key("ads")));
    shelf.elsewhere("revocation", &"ab".repeat(32), Some("{}"));
    shelf.elsewhere(
        "limit_override",
        "team/search/requests/1m/sliding",
        Some(r#"{"limit":"team/search/requests/1m/sliding","amount":1}"#),
    );
    shelf.elsewhere("of_the_future", "x", Some("{}"));
    world.catalogue().poll();
    let live = world.live();
    assert!(live.policy.team("ads").is_some() && live.policy.key_named("k").is_some());
    assert!(live.policy.is_revoked(&policy::KeyHash([0xab; 32])));
    let team = live
        .policy
        .team("search")
        .and_then(|team| team.scope.clone());
    let limit = team.expect("it has limits").limits[0].clone();
    assert_eq!(limit.amount_at(super::world::NOW), 1);
    assert_eq!(
        world
            .catalogue()
            .show(Kind::Team, "ads")
            .expect("it is there")
            .revision,
        1
    );
    world.catalogue().poll();
    assert!(Arc::ptr_eq(&live, &world.live()));
    // A key that names what this node lacks is known and refused, until it can.
    shelf.elsewhere("virtual_key", "k", Some(&key("none")));
    world.catalogue().poll();
    let live = world.live();
    let refused = live.policy.key_named("k").expect("it is known");
    assert!(!refused.active);
    assert_eq!(
        live.unresolved.get("k").map(|why| &**why),
        Some("api: virtual-keys/k: /team: there is no team 'none'")
    );
    shelf.elsewhere("team", "none", Some(r#"{"name":"none"}"#));
    world.catalogue().poll();
    let live = world.live();
    assert!(live.unresolved.is_empty());
    assert!(live.policy.key_named("k").is_some_and(|key| key.active));
    shelf.elsewhere("virtual_key", "k", None);
    shelf.elsewhere("team", "none", None);
    world.catalogue().poll();
    assert!(world.live().policy.key_named("k").is_none());
    assert!(world.live().policy.team("none").is_none());
}

#[test]
fn a_base_that_does_not_fit_here_leaves_the_old_one() {
    let world = World::new();
    world
        .shelf
        .elsewhere("team", "ads", Some(r#"{"name":"ads","customer":"none"}"#));
    world.shelf.elsewhere(
        "virtual_key",
        "k",
        Some(&format!(r#"{{"name":"k","sha256":"{:064x}"}}"#, 1)),
    );
    world.catalogue().poll();
    let live = world.live();
    assert!(live.policy.team("ads").is_none() && live.policy.team("search").is_some());
    assert!(live.policy.key_named("k").is_some());
    let why = "api: teams/ads: /customer: there is no customer 'none'";
    assert_eq!(live.misfit.as_deref(), Some(why));
    // A key changes nothing of it; a customer of that name does.
    create(&world, Kind::VirtualKey, r#"{"name": "l"}"#);
    world.shelf.elsewhere("virtual_key", "k", None);
    world.catalogue().poll();
    assert_eq!(world.live().misfit.as_deref(), Some(why));
    world
        .shelf
        .elsewhere("customer", "none", Some(r#"{"name":"none"}"#));
    world.catalogue().poll();
    let live = world.live();
    assert_eq!(live.misfit, None);
    assert!(live.policy.team("ads").is_some());
}

#[test]
fn a_file_that_fits_takes_in_what_waited() {
    let world = World::new();
    let body = r#"{"name":"ads","customer":"none"}"#;
    world.shelf.elsewhere("team", "ads", Some(body));
    world.catalogue().poll();
    assert!(world.live().misfit.is_some());
    let told = world.reload(FILE).expect_err("it still does not fit");
    assert_eq!(
        told,
        "api: teams/ads: /customer: there is no customer 'none'"
    );
    assert!(world.live().misfit.is_some());
    let fits = FILE.replace("customers: [", "customers: [{name: none}, ");
    world.reload(&fits).expect("it fits");
    assert_eq!(world.live().misfit, None);
    assert!(world.live().policy.team("ads").is_some());
}

#[test]
fn roles_and_tokens_of_the_api_work_like_those_of_the_file() {
    let world = World::new();
    create(
        &world,
        Kind::Role,
        r#"{"name": "keys", "permissions": [{"resource": "virtual-keys", "operations": ["create", "read"]}]}"#,
    );
    let made = world.catalogue().create(
        Kind::AdminToken,
        json(r#"{"name": "t", "role": "keys", "ceiling": ["virtual-keys:read"]}"#),
        &actor(),
    );
    let value = made.expect("it is right").value.expect("it was made here");
    let live = world.live();
    let token = &live.admin.tokens[0];
    assert_eq!(token.hash, policy::KeyHash::of(value.expose().as_bytes()));
    assert_eq!(token.rights.texts(), ["virtual-keys:read"]);
    let refused = world.catalogue().delete(Kind::Role, "keys", None, &actor());
    let by = vec!["admin-tokens/t".to_owned()];
    assert_eq!(refused, Err(WriteRefusal::InUse { by }));
}
