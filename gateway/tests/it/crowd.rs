//! Many requests at once against limits at several scopes: exactly those that
//! fit are admitted, and what they used is exact at every scope afterwards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use crate::harness::upstream::chat_completion;
use crate::harness::{Conf, Node, Upstream, eventually};
use crate::scopes::{Gate, SCOPES, ask, at_rest, ladder};

const CROWD: usize = 200;

/// What binds, as (rate limit, budget), for so many tenths of ten requests.
type Limits = fn(u64) -> (String, String);

/// Sends 200 at once, the provider keeping those that reach it; the statuses
/// once 190 were refused and the others let go.
fn storm(node: &Arc<Node>, gate: &Gate, max_tokens: u64) -> Vec<u16> {
    let start = Arc::new(Barrier::new(CROWD));
    let tasks: Vec<_> = (0..CROWD)
        .map(|index| {
            let (node, start) = (Arc::clone(node), Arc::clone(&start));
            // Half of them name the model, half the alias of which it is the first.
            let model = if index % 2 == 0 { "m" } else { "only" };
            let ask = ask(model, max_tokens);
            std::thread::spawn(move || {
                start.wait();
                node.ask(&ask).status()
            })
        })
        .collect();
    eventually("190 are refused", || {
        (tasks.iter().filter(|task| task.is_finished()).count() >= CROWD - 10).then_some(())
    });
    gate.open();
    let statuses = tasks
        .into_iter()
        .map(|task| task.join().expect("an answer"));
    statuses.collect()
}

/// Ten fit at `tight`, eleven and more everywhere else.
fn exactly_ten(tight: &str, limits: Limits, max_tokens: u64) {
    let gate = Gate::default();
    let upstream = gate.upstream(7, 3);
    let limited = |scope: &str| limits(if scope == tight { 10 } else { 11 });
    let mut conf = ladder([upstream.address; 3], &limited);
    conf.models += "  - {name: only, choices: [openai/m]}\n";
    let node = Arc::new(Node::start(&conf));
    let statuses = storm(&node, &gate, max_tokens);
    let of = |status: u16| statuses.iter().filter(|found| **found == status).count();
    assert_eq!(
        (of(200), of(429), upstream.count()),
        (10, 190, 10),
        "{tight}"
    );
    // 7 x $0.15 and 3 x $0.60 a million: $0.00000285 each.
    let expected = [
        ("requests", json!(10)),
        ("tokens", json!(100)),
        ("usd", json!("0.0000285")),
        ("concurrent", json!(0)),
    ];
    let after = at_rest(&node);
    for (unit, used) in expected {
        let label = format!("\"{unit}\" \"witness\"");
        let found: Vec<&Value> = after
            .iter()
            .filter(|(name, _)| name.ends_with(&label))
            .map(|(_, [used, ..])| used)
            .collect();
        assert_eq!(found, vec![&used; SCOPES.len()], "{tight}: {unit}");
    }
    node.records_exactly(10);
}

#[test]
fn of_200_at_once_request_limits_at_all_scopes_admit_ten() {
    for tight in ["customer/acme", "model/openai/m"] {
        exactly_ten(
            tight,
            |ten| (format!("{{requests: {ten}, every: 1h}}"), String::new()),
            5,
        );
    }
}

#[test]
fn of_200_at_once_strict_token_limits_at_all_scopes_admit_ten() {
    // Each holds 10,000 tokens and its prompt.
    let limits: Limits = |ten| {
        let tokens = ten * 10_000 + 9_000;
        (
            format!("{{tokens: {tokens}, every: 1h, enforcement: strict}}"),
            String::new(),
        )
    };
    for tight in ["team/search", "virtual_key_provider/demo/openai"] {
        exactly_ten(tight, limits, 10_000);
    }
}

#[test]
fn of_200_at_once_strict_budgets_at_all_scopes_admit_ten() {
    // Each holds 10,000 tokens of output at $0.60 a million, $0.006, and its prompt.
    let limits: Limits = |ten| {
        let micros = ten * 6_000 + 5_000;
        (
            String::new(),
            format!("{{limit_usd: 0.{micros:06}, every: 1d, enforcement: strict}}"),
        )
    };
    for tight in ["global/all", "model/m"] {
        exactly_ten(tight, limits, 10_000);
    }
}

#[test]
fn of_200_at_once_concurrency_limits_at_all_scopes_admit_ten() {
    for tight in ["user/ann", "provider/openai"] {
        exactly_ten(
            tight,
            |ten| (format!("{{concurrent: {ten}}}"), String::new()),
            5,
        );
    }
}

#[test]
fn a_burst_at_99_percent_of_a_budget_admits_what_fits() {
    // The first answer costs $0.99 of $1; then each holds and costs $0.0018.
    let output = Arc::new(AtomicU64::new(1_650_000));
    let told = Arc::clone(&output);
    let upstream = Upstream::start(move |exchange| {
        let output = told.load(Ordering::SeqCst);
        exchange.json(200, &chat_completion("pong", 0, output));
    });
    let conf = Conf::for_upstream(upstream.address)
        .limited("budgets: [{limit_usd: 1, every: 1M, enforcement: strict}]");
    let node = Arc::new(Node::start(&conf));
    let send = |max_tokens: u64| {
        let body = crate::harness::api::chat("gpt-4o-mini", max_tokens);
        node.post("/v1/chat/completions", &body)
    };
    assert_eq!(send(3_000).status(), 200);
    assert_eq!(node.settled("demo", "usd")["used_nano_usd"], 990_000_000);
    output.store(3_000, Ordering::SeqCst);
    let start = Arc::new(Barrier::new(50));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (node, start) = (Arc::clone(&node), Arc::clone(&start));
            std::thread::spawn(move || {
                let body = crate::harness::api::chat("gpt-4o-mini", 3_000);
                start.wait();
                node.post("/v1/chat/completions", &body).status()
            })
        })
        .collect();
    let statuses: Vec<u16> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!((admitted, upstream.count()), (5, 6), "{statuses:?}");
    assert_eq!(node.settled("demo", "usd")["used_nano_usd"], 999_000_000);
    assert_eq!(send(3_000).status(), 429, "$0.001 is left");
    output.store(10, Ordering::SeqCst);
    assert_eq!(send(1_000).status(), 200, "$0.0006 fits into $0.001");
    let costs: u64 = node
        .records_exactly(7)
        .iter()
        .map(|record| record.cost_nano_usd)
        .sum();
    assert_eq!(
        node.settled("demo", "usd")["used_nano_usd"],
        costs,
        "the sum of the records"
    );
}
