use super::*;
use crate::scope::Unit;

mod against_cel;
mod refusals;

const HEADERS: &[(&str, &str)] = &[
    ("accept", "*/*"),
    ("x-region", "eu-west"),
    ("x-tags", "a,b"),
    ("x-region", "second"),
];
const PARAMS: &[(&str, &str)] = &[("beta", "1"), ("note", "é")];

pub(super) fn spec(when: &str) -> RuleSpec {
    RuleSpec {
        name: "r".into(),
        when: when.to_owned(),
        targets: vec![Target {
            model: Some("m".into()),
            weight: 1,
            ..Target::default()
        }],
        enabled: true,
        ..RuleSpec::default()
    }
}

fn percent(unit: Unit) -> f64 {
    match unit {
        Unit::Tokens => 12.5,
        Unit::Requests => 50.0,
        Unit::Usd => 99.0,
        Unit::Concurrent => panic!("never asked"),
    }
}

pub(super) fn facts<'a>(percents: &'a dyn Fn(Unit) -> f64) -> Facts<'a> {
    Facts {
        model: "gpt-4o",
        provider: "openai",
        request_type: "chat",
        virtual_key: "demo",
        team: "search",
        customer: "acme",
        user: "",
        headers: HEADERS,
        params: PARAMS,
        percents: Percents::new(percents),
    }
}

pub(super) fn judged(when: &str) -> Result<bool, RuleFailure> {
    let rule = Rule::compile(spec(when)).unwrap_or_else(|error| panic!("{when}: {error}"));
    rule.holds(&facts(&percent))
}

#[track_caller]
fn holds(when: &str) {
    assert_eq!(judged(when), Ok(true), "{when}");
}

#[track_caller]
fn fails(when: &str, why: &str) {
    let failure = judged(when).expect_err(when);
    assert_eq!(failure.to_string(), why, "{when}");
}

#[test]
fn every_variable_has_its_value() {
    holds("model == 'gpt-4o'");
    holds("provider == 'openai'");
    holds("request_type == 'chat'");
    holds("headers['x-region'] == 'eu-west'");
    holds("params['beta'] == '1' && params.note == 'é'");
    holds("virtual_key_id == 'demo' && virtual_key_name == 'demo'");
    holds("team_id == 'search' && team_name == 'search'");
    holds("customer_id == 'acme' && customer_name == 'acme'");
    holds("user_id == ''");
    holds("tokens_used == 12.5");
    holds("request == 50.0 && request == 50");
    holds("budget_used >= 99.0 && !(budget_used > 99) && budget_used > 98.99");
}

#[test]
fn operators_and_functions() {
    for when in [
        "true",
        "model != 'gpt' && (provider == 'x' || request_type == 'chat')",
        "budget_used > 80.0 ? model.startsWith('gpt') : false",
        "model in ['a', 'gpt-4o'] && !(1 in [])",
        "model.contains('4') && model.endsWith('o')",
        "model.matches('^gpt-[0-9]o$') && matches(model, 'gpt')",
        "size(model) == 6 && params.note.size() == 1 && [1, 2].size() == 2",
        "size(headers) == 3",
        "has(headers.accept) && !has(headers.nothing)",
        "'x-tags' in headers && !('x-none' in params)",
        "int('7') % 4 == 3 && 2 + 3 * 2 - 8 / 4 == 6 && -(-3) == 3",
        "1.5 * 2.0 == 3 && double(3) / 2.0 == 1.5 && -1.5 < 0",
        "int(3.9) == 3 && int(params.beta) == 1",
        "string(7) + 'x' + string(true) + string(1.5) == '7xtrue1.5'",
        "model < 'gpt-5' && 'a' <= 'a' && 'é' > 'z'",
        "['a', 'b'][1] == 'b'",
        "headers.exists(h, h.startsWith('x-') && headers[h] == 'a,b')",
        "headers.all(h, size(h) > 5) && headers.exists_one(h, h == 'accept')",
        "['a', 'b'].map(x, x + 'c') [0] == 'ac'",
        "size([1, 2, 3].filter(x, x > 1)) == 2",
        "[1, 2, 3].map(x, x > 1, x * 2)[1] == 6",
        "size([1, 2].filter(x, x > 1).map(y, y + 1)) == 1",
        "model == 'gpt-4o' // a word on why",
        "model ==\n'gpt-4o'",
        "r'\\d' != 'd' && '''it's''' == \"it's\"",
    ] {
        holds(when);
    }
}

#[test]
fn what_a_request_lacks_is_a_failure() {
    fails(
        "headers['x-none'] == 'a'",
        "the request has no header 'x-none'",
    );
    fails("params.none == 'a'", "the request has no parameter 'none'");
    fails("[1][1] == 1", "index 1 is out of range");
    fails("[1][-1] == 1", "index -1 is out of range");
    fails("1 / (size(model) - 6) == 1", "division by zero");
    fails("1 % (size(model) - 6) == 1", "division by zero");
    fails(
        "9223372036854775807 + size(model) > 0",
        "a number is out of range",
    );
    fails("int(1e300) > 0", "a number is out of range");
    fails("int(model) > 0", "'gpt-4o' is no int");
    fails("double(model) > 0", "'gpt-4o' is no double");
    fails(
        "0.0 / 0.0 > 1",
        "a value that is no number cannot be compared",
    );
    // The side that decides outweighs the failure of the other.
    holds("headers.none == 'a' || model == 'gpt-4o'");
    holds("model == 'gpt-4o' || headers.none == 'a'");
    holds("!(headers.none == 'a' && model == 'x')");
    fails(
        "headers.none == 'a' && model == 'gpt-4o'",
        "the request has no header 'none'",
    );
    holds("[0, 2].exists(x, 4 / x == 2)");
    fails("[0, 2].all(x, 4 / x == 2)", "division by zero");
    fails("[0, 2].exists_one(x, 4 / x == 2)", "division by zero");
}

#[test]
fn percentages_are_asked_once_and_only_if_needed() {
    let asked = std::cell::Cell::new(0);
    let ask = |unit| {
        asked.set(asked.get() + 1);
        percent(unit)
    };
    let facts = facts(&ask);
    let judge = |when| Rule::compile(spec(when)).unwrap().holds(&facts);
    assert_eq!(judge("model == 'x' && budget_used > 1.0"), Ok(false));
    assert_eq!(asked.get(), 0);
    assert_eq!(judge("budget_used > 1.0 && budget_used < 100.0"), Ok(true));
    assert_eq!(judge("budget_used > 1.0"), Ok(true));
    assert_eq!(asked.get(), 1);
    assert_eq!(judge("tokens_used < request"), Ok(true));
    assert_eq!(asked.get(), 3);
}

#[test]
fn sets_say_what_they_read() {
    let rule = |when, enabled| {
        Rule::compile(RuleSpec {
            enabled,
            ..spec(when)
        })
        .unwrap()
    };
    let set = RuleSet::default();
    assert!(set.is_empty() && !set.needs_headers() && !set.needs_params());
    let set = RuleSet::new(vec![rule("'a' in headers", false)]);
    assert!(set.is_empty() && !set.needs_headers());
    assert_eq!(set.iter().count(), 1);
    let set = RuleSet::new(vec![rule("size(headers) > 9", true), rule("true", true)]);
    assert!(!set.is_empty() && set.needs_headers() && !set.needs_params());
    let set = RuleSet::new(vec![rule("has(params.a)", true)]);
    assert!(set.needs_params() && !set.needs_headers());
}
