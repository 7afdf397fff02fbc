//! An explanation says what then happens: the same choice, the same rule, the
//! same refusal; and asking for it takes nothing.

use serde_json::{Value, json};

use crate::harness::api::chat;
use crate::harness::conf::{model, provider};
use crate::harness::upstream::chat_completion;
use crate::harness::{Answer, Ask, Conf, Node, Upstream};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

/// Where a request goes, and by which rule.
type Served = (&'static str, Option<&'static str>);
/// Status of a refusal, and the limit behind it.
type Refused = (u16, Option<&'static str>);

/// A request, and what is expected of it: where it goes, by which rule, or
/// with which status and limit it is refused.
struct Case {
    key: &'static str,
    path: &'static str,
    model: &'static str,
    max_tokens: u64,
    header: Option<(&'static str, &'static str)>,
    user: Option<&'static str>,
    expected: Result<Served, Refused>,
}

const PLAIN: Case = Case {
    key: "demo",
    path: CHAT,
    model: "m",
    max_tokens: 50,
    header: None,
    user: None,
    expected: Ok(("openai/m", None)),
};

/// In this order: each takes what the next ones find.
const CASES: [Case; 19] = [
    PLAIN,
    Case {
        model: "any",
        ..PLAIN
    },
    Case {
        model: "any",
        expected: Ok(("spare/n", None)),
        ..PLAIN
    },
    Case {
        expected: Err((429, Some("provider/openai/requests/1h"))),
        ..PLAIN
    },
    Case {
        model: "openai/m",
        expected: Err((429, Some("provider/openai/requests/1h"))),
        ..PLAIN
    },
    Case {
        model: "any",
        header: Some(("x-tier", "gold")),
        expected: Ok(("spare/n", Some("gold"))),
        ..PLAIN
    },
    Case {
        model: "nothing",
        expected: Err((404, None)),
        ..PLAIN
    },
    Case {
        model: "claude",
        expected: Err((400, None)),
        ..PLAIN
    },
    Case {
        path: MESSAGES,
        model: "claude",
        expected: Ok(("anthropic/claude", None)),
        ..PLAIN
    },
    Case {
        key: "tight",
        model: "n",
        expected: Ok(("spare/n", None)),
        ..PLAIN
    },
    Case {
        key: "tight",
        model: "n",
        expected: Err((429, Some("virtual_key/tight/requests/1h"))),
        ..PLAIN
    },
    Case {
        key: "tight",
        expected: Err((403, None)),
        ..PLAIN
    },
    Case {
        key: "off",
        expected: Err((403, None)),
        ..PLAIN
    },
    Case {
        key: "old",
        expected: Err((401, None)),
        ..PLAIN
    },
    Case {
        key: "gone",
        expected: Err((401, None)),
        ..PLAIN
    },
    Case {
        key: "broke",
        model: "n",
        expected: Err((429, Some("virtual_key/broke/usd/1d"))),
        ..PLAIN
    },
    Case {
        key: "broke",
        path: MESSAGES,
        model: "claude",
        expected: Err((402, Some("virtual_key/broke/usd/1d"))),
        ..PLAIN
    },
    Case {
        model: "n",
        max_tokens: 5000,
        user: Some("ann"),
        expected: Err((429, Some("user/ann/tokens/1h"))),
        ..PLAIN
    },
    Case {
        model: "n",
        user: Some("ann"),
        expected: Ok(("spare/n", None)),
        ..PLAIN
    },
];

fn value(key: &str) -> String {
    format!("sk-tyr-of-the-explanation-{key}")
}

fn conf(upstreams: &[Upstream; 3]) -> Conf {
    let at = |n: usize| upstreams[n].address;
    let mut conf = Conf::empty();
    conf.providers = provider(
        "openai",
        "openai",
        at(0),
        "upstream-secret-0001",
        "rate_limits: [{requests: 2, every: 1h}]",
    ) + &provider("spare", "openai", at(1), "upstream-secret-0002", "")
        + &provider("anthropic", "anthropic", at(2), "upstream-secret-0003", "");
    let price = "{input: 0.15, output: 0.60}";
    conf.models = model("m", "openai", price, 16384)
        + &model("n", "spare", price, 16384)
        + &model("claude", "anthropic", price, 16384)
        + "  - {name: any, choices: [openai/m, spare/n]}\n";
    let all = "providers: [{name: openai}, {name: spare}, {name: anthropic}]";
    let mut key = |name: &str, fields: &str| {
        conf.keys += &format!("  - {{name: {name}, value: {}, {fields}}}\n", value(name));
    };
    key(
        "demo",
        &format!("{all}, rate_limits: [{{requests: 100, every: 1h}}]"),
    );
    key(
        "tight",
        "providers: [{name: spare}], rate_limits: [{requests: 1, every: 1h}]",
    );
    key("off", &format!("{all}, active: false"));
    key(
        "old",
        &format!("{all}, expires_at: \"2020-01-01T00:00:00Z\""),
    );
    key("gone", all);
    key(
        "broke",
        &format!("{all}, budgets: [{{limit_usd: 0.000000001, every: 1d, enforcement: strict}}]"),
    );
    conf.more = "governance:\n  users: {trusted_from: [\"127.0.0.0/8\"], rate_limits: [{tokens: 500, every: 1h, enforcement: strict}]}\n\
        routing_rules:\n  - {name: gold, when: \"'x-tier' in headers && headers['x-tier'] == 'gold'\", targets: [{provider: spare, model: n}]}\n  \
        - {name: ghost, when: \"model == 'any'\", shadow: true, targets: [{provider: spare, model: n}]}\n"
        .to_owned();
    conf
}

fn question(case: &Case) -> Value {
    let mut question = json!({"key": case.key, "model": case.model, "endpoint": case.path,
        "max_tokens": case.max_tokens, "prompt_bytes": 2});
    if let Some((name, value)) = case.header {
        question["headers"] = json!({ name: value });
    }
    if let Some(user) = case.user {
        question["user"] = json!(user);
    }
    question
}

fn request(case: &Case) -> Ask {
    let mut ask = Ask::post(case.path, &chat(case.model, case.max_tokens)).bearer(&value(case.key));
    let user = case.user.map(|user| ("x-tyr-user", user));
    for (name, value) in case.header.into_iter().chain(user) {
        ask = ask.header(name, value);
    }
    if case.path == MESSAGES {
        ask = ask.header("anthropic-version", "2023-06-01");
    }
    ask
}

#[track_caller]
fn is_refused_alike(said: &Value, answer: &Answer, what: &str) {
    let refusal = &said["refusal"];
    assert_eq!(
        refusal["status"],
        answer.status(),
        "{what}: {}",
        answer.text()
    );
    for name in ["x-tyr-limit", "x-should-retry"] {
        assert_eq!(
            refusal["headers"][name].as_str(),
            answer.header(name),
            "{what}: {name}"
        );
    }
    assert_eq!(
        refusal["headers"]["retry-after"].is_string(),
        answer.header("retry-after").is_some(),
        "{what}"
    );
    // Times in a message are those of the moment; and a prompt of which only the
    // length is known is estimated, where that of a request near a limit is counted.
    let told = |body: &Value| {
        let message = body["error"]["message"].as_str().expect("a message");
        let words = message.split(", resets at").next().expect("words");
        let words = match (
            words.split_once("may use "),
            words.split_once(", more than"),
        ) {
            (Some((whose, _)), Some((_, limit))) => {
                let limit = limit.split(" at most ").next().expect("words");
                format!("{whose} {limit}")
            }
            _ => words.to_owned(),
        };
        let kind = ["type", "code"].map(|field| body["error"][field].clone());
        (words, kind)
    };
    assert_eq!(told(&refusal["body"]), told(&answer.json()), "{what}");
}

#[test]
fn what_is_explained_is_what_happens() {
    let upstreams = [0, 1, 2].map(|_| {
        Upstream::start(|exchange| match exchange.seen.path.starts_with(MESSAGES) {
            true => exchange.json(200, &json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude",
                "content": [], "stop_reason": "end_turn", "usage": {"input_tokens": 10, "output_tokens": 5}})),
            false => exchange.json(200, &chat_completion("pong", 10, 5)),
        })
    });
    let node = Node::start(&conf(&upstreams));
    let revoked = node.call("POST", "/api/virtual-keys/gone/revoke", &Value::Null);
    assert_eq!(revoked.status(), 200, "{}", revoked.text());
    for (index, case) in CASES.iter().enumerate() {
        let what = format!("case {index}: {} {} by {}", case.path, case.model, case.key);
        let before = node.limits_at_rest();
        for _ in 0..3 {
            let answer = node.call("POST", "/api/explain", &question(case));
            assert_eq!(answer.status(), 200, "{what}: {}", answer.text());
        }
        assert_eq!(
            amounts(&node.limits()),
            amounts(&before),
            "{what}: asking took something"
        );
        let said = node.call("POST", "/api/explain", &question(case)).json();
        let counts = [0, 1, 2].map(|n: usize| upstreams[n].count());
        let answer = node.ask(&request(case));
        let after = [0, 1, 2].map(|n: usize| upstreams[n].count());
        let provider = (0..3)
            .find(|n| after[*n] > counts[*n])
            .map(|n| ["openai", "spare", "anthropic"][n]);
        match case.expected {
            Ok((chosen, rule)) => {
                assert_eq!(
                    (&said["verdict"], &said["chosen"]),
                    (&json!("admit"), &json!(chosen)),
                    "{what}: {said:#}"
                );
                assert_eq!(said["decided_by"].as_str(), rule, "{what}");
                assert_eq!(said["refusal"], Value::Null, "{what}");
                assert_eq!(answer.status(), 200, "{what}: {}", answer.text());
                assert_eq!(provider, chosen.split('/').next(), "{what}");
            }
            Err((status, limit)) => {
                assert_eq!(
                    (answer.status(), answer.header("x-tyr-limit")),
                    (status, limit),
                    "{what}: {}",
                    answer.text()
                );
                assert_eq!(
                    (&said["verdict"], provider),
                    (&json!("refuse"), None),
                    "{what}: {said:#}"
                );
                is_refused_alike(&said, &answer, &what);
            }
        }
    }
    assert_eq!(upstreams.iter().map(Upstream::count).sum::<usize>(), 7);
}

