//! What a right document becomes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use policy::{CounterTable, Dialect, KeyHash, NanoUsd, PerMillion, Usage};

use super::super::{
    Environment, References, ResolveInto, StoreSettings, check, parse_all, redacted, resolve,
};
use super::{lines, resolved, variables};
use crate::upstream::ClientPool;

const TEXT: &str = r#"
version: 1
revision: july
server: {listen: [127.0.0.1:1, "[::1]:2"], max_body: 2MiB, keep_alive: 250ms, threads: 3}
admin: {tokens: [{name: ops, role: operator, value: literal-admin-token}]}
providers:
  - name: openai
    kind: openai
    base_url: https://api.openai.com/v1
    keys:
      - {name: main, value: env.OPENAI_API_KEY, weight: 3, models: [vendor/big]}
      - {name: rest, value: sk-literal}
    timeouts: {first_byte: 5s}
    usage_in_stream: never
  - {name: claude, kind: anthropic, base_url: "https://b.example", keys: [{name: k, value: sk-other}]}
models:
  - {name: vendor/big, provider: openai, upstream_name: big-1, price: {input: 0.1, output: "0.3"}}
  - {name: small, provider: claude, price: {input: 1, cache_read: 0.1, cache_write: 1.25, output: 5}, max_output_tokens: 9}
  - {name: either, choices: [claude/small, openai/vendor/big]}
customers: [{name: acme, budgets: [{limit_usd: 0.000000001, every: 1Q, fiscal_start: 4}]}]
teams: [{name: search, customer: acme, rate_limits: [{tokens: 5, every: 1h}]}, {name: idle, customer: acme}]
virtual_keys:
  - name: one
    value: sk-tyr-0123456789
    team: search
    providers: [{name: openai}, {name: claude, models: [small], weight: 2}]
    rate_limits: [{concurrent: 2}, {requests: 3, every: 1m, window: smooth, enforcement: strict}]
  - {name: two, sha256: ABCDEF0000000000000000000000000000000000000000000000000000000000, team: idle}
  - {name: gone, value: sk-tyr-gone-0000000000, active: false}
governance: {budget_status: 403}
"#;

#[test]
fn providers_and_models() {
    let live = resolved(TEXT, &Arc::default()).live;
    let snapshot = &live.policy;
    assert_eq!(snapshot.revision(), 7);
    let provider = &snapshot.providers()[0];
    assert_eq!(
        (&*provider.name, provider.dialect, provider.max_retries),
        ("openai", Dialect::OpenAi, 2)
    );
    assert_eq!(provider.credentials[0].weight, 3);
    assert!(provider.credentials[0].models.allows("vendor/big"));
    assert!(!provider.credentials[0].models.allows("small"));
    assert!(provider.credentials[1].models.allows("anything"));
    let upstream = &live.upstreams[0].config;
    assert_eq!(upstream.credentials[0].expose(), "sk-from-the-environment");
    assert_eq!(upstream.credentials[1].expose(), "sk-literal");
    assert_eq!(upstream.timeouts.first_byte, Duration::from_secs(5));
    assert_eq!(upstream.timeouts.connect, Duration::from_secs(2));
    assert!(!upstream.usage_in_stream);
    assert_eq!(snapshot.providers()[1].dialect, Dialect::Anthropic);
    let big = &snapshot.models()[0];
    assert_eq!((&*big.name, &*big.upstream_name), ("vendor/big", "big-1"));
    assert_eq!(big.price.cache_read, PerMillion(100_000_000));
    assert_eq!(big.price.reasoning, PerMillion(300_000_000));
    let usage = Usage {
        input: 1,
        ..Usage::default()
    };
    assert_eq!(big.price.cost(&usage), NanoUsd(100));
    let small = &snapshot.models()[1];
    assert_eq!(small.price.cache_write_1h, PerMillion(1_250_000_000));
    assert_eq!(small.max_output_tokens, Some(9));
}

#[test]
fn keys_and_limits() {
    let counters = Arc::new(CounterTable::new());
    let live = resolved(TEXT, &counters).live;
    let one = live
        .policy
        .key(&KeyHash::of(b"sk-tyr-0123456789"))
        .expect("it is there");
    let snapshot = &live.policy;
    assert_eq!(one.team.as_deref(), Some("search"));
    assert_eq!(snapshot.customer_of(one).map(|name| &**name), Some("acme"));
    let team = snapshot.team("search").and_then(|team| team.scope.clone());
    let customer = snapshot
        .customer("acme")
        .and_then(|customer| customer.scope.clone());
    let ids: Vec<String> = [one.scope.clone(), team, customer]
        .iter()
        .flatten()
        .flat_map(|scope| {
            let limits = scope.limits.iter();
            limits.map(|limit| format!("{} {}", limit.id, limit.amount))
        })
        .collect();
    assert_eq!(
        ids,
        [
            "virtual_key/one/concurrent/-/fixed 2",
            "virtual_key/one/requests/1m/smooth 3",
            "team/search/tokens/1h/sliding 5",
            "customer/acme/usd/1Q@4/calendar 1",
        ]
    );
    let weights: Vec<_> = one.grants.iter().map(|grant| grant.weight).collect();
    assert_eq!(weights, [1, 2]);
    let two = live.policy.key_named("two").expect("it is there");
    assert_eq!(two.hash.0[..3], [0xab, 0xcd, 0xef]);
    assert!(two.grants.is_empty());
    assert_eq!(snapshot.customer_of(two).map(|name| &**name), Some("acme"));
    assert!(
        snapshot
            .team("idle")
            .is_some_and(|team| team.scope.is_none())
    );
    let gone = live.policy.key_named("gone").expect("it is known");
    assert!(!gone.active);
}

