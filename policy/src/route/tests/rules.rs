use std::collections::BTreeMap;

use super::*;
use crate::counter::CounterTable;
use crate::rule::{Rule, RuleScope, RuleSet, RuleSpec, Target};
use crate::scope::{Customer, ScopeKind, Team};
use crate::testing::limit;

const EVERYTHING: &[(u16, &[&str], u32)] = &[(0, ALL, 1), (1, ALL, 3), (2, ALL, 1)];

/// `provider/model`, `provider/`, `/model` or `/`, then `@credential` and
/// `*weight`.
fn target(text: &str) -> Target {
    let (text, weight) = text.split_once('*').unwrap_or((text, "1"));
    let (text, credential) = match text.split_once('@') {
        Some((text, credential)) => (text, Some(credential.into())),
        None => (text, None),
    };
    let (provider, model) = text.split_once('/').unwrap();
    let given = |name: &str| (!name.is_empty()).then(|| name.into());
    Target {
        provider: given(provider),
        model: given(model),
        credential,
        weight: weight.parse().unwrap(),
    }
}

pub(super) fn rule(name: &str, when: &str, targets: &[&str]) -> RuleSpec {
    RuleSpec {
        name: name.into(),
        when: when.to_owned(),
        targets: targets.iter().map(|text| target(text)).collect(),
        enabled: true,
        ..RuleSpec::default()
    }
}

fn chained(name: &str, when: &str, to: &str) -> RuleSpec {
    RuleSpec {
        chain: true,
        ..rule(name, when, &[to])
    }
}

pub(super) fn rules(specs: &[RuleSpec]) -> RuleSet {
    RuleSet::new(
        specs
            .iter()
            .cloned()
            .map(|spec| Rule::compile(spec).unwrap())
            .collect(),
    )
}

/// Providers with credentials, a team of a customer, and these rules.
fn ruled(specs: &[RuleSpec]) -> Snapshot {
    let mut parts = parts();
    for (name, models) in [("main", ALL), ("mini-only", &["mini"])] {
        parts.providers[1].credentials.push(CredentialRef {
            name: name.into(),
            weight: 1,
            models: names(models),
        });
    }
    parts.teams = vec![Team {
        name: "search".into(),
        customer: Some("acme".into()),
        scope: None,
    }];
    parts.customers = vec![Customer {
        name: "acme".into(),
        scope: None,
    }];
    parts.rules = rules(specs);
    Snapshot::new(7, parts, [])
}

fn member(grants: &[(u16, &[&str], u32)]) -> VirtualKey {
    VirtualKey {
        team: Some("search".into()),
        ..key(grants)
    }
}

/// `provider/model` of each choice, with `@credential`.
pub(super) fn shown(snapshot: &Snapshot, choices: &[Choice]) -> Vec<String> {
    choices
        .iter()
        .map(|choice| {
            let model = snapshot.model(choice.model);
            let provider = &snapshot.provider(model.provider).name;
            match &choice.credential {
                Some(pinned) => format!("{provider}/{}@{pinned}", model.name),
                None => format!("{provider}/{}", model.name),
            }
        })
        .collect()
}

fn goes(specs: &[RuleSpec], call: &Call<'_>) -> Result<Vec<String>, RouteRefusal> {
    let snapshot = ruled(specs);
    route(&snapshot, &member(EVERYTHING), call).map(|routed| shown(&snapshot, &routed.choices))
}

/// A request for `model` goes to `expected`, in this order.
#[track_caller]
fn check_goes(specs: &[RuleSpec], model: &str, expected: &[&str]) {
    let found = goes(specs, &call(model, Dialect::OpenAi, 0));
    assert_eq!(found.unwrap(), expected, "{specs:?}");
}

fn steps(specs: &[RuleSpec], call: &Call<'_>) -> Vec<(String, RuleOutcome)> {
    explain_route(&ruled(specs), &member(EVERYTHING), call)
        .trace
        .into_iter()
        .map(|step| (step.rule.to_string(), step.outcome))
        .collect()
}

