//! Nobody gives more than they have.

use http::{Method, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{ADMIN, World, built_in, token};
use crate::admin::entities::{Kind, Source};
use crate::admin::rights::{Operation, Resource, Rights};

const MAKER: &str = "canary-token-of-the-maker-01";
const NONE: &[(&str, &str)] = &[];

/// A role that names each of these rights.
fn role(name: &str, rights: Rights) -> Value {
    let permissions = rights.texts().into_iter().map(|text| {
        let (resource, operation) = text.split_once(':').expect("a right");
        json!({"resource": resource, "operations": [operation]})
    });
    json!({"name": name, "permissions": permissions.collect::<Vec<_>>()})
}

/// The right to make tokens and roles.
fn maker() -> Rights {
    Rights::parse_all(["admin-tokens:*", "roles:*"]).expect("rights")
}

fn any_rights() -> impl Strategy<Value = Rights> {
    let texts: Vec<String> = Rights::ALL.texts();
    proptest::sample::subsequence(texts, 0..=85)
        .prop_map(|texts| Rights::parse_all(texts.iter().map(String::as_str)).expect("rights"))
}

/// What the maker gets for making, changing and deleting `body`.
async fn statuses(world: &World, kind: &str, name: &str, body: &Value) -> [u16; 3] {
    let (all, one) = (format!("/api/{kind}"), format!("/api/{kind}/{name}"));
    let made = world.write(Method::POST, &all, MAKER, NONE, body).await;
    let put = world.write(Method::PUT, &one, MAKER, NONE, body).await;
    let gone = world.call(Method::DELETE, &one, MAKER).await;
    [made, put, gone].map(|answer| answer.status.as_u16())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_child_never_has_more_than_its_maker(mine in any_rights(), wanted in any_rights()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let mine = mine.union(maker());
            let world = World::with_tokens(vec![token("maker", mine, MAKER)]);
            let may = wanted.is_within(mine);
            world.ledger.put(Kind::Role, Source::Api, role("wanted", wanted));
            let child = json!({"name": "child", "role": "wanted"});
            let expected = if may { [201, 200, 204] } else { [403, 403, 404] };
            assert_eq!(statuses(&world, "admin-tokens", "child", &child).await, expected);
            let expected = if may { [201, 200, 204] } else { [403, 403, 404] };
            let body = role("made", wanted);
            assert_eq!(statuses(&world, "roles", "made", &body).await, expected);
            // What is there already is touched by those only who have as much.
            let kept = json!({"name": "kept", "role": "wanted"});
            world.ledger.put(Kind::AdminToken, Source::Api, kept);
            let gone = world.call(Method::DELETE, "/api/admin-tokens/kept", MAKER).await;
            assert_eq!(gone.status.as_u16(), if may { 204 } else { 403 });
        });
    }
}

#[tokio::test]
async fn a_token_keeps_its_makers_rights_as_its_ceiling() {
    let mine = maker().union(Rights::one(Resource::Usage, Operation::Read));
    let world = World::with_tokens(vec![token("maker", mine, MAKER)]);
    let viewer = json!({"name": "child", "role": "small", "ceiling": ["*:*"]});
    world.ledger.put(
        Kind::Role,
        Source::Api,
        role("small", Rights::one(Resource::Usage, Operation::Read)),
    );
    let path = "/api/admin-tokens";
    let made = world.write(Method::POST, path, MAKER, NONE, &viewer).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.json()["ceiling"], json!(mine.short_texts()));

    // The role grows beyond the maker: the token does not.
    let body = role("small", built_in("admin"));
    world.ledger.put(Kind::Role, Source::Api, body);
    let gone = world
        .call(Method::DELETE, "/api/admin-tokens/child", MAKER)
        .await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_put_that_makes_needs_the_right_to_make() {
    let update = Rights::one(Resource::Teams, Operation::Update);
    let world = World::with_tokens(vec![token("maker", update, MAKER)]);
    let body = json!({"name": "new"});
    let made = world
        .write(Method::PUT, "/api/teams/new", MAKER, NONE, &body)
        .await;
    assert_eq!(made.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn nothing_that_is_no_right_is_taken_for_one() {
    let world = World::new();
    let body =
        json!({"name": "odd", "permissions": [{"resource": "moon", "operations": ["read"]}]});
    let odd = world
        .write(Method::POST, "/api/roles", ADMIN, NONE, &body)
        .await;
    assert_eq!(odd.status, StatusCode::BAD_REQUEST);
    assert_eq!(odd.json()["problems"][0]["pointer"], "/permissions/0");
}
