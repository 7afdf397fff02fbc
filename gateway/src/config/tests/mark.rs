//! What nodes compare of their files.

use std::path::PathBuf;
use std::sync::Arc;

use cluster::ConfigurationMark;
use policy::CounterTable;

use super::super::mark::mark;
use super::super::{ResolveInto, parse_all, resolve};
use super::variables;
use crate::upstream::ClientPool;

const FILE: &str = "\
version: 1
revision: 7
server: {listen: 127.0.0.1:1}
providers: [{name: openai, kind: openai, base_url: https://a.example, keys: [{name: k, value: sk-one}]}]
models:
  - {name: a, provider: openai, price: {input: 1, output: 2}}
  - {name: b, provider: openai, price: free}
customers: [{name: acme}]
teams: [{name: search, customer: acme}]
virtual_keys: [{name: k, value: sk-tyr-0123456789, providers: [{name: openai}], rate_limits: [{requests: 5, every: 1m}]}]
routing_rules: []
";

fn of(text: &str) -> ConfigurationMark {
    let texts = [(PathBuf::from("t.yaml"), text.to_owned())];
    let document = parse_all(&texts).expect("it has the right form");
    let environment = variables(&[
        ("KEY", "sk-tyr-0123456789"),
        ("URL", "https://a.example"),
        ("SECRET", "sk-two"),
    ]);
    let into = ResolveInto {
        counters: &Arc::new(CounterTable::new()),
        clients: &ClientPool::new(),
        revision: 1,
        environment: &environment,
        previous: None,
    };
    let resolved = resolve(&document, &into).expect("it is right");
    mark(&document.file, &resolved.live, &environment)
}

/// The parts in which the file differs from `FILE` with one text replaced.
#[track_caller]
fn differs(from: &str, to: &str) -> Vec<String> {
    assert!(FILE.contains(from), "{from}");
    let (one, other) = (of(FILE), of(&FILE.replace(from, to)));
    let pairs = one.parts.iter().zip(&other.parts);
    let parts: Vec<String> = pairs
        .filter(|(one, other)| one != other)
        .map(|(one, _)| one.0.clone())
        .collect();
    assert_eq!(one.hash != other.hash, !parts.is_empty(), "{to}");
    parts
}

#[test]
fn what_means_the_same_is_the_same() {
    let same = [
        ("127.0.0.1:1", "127.0.0.1:2"),
        ("sk-one", "env.SECRET"),
        ("https://a.example", "env.URL"),
        ("value: sk-tyr-0123456789", "value: env.KEY"),
        ("revision: 7", "revision: 8"),
        ("routing_rules: []\n", ""),
        (
            "  - {name: a, provider: openai, price: {input: 1, output: 2}}\n  - {name: b, provider: openai, price: free}\n",
            "  - {name: b, provider: openai, price: free}\n  - {name: a, provider: openai, price: {input: 1, output: 2}}\n",
        ),
    ];
    for (from, to) in same {
        assert_eq!(differs(from, to), Vec::<String>::new(), "{to}");
    }
}

#[test]
fn what_differs_is_named() {
    let other = [
        ("a.example", "b.example", "providers"),
        ("input: 1", "input: 3", "models"),
        (
            "{name: acme}",
            "{name: acme, budgets: [{limit_usd: 1, every: 1d}]}",
            "customers",
        ),
        ("{name: search, customer: acme}", "{name: search}", "teams"),
        ("requests: 5", "requests: 6", "virtual_keys"),
        ("sk-tyr-0123456789", "sk-tyr-another-one", "virtual_keys"),
        (
            "routing_rules: []",
            "routing_rules: [{name: r, when: 'true', targets: [{provider: openai, model: a, weight: 1}]}]",
            "routing_rules",
        ),
    ];
    for (from, to, part) in other {
        assert_eq!(differs(from, to), [part], "{to}");
    }
}

#[test]
fn the_revision_is_a_number_or_nothing() {
    assert_eq!(of(FILE).revision, Some(7));
    assert_eq!(
        of(&FILE.replace("revision: 7", "revision: '12'")).revision,
        Some(12)
    );
    assert_eq!(
        of(&FILE.replace("revision: 7", "revision: 2026-01")).revision,
        None
    );
    assert_eq!(of(&FILE.replace("revision: 7\n", "")).revision, None);
}
