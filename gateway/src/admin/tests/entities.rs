//! Making, changing and taking away entities.

use std::sync::atomic::Ordering;

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::ledger::MADE;
use super::world::{ADMIN, Answer, OPERATOR, World};

const NONE: &[(&str, &str)] = &[];

async fn put(world: &World, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    world.write(Method::PUT, path, ADMIN, headers, body).await
}

async fn post(world: &World, path: &str, body: &Value) -> Answer {
    world.write(Method::POST, path, ADMIN, NONE, body).await
}

async fn delete(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    let nothing = Value::Null;
    world
        .write(Method::DELETE, path, ADMIN, headers, &nothing)
        .await
}

#[tokio::test]
async fn a_key_is_made_and_its_value_shown_once() {
    let world = World::new();
    let body = json!({"name": "new key/1", "team": "search"});
    let made = post(&world, "/api/virtual-keys", &body).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let place = "/api/virtual-keys/new%20key%2F1";
    assert_eq!(made.header("location"), place);
    assert_eq!(made.json()["value"], MADE);
    let revision = made.json()["revision"].as_u64().expect("a number");
    assert_eq!(made.header("etag"), format!("\"{revision}\""));

    let read = world.read(place).await;
    assert_eq!(read.header("etag"), made.header("etag"));
    assert_eq!(read.json()["source"], "api");
    assert!(!read.text.contains(MADE), "{}", read.text);
    let again = post(&world, "/api/virtual-keys", &body).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert_eq!(again.json()["error"]["type"], "exists");

    let given = json!({"name": "own", "value": "a-value-of-the-callers-own"});
    let made = post(&world, "/api/virtual-keys", &given).await;
    assert_ne!(made.json()["value"], MADE);
    let trail = world
        .ledger
        .trail
        .lock()
        .expect("no panic holds it")
        .clone();
    let by = "by ops from 0.0.0.0";
    assert_eq!(
        trail,
        [
            format!("create virtual-keys/new key/1 {by}"),
            format!("create virtual-keys/own {by}")
        ]
    );
}

#[tokio::test]
async fn what_is_read_can_be_written_back() {
    let world = World::new();
    for path in [
        "/api/virtual-keys/zeta",
        "/api/customers/acme",
        "/api/providers/openai",
        "/api/models/openai%2Fgpt-4o-mini",
        "/api/models/openai/gpt-4o-mini",
    ] {
        let read = world.read(path).await;
        assert_eq!(read.status, StatusCode::OK, "{path}");
        let tag = read.header("etag");
        let written = put(&world, path, &[("if-match", tag)], &read.json()).await;
        assert_eq!(written.status, StatusCode::OK, "{path}: {}", written.text);
        assert_ne!(written.header("etag"), tag, "{path}");
        assert_eq!(written.header("location"), "", "{path}");
        let known = [("if-none-match", written.header("etag"))];
        let unchanged = world.write(Method::GET, path, ADMIN, &known, &Value::Null);
        assert_eq!(unchanged.await.status, StatusCode::NOT_MODIFIED, "{path}");
    }
}

