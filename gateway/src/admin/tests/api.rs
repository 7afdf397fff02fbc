//! Every route through the router, without a socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, StatusCode};
use policy::Timestamp;
use serde_json::json;

use super::world::{ADMIN, KEY_VALUE, NOON, OPERATOR, VIEWER, World};
use crate::admin::auth::Peer;
use crate::admin::{Degraded, ReloadProblem};

#[tokio::test]
async fn who_may_call_what() {
    let world = World::new();
    let cases = [
        (Method::GET, "/api/config", "", 401),
        (
            Method::GET,
            "/api/config",
            "wrong-token-of-some-length",
            401,
        ),
        (Method::GET, "/api/config", KEY_VALUE, 401),
        (Method::GET, "/api/config", VIEWER, 200),
        (Method::HEAD, "/api/config", VIEWER, 200),
        (Method::POST, "/api/reload", "", 401),
        (Method::POST, "/api/reload", VIEWER, 403),
        (Method::POST, "/api/reload", OPERATOR, 200),
        (Method::POST, "/api/reload", ADMIN, 200),
        (Method::POST, "/api/drain", VIEWER, 403),
        (Method::GET, "/api/reload", ADMIN, 405),
        (Method::GET, "/api/nothing", "", 401),
        (Method::GET, "/api/nothing", VIEWER, 404),
        (Method::GET, "/api", VIEWER, 404),
        (Method::DELETE, "/api/virtual-keys/demo", VIEWER, 403),
        (Method::DELETE, "/api/virtual-keys/demo", ADMIN, 409),
        (Method::DELETE, "/api/virtual-keys/absent", ADMIN, 404),
        (Method::DELETE, "/api/admin-tokens/absent", OPERATOR, 403),
        (Method::PUT, "/api/providers/openai", OPERATOR, 403),
        (Method::PATCH, "/api/virtual-keys/demo", ADMIN, 405),
        (Method::GET, "/nothing", "", 404),
        (Method::POST, "/livez", "", 405),
        (Method::GET, "//api/config", VIEWER, 404),
        (Method::GET, "/%61pi/config", VIEWER, 404),
    ];
    for (method, path, token, status) in cases {
        let answer = world.call(method.clone(), path, token).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{method} {path} with '{token}'"
        );
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        if status >= 400 {
            let error = &answer.json()["error"];
            assert!(
                error["type"].is_string() && error["message"].is_string(),
                "{error}"
            );
        }
        let challenged = !answer.header("www-authenticate").is_empty();
        assert_eq!(challenged, status == 401, "{method} {path}");
    }
    assert_eq!(world.reloads.load(Ordering::Relaxed), 9);
}

#[tokio::test]
async fn odd_credentials_are_none() {
    let world = World::new();
    let bearer = format!("Bearer {ADMIN}");
    let cases: [(&[&str], u16); 6] = [
        (&[&bearer], 200),
        (&[&bearer.replace("Bearer", "bearer")], 200),
        (&[&bearer, &bearer], 401),
        (&["Bearer "], 401),
        (&[ADMIN], 401),
        (&["Basic b3BzOng="], 401),
    ];
    for (values, status) in cases {
        let mut request = Request::builder().uri("/api/config");
        for value in values {
            request = request.header("authorization", *value);
        }
        let request = request.body(Body::empty()).expect("a valid request");
        let answer = world.send(request).await;
        assert_eq!(answer.status.as_u16(), status, "{values:?}");
    }
}

