//! What routing by rules costs a request.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use policy::{
    AllowList, BaseParts, Call, Dialect, Grant, KeyHash, Model, ModelId, Predictor, Price,
    Provider, ProviderId, Rule, RuleSet, RuleSpec, Snapshot, Target, Timestamp, TokenRatio,
    VirtualKey, route,
};

const HEADERS: &[(&str, &str)] = &[
    ("accept", "*/*"),
    ("content-length", "512"),
    ("content-type", "application/json"),
    ("user-agent", "bench"),
    ("x-region", "eu-west"),
];

fn snapshot(conditions: &[String]) -> Snapshot {
    let rule = |(index, when): (usize, &String)| RuleSpec {
        name: format!("rule-{index}").into(),
        when: when.clone(),
        targets: vec![Target {
            provider: Some("openai".into()),
            weight: 1,
            ..Target::default()
        }],
        enabled: true,
        ..RuleSpec::default()
    };
    let rules = conditions.iter().enumerate().map(rule);
    let parts = BaseParts {
        providers: vec![Provider {
            name: "openai".into(),
            dialect: Dialect::OpenAi,
            credentials: Vec::new(),
            max_retries: 2,
            region: None,
            scope: None,
        }],
        models: vec![Model {
            name: "gpt".into(),
            provider: ProviderId(0),
            upstream_name: "gpt".into(),
            price: Price::FREE,
            max_output_tokens: None,
            estimate: Arc::new(TokenRatio::new()),
            scope: None,
        }],
        aliases: vec![("fast".into(), vec![ModelId(0)])],
        rules: RuleSet::new(
            rules
                .map(|spec| Rule::compile(spec).expect("valid"))
                .collect(),
        ),
        ..BaseParts::default()
    };
    Snapshot::new(1, parts, [])
}

fn key() -> VirtualKey {
    VirtualKey {
        name: "demo".into(),
        hash: KeyHash::of(b"demo"),
        retiring: Vec::new(),
        team: None,
        customer: None,
        grants: vec![Grant {
            provider: "openai".into(),
            models: AllowList::all(),
            weight: 1,
            scope: None,
        }],
        scope: None,
        active: true,
        not_before: None,
        expires_at: None,
    }
}

fn rules(criterion: &mut Criterion) {
    let key = key();
    let call = Call {
        model: "gpt",
        request_type: "chat",
        dialect: Dialect::OpenAi,
        headers: HEADERS,
        params: &[],
        user: None,
        user_scope: None,
        random: 7,
        now: Timestamp(1_795_380_200_000),
    };
    let plain =
        |index: usize| format!("headers['x-region'] == 'us-{index}' && model in ['a', 'b', 'gpt']");
    let cases: [(&str, Vec<String>); 5] = [
        ("none", vec![]),
        ("1 plain", vec![plain(0)]),
        ("10 plain", (0..10).map(plain).collect()),
        (
            "1 pattern",
            vec!["model.matches('^claude-[0-9]+') && request_type == 'chat'".to_owned()],
        ),
        (
            "1 percent",
            vec!["budget_used > 80.0 && model == 'gpt'".to_owned()],
        ),
    ];
    for (name, conditions) in cases {
        let snapshot = snapshot(&conditions);
        criterion.bench_function(&format!("route, rules: {name}"), |bencher| {
            bencher.iter(|| route(black_box(&snapshot), &key, black_box(&call)));
        });
    }
}

fn predictor(criterion: &mut Criterion) {
    let predictor = Predictor::new();
    let mut tokens = 0_u64;
    criterion.bench_function("predictor: learn", |bencher| {
        bencher.iter(|| {
            tokens = tokens.wrapping_mul(31).wrapping_add(7) % 4_000;
            predictor.learn(black_box("demo"), black_box("gpt"), tokens);
        });
    });
    criterion.bench_function("predictor: predict", |bencher| {
        bencher.iter(|| predictor.predict(black_box("demo"), black_box("gpt")));
    });
}

criterion_group!(benches, rules, predictor);
criterion_main!(benches);