#[test]
fn every_variable_can_decide() {
    let headers = [("x-region", "eu")];
    let params = [("beta", "1")];
    let full = Call {
        headers: &headers,
        params: &params,
        user: Some("eve"),
        ..call("openai/gpt", Dialect::OpenAi, 0)
    };
    for when in [
        "model == 'gpt'",
        "provider == 'openai'",
        "request_type == 'chat'",
        "headers['x-region'] == 'eu'",
        "params.beta == '1'",
        "virtual_key_id == 'demo' && virtual_key_name == 'demo'",
        "team_id == 'search' && team_name == 'search'",
        "customer_id == 'acme' && customer_name == 'acme'",
        "user_id == 'eve'",
        "tokens_used == 0.0",
        "request == 0.0",
        "budget_used == 0.0",
    ] {
        let found = goes(&[rule("r", when, &["openai/mini"])], &full);
        assert_eq!(found.unwrap(), ["openai/mini"], "{when}");
        let found = goes(&[rule("r", &format!("!({when})"), &["openai/mini"])], &full);
        assert_eq!(found.unwrap(), ["openai/gpt"], "{when}");
    }
    // A bare name or alias has no provider; a key may have no team.
    check_goes(
        &[rule(
            "r",
            "provider == '' && model == 'fast'",
            &["openai/gpt"],
        )],
        "fast",
        &["openai/gpt"],
    );
    let snapshot = ruled(&[rule(
        "r",
        "team_id + customer_id + user_id == ''",
        &["openai/mini"],
    )]);
    let routed = route(
        &snapshot,
        &key(EVERYTHING),
        &call("gpt", Dialect::OpenAi, 0),
    )
    .unwrap();
    assert_eq!(shown(&snapshot, &routed.choices), ["openai/mini"]);
    assert_eq!(routed.decided_by().map(|name| &**name), Some("r"));
}

#[test]
fn targets_say_as_much_as_they_like() {
    let to = |targets: &[&str]| [rule("r", "true", targets)];
    check_goes(&to(&["azure/gpt"]), "openai/gpt", &["azure/gpt"]);
    check_goes(&to(&["azure/"]), "openai/gpt", &["azure/gpt"]);
    check_goes(&to(&["openai/"]), "gpt", &["openai/gpt"]);
    // An alias keeps to its choices of that provider.
    check_goes(&to(&["azure/"]), "fast", &["azure/gpt"]);
    check_goes(&to(&["openai/fast"]), "gpt", &["openai/mini"]);
    check_goes(&to(&["/fast"]), "gpt", &["openai/mini", "azure/gpt"]);
    check_goes(&to(&["/mini"]), "azure/gpt", &["openai/mini"]);
    check_goes(&to(&["/"]), "azure/gpt", &["azure/gpt"]);
    check_goes(&to(&["openai/org/free"]), "gpt", &["openai/org/free"]);
    check_goes(&to(&["/org/free"]), "gpt", &["openai/org/free"]);
    check_goes(&to(&["/azure/gpt"]), "openai/gpt", &["azure/gpt"]);
    check_goes(
        &to(&["openai/mini@mini-only"]),
        "gpt",
        &["openai/mini@mini-only"],
    );
    // Each once, but another credential is another choice.
    check_goes(
        &to(&[
            "openai/mini@main*3",
            "openai/mini@mini-only*2",
            "openai/mini*1",
            "openai/mini*1",
            "/fast*0",
        ]),
        "gpt",
        &[
            "openai/mini@main",
            "openai/mini@mini-only",
            "openai/mini",
            "azure/gpt",
        ],
    );
}

#[test]
fn a_target_in_full_is_no_alias() {
    let mut parts = parts();
    parts.aliases = vec![("gpt".into(), vec![ModelId(2)])];
    parts.rules = rules(&[rule("r", "true", &["azure/gpt"])]);
    let snapshot = Snapshot::new(7, parts, []);
    let routed = route(
        &snapshot,
        &key(EVERYTHING),
        &call("gpt", Dialect::OpenAi, 0),
    );
    assert_eq!(shown(&snapshot, &routed.unwrap().choices), ["azure/gpt"]);
}

