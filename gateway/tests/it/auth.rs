//! Who may call: the five headers, and what two different keys mean.

use serde_json::{Value, json};

use crate::harness::conf::{KEY, OPENAI_SECRET, OTHER_KEY};
use crate::harness::{Answer, Ask, Conf, Node, Upstream};

fn chat() -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]})
}

fn unsigned(path: &str) -> Ask {
    Ask::post_bytes(path, chat().to_string())
}

fn node() -> (Upstream, Node) {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address));
    (upstream, node)
}

#[track_caller]
fn refused_as_openai(answer: &Answer) {
    assert_eq!(answer.status(), 401, "{}", answer.text());
    let error = answer.json()["error"].clone();
    assert_eq!(error["type"], "invalid_request_error");
    assert_eq!(error["code"], "invalid_api_key");
    assert!(
        error["message"].is_string() && error.get("param").is_some(),
        "{error}"
    );
}

#[track_caller]
fn refused_as_anthropic(answer: &Answer) {
    assert_eq!(answer.status(), 401, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["type"], "error");
    assert_eq!(body["error"]["type"], "authentication_error");
    assert!(
        body["error"]["message"].is_string() && body["request_id"].is_string(),
        "{body}"
    );
}

#[test]
fn each_of_the_five_headers_carries_a_key() {
    let (upstream, node) = node();
    for name in ["x-tyr-key", "x-api-key", "api-key", "x-goog-api-key"] {
        let answer = node.ask(&unsigned("/v1/chat/completions").header(name, KEY));
        assert_eq!(answer.status(), 200, "{name}: {}", answer.text());
    }
    for value in [format!("Bearer {KEY}"), format!("bearer {KEY}")] {
        let answer = node.ask(&unsigned("/v1/chat/completions").header("authorization", &value));
        assert_eq!(answer.status(), 200, "{value}: {}", answer.text());
    }
    for seen in upstream.seen() {
        let given = seen.header("authorization").unwrap_or_default();
        assert_eq!(given, format!("Bearer {OPENAI_SECRET}"));
        for (name, value) in &seen.headers {
            assert!(
                !value.contains(KEY),
                "{name} carried our key to the provider"
            );
        }
    }
}

#[test]
fn no_key_and_unknown_keys_are_401_in_the_callers_shape() {
    let (upstream, node) = node();
    refused_as_openai(&node.ask(&unsigned("/v1/chat/completions")));
    refused_as_openai(
        &node.ask(&unsigned("/v1/chat/completions").bearer("sk-tyr-unknown-000000001")),
    );
    refused_as_openai(&node.ask(&unsigned("/v1/chat/completions").bearer("short")));
    refused_as_openai(&node.ask(&Ask::get("/v1/models")));
    refused_as_anthropic(&node.ask(&unsigned("/anthropic/v1/messages")));
    refused_as_anthropic(
        &node.ask(
            &unsigned("/v1/messages")
                .header("anthropic-version", "2023-06-01")
                .header("x-api-key", "nobody-0000000000"),
        ),
    );
    refused_as_anthropic(
        &node.ask(&Ask::get("/v1/models").header("anthropic-version", "2023-06-01")),
    );
    assert_eq!(upstream.count(), 0, "nothing reaches the provider");
}

