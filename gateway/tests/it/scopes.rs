//! The whole hierarchy of scopes over the wire: every limit at every level
//! refuses in its own name, lets other choices serve where it belongs to one
//! choice only, and a refusal takes nothing from any other level.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use crate::harness::api::{chat, is_idle};
use crate::harness::conf::{KEY, model, provider};
use crate::harness::upstream::chat_completion;
use crate::harness::{Answer, Ask, Conf, Node, Upstream, eventually};

const CHAT: &str = "/v1/chat/completions";
const USER: &str = "ann";

/// A scope, and how its limits call it.
pub(crate) const SCOPES: [&str; 9] = [
    "virtual_key/demo",
    "team/search",
    "customer/acme",
    "user/ann",
    "global/all",
    "virtual_key_provider/demo/openai",
    "provider/openai",
    "model/m",
    "model/openai/m",
];

/// Those that hold wherever a request goes.
const COMMON: usize = 5;

/// A unit with a limit that two requests of [`USAGE`] fill.
struct Case {
    unit: &'static str,
    rate_limit: &'static str,
    budget: &'static str,
    every: &'static str,
    /// What a message tells of it.
    words: &'static [&'static str],
    openai: (u16, &'static str),
    anthropic: (u16, &'static str),
    should_retry: Option<&'static str>,
}

/// Input and output tokens of each answer: 1,000 tokens and $0.000285.
const USAGE: (u64, u64) = (700, 300);

const REQUESTS: Case = Case {
    unit: "requests",
    rate_limit: "{requests: 2, every: 1h}",
    budget: "",
    every: "/1h",
    words: &["limit of 2 requests per 1h", "2 used", "resets at"],
    openai: (429, "rate_limit_exceeded"),
    anthropic: (429, "rate_limit_error"),
    should_retry: None,
};
const TOKENS: Case = Case {
    unit: "tokens",
    rate_limit: "{tokens: 2200, every: 1h}",
    budget: "",
    every: "/1h",
    words: &["limit of 2200 tokens per 1h", "2000 used", "resets at"],
    openai: (429, "rate_limit_exceeded"),
    anthropic: (429, "rate_limit_error"),
    should_retry: None,
};
const USD: Case = Case {
    unit: "usd",
    rate_limit: "",
    budget: "{limit_usd: 0.00057, every: 1d}",
    every: "/1d",
    words: &["budget of $0.00057 per 1d", "$0.00057 used", "resets at"],
    openai: (429, "insufficient_quota"),
    anthropic: (402, "billing_error"),
    should_retry: Some("false"),
};
const CONCURRENT: Case = Case {
    unit: "concurrent",
    rate_limit: "{concurrent: 2}",
    budget: "",
    every: "",
    words: &["limit of 2 concurrent requests", "2 used"],
    openai: (429, "rate_limit_exceeded"),
    anthropic: (429, "rate_limit_error"),
    should_retry: None,
};

/// `rate_limits` and `budgets` of one scope: what is asked for, and limits of
/// every unit that are never reached and only count.
fn fields(rate_limit: &str, budget: &str) -> String {
    let mut rates = "{requests: 1000000, every: 1h, name: witness}, \
         {tokens: 1000000000, every: 1h, name: witness}, {concurrent: 1000000, name: witness}"
        .to_owned();
    let mut budgets = "{limit_usd: 100000, every: 1d, name: witness}".to_owned();
    for (list, one) in [(&mut rates, rate_limit), (&mut budgets, budget)] {
        if !one.is_empty() {
            *list += &format!(", {one}");
        }
    }
    format!("rate_limits: [{rates}], budgets: [{budgets}]")
}

/// Two OpenAI providers and one of Anthropic; every scope has witnesses, and
/// those that `limited` names have its limits (rate limit, budget), too.
pub(crate) fn ladder(
    upstreams: [SocketAddr; 3],
    limited: &dyn Fn(&str) -> (String, String),
) -> Conf {
    let of = |scope: &str| {
        let (rate_limit, budget) = limited(scope);
        fields(&rate_limit, &budget)
    };
    let lines = of("provider/openai").replace(", budgets:", "\nbudgets:");
    let [openai, spare, anthropic] = upstreams;
    let mut conf = Conf::empty();
    conf.providers = provider("openai", "openai", openai, "upstream-secret-0001", &lines)
        + &provider("spare", "openai", spare, "upstream-secret-0002", "")
        + &provider(
            "anthropic",
            "anthropic",
            anthropic,
            "upstream-secret-0003",
            "",
        );
    let price = "{input: 0.15, output: 0.60}";
    conf.models = format!(
        "  - {{name: m, provider: openai, price: {price}, max_output_tokens: 16384, {}}}\n",
        of("model/openai/m")
    ) + &model("n", "spare", price, 16384)
        + &model("claude", "anthropic", price, 16384)
        + "  - {name: any, choices: [openai/m, spare/n]}\n";
    conf.customers = format!("  - {{name: acme, {}}}\n", of("customer/acme"));
    conf.teams = format!(
        "  - {{name: search, customer: acme, {}}}\n",
        of("team/search")
    );
    conf.keys = format!(
        "  - {{name: demo, value: {KEY}, team: search, {}, providers: [{{name: openai, {}}}, {{name: spare}}, {{name: anthropic}}]}}\n",
        of("virtual_key/demo"),
        of("virtual_key_provider/demo/openai"),
    );
    conf.more = format!(
        "governance:\n  global: {{{}}}\n  models: [{{name: m, {}}}]\n  users: {{trusted_from: [\"127.0.0.0/8\"], {}}}\n",
        of("global/all"),
        of("model/m"),
        of("user/ann"),
    );
    conf
}

pub(crate) fn ask(model: &str, max_tokens: u64) -> Ask {
    Ask::post(CHAT, &chat(model, max_tokens)).header("x-tyr-user", USER)
}

fn message() -> Ask {
    Ask::post("/v1/messages", &chat("claude", 2000))
        .header("anthropic-version", "2023-06-01")
        .header("x-tyr-user", USER)
}

/// What the caller is told of its own limits, the user's among them.
fn own(node: &Node) -> Vec<Value> {
    let asked = Ask::get("/v1/usage").bearer(KEY).header("x-tyr-user", USER);
    let answer = node.ask(&asked);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["limits"].as_array().expect("a list").clone()
}

/// How full every limit of every scope is, end users included.
pub(crate) fn everything(node: &Node) -> Vec<(String, [Value; 3])> {
    let full = |limit: &Value| {
        let label = ["scope", "name", "unit", "limit_name"].map(|field| limit[field].to_string());
        let amounts = ["used", "reserved", "remaining"].map(|field| limit[field].clone());
        (label.join(" "), amounts)
    };
    let users = own(node);
    let users = users.iter().filter(|limit| limit["scope"] == "user");
    node.limits().iter().chain(users).map(full).collect()
}

/// The same once nothing is in flight.
pub(crate) fn at_rest(node: &Node) -> Vec<(String, [Value; 3])> {
    node.limits_at_rest();
    eventually("the user's limits hold nothing", || {
        own(node).iter().all(is_idle).then(|| everything(node))
    })
}

#[track_caller]
fn says_so(case: &Case, scope: &str, refused: &Answer) {
    let text = refused.text();
    let what = format!("{scope} {}: {text}", case.unit);
    let label = format!("{scope}/{}{}", case.unit, case.every);
    let error = &refused.json()["error"];
    assert_eq!(
        (refused.status(), error["code"].as_str()),
        (case.openai.0, Some(case.openai.1)),
        "{what}"
    );
    assert_eq!(
        refused.header("x-tyr-limit"),
        Some(label.as_str()),
        "{what}"
    );
    let (_, name) = scope.split_once('/').expect("kind and name");
    let message = error["message"].as_str().expect("a message");
    for word in case.words.iter().chain([&name]) {
        assert!(message.contains(word), "{word} is missing: {what}");
    }
    let wait = refused.header("retry-after").expect("retry-after");
    assert!(
        wait.parse::<u64>().is_ok_and(|wait| wait > 0),
        "{wait}: {what}"
    );
    assert_eq!(
        refused.header("x-should-retry"),
        case.should_retry,
        "{what}"
    );
}

/// Two witnesses of requests, tokens and money at each of the nine scopes.
#[track_caller]
fn all_were_charged(all: &[(String, [Value; 3])], what: &str) {
    let used = |unit: &str| {
        let label = format!("\"{unit}\" \"witness\"");
        let ours = all.iter().filter(|(found, _)| found.ends_with(&label));
        ours.map(|(_, [used, ..])| used.clone()).collect::<Vec<_>>()
    };
    assert_eq!(used("requests"), vec![json!(2); 9], "{what}");
    assert_eq!(used("tokens"), vec![json!(2000); 9], "{what}");
    assert_eq!(used("usd"), vec![json!("0.00057"); 9], "{what}");
    assert_eq!(used("concurrent"), vec![json!(0); 9], "{what}");
}

fn answering() -> Upstream {
    Upstream::start(|exchange| exchange.json(200, &chat_completion("pong", USAGE.0, USAGE.1)))
}

/// One node for each scope, whose limit two requests have filled.
fn walk(case: &Case) {
    for (index, scope) in SCOPES.into_iter().enumerate() {
        let what = format!("{scope} {}", case.unit);
        let upstreams = [answering(), answering(), answering()];
        let addresses = [0, 1, 2].map(|n: usize| upstreams[n].address);
        let limited = |found: &str| match found == scope {
            true => (case.rate_limit.to_owned(), case.budget.to_owned()),
            false => Default::default(),
        };
        let node = Node::start(&ladder(addresses, &limited));
        for _ in 0..2 {
            let answer = node.ask(&ask("m", 50));
            assert_eq!(answer.status(), 200, "{what}: {}", answer.text());
            at_rest(&node);
        }
        let before = at_rest(&node);
        all_were_charged(&before, &what);
        says_so(case, scope, &node.ask(&ask("m", 2000)));
        assert_eq!(
            everything(&node),
            before,
            "{what}: a refusal took something"
        );
        assert_eq!(upstreams[0].count(), 2, "{what}");
        let elsewhere = node.ask(&ask("any", 2000));
        let by_anthropic = node.ask(&message());
        if index < COMMON {
            says_so(case, scope, &elsewhere);
            let found = (
                by_anthropic.status(),
                by_anthropic.json()["error"]["type"].clone(),
            );
            assert_eq!(found, (case.anthropic.0, json!(case.anthropic.1)), "{what}");
            assert_eq!(
                everything(&node),
                before,
                "{what}: a refusal took something"
            );
            assert_eq!(upstreams[1].count() + upstreams[2].count(), 0, "{what}");
        } else {
            assert_eq!(elsewhere.status(), 200, "{what}: {}", elsewhere.text());
            let counts = [0, 1].map(|n: usize| upstreams[n].count());
            assert_eq!(counts, [2, 1], "{what}: the other choice serves");
            let after = at_rest(&node);
            let kept = |all: &[(String, [Value; 3])]| {
                let of_choice = |label: &str| label.contains("openai") || label.contains("\"m\"");
                let ours = all.iter().filter(|(label, _)| of_choice(label));
                ours.cloned().collect::<Vec<_>>()
            };
            assert_eq!(
                kept(&after),
                kept(&before),
                "{what}: the full choice is not charged"
            );
        }
    }
}

#[test]
fn request_limits_hold_at_every_scope() {
    walk(&REQUESTS);
}

#[test]
fn token_limits_hold_at_every_scope() {
    walk(&TOKENS);
}

#[test]
fn budgets_hold_at_every_scope() {
    walk(&USD);
}

/// Requests that the provider keeps until they are let go.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A provider behind this gate; each answer reports this usage.
    pub(crate) fn upstream(&self, input: u64, output: u64) -> Upstream {
        let gate = Arc::clone(&self.0);
        Upstream::start(move |exchange| {
            let open = gate.0.lock().expect("the gate");
            drop(gate.1.wait_while(open, |open| !*open));
            exchange.json(200, &chat_completion("pong", input, output));
        })
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().expect("the gate") = true;
        self.0.1.notify_all();
    }
}