#[test]
fn fallbacks_follow_the_targets_by_weight() {
    let mut spec = rule(
        "r",
        "true",
        &["azure/gpt*1", "openai/mini*0", "openai/org/free*5"],
    );
    spec.fallbacks = vec![
        "openai/gpt".into(),
        "openai/mini".into(),
        "azure/none".into(),
    ];
    let snapshot = ruled(&[spec]);
    let mut drawn = BTreeMap::new();
    for random in 0..6_000 {
        let call = call("gpt", Dialect::OpenAi, random);
        let routed = route(&snapshot, &member(EVERYTHING), &call).unwrap();
        let order = shown(&snapshot, &routed.choices);
        let expected = match order[0].as_str() {
            "azure/gpt" => ["azure/gpt", "openai/org/free", "openai/mini", "openai/gpt"],
            _ => ["openai/org/free", "azure/gpt", "openai/mini", "openai/gpt"],
        };
        assert_eq!(order, expected);
        *drawn.entry(order[0].clone()).or_insert(0) += 1;
    }
    // A sixth, within five standard deviations.
    assert!((850..=1_150).contains(&drawn["azure/gpt"]), "{drawn:?}");
}

#[test]
fn draws_for_rules_and_for_providers_are_independent() {
    let snapshot = ruled(&[rule("r", "true", &["/gpt*1", "openai/mini*1"])]);
    let mut firsts = BTreeMap::new();
    for random in 0..8_000 {
        let call = call("gpt", Dialect::OpenAi, random);
        let routed = route(&snapshot, &member(EVERYTHING), &call).unwrap();
        *firsts
            .entry(shown(&snapshot, &routed.choices)[0].clone())
            .or_insert(0) += 1;
    }
    // One half; of the other a quarter and three.
    assert!(
        (3_750..=4_250).contains(&firsts["openai/mini"]),
        "{firsts:?}"
    );
    assert!((850..=1_150).contains(&firsts["azure/gpt"]), "{firsts:?}");
}

#[test]
fn what_cannot_be_used_is_left_out_with_a_reason() {
    let mut spec = rule(
        "r",
        "true",
        &[
            "claude/sonnet*9",
            "openai/gpt@mini-only*8",
            "openai/none*7",
            "nobody/gpt*6",
            "/none*5",
            "azure/gpt*4",
        ],
    );
    spec.fallbacks = vec![
        "claude/gpt".into(),
        "nobody/gpt".into(),
        "openai/mini".into(),
    ];
    let snapshot = ruled(&[spec]);
    let grants: &[(u16, &[&str], u32)] = &[(1, ALL, 1), (2, ALL, 1)];
    let routed = route(&snapshot, &member(grants), &call("gpt", Dialect::OpenAi, 0)).unwrap();
    assert_eq!(shown(&snapshot, &routed.choices), ["openai/mini"]);
    let mut skipped: Vec<(&str, SkipReason)> = routed
        .skipped
        .iter()
        .map(|skipped| (skipped.name.as_str(), skipped.why))
        .collect();
    skipped.sort_by_key(|(name, _)| *name);
    assert_eq!(
        skipped,
        [
            ("azure/gpt", SkipReason::NotGranted),
            ("claude/gpt", SkipReason::OtherDialect),
            ("claude/sonnet", SkipReason::OtherDialect),
            ("nobody/gpt", SkipReason::Unknown),
            ("none", SkipReason::Unknown),
            ("openai/gpt", SkipReason::NoCredential),
            ("openai/none", SkipReason::Unknown),
        ]
    );
}

#[test]
fn nothing_left_is_a_refusal() {
    let openai: &[(u16, &[&str], u32)] = &[(1, ALL, 1)];
    let refusal = |target: &str| {
        let snapshot = ruled(&[rule("r", "true", &[target])]);
        let call = call("gpt", Dialect::OpenAi, 0);
        let explained = explain_route(&snapshot, &member(openai), &call);
        assert_eq!(
            explained.outcome,
            route(&snapshot, &member(openai), &call).map(|r| r.choices)
        );
        assert_eq!(explained.trace.len(), 1);
        assert_eq!(explained.skipped.len(), 1);
        explained.outcome.unwrap_err()
    };
    assert_eq!(refusal("azure/gpt"), RouteRefusal::ModelNotAllowed);
    assert_eq!(refusal("openai/none"), RouteRefusal::ModelNotAllowed);
    let snapshot = ruled(&[rule("r", "true", &["claude/gpt"])]);
    let refused = route(
        &snapshot,
        &member(EVERYTHING),
        &call("gpt", Dialect::OpenAi, 0),
    );
    assert_eq!(refused, Err(RouteRefusal::NoCompatibleProvider));
    // The other way round a rule helps: the model alone could not be served.
    let found = goes(
        &[rule("r", "true", &["openai/gpt"])],
        &call("sonnet", Dialect::OpenAi, 0),
    );
    assert_eq!(found.unwrap(), ["openai/gpt"]);
}

