//! Users behind a virtual key: who may name one, what each may use, and that
//! a provider learns nothing of them.

use std::fs;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::harness::conf::KEY;
use crate::harness::wait::within;
use crate::harness::{Ask, Conf, Node, Upstream, eventually};

const CHAT: &str = "/v1/chat/completions";
/// The first second of the year 2100.
const FAR: u64 = 4_102_444_800;

fn body() -> Value {
    json!({"model": "gpt-4o-mini", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]})
}

fn chat() -> Ask {
    Ask::post(CHAT, &body())
}

/// A node whose `governance.users` are these fields.
fn node(upstream: &Upstream, users: &str) -> Node {
    let mut conf = Conf::for_upstream(upstream.address);
    conf.more = format!("governance:\n  users: {{{users}}}\n");
    Node::start(&conf)
}

/// An issuer with one Ed25519 key.
struct Issuer {
    pair: Ed25519KeyPair,
    id: &'static str,
}

impl Issuer {
    fn new(id: &'static str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        Self { pair, id }
    }

    fn set(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": x}]})
    }

    fn token(&self, user: &str, expires: u64) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(json!({"alg": "EdDSA", "kid": self.id}));
        let claims = json!({"iss": "https://issuer", "aud": "tyr", "sub": user, "exp": expires});
        let message = format!("{header}.{}", part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

#[test]
fn each_user_of_a_trusted_sender_has_a_limit_of_its_own() {
    let upstream = Upstream::chat();
    let node = node(
        &upstream,
        "trusted_from: [127.0.0.1/32], rate_limits: [{requests: 1, every: 1h}]",
    );
    let of = |user: &str| node.ask(&chat().header("x-tyr-user", user));
    assert_eq!(of("ann").status(), 200);
    let refused = of("ann");
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.header("x-tyr-limit"), Some("user/ann/requests/1h"));
    assert_eq!(of("bob").status(), 200);
    assert_eq!(node.ask(&chat()).status(), 200, "without a user");
    assert_eq!(of(&"a".repeat(129)).status(), 400);
    for seen in upstream.seen() {
        assert_eq!(seen.header("x-tyr-user"), None, "{seen:?}");
    }
    let users: Vec<_> = node
        .records_exactly(3)
        .into_iter()
        .map(|r| r.user)
        .collect();
    assert_eq!(users, [Some("ann".into()), Some("bob".into()), None]);
}

#[test]
fn a_header_from_elsewhere_means_nothing() {
    let upstream = Upstream::chat();
    let node = node(
        &upstream,
        "header: x-who, trusted_from: [10.0.0.0/8], rate_limits: [{requests: 1, every: 1h}]",
    );
    for _ in 0..3 {
        let answer = node.ask(&chat().header("x-who", "ann"));
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    assert!(
        upstream
            .seen()
            .iter()
            .all(|seen| seen.header("x-who").is_none())
    );
    assert!(
        node.records_exactly(3)
            .iter()
            .all(|record| record.user.is_none())
    );
}

#[test]
fn a_signed_token_names_the_user_and_a_wrong_one_is_refused() {
    let upstream = Upstream::chat();
    let (issuer, stranger) = (Issuer::new("k1"), Issuer::new("k1"));
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("keys.json");
    fs::write(&set, issuer.set().to_string()).unwrap();
    let jwt = format!(
        "required: true, jwt: {{jwks: file.{}, issuer: https://issuer, audience: tyr, header: authorization}}",
        set.display()
    );
    let node = node(&upstream, &jwt);
    let with = |token: &str| {
        let ask = chat().bearer(token).header("x-tyr-key", KEY);
        node.ask(&ask)
    };
    let answer = with(&issuer.token("ann", FAR));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    for (token, says) in [
        (stranger.token("ann", FAR), "signature"),
        (issuer.token("ann", 1_000_000_000), "expired"),
        (issuer.token("", FAR), "names no user"),
        ("nonsense".to_owned(), "malformed"),
    ] {
        let answer = with(&token);
        assert_eq!(answer.status(), 401, "{says}");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "invalid_user");
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    }
    let nobody = node.ask(&chat());
    assert_eq!(nobody.status(), 401, "a user is required");
    assert_eq!(upstream.count(), 1);
    let sent = upstream.seen();
    let credential = sent[0].header("authorization").unwrap();
    assert!(!credential.contains('.'), "the token went on: {credential}");
    assert_eq!(node.records_exactly(1)[0].user.as_deref(), Some("ann"));
}

#[test]
fn keys_of_an_address_are_fetched_beside_requests() {
    let upstream = Upstream::chat();
    let (first, second) = (Issuer::new("k1"), Issuer::new("k2"));
    let sets = [first.set(), second.set()];
    let web = Upstream::start(move |exchange| {
        let set = &sets[exchange.number.min(1)];
        exchange.json(200, set);
    });
    let jwt = format!(
        "jwt: {{jwks: \"http://{}/keys\", issuer: https://issuer, audience: tyr, allow_private_addresses: true}}",
        web.address
    );
    let begun = Instant::now();
    let node = node(&upstream, &jwt);
    let with = |token: &str| node.ask(&chat().header("x-tyr-user-token", token)).status();
    let (one, two) = (first.token("ann", FAR), second.token("bob", FAR));
    eventually("the first set is there", || {
        (with(&one) == 200).then_some(())
    });
    let (of_another_set, of_this) = (with(&two), with(&one));
    let fetched = web.count();
    // Later, the second set may be there already.
    if begun.elapsed() < Duration::from_secs(10) {
        assert_eq!(of_another_set, 401, "a key of another set");
        assert_eq!(of_this, 200, "the last good set serves on");
        assert_eq!(fetched, 1, "not at once again");
    }
    // The unknown key asked for a fresh set, ten seconds after the first.
    let fetched = within(Duration::from_secs(30), || {
        (with(&two) == 200).then_some(())
    });
    assert!(fetched.is_some(), "the second set is there");
    assert_eq!(web.count(), 2);
    assert_eq!(web.seen()[0].path, "/keys");
}

#[test]
fn a_caller_sees_where_it_stands_and_takes_nothing_by_it() {
    let upstream = Upstream::chat();
    let mut conf = Conf::for_upstream(upstream.address);
    conf = conf.limited(
        "rate_limits: [{requests: 3, every: 1h}, {tokens: 9, every: 1m, shadow: true}]\n\
         budgets: [{limit_usd: 1.5, every: 1d}]",
    );
    conf.more = "governance:\n  users: {trusted_from: [127.0.0.1/32], rate_limits: [{requests: 5, every: 1h}]}\n  \
                 global: {rate_limits: [{requests: 100, every: 1h}]}\n"
        .to_owned();
    let node = Node::start(&conf);
    let usage = || {
        Ask::get("/v1/usage")
            .bearer(KEY)
            .header("x-tyr-user", "ann")
    };
    assert_eq!(node.ask(&chat().header("x-tyr-user", "ann")).status(), 200);
    node.settled("demo", "requests");
    for _ in 0..5 {
        let answer = node.ask(&usage());
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let document = answer.json();
        assert_eq!(document["key"], "demo");
        assert_eq!(document["user"], "ann");
        let limits = document["limits"].as_array().unwrap();
        let row = |index: usize| {
            let limit = &limits[index];
            let field = |name: &str| limit[name].as_str().unwrap_or("-").to_owned();
            (
                field("scope"),
                field("name"),
                field("unit"),
                limit["limit"].clone(),
                limit["used"].clone(),
            )
        };
        let row_of = |scope: &str, name: &str, unit: &str, limit: Value, used: Value| {
            (
                scope.to_owned(),
                name.to_owned(),
                unit.to_owned(),
                limit,
                used,
            )
        };
        assert_eq!(
            row(0),
            row_of("virtual_key", "demo", "requests", json!(3), json!(1))
        );
        let (scope, name, unit, limit, _) = row(1);
        assert_eq!((&*scope, &*name, &*unit), ("virtual_key", "demo", "usd"));
        assert_eq!(limit, "1.5");
        assert_eq!(
            row(2),
            row_of("user", "ann", "requests", json!(5), json!(1))
        );
        assert_eq!(row(3).0, "global");
        assert_eq!(limits.len(), 4, "no shadow limit: {limits:?}");
        assert!(limits[0]["resets_at"].as_str().unwrap().ends_with('Z'));
        assert_eq!(limits[0]["remaining"], 2);
    }
    let other = node.ask(&Ask::get("/v1/usage").bearer(crate::harness::conf::OTHER_KEY));
    assert!(!other.text().contains("demo"), "{}", other.text());
    let head = node.ask(&Ask::new("HEAD", "/v1/usage").bearer(KEY));
    assert_eq!((head.status(), head.body.len()), (200, 0));
    assert_eq!(node.ask(&Ask::post("/v1/usage", &json!({}))).status(), 405);
    let stranger = node.ask(&Ask::get("/anthropic/v1/usage"));
    assert_eq!(stranger.status(), 401);
    assert_eq!(stranger.json()["error"]["type"], "authentication_error");
}
