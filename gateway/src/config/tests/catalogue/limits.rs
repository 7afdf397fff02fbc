//! Overrides and resets of limits.

use std::sync::Arc;

use policy::{Limit, Timestamp};

use super::world::{NOW, World, actor, invalid, json};
use crate::config::catalogue::{Kind, WriteRefusal};

const OF_FILE: &str = "virtual_key/filed/requests/1m/sliding";
const OF_TEAM: &str = "team/search/requests/1m/sliding";

fn of_key(world: &World, name: &str) -> Limit {
    let live = world.live();
    let key = live.policy.key_named(name).expect("it is there");
    key.scope.as_ref().expect("it has limits").limits[0].clone()
}

fn of_team(world: &World) -> Limit {
    let live = world.live();
    let team = live.policy.team("search").expect("it is there");
    team.scope.as_ref().expect("it has limits").limits[0].clone()
}

#[test]
fn an_override_holds_for_its_time() {
    let world = World::new();
    let catalogue = world.catalogue();
    let body = json(&format!(
        r#"{{"limit": "{OF_FILE}", "amount": 100, "periods": 2}}"#
    ));
    let made = catalogue
        .create(Kind::LimitOverride, body, &actor())
        .expect("it is right");
    assert_eq!(made.shown.name, OF_FILE);
    assert_eq!(made.shown.body["until"], "2027-01-15T08:02:00Z");
    assert!(made.shown.body.get("periods").is_none());
    let limit = of_key(&world, "filed");
    assert_eq!((limit.amount, limit.amount_at(NOW)), (9, 100));
    assert_eq!(limit.amount_at(Timestamp(NOW.0 + 120_000)), 9);
    let body = json(&format!(r#"{{"limit": "{OF_TEAM}", "amount": 0}}"#));
    catalogue
        .create(Kind::LimitOverride, body, &actor())
        .expect("it is right");
    assert_eq!(of_team(&world).amount_at(Timestamp(u64::MAX)), 0);
    // Over reloads and restarts, until it is taken away.
    world.reload(super::world::FILE).expect("it is right");
    assert_eq!(of_key(&world, "filed").amount_at(NOW), 100);
    let restarted = World::of(super::world::FILE, Arc::clone(&world.shelf));
    assert_eq!(of_key(&restarted, "filed").amount_at(NOW), 100);
    assert_eq!(of_team(&restarted).amount_at(NOW), 0);
    catalogue
        .delete(Kind::LimitOverride, OF_FILE, None, &actor())
        .expect("it is there");
    assert_eq!(of_key(&world, "filed").amount_at(NOW), 9);
}

#[test]
fn a_wrong_override_is_refused() {
    let world = World::new();
    for (body, expected) in [
        (
            r#"{"limit": "team/none/requests/1m/sliding", "amount": 1}"#,
            "/limit: there is no limit",
        ),
        (
            r#"{"limit": "nonsense", "amount": 1}"#,
            "/limit: there is no limit",
        ),
        (
            r#"{"limit": "team/search/requests/1m/sliding#1", "amount": 1}"#,
            "/limit: there is no limit",
        ),
        (
            r#"{"limit": "team/search/requests/1m/sliding", "limit_usd": 1}"#,
            ": a rate limit needs `amount`",
        ),
        (
            r#"{"limit": "team/search/requests/1m/sliding", "amount": 1, "until": "2020-01-01T00:00:00Z"}"#,
            "/until: is over already",
        ),
        (
            r#"{"limit": "team/search/requests/1m/sliding", "amount": 1, "until": "2030-01-01T00:00:00Z", "periods": 1}"#,
            "/periods: stands beside `until`",
        ),
        (
            r#"{"limit": "team/search/requests/1m/sliding", "amount": -1}"#,
            "/amount: must be 0 or more",
        ),
    ] {
        let refused = world
            .catalogue()
            .create(Kind::LimitOverride, json(body), &actor());
        let told = invalid(refused.expect_err(body));
        assert!(told.starts_with(expected), "{body}\n{told}");
    }
}

#[test]
fn a_reset_counts_from_zero_and_only_that_limit() {
    let world = World::new();
    let catalogue = world.catalogue();
    let made = catalogue.create(
        Kind::VirtualKey,
        json(
            r#"{"name": "k", "rate_limits": [{"requests": 1, "every": "1m"}, {"concurrent": 3}]}"#,
        ),
        &actor(),
    );
    made.expect("it is right");
    let (file, team, key) = (
        of_key(&world, "filed"),
        of_team(&world),
        of_key(&world, "k"),
    );
    catalogue
        .reset_limit(OF_FILE, &actor())
        .expect("it is there");
    catalogue.reset_limit(OF_FILE, &actor()).expect("twice");
    assert_eq!(of_key(&world, "filed").id.generation, 2);
    assert!(!Arc::ptr_eq(
        &file.counter,
        &of_key(&world, "filed").counter
    ));
    assert!(Arc::ptr_eq(&team.counter, &of_team(&world).counter));
    assert!(Arc::ptr_eq(&key.counter, &of_key(&world, "k").counter));
    catalogue
        .reset_limit(OF_TEAM, &actor())
        .expect("it is there");
    assert_eq!(of_team(&world).id.generation, 1);
    catalogue
        .reset_limit("virtual_key/k/requests/1m/sliding", &actor())
        .expect("it is there");
    assert_eq!(of_key(&world, "k").id.generation, 1);
    let refused = catalogue.reset_limit("virtual_key/k/concurrent/-/fixed", &actor());
    assert!(invalid(refused.expect_err("no window")).contains("in flight"));
    let refused = catalogue.reset_limit("team/none/requests/1m/sliding", &actor());
    assert_eq!(refused.expect_err("there is none"), WriteRefusal::NotFound);
    let restarted = World::of(super::world::FILE, Arc::clone(&world.shelf));
    assert_eq!(of_key(&restarted, "filed").id.generation, 2);
    assert_eq!(of_team(&restarted).id.generation, 1);
    assert_eq!(
        world
            .shelf
            .changes()
            .last()
            .map(|c| c.action.clone())
            .as_deref(),
        Some("reset")
    );
}

#[test]
fn limits_of_users_can_be_reset() {
    let file = format!(
        "{}governance: {{users: {{trusted_from: ['*'], rate_limits: [{{requests: 5, every: 1m}}]}}}}\n",
        super::world::FILE
    );
    let world = World::of(&file, Arc::default());
    let generation = |user: &str| {
        let live = world.live();
        let users = live.policy.users().expect("they have limits");
        let scope = users.scope(user, NOW).expect("they have limits");
        scope.limits[0].id.generation
    };
    assert_eq!(generation("ann"), 0);
    let id = "user/ann/requests/1m/sliding";
    world
        .catalogue()
        .reset_limit(id, &actor())
        .expect("it is there");
    assert_eq!((generation("ann"), generation("bob")), (1, 0));
    // Another spelling would be stored under a name that nobody looks for.
    for id in [
        "user/%61nn/requests/1m/sliding",
        "user/ann/requests/60s/sliding",
    ] {
        let refused = world.catalogue().reset_limit(id, &actor());
        assert_eq!(
            refused.expect_err("misspelt"),
            WriteRefusal::NotFound,
            "{id}"
        );
    }
    let live = world.live();
    let users = live.policy.users().expect("they have limits");
    assert_eq!(users.tracked(), 2, "a reset makes nobody known");
}

#[test]
fn ends_of_time_are_refused() {
    let world = World::new();
    let catalogue = world.catalogue();
    let body = json(r#"{"name": "k", "budgets": [{"limit_usd": 1, "every": "1Y"}]}"#);
    catalogue
        .create(Kind::VirtualKey, body, &actor())
        .expect("it is right");
    let body = json(
        r#"{"limit": "virtual_key/k/usd/1Y/calendar", "limit_usd": 2, "periods": 4294967295}"#,
    );
    let far = catalogue.create(Kind::LimitOverride, body, &actor());
    assert!(matches!(far, Err(WriteRefusal::Invalid(_))), "{far:?}");
    let grace = std::time::Duration::from_secs(999_999_999 * 86_400);
    let far = catalogue.rotate("k", grace, &actor());
    assert!(matches!(far, Err(WriteRefusal::Invalid(_))), "{far:?}");
}