#[test]
fn the_allow_list_is_judged_on_what_was_asked_for() {
    let snapshot = ruled(&[rule("r", "true", &["openai/mini"])]);
    let grants: &[(u16, &[&str], u32)] = &[(1, &["mini"], 1)];
    let ask = |model| route(&snapshot, &member(grants), &call(model, Dialect::OpenAi, 0));
    assert_eq!(ask("gpt"), Err(RouteRefusal::ModelNotAllowed));
    assert_eq!(ask("none"), Err(RouteRefusal::UnknownModel));
    assert!(ask("mini").is_ok());
}

#[test]
fn scopes_come_in_order_and_priorities_within_them() {
    let at = |name: &str, scope: RuleScope, priority: u32, when: &str| RuleSpec {
        scope,
        priority,
        ..rule(name, when, &["openai/mini"])
    };
    let user = Call {
        user: Some("eve"),
        ..call("gpt", Dialect::OpenAi, 0)
    };
    let specs = [
        at("g1", RuleScope::Global, 2, "false"),
        at("g2", RuleScope::Global, 1, "false"),
        at("b", RuleScope::Customer("acme".into()), 5, "false"),
        at("a", RuleScope::Customer("acme".into()), 5, "false"),
        at("t", RuleScope::Team("search".into()), 9, "false"),
        at("u", RuleScope::User("eve".into()), 9, "false"),
        at("k", RuleScope::VirtualKey("demo".into()), 99, "false"),
        at("x1", RuleScope::VirtualKey("other".into()), 0, "true"),
        at("x2", RuleScope::Team("acme".into()), 0, "true"),
        at("x3", RuleScope::Customer("search".into()), 0, "true"),
        at("x4", RuleScope::User("bob".into()), 0, "true"),
    ];
    let asked: Vec<String> = steps(&specs, &user)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(asked, ["k", "u", "t", "a", "b", "g2", "g1"]);
    let asked = steps(&specs, &call("gpt", Dialect::OpenAi, 0));
    assert_eq!(asked.len(), 6);
    // The first match ends it.
    let mut specs = specs;
    specs[4].when = "true".to_owned();
    let asked = steps(&specs, &user);
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[2], ("t".to_owned(), RuleOutcome::Matched));
}

#[test]
fn shadow_disabled_and_failing_rules_decide_nothing() {
    let specs = [
        RuleSpec {
            shadow: true,
            ..rule("a", "true", &["openai/mini"])
        },
        RuleSpec {
            enabled: false,
            ..rule("b", "true", &["openai/mini"])
        },
        rule("c", "headers['x-none'] == ''", &["openai/mini"]),
        rule("d", "false", &["openai/mini"]),
        rule("e", "true", &["azure/gpt"]),
        rule("f", "true", &["openai/mini"]),
    ];
    check_goes(&specs, "gpt", &["azure/gpt"]);
    let call = call("gpt", Dialect::OpenAi, 0);
    let failed = RuleOutcome::Failed("the request has no header 'x-none'".to_owned());
    let expected = [
        ("a", RuleOutcome::Shadowed),
        ("c", failed),
        ("d", RuleOutcome::NotMatched),
        ("e", RuleOutcome::Matched),
    ]
    .map(|(name, outcome)| (name.to_owned(), outcome));
    assert_eq!(steps(&specs, &call), expected);
    // A request is not told of rules that do not match.
    let routed = route(&ruled(&specs), &member(EVERYTHING), &call).unwrap();
    assert_eq!(routed.trace.len(), 3);
    // Without a match the plain order holds, by the same draw as without rules.
    for random in 0..4 {
        let call = super::call("gpt", Dialect::OpenAi, random);
        assert_eq!(goes(&specs[..4], &call), goes(&[], &call));
    }
}

