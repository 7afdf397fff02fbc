//! Tests of `headers`.

use super::*;

fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn outgoing(
    client: &HeaderMap,
    dialect: Dialect,
    credential: &str,
    pass_client_credential: bool,
) -> HeaderMap {
    let users = UserRule::new("x-who".parse().unwrap(), Vec::new(), None, false);
    let sender = Sender {
        dialect,
        credential: Some(credential),
        pass_client_credential,
        request_id: "r",
        users: &users,
    };
    towards_provider(client, sender).unwrap()
}

#[test]
fn what_names_a_hop_or_a_credential_stays_here() {
    let client = map(&[
        ("authorization", "Bearer sk-tyr-x"),
        ("x-api-key", "sk-tyr-x"),
        ("x-tyr-key", "sk-tyr-x"),
        ("x-tyr-user", "ann"),
        ("x-who", "ann"),
        ("connection", "keep-alive, x-private"),
        ("x-private", "1"),
        ("x-forwarded-for", "1.2.3.4"),
        ("expect", "100-continue"),
        ("anthropic-beta", "a,b"),
        ("anthropic-beta", "c"),
        ("anthropic-version", "2099-01-01"),
        ("traceparent", "00-1-2-3"),
        ("x-unknown", "kept"),
    ]);
    let sent = outgoing(&client, Dialect::Anthropic, "real", false);
    let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept-encoding",
            "anthropic-beta",
            "anthropic-version",
            "content-type",
            "traceparent",
            "x-api-key",
            "x-request-id",
            "x-unknown",
        ]
    );
    assert_eq!(sent["x-api-key"], "real");
    assert_eq!(sent["anthropic-version"], "2099-01-01");
    assert_eq!(sent.get_all("anthropic-beta").iter().count(), 2);
}

#[test]
fn a_clients_credential_passes_only_beside_our_own_header() {
    let client = map(&[("authorization", "Bearer oauth"), ("x-tyr-key", "k")]);
    let sent = outgoing(&client, Dialect::OpenAi, "ours", true);
    assert_eq!(sent["authorization"], "Bearer oauth");
    let sent = outgoing(&client, Dialect::OpenAi, "ours", false);
    assert_eq!(sent["authorization"], "Bearer ours");
    for own in ["", "sk-tyr-key"] {
        let client = map(&[("authorization", "Bearer sk-tyr-key"), ("x-tyr-key", own)]);
        let sent = outgoing(&client, Dialect::OpenAi, "ours", true);
        assert_eq!(sent["authorization"], "Bearer ours");
    }
    let client = map(&[("authorization", "Bearer sk-tyr-key")]);
    let sent = outgoing(&client, Dialect::OpenAi, "ours", true);
    assert_eq!(sent["authorization"], "Bearer ours");
}

#[test]
fn only_listed_headers_come_back() {
    let upstream = map(&[
        ("content-type", "text/event-stream"),
        ("x-ratelimit-limit-requests", "10"),
        ("authorization", "Bearer leaked"),
        ("set-cookie", "a=b"),
        ("openai-processing-ms", "12"),
    ]);
    let names: Vec<_> = towards_client(&upstream).map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["content-type", "openai-processing-ms"]);
}

#[test]
fn request_ids() {
    let id = |value: &'static str| {
        let headers = map(&[("x-request-id", value)]);
        accepted_request_id(&headers).map(str::to_owned)
    };
    assert_eq!(id("abc-1.2:3_4").as_deref(), Some("abc-1.2:3_4"));
    assert_eq!(id("with space"), None);
    assert_eq!(id(""), None);
}