#[tokio::test]
async fn a_stale_write_is_told_before_its_body_is_read() {
    let world = World::new();
    let path = "/api/customers/acme";
    let tag = world.read(path).await.header("etag").to_owned();
    let broken = json!({"name": "acme", "colour": "red"});
    let whole = json!({"name": "acme", "budgets": [{"limit_usd": 5, "every": "1d"}]});
    let cases = [
        (path, ("if-match", "\"0\""), &broken, 412),
        (path, ("if-match", "W/\"0\""), &broken, 412),
        (path, ("if-match", tag.as_str()), &broken, 400),
        (path, ("if-match", "\"0\", *"), &broken, 400),
        (path, ("if-none-match", "*"), &broken, 412),
        (path, ("if-none-match", tag.as_str()), &whole, 400),
        ("/api/customers/none", ("if-match", "*"), &broken, 412),
        (path, ("if-match", tag.as_str()), &whole, 200),
        (path, ("if-match", tag.as_str()), &whole, 412),
    ];
    for (path, header, body, status) in cases {
        let answer = put(&world, path, &[header], body).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{header:?}: {}",
            answer.text
        );
    }
    let stale = delete(&world, path, &[("if-match", &tag)]).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    let conditional = [("if-match", "*")];
    let body = json!({"name": "new"});
    let new = world.write(Method::POST, "/api/customers", ADMIN, &conditional, &body);
    assert_eq!(new.await.status, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_name_that_is_not_there_is_made_by_a_put() {
    let world = World::new();
    let path = "/api/teams/red";
    let only_new = [("if-none-match", "*")];
    let made = put(&world, path, &only_new, &json!({"customer": "acme"})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.json()["name"], "red");
    let again = put(&world, path, &only_new, &json!({"customer": "acme"})).await;
    assert_eq!(again.status, StatusCode::PRECONDITION_FAILED);
    let other = put(&world, path, NONE, &json!({"name": "blue"})).await;
    assert_eq!(other.status, StatusCode::BAD_REQUEST);
    assert_eq!(other.json()["problems"][0]["pointer"], "/name");
}

#[tokio::test]
async fn refusals_say_what_is_in_the_way() {
    let world = World::new();
    let cases = [
        (
            delete(&world, "/api/customers/acme", NONE).await,
            409,
            "in_use",
        ),
        (
            delete(&world, "/api/teams/search", NONE).await,
            409,
            "file_owned",
        ),
        (
            delete(&world, "/api/teams/none", NONE).await,
            404,
            "not_found",
        ),
        (
            put(&world, "/api/teams/search", NONE, &json!({})).await,
            409,
            "file_owned",
        ),
        (
            post(&world, "/api/teams", &json!({"name": "search"})).await,
            409,
            "exists",
        ),
        (
            post(&world, "/api/teams", &json!([])).await,
            400,
            "invalid_request",
        ),
        (
            post(&world, "/api/teams", &Value::Null).await,
            400,
            "invalid_request",
        ),
        (
            post(&world, "/api/teams", &json!({"name": "x", "colour": 1})).await,
            400,
            "invalid_request",
        ),
    ];
    for (answer, status, kind) in cases {
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        assert_eq!(answer.json()["error"]["type"], kind);
    }
    let wrong = post(&world, "/api/teams", &json!({"name": "x", "colour": 1})).await;
    let message = wrong.json()["problems"][0]["message"].clone();
    assert!(
        message.as_str().is_some_and(|text| text.contains("colour")),
        "{message}"
    );

    world.ledger.away.store(true, Ordering::Relaxed);
    let away = post(&world, "/api/teams", &json!({"name": "x"})).await;
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(away.text.contains("the store is away"), "{}", away.text);
    assert_eq!(world.read("/api/teams/search").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_field_that_stands_twice_is_refused() {
    let world = World::new();
    let cases = [
        (
            "teams",
            r#"{"name": "x", "budgets": [{"limit_usd": 1, "limit_usd": 9, "every": "1d"}]}"#,
            "/budgets/0/limit_usd",
        ),
        ("teams", r#"{"name": "x", "name": "y"}"#, "/name"),
        (
            "virtual-keys/zeta/rotate",
            r#"{"grace": "0s", "grace": "9h"}"#,
            "/grace",
        ),
        ("limits/reset", r#"{"limit": "a", "limit": "b"}"#, "/limit"),
        (
            "explain",
            r#"{"key": "demo", "model": "m", "headers": {"a": "1", "a": "2"}}"#,
            "/headers/a",
        ),
    ];
    for (path, body, pointer) in cases {
        let request = Request::post(format!("/api/{path}"))
            .header("authorization", format!("Bearer {ADMIN}"))
            .body(Body::from(body))
            .expect("a valid request");
        let refused = world.send(request).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path}");
        let problems = refused.json()["problems"].clone();
        assert_eq!(problems.as_array().map(Vec::len), Some(1), "{problems}");
        assert_eq!(problems[0]["pointer"], pointer);
    }
}

#[tokio::test]
async fn a_kept_credential_goes_nowhere_else() {
    let world = World::new();
    let path = "/api/providers/openai";
    let mut body = world.read(path).await.json();
    body["base_url"] = json!("https://elsewhere.example/v1");
    let stolen = put(&world, path, NONE, &body).await;
    assert_eq!(stolen.status, StatusCode::BAD_REQUEST);
    assert_eq!(stolen.json()["problems"][0]["pointer"], "/keys/0/value");
    body["base_url"] = json!("https://api.openai.com/v1");
    body["tls"] = json!({"ca": "-----BEGIN CERTIFICATE-----"});
    let stolen = put(&world, path, NONE, &body).await;
    assert_eq!(
        stolen.status,
        StatusCode::BAD_REQUEST,
        "vouched for by another"
    );
    body["base_url"] = json!("https://elsewhere.example/v1");
    body["keys"][0]["value"] = json!("a-new-credential");
    assert_eq!(put(&world, path, NONE, &body).await.status, StatusCode::OK);
}

/// Another caller may change it between the judgement and the write.
#[tokio::test]
async fn what_was_judged_is_what_is_replaced() {
    let world = World::new();
    let role = json!({"name": "r", "permissions": []});
    post(&world, "/api/roles", &role).await;
    for (path, pinned) in [
        ("/api/providers/openai", true),
        ("/api/roles/r", true),
        ("/api/customers/acme", false),
    ] {
        let body = world.read(path).await.json();
        let revision = body["revision"].as_u64().filter(|_| pinned);
        assert_eq!(put(&world, path, NONE, &body).await.status, StatusCode::OK);
        let expected = *world.ledger.expected.lock().expect("no panic holds it");
        assert_eq!(expected, revision, "{path}");
    }
}

#[tokio::test]
async fn keys_are_rotated_and_revoked() {
    let world = World::new();
    let rotate = "/api/virtual-keys/zeta/rotate";
    let rotated = post(&world, rotate, &json!({"grace": "1h"})).await;
    assert_eq!(rotated.status, StatusCode::OK);
    assert_eq!(rotated.json()["value"], MADE);
    let cases = [
        (rotate, json!({"grace": "soon"}), 400),
        (rotate, json!({"graze": "1h"}), 400),
        (rotate, Value::Null, 200),
        ("/api/virtual-keys/none/rotate", Value::Null, 404),
        ("/api/virtual-keys/demo/rotate", Value::Null, 409),
        ("/api/virtual-keys/none/revoke", Value::Null, 404),
    ];
    for (path, body, status) in cases {
        let answer = post(&world, path, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}");
    }
    let stale = [("if-match", "\"0\"")];
    let stale = world
        .write(Method::POST, rotate, ADMIN, &stale, &Value::Null)
        .await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    // A key of the file too, and also while the store is away.
    for persisted in [true, false] {
        world.ledger.away.store(!persisted, Ordering::Relaxed);
        let revoke = "/api/virtual-keys/demo/revoke";
        let revoked = world.write(Method::POST, revoke, OPERATOR, NONE, &Value::Null);
        let expected = json!({"applied_on": "1/1", "persisted": persisted});
        assert_eq!(revoked.await.json(), expected);
    }
}

#[tokio::test]
async fn limits_are_listed_and_reset() {
    let world = World::new();
    let all = world.read("/api/limits").await.json();
    let ids = |page: &Value| -> Vec<String> {
        let data = page["data"].as_array().expect("a list").iter();
        data.map(|limit| limit["id"].as_str().expect("an id").to_owned())
            .collect()
    };
    let expected = [
        "customer/acme/usd/1M/calendar",
        "team/search/tokens/1m/sliding",
        "virtual_key/demo/requests/1m/sliding",
        "virtual_key/demo/usd/1d/calendar",
    ];
    assert_eq!(ids(&all), expected);
    let mut paged = Vec::new();
    let mut after = String::new();
    loop {
        let page = world
            .read(&format!("/api/limits?limit=1{after}"))
            .await
            .json();
        paged.extend(ids(&page));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(paged, expected);

    let reset = json!({"limit": expected[2]});
    let done = post(&world, "/api/limits/reset", &reset).await;
    assert_eq!(done.status, StatusCode::OK);
    assert_eq!(done.json()["standing"][0]["id"], expected[2]);
    let wrong = post(&world, "/api/limits/reset", &json!({"limit": "none"})).await;
    assert_eq!(wrong.status, StatusCode::NOT_FOUND);
    let trail = world
        .ledger
        .trail
        .lock()
        .expect("no panic holds it")
        .clone();
    assert!(trail[0].starts_with("reset "), "{trail:?}");
}

#[tokio::test]
async fn the_audit_trail_is_read_a_page_at_a_time() {
    let world = World::new();
    let page = world.read("/api/audit?limit=2").await.json();
    assert_eq!(page["data"][1]["name"], "t2");
    assert_eq!(page["next"], "2");
    let page = world.read("/api/audit?limit=2&after=2").await.json();
    assert_eq!(
        (page["data"][0]["seq"].as_u64(), &page["next"]),
        (Some(3), &Value::Null)
    );
    assert_eq!(world.read("/api/audit?after=99").await.status.as_u16(), 503);
    assert_eq!(world.read("/api/audit?after=x").await.status.as_u16(), 400);
}