#[test]
fn chains_ask_again_with_the_new_model() {
    let specs = [
        chained("a", "model == 'gpt'", "openai/mini"),
        chained("b", "model == 'mini' && provider == 'openai'", "/fast"),
        rule("c", "model == 'fast' && provider == ''", &["azure/"]),
        rule("d", "model == 'gpt'", &["openai/gpt"]),
    ];
    check_goes(&specs, "gpt", &["azure/gpt"]);
    let matched: Vec<String> = steps(&specs, &call("gpt", Dialect::OpenAi, 0))
        .into_iter()
        .filter(|(_, outcome)| *outcome == RuleOutcome::Matched)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(matched, ["a", "b", "c"]);
    // The last choice stands when nothing more matches, or nothing changes.
    check_goes(&specs[..2], "gpt", &["openai/mini", "azure/gpt"]);
    let same = [chained("a", "true", "openai/mini")];
    check_goes(&same, "gpt", &["openai/mini"]);
    assert_eq!(steps(&same, &call("gpt", Dialect::OpenAi, 0)).len(), 2);
}

#[test]
fn a_cycle_ends_after_ten_links() {
    let specs = [
        chained("there", "model == 'gpt'", "openai/mini"),
        chained("back", "model == 'mini'", "azure/gpt"),
    ];
    check_goes(&specs, "gpt", &["azure/gpt"]);
    let snapshot = ruled(&specs);
    let routed = route(
        &snapshot,
        &member(EVERYTHING),
        &call("gpt", Dialect::OpenAi, 0),
    )
    .unwrap();
    let outcomes: Vec<&RuleOutcome> = routed.trace.iter().map(|step| &step.outcome).collect();
    assert_eq!(outcomes.len(), 11);
    assert!(
        outcomes[..10]
            .iter()
            .all(|outcome| **outcome == RuleOutcome::Matched)
    );
    assert_eq!(*outcomes[10], RuleOutcome::DepthExceeded);
    assert_eq!(routed.decided_by().map(|name| &**name), Some("back"));
}

/// A budget of 100 dollars with this many nano-dollars used.
fn budgeted(used: u64, when: &str) -> Vec<String> {
    let table = CounterTable::new();
    let budget = limit(&table, ScopeKind::Global, "global", "100 usd/1d");
    let hold = budget.counter.reserve(used, u64::MAX, NOW).unwrap();
    let _ = budget.counter.settle(hold, used, NOW);
    let mut parts = parts();
    parts.global = Some(Arc::new(Scope {
        kind: ScopeKind::Global,
        entity: "global".into(),
        limits: vec![budget],
    }));
    parts.rules = rules(&[rule("spare", when, &["openai/mini"])]);
    let snapshot = Snapshot::new(7, parts, []);
    let routed = route(
        &snapshot,
        &key(EVERYTHING),
        &call("azure/gpt", Dialect::OpenAi, 0),
    );
    shown(&snapshot, &routed.unwrap().choices)
}

#[test]
fn percentages_decide_exactly_at_their_edge() {
    for (used, at_least, over) in [
        (98_990_000_000, "azure/gpt", "azure/gpt"),
        (98_999_999_999, "azure/gpt", "azure/gpt"),
        (99_000_000_000, "openai/mini", "azure/gpt"),
        (99_000_000_001, "openai/mini", "openai/mini"),
        (99_010_000_000, "openai/mini", "openai/mini"),
    ] {
        for edge in ["99.0", "99"] {
            assert_eq!(
                budgeted(used, &format!("budget_used >= {edge}")),
                [at_least]
            );
            assert_eq!(budgeted(used, &format!("budget_used > {edge}")), [over]);
        }
    }
    assert_eq!(
        budgeted(98_990_000_000, "budget_used == 98.99"),
        ["openai/mini"]
    );
    assert_eq!(
        budgeted(99_010_000_000, "budget_used == 99.01"),
        ["openai/mini"]
    );
}