fn amounts(limits: &[Value]) -> Vec<[Value; 4]> {
    let amounts = limits
        .iter()
        .map(|limit| ["id", "used", "reserved", "remaining"].map(|field| limit[field].clone()));
    amounts.collect()
}

#[test]
fn an_explanation_shows_rules_choices_and_limits() {
    let upstreams = [0, 1, 2].map(|_| Upstream::chat());
    let node = Node::start(&conf(&upstreams));
    let case = Case {
        model: "any",
        ..PLAIN
    };
    let said = node.call("POST", "/api/explain", &question(&case)).json();
    let rules = json!([
        {"rule": "ghost", "outcome": "shadowed", "says": null},
        {"rule": "gold", "outcome": "not_matched", "says": null},
    ]);
    assert_eq!(said["rules"], rules, "{said:#}");
    let choices: Vec<_> = said["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["model"].clone())
        .collect();
    assert_eq!(choices, ["openai/m", "spare/n"]);
    assert_eq!(
        said["limits"][0]["standing"]["id"],
        "virtual_key/demo/requests/1h/sliding"
    );
    assert_eq!(
        (&said["limits"][0]["asked"], &said["limits"][0]["fits"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(
        said["choices"][0]["limits"][0]["standing"]["id"],
        "provider/openai/requests/1h/sliding"
    );
    let unknown = node
        .call(
            "POST",
            "/api/explain",
            &json!({"key": "nobody", "model": "m"}),
        )
        .json();
    assert_eq!(
        (&unknown["key"]["state"], &unknown["refusal"]["status"]),
        (&json!("unknown"), &json!(401))
    );
    for wrong in [
        json!({"key": "demo"}),
        json!({"key": "demo", "model": "m", "colour": 1}),
        json!({"key": "demo", "model": "m", "endpoint": "/v2/none"}),
    ] {
        let answer = node.call("POST", "/api/explain", &wrong);
        assert_eq!(answer.status(), 400, "{wrong}: {}", answer.text());
    }
    assert_eq!(
        upstreams.iter().map(Upstream::count).sum::<usize>(),
        0,
        "nothing is sent"
    );
    assert!(everything_is_unused(&node));
}

fn everything_is_unused(node: &Node) -> bool {
    node.limits()
        .iter()
        .all(|limit| limit["used"] == 0 || limit["used"] == "0")
}

/// Users are counted one by one up to a number; asking about some takes no place.
#[test]
fn explaining_counts_no_user() {
    let upstream = Upstream::chat();
    let mut conf = Conf::for_upstream(upstream.address);
    conf.more = "governance: {users: {trusted_from: [\"127.0.0.0/8\"], max_tracked: 2, \
        rate_limits: [{requests: 1, every: 1h}]}}\n"
        .to_owned();
    let node = Node::start(&conf);
    for index in 0..5 {
        let question =
            json!({"key": "demo", "model": "gpt-4o-mini", "user": format!("asked-{index}")});
        let said = node.call("POST", "/api/explain", &question).json();
        assert_eq!(said["verdict"], "admit", "{said:#}");
    }
    for user in ["ann", "bob"] {
        for status in [200, 429] {
            let ask = Ask::post(CHAT, &chat("gpt-4o-mini", 5)).header("x-tyr-user", user);
            let answer = node.ask(&ask);
            assert_eq!(answer.status(), status, "{user}: {}", answer.text());
        }
    }
}