#[tokio::test]
async fn without_admin_tokens_the_api_is_off_and_says_how_to_switch_it_on() {
    let world = World::with_tokens(Vec::new());
    for token in ["", ADMIN] {
        let answer = world.call(Method::POST, "/api/reload", token).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert_eq!(answer.json()["error"]["type"], "admin_api_off");
        assert!(answer.text.contains("admin: {tokens:"), "{}", answer.text);
    }
    assert_eq!(world.reloads.load(Ordering::Relaxed), 7);
    assert_eq!(
        world.call(Method::GET, "/livez", "").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn ten_wrong_tokens_close_the_api_to_their_address_for_a_minute() {
    let world = World::new();
    for _ in 0..10 {
        let answer = world
            .call(Method::GET, "/api/config", "a-wrong-token")
            .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let answer = world.read("/api/config").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.header("retry-after"), "60");
    assert_eq!(
        world.call(Method::GET, "/readyz", "").await.status.as_u16(),
        503
    );
    let mut elsewhere = Request::builder()
        .uri("/api/config")
        .header("authorization", format!("Bearer {VIEWER}"))
        .body(Body::empty())
        .expect("a valid request");
    let address = Peer("192.0.2.7".parse().expect("an address"));
    elsewhere.extensions_mut().insert(address);
    assert_eq!(world.send(elsewhere).await.status, StatusCode::OK);
    world.clock.set(Timestamp(NOON.0 + 60_000));
    assert_eq!(world.read("/api/config").await.status, StatusCode::OK);
    let scrape = world.call(Method::GET, "/metrics", "").await.text;
    assert!(
        scrape.contains("tyr_admin_auth_failures_total 10"),
        "{scrape}"
    );
}

#[tokio::test]
async fn readiness_follows_start_drain_and_lost_parts() {
    let world = World::new();
    let readyz = async || {
        let answer = world.call(Method::GET, "/readyz", "").await;
        (answer.status.as_u16(), answer.json())
    };
    let (status, body) = readyz().await;
    assert_eq!((status, &body["reasons"]), (503, &json!(["starting"])));

    world.readiness.set_ready(true);
    let whole = json!({"ready": true, "draining": false, "reasons": [], "degraded": []});
    assert_eq!(readyz().await, (200, whole));

    world.store.lock().expect("no panic holds it").store_ok = false;
    world.readiness.set_degraded(Degraded::Peers, true);
    let (status, body) = readyz().await;
    assert_eq!(
        (status, &body["degraded"]),
        (200, &json!(["store", "peers"]))
    );

    world.store.lock().expect("no panic holds it").store_ok = true;
    world.readiness.set_degraded(Degraded::Peers, false);
    assert_eq!(readyz().await.1["degraded"], json!([]));

    for (misfit, expected) in [
        (Some("teams/ads".into()), json!(["entities"])),
        (None, json!([])),
    ] {
        let mut live = world.live.load().as_ref().clone();
        live.misfit = misfit;
        world.live.store(Arc::new(live));
        let told = u8::from(expected != json!([]));
        assert_eq!(readyz().await.1["degraded"], expected);
        let metrics = world.call(Method::GET, "/metrics", "").await.text;
        let line = format!("tyr_degraded{{reason=\"entities\"}} {told}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }

    let drained = world.call(Method::POST, "/api/drain", OPERATOR).await;
    assert_eq!(drained.json(), json!({"draining": true, "in_flight": 0}));
    let (status, body) = readyz().await;
    assert_eq!((status, &body["reasons"]), (503, &json!(["draining"])));
    let alias = world.call(Method::GET, "/healthz", "").await;
    assert_eq!(alias.json(), body);
    assert_eq!(world.call(Method::GET, "/livez", "").await.text, "ok");
}

#[tokio::test]
async fn a_refused_reload_lists_every_problem_and_shows_as_degraded() {
    let world = World::new();
    world
        .problems
        .lock()
        .expect("no panic holds it")
        .push(ReloadProblem {
            file: "conf/tyr.yaml".to_owned(),
            line: 12,
            path: "virtual_keys[0].team".to_owned(),
            message: "no team is named 'serach'".to_owned(),
        });
    let answer = world.call(Method::POST, "/api/reload", OPERATOR).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let expected = json!([{
        "file": "conf/tyr.yaml",
        "line": 12,
        "path": "virtual_keys[0].team",
        "message": "no team is named 'serach'",
    }]);
    assert_eq!(answer.json()["errors"], expected);
    let readyz = world.call(Method::GET, "/readyz", "").await;
    assert_eq!(readyz.json()["degraded"], json!(["configuration"]));

    world.problems.lock().expect("no panic holds it").clear();
    let answer = world.call(Method::POST, "/api/reload", OPERATOR).await;
    assert_eq!(answer.json(), json!({"revision": 8}));
    let readyz = world.call(Method::GET, "/readyz", "").await;
    assert_eq!(readyz.json()["degraded"], json!([]));
}

#[tokio::test]
async fn the_configuration_carries_its_revision_and_a_tag() {
    let world = World::new();
    let answer = world.read("/api/config").await;
    assert_eq!(answer.json()["revision"], 7);
    assert_eq!(answer.json()["config"]["version"], 1);
    let tag = answer.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.len() > 10, "{tag}");
    for (known, status) in [(tag.as_str(), 304), ("\"other\"", 200), ("*", 304)] {
        let request = Request::builder()
            .uri("/api/config")
            .header("authorization", format!("Bearer {VIEWER}"))
            .header("if-none-match", known);
        let request = request.body(Body::empty()).expect("a valid request");
        assert_eq!(world.send(request).await.status.as_u16(), status, "{known}");
    }
}

#[tokio::test]
async fn a_key_shows_where_each_limit_of_its_walk_stands() {
    let world = World::new();
    let held = world.book_and_hold();
    let answer = world.read("/api/virtual-keys/demo").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.header("etag").starts_with('"'));
    let mut key = answer.json();
    let standing = key["standing"].take();
    let expected = json!({
        "name": "demo",
        "sha256": "***",
        "active": true,
        "providers": [{"name": "openai", "models": ["*"], "weight": 1}],
        "source": "file",
        "revision": 1,
        "standing": null,
    });
    assert_eq!(key, expected);
    let walk: Vec<_> = standing
        .as_array()
        .expect("a list")
        .iter()
        .map(|limit| json!([limit["scope"], limit["name"], limit["unit"], limit["every"]]))
        .collect();
    let expected = [
        json!(["virtual_key", "demo", "requests", "1m"]),
        json!(["virtual_key", "demo", "usd", "1d"]),
        json!(["team", "search", "tokens", "1m"]),
        json!(["customer", "acme", "usd", "1M"]),
    ];
    assert_eq!(walk, expected);
    let budget = json!({
        "id": "virtual_key/demo/usd/1d/calendar",
        "scope": "virtual_key",
        "name": "demo",
        "unit": "usd",
        "every": "1d",
        "window": "calendar",
        "limit_name": null,
        "limit": "10",
        "used": "0.0015",
        "reserved": "0.002",
        "remaining": "9.9965",
        "limit_nano_usd": 10_000_000_000_u64,
        "used_nano_usd": 1_500_000,
        "reserved_nano_usd": 2_000_000,
        "remaining_nano_usd": 9_996_500_000_u64,
        "resets_at": standing[1]["resets_at"],
        "enforcement": "strict",
        "mode": "single",
        "overshoot_bound": "0",
        "answers_may_exceed_hold": false,
        "overridden": false,
        "shadow": false,
    });
    assert_eq!(standing[1], budget);
    let resets_at = standing[1]["resets_at"].as_str().expect("a time");
    assert!(resets_at.starts_with("2026-11-23T00:00:00"), "{resets_at}");
    let tokens = ["limit", "used", "reserved", "remaining", "overshoot_bound"];
    let tokens = tokens.map(|field| standing[2][field].as_u64());
    assert_eq!(tokens, [5_000, 40, 100, 4_860, 0].map(Some));
    assert_eq!(standing[2]["answers_may_exceed_hold"], true);
    held.release(NOON);
    let after = world.read("/api/virtual-keys/demo").await;
    assert_eq!(after.json()["standing"][1]["reserved"], "0");
    assert_eq!(after.header("etag"), answer.header("etag"));
}

#[tokio::test]
async fn keys_are_listed_by_name_a_page_at_a_time() {
    let world = World::new();
    let cases = [
        ("", vec!["a/b", "demo", "zeta"], json!(null)),
        ("?limit=2", vec!["a/b", "demo"], json!("demo")),
        ("?limit=2&after=demo", vec!["zeta"], json!(null)),
        ("?after=b", vec!["demo", "zeta"], json!(null)),
        ("?after=zeta", vec![], json!(null)),
    ];
    for (query, names, next) in cases {
        let page = world
            .read(&format!("/api/virtual-keys{query}"))
            .await
            .json();
        let items = page["data"].as_array().expect("a list");
        let shown: Vec<_> = items.iter().map(|key| key["name"].clone()).collect();
        assert_eq!(shown, names, "{query}");
        assert_eq!(page["next"], next, "{query}");
    }
    for query in ["?limit=0", "?limit=1001", "?limit=x", "?before=b"] {
        let answer = world.read(&format!("/api/virtual-keys{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
    let key = world.read("/api/virtual-keys/a%2Fb").await.json();
    assert_eq!(key["name"], "a/b");
    assert_eq!(
        world.read("/api/virtual-keys/absent").await.status.as_u16(),
        404
    );
}

#[tokio::test]
async fn usage_records_come_from_the_reader() {
    let world = World::new();
    assert_eq!(world.read("/api/usage/r1").await.json()["cost"], 5);
    assert_eq!(world.read("/api/usage/r9").await.status.as_u16(), 404);
    assert_eq!(world.read("/api/usage/away").await.status.as_u16(), 503);
    let page = world.read("/api/usage?limit=2").await.json();
    let expected = json!({"data": [{"request_id": "r3"}, {"request_id": "r2"}], "next": "r2"});
    assert_eq!(page, expected);
    let page = world.read("/api/usage?limit=2&after=r2").await.json();
    assert_eq!(page, json!({"data": [{"request_id": "r1"}], "next": null}));
    let page = world.read("/api/usage?limit=2&key=a").await.json();
    let expected = json!({"data": [{"request_id": "r3"}, {"request_id": "r1"}], "next": null});
    assert_eq!(page, expected);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let world = World::new();
    for (size, status) in [(1 << 20, 200), ((1 << 20) + 1, 413)] {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/api/reload")
            .header("authorization", format!("Bearer {ADMIN}"))
            .body(Body::from(vec![b' '; size]))
            .expect("a valid request");
        assert_eq!(world.send(request).await.status.as_u16(), status, "{size}");
    }
    assert_eq!(world.reloads.load(Ordering::Relaxed), 8);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_ends_the_call() {
    let world = World::new();
    let never = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
    let request = Request::builder()
        .method(Method::POST)
        .uri("/api/reload")
        .header("authorization", format!("Bearer {ADMIN}"))
        .body(Body::from_stream(never))
        .expect("a valid request");
    let answer = tokio::time::timeout(Duration::from_secs(11), world.send(request)).await;
    assert_eq!(answer.expect("in time").status.as_u16(), 408);
    assert_eq!(world.reloads.load(Ordering::Relaxed), 7);
}

#[tokio::test]
async fn no_answer_holds_a_secret() {
    let world = World::new();
    let hash = hex::encode(policy::KeyHash::of(KEY_VALUE.as_bytes()).0);
    let paths = [
        "/livez",
        "/readyz",
        "/metrics",
        "/api/config",
        "/api/virtual-keys",
        "/api/virtual-keys/demo",
        "/api/providers/openai",
        "/api/limits",
        "/api/audit",
        "/api/openapi.json",
        "/api/usage",
        "/api/usage/r1",
        "/api/nothing",
    ];
    for path in paths {
        for method in [Method::GET, Method::PUT] {
            for token in [ADMIN, "canary-guess"] {
                let answer = world.call(method.clone(), path, token).await;
                let whole = format!("{:?}{}", answer.headers, answer.text);
                assert!(!whole.contains("canary"), "{method} {path}: {whole}");
                // The configuration is masked by who resolved it.
                assert!(path == "/api/config" || !whole.contains(&hash), "{path}");
            }
        }
        world.clock.advance(Duration::from_secs(61));
    }
}