#[test]
fn two_different_keys_are_401_and_equal_ones_are_one() {
    let (upstream, node) = node();
    let both = |second: &str| {
        unsigned("/v1/chat/completions")
            .bearer(KEY)
            .header("x-api-key", second)
    };
    assert_eq!(node.ask(&both(KEY)).status(), 200);
    let answer = node.ask(&both(OTHER_KEY));
    refused_as_openai(&answer);
    let message = answer.json()["error"]["message"].to_string();
    assert!(
        !message.contains(KEY) && !message.contains(OTHER_KEY),
        "{message}"
    );
    let answer = node.ask(
        &unsigned("/anthropic/v1/messages")
            .bearer(KEY)
            .header("x-api-key", OTHER_KEY),
    );
    refused_as_anthropic(&answer);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn our_own_header_alone_decides_when_present() {
    let (upstream, node) = node();
    let ask = unsigned("/v1/chat/completions")
        .header("x-tyr-key", KEY)
        .header("authorization", "Bearer someone-elses-oauth-token")
        .header("x-api-key", "another-credential-000000");
    assert_eq!(node.ask(&ask).status(), 200);
    let seen = upstream.seen().remove(0);
    assert_eq!(
        seen.header("authorization"),
        Some(format!("Bearer {OPENAI_SECRET}").as_str())
    );
    assert_eq!(
        seen.header("x-api-key"),
        None,
        "other credentials are dropped"
    );
    assert_eq!(seen.header("x-tyr-key"), None);
    let wrong = unsigned("/v1/chat/completions")
        .header("x-tyr-key", "sk-tyr-wrong-000000000")
        .bearer(KEY);
    refused_as_openai(&node.ask(&wrong));
}

#[test]
fn empty_and_non_bearer_authorization_count_as_absent() {
    let (_upstream, node) = node();
    for value in [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Negotiate abc",
    ] {
        let with_key = unsigned("/v1/chat/completions")
            .header("authorization", value)
            .header("x-api-key", KEY);
        assert_eq!(node.ask(&with_key).status(), 200, "{value:?} beside a key");
        let alone = unsigned("/v1/chat/completions").header("authorization", value);
        refused_as_openai(&node.ask(&alone));
    }
}

#[test]
fn a_key_written_as_its_hash_is_the_same_key() {
    use sha2::Digest as _;
    let upstream = Upstream::chat();
    let mut conf = Conf::for_upstream(upstream.address);
    let hash = hex::encode(sha2::Sha256::digest(KEY.as_bytes()));
    conf.keys = format!("  - name: demo\n    sha256: {hash}\n    providers: [{{name: openai}}]\n");
    let node = Node::start(&conf);
    assert_eq!(node.post("/v1/chat/completions", &chat()).status(), 200);
    refused_as_openai(&node.ask(&unsigned("/v1/chat/completions").bearer(&hash)));
}

#[test]
fn an_inactive_key_and_a_forbidden_model_are_refused() {
    let upstream = Upstream::chat();
    let mut conf = Conf::for_upstream(upstream.address);
    conf.keys = format!(
        "  - {{name: demo, value: {KEY}, providers: [{{name: openai, models: [text-embedding-3-small]}}]}}\n  \
         - {{name: off, value: {OTHER_KEY}, active: false, providers: [{{name: openai}}]}}\n"
    );
    let node = Node::start(&conf);
    let answer = node.post("/v1/chat/completions", &chat());
    assert_eq!(answer.status(), 403, "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "permission_denied");
    let answer = node.ask(&unsigned("/v1/chat/completions").bearer(OTHER_KEY));
    assert!([401, 403].contains(&answer.status()), "{}", answer.text());
    assert_eq!(upstream.count(), 0);
}

#[test]
fn models_lists_only_what_the_key_may_use() {
    let upstream = Upstream::chat();
    let mut conf = Conf::for_upstream(upstream.address);
    conf.keys = format!(
        "  - {{name: demo, value: {KEY}, providers: [{{name: openai, models: [gpt-4o-mini]}}]}}\n  \
         - {{name: none, value: {OTHER_KEY}}}\n"
    );
    conf.models += "  - {name: fast, choices: [openai/gpt-4o-mini, anthropic/claude-haiku-4-5]}\n";
    let node = Node::start(&conf);
    for prefix in ["/v1", "/openai/v1"] {
        let list = node
            .ask(&Ask::get(&format!("{prefix}/models")).bearer(KEY))
            .json();
        assert_eq!(list["object"], "list");
        let ids: Vec<&str> = list["data"]
            .as_array()
            .expect("data")
            .iter()
            .filter_map(|m| m["id"].as_str())
            .collect();
        assert_eq!(ids, ["fast", "gpt-4o-mini"], "stable order, nothing else");
    }
    let one = node.ask(&Ask::get("/v1/models/gpt-4o-mini").bearer(KEY));
    assert_eq!(
        (one.status(), one.json()["object"].clone()),
        (200, json!("model"))
    );
    for hidden in ["claude-haiku-4-5", "nothing-of-that-name"] {
        let answer = node.ask(&Ask::get(&format!("/v1/models/{hidden}")).bearer(KEY));
        assert_eq!(answer.status(), 404, "{hidden}: {}", answer.text());
    }
    let none = node.ask(&Ask::get("/v1/models").bearer(OTHER_KEY)).json();
    assert_eq!(
        none["data"],
        json!([]),
        "an absent list of providers allows nothing"
    );
}