#[test]
fn concurrency_limits_hold_at_every_scope() {
    let case = &CONCURRENT;
    for (index, scope) in SCOPES.into_iter().enumerate() {
        let gate = Gate::default();
        let upstreams = [gate.upstream(700, 300), answering(), answering()];
        let addresses = [0, 1, 2].map(|n: usize| upstreams[n].address);
        let limited = |found: &str| match found == scope {
            true => (case.rate_limit.to_owned(), String::new()),
            false => Default::default(),
        };
        let node = Arc::new(Node::start(&ladder(addresses, &limited)));
        let held: Vec<_> = (0..2)
            .map(|_| {
                let node = Arc::clone(&node);
                std::thread::spawn(move || node.ask(&ask("m", 50)).status())
            })
            .collect();
        eventually("both are in flight", || {
            (upstreams[0].count() == 2).then_some(())
        });
        let before = everything(&node);
        says_so(case, scope, &node.ask(&ask("m", 50)));
        assert_eq!(
            everything(&node),
            before,
            "{scope}: a refusal took something"
        );
        let elsewhere = node.ask(&ask("any", 50));
        match index < COMMON {
            true => says_so(case, scope, &elsewhere),
            false => assert_eq!(
                (elsewhere.status(), upstreams[1].count()),
                (200, 1),
                "{scope}"
            ),
        }
        gate.open();
        for thread in held {
            assert_eq!(thread.join().expect("an answer"), 200, "{scope}");
        }
        at_rest(&node);
        let again = node.ask(&ask("m", 50));
        assert_eq!(
            again.status(),
            200,
            "{scope}: there is room again: {}",
            again.text()
        );
    }
}