#[test]
fn server_and_admin() {
    let resolved = resolved(TEXT, &Arc::default());
    assert_eq!(resolved.live.bounds.max_body, 2 << 20);
    assert_eq!(resolved.live.bounds.keep_alive, Duration::from_millis(250));
    assert_eq!(resolved.live.bounds.max_json_depth, 128);
    assert_eq!(resolved.live.budget_status, Some(403));
    assert_eq!(
        resolved.live.admin.tokens[0].hash,
        KeyHash::of(b"literal-admin-token")
    );
    assert_eq!(resolved.startup.listen.len(), 2);
    assert_eq!(resolved.startup.threads, Some(3));
    let path = PathBuf::from("data/tyr.db");
    assert_eq!(resolved.startup.store, StoreSettings::Sqlite { path });
    assert_eq!(resolved.startup.header_timeout, Duration::from_secs(10));
    let warned = lines(&resolved.warnings);
    assert_eq!(
        warned,
        "t.yaml:28: virtual_keys[1]: virtual key 'two' has no `providers` and may use nothing"
    );
}

#[test]
fn secrets_are_not_shown() {
    let texts = [(PathBuf::from("t.yaml"), TEXT.to_owned())];
    let document = parse_all(&texts).expect("it is right");
    let shown = redacted(&document);
    assert_eq!(
        shown["providers"][0]["keys"][0]["value"],
        "env.OPENAI_API_KEY"
    );
    assert_eq!(shown["providers"][0]["keys"][1]["value"], "***");
    assert_eq!(shown["providers"][0]["timeouts"]["connect"], "2s");
    assert_eq!(shown["models"][0]["price"]["input"], "0.1");
    assert_eq!(shown["virtual_keys"][0]["value"], "***");
    assert_eq!(shown["revision"], "july");
    let everything = format!("{shown} {document:?}");
    for secret in [
        "sk-literal",
        "sk-other",
        "sk-tyr-0123456789",
        "literal-admin-token",
    ] {
        assert!(!shown.to_string().contains(secret), "{secret}");
        assert!(!everything.contains(secret), "{secret} in Debug");
    }
}

#[test]
fn references() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("key"), "sk-of-the-file\n").expect("a file");
    std::fs::write(folder.path().join("empty"), "\n").expect("a file");
    let text = "\
version: 1
providers:
  - name: openai
    kind: openai
    base_url: env.BASE
    keys:
      - {name: a, value: file.key}
      - {name: b, value: file.absent}
      - {name: c, value: file.empty}
      - {name: d, value: env.ABSENT}
      - {name: e, value: env.EMPTY}
virtual_keys: [{name: k, value: env.SHORT}]
";
    let variables = [
        ("BASE", "https://a.example"),
        ("EMPTY", ""),
        ("SHORT", "tiny"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment = Environment::of(variables.into(), folder.path().to_owned());
    let texts = [(PathBuf::from("t.yaml"), text.to_owned())];
    let document = parse_all(&texts).expect("it has the right form");
    check(&document, References::Skip).expect("nothing is read");
    let problems =
        check(&document, References::Resolve(&environment)).expect_err("some are missing");
    assert_eq!(
        lines(&problems),
        "t.yaml:8: providers[0].keys[1].value: the file absent cannot be read: No such file or directory (os error 2)\n\
         t.yaml:9: providers[0].keys[2].value: the file empty is empty\n\
         t.yaml:10: providers[0].keys[3].value: the environment variable ABSENT is not set\n\
         t.yaml:11: providers[0].keys[4].value: the environment variable EMPTY is empty\n\
         t.yaml:12: virtual_keys[0].value: the value of `env.SHORT` must have 16 or more characters"
    );
}

#[test]
fn counters_and_ratios_outlive_a_revision() {
    let counters = Arc::new(CounterTable::new());
    let texts = [(PathBuf::from("t.yaml"), TEXT.to_owned())];
    let document = parse_all(&texts).expect("it is right");
    let environment = variables(&[("OPENAI_API_KEY", "sk-from-the-environment")]);
    let clients = ClientPool::new();
    let first = resolved(TEXT, &counters).live;
    let into = ResolveInto {
        counters: &counters,
        clients: &clients,
        revision: 8,
        environment: &environment,
        previous: Some(&first),
    };
    let second = resolve(&document, &into).expect("it is right").live;
    let limit = |live: &crate::state::Live| {
        let key = live.policy.key_named("one").expect("it is there");
        let scope = key.scope.as_ref().expect("it has limits");
        Arc::clone(&scope.limits[0].counter)
    };
    assert!(Arc::ptr_eq(&limit(&first), &limit(&second)));
    assert!(Arc::ptr_eq(
        &first.policy.models()[1].estimate,
        &second.policy.models()[1].estimate
    ));
}
