//! Which credential goes where: a virtual key never reaches a provider, and
//! ours never reaches a client.

use serde_json::json;

use crate::harness::conf::{KEY, OPENAI_SECRET};
use crate::harness::{Ask, Conf, Node, Upstream};

const CHAT: &str = "/v1/chat/completions";

fn bare() -> Ask {
    let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]});
    Ask::post(CHAT, &body).without("authorization")
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

#[test]
fn a_passed_credential_is_never_the_virtual_key() {
    let upstream = Upstream::chat();
    let mut conf = Conf::for_upstream(upstream.address);
    conf.providers = conf.providers.replacen(
        "    kind: openai\n",
        "    kind: openai\n    client_credential: pass\n",
        1,
    );
    let node = Node::start(&conf);
    let (ours, key) = (bearer(OPENAI_SECRET), bearer(KEY));
    let theirs = "Bearer oauth-token-of-the-client";
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[("authorization", &key)], &ours),
        (&[("x-tyr-key", KEY)], &ours),
        (&[("x-tyr-key", ""), ("authorization", &key)], &ours),
        (&[("x-tyr-key", " "), ("authorization", &key)], &ours),
        (&[("x-tyr-key", KEY), ("authorization", &key)], &ours),
        (&[("x-tyr-key", KEY), ("x-api-key", KEY)], &ours),
        (&[("x-tyr-key", KEY), ("authorization", theirs)], theirs),
        (
            &[
                ("x-tyr-key", KEY),
                ("authorization", theirs),
                ("api-key", KEY),
            ],
            theirs,
        ),
    ];
    for (number, (headers, expected)) in cases.into_iter().enumerate() {
        let ask = headers
            .iter()
            .fold(bare(), |ask, (name, value)| ask.header(name, value));
        let answer = node.ask(&ask);
        assert_eq!(answer.status(), 200, "{headers:?}: {}", answer.text());
        let seen = upstream.seen().remove(number);
        assert_eq!(seen.header("authorization"), Some(expected), "{headers:?}");
        let all = format!("{:?}", seen.headers);
        assert!(
            !all.contains(KEY) && !all.contains("x-tyr-"),
            "{headers:?}: {all}"
        );
    }
}

#[test]
fn an_error_that_quotes_our_credential_does_not_reach_the_client() {
    for status in [400, 404, 409, 422] {
        let quoting = format!("{{\"error\":{{\"message\":\"bad key {OPENAI_SECRET} sent\"}}}}");
        let plain: &[u8] = b"{ \"error\": {\"message\":\"no such thing\",\"code\":\"x\"} }";
        let upstream = Upstream::start(move |exchange| {
            let json = [("content-type", "application/json")];
            match exchange.seen.json()["user"] == "quote" {
                true => exchange.reply(status, &json, quoting.as_bytes()),
                false => exchange.reply(status, &json, plain),
            }
        });
        let mut conf = Conf::for_upstream(upstream.address);
        conf.providers = conf.providers.replace(
            "    allow_private_addresses: true\n",
            "    allow_private_addresses: true\n    retries: {max: 0}\n",
        );
        let node = Node::start(&conf);
        let ask = |user: &str| {
            node.post(
                CHAT,
                &json!({"model": "gpt-4o-mini", "user": user, "messages": []}),
            )
        };
        let answer = ask("quote");
        assert!(answer.status() >= 400, "{status}");
        let whole = format!("{:?} {}", answer.head, answer.text());
        assert!(!whole.contains(OPENAI_SECRET), "{status}: {whole}");
        assert!(
            !node.process.log().contains(OPENAI_SECRET),
            "{status}: not in the log"
        );
        let answer = ask("plain");
        assert_eq!(
            (answer.status(), answer.body.as_slice()),
            (status, plain),
            "byte for byte"
        );
    }
}
