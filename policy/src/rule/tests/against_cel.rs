//! What our own judging says against what `cel`'s interpreter says.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::*;

static STANDARD: LazyLock<Arc<cel::Env>> = LazyLock::new(|| Arc::new(cel::Env::stdlib()));

/// The interpreter's answer; `None` when it fails.
fn interpreted(when: &str) -> Option<bool> {
    let parsed = cel::parser::PrattParser::new().parse(when).unwrap();
    let mut context = cel::Context::with_env(Arc::clone(&STANDARD));
    let table = |entries: &[(&str, &str)]| -> HashMap<String, String> {
        entries
            .iter()
            .rev()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    context.add_variable_from_value("headers", table(HEADERS));
    context.add_variable_from_value("params", table(PARAMS));
    for (name, text) in [("model", "gpt-4o"), ("provider", "openai"), ("user_id", "")] {
        context.add_variable_from_value(name, text);
    }
    for (name, unit) in [("tokens_used", Unit::Tokens), ("budget_used", Unit::Usd)] {
        context.add_variable_from_value(name, percent(unit));
    }
    match cel::Value::resolve(&parsed, &context) {
        Ok(cel::Value::Bool(truth)) => Some(truth),
        Ok(other) => panic!("{when} gave {other:?}"),
        Err(_) => None,
    }
}

/// Parts that may stand anywhere; `x` only makes sense within a loop.
fn texts() -> BoxedStrategy<String> {
    let leaf = prop::sample::select(vec![
        "model",
        "provider",
        "user_id",
        "'gpt'",
        "'x-region'",
        "'é'",
        "''",
        "'7'",
        "'-1.5'",
        "headers['x-region']",
        "headers['none']",
        "params.note",
        "headers.accept",
        "x",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(2, 8, 3, |inner| {
        let ints = ints_of(inner.clone());
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} + {b})")),
            ints.prop_map(|n| format!("string({n})")),
            inner.clone().prop_map(|a| format!("headers[{a}]")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("[{a}, {b}][1]")),
        ]
    })
    .boxed()
}

fn ints_of(texts: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "0",
            "1",
            "-1",
            "2",
            "9223372036854775807",
            "-9223372036854775808"
        ])
        .prop_map(str::to_owned),
        texts.prop_map(|text| format!("size({text})")),
        Just("size(params)".to_owned()),
    ];
    leaf.prop_recursive(2, 8, 2, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
            inner.clone().prop_map(|a| format!("-({a})")),
            inner.clone().prop_map(|a| format!("int({a})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("[{a}, 5][{b}]")),
        ]
    })
    .boxed()
}

fn doubles() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "0.0",
            "99.0",
            "-1.5",
            "1e300",
            "budget_used",
            "tokens_used"
        ])
        .prop_map(str::to_owned),
        ints_of(texts()).prop_map(|n| format!("double({n})")),
        texts().prop_map(|text| format!("double({text})")),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/"]);
        (inner.clone(), operator, inner).prop_map(|(a, o, b)| format!("({a} {o} {b})"))
    })
    .boxed()
}

fn numbers() -> BoxedStrategy<String> {
    prop_oneof![
        ints_of(texts()),
        doubles(),
        doubles().prop_map(|d| format!("int({d})"))
    ]
    .boxed()
}

fn conditions() -> BoxedStrategy<String> {
    let relation = || prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let test = prop::sample::select(vec!["contains", "startsWith", "endsWith"]);
    let leaf = prop_oneof![
        Just("true".to_owned()),
        Just("false".to_owned()),
        (texts(), relation(), texts()).prop_map(|(a, r, b)| format!("{a} {r} {b}")),
        (numbers(), relation(), numbers()).prop_map(|(a, r, b)| format!("{a} {r} {b}")),
        (texts(), test, texts()).prop_map(|(a, t, b)| format!("{a}.{t}({b})")),
        (texts(), texts()).prop_map(|(a, b)| format!("{a} in [{b}, 'gpt']")),
        (numbers(), numbers()).prop_map(|(a, b)| format!("{a} in [{b}, {b}]")),
        texts().prop_map(|a| format!("{a} in headers")),
        Just("has(headers.accept)".to_owned()),
        Just("has(params.none)".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 3, move |inner| {
        let asks = prop::sample::select(vec!["all", "exists", "exists_one"]);
        let over = prop::sample::select(vec!["headers", "['gpt', '7']", "[]"]);
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (over.clone(), asks, inner.clone()).prop_map(|(o, q, a)| format!("{o}.{q}(x, {a})")),
            (over.clone(), inner.clone())
                .prop_map(|(o, a)| format!("size({o}.filter(x, {a})) > 1")),
            (over, texts(), inner).prop_map(|(o, t, a)| format!("size({o}.map(x, {a}, {t})) == 1")),
        ]
    })
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn both_agree(when in conditions()) {
        // A loop variable outside of a loop, or too much of something.
        let Ok(rule) = Rule::compile(spec(&when)) else { return Ok(()) };
        let ours = rule.holds(&facts(&percent));
        prop_assert_ne!(&ours, &Err(RuleFailure::Mistyped), "{}", when);
        prop_assert_eq!(ours.clone().ok(), interpreted(&when), "{}: {:?}", when, ours);
    }

    #[test]
    fn no_text_panics(when in "(model|headers|x|'|\"|é|\\\\|r'|[0-9]|1e9|true|[.,?:!()\\[\\]{}+*/%<>=&| \n-]|in|has|size|map|all|matches){0,40}") {
        if let Ok(rule) = Rule::compile(spec(&when)) {
            let _ = rule.holds(&facts(&percent));
        }
    }

    #[test]
    fn no_characters_panic(when in "\\PC{0,60}") {
        let _ = Rule::compile(spec(&when));
    }
}

#[test]
fn the_strategy_makes_rules_that_are_accepted() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let accepted = (0..300)
        .filter(|_| {
            let when = conditions().new_tree(&mut runner).unwrap().current();
            Rule::compile(spec(&when)).is_ok()
        })
        .count();
    assert!(accepted > 100, "{accepted} of 300");
}
