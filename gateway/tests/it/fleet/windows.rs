//! Windows that begin by the calendar, on nodes whose clocks are wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use policy::Timestamp;
use serde_json::Value;

use super::{Check, Scale, scale};
use crate::harness::api::now_ms;
use crate::harness::conf::{KEY, model, provider};
use crate::harness::fleet::{Fleet, Plan, chat, members};
use crate::harness::node::number;
use crate::harness::pressure::{Pressure, count};
use crate::harness::upstream::chat_completion;
use crate::harness::wait::look_for;
use crate::harness::{Conf, Upstream};

/// Five minutes ahead and behind; windows of such a clock would not even begin with the others'.
const CLOCKS: [i64; 3] = [0, 301_700, -302_300];

/// How many clients ask: each may have one request on its way when a window ends.
const CLIENTS: u64 = 6;

const REQUESTS_IN_A_DOLLAR: f64 = 1_000.0;

/// What is pressed, and how many of a unit a request takes.
struct Case {
    name: &'static str,
    unit: &'static str,
    /// Holds as many requests in a window as the scale says.
    limits: String,
    requests_in_one: f64,
}

/// Three nodes, two of them with wrong clocks, with a provider that notes when it is asked.
fn skewed(limits: String) -> (Arc<Mutex<Vec<u64>>>, Upstream, Fleet) {
    let arrived: Arc<Mutex<Vec<u64>>> = Arc::default();
    let noted = Arc::clone(&arrived);
    let web = Upstream::start(move |exchange| {
        let mut noted = noted.lock().expect("no panic while it is held");
        noted.push(now_ms());
        drop(noted);
        exchange.json(200, &chat_completion("pong", 10, 5));
    });
    let port = web.address.port();
    let plan = Plan {
        conf: Box::new(move |mock| {
            let mut conf = Conf::empty();
            let at = SocketAddr::from((mock.ip(), port));
            conf.providers = provider("openai", "openai", at, "sk-of-a-provider-1", "");
            // A thousand requests of five tokens cost a dollar.
            conf.models = model("gpt-4o-mini", "openai", "{input: 0, output: 200}", 5);
            conf.keys = format!(
                "  - {{name: demo, value: {KEY}, providers: [{{name: openai}}], {limits}}}\n"
            );
            conf
        }),
        also: vec![web.address],
        clocks: CLOCKS.to_vec(),
        ..Plan::limited("")
    };
    let fleet = Fleet::start(3, plan);
    (arrived, web, fleet)
}

/// Presses for some windows; the provider is the judge of what each let through.
fn press(case: Case) {
    let check = Check::begin("R6");
    let scale = scale();
    let (arrived, _web, fleet) = skewed(case.limits);
    let length = u64::try_from(scale.window_length.as_millis()).expect("a short time");
    let offered = 3.0 * scale.limit as f64 / scale.window_length.as_secs_f64();
    let targets: Vec<SocketAddr> = fleet.nodes.iter().map(|node| node.data).collect();
    let pace = Duration::from_secs_f64(2.0 * targets.len() as f64 / offered);
    let pressure = Pressure::start(&[&targets[..], &targets[..]].concat(), &chat(5), pace);
    let first = now_ms() / length + 1;
    // The largest bound that was told in each window, and when nodes say that all is there again.
    let (mut told, mut resets, mut wrong) = (BTreeMap::<u64, u64>::new(), 0, Vec::new());
    look_for(scale.window_length * (scale.windows + 1), || {
        for node in &fleet.nodes {
            let before = now_ms() / length;
            let standing = node.standing_of("demo", case.unit);
            let bound = match &standing["overshoot_bound"] {
                Value::Null => 0.0,
                bound => number(bound) * case.requests_in_one,
            };
            let most = told.entry(before).or_default();
            *most = (bound.ceil() as u64).max(*most);
            let ends = [before, now_ms() / length].map(|window| {
                let end = Timestamp((window + 1) * length);
                end.to_rfc3339()
            });
            let resets_at = standing["resets_at"].as_str().expect("a time");
            resets += u32::from(ends.iter().any(|end| end == resets_at));
            if resets_at > ends[1].as_str() {
                wrong.push(format!("{resets_at}, not {ends:?}"));
            }
        }
    });
    let heard = pressure.stop();
    let arrived = arrived.lock().expect("no panic while it is held").clone();
    let windows: Vec<(u64, u64)> = (first..first + u64::from(scale.windows))
        .map(|window| {
            let admitted = arrived.iter().filter(|at| **at / length == window).count();
            let bounds = told.range(window..=window + 1).map(|(_, told)| *told);
            (admitted as u64, bounds.max().unwrap_or(0))
        })
        .collect();
    let offsets: Vec<Value> = members(&fleet.nodes[0])
        .iter()
        .map(|member| member["clock_offset_ms"].clone())
        .collect();
    check.measured(
        format!(
            "{}, clocks {CLOCKS:?} ms off: in each {} (admitted, bound told) {windows:?}; {resets} answers name its end",
            case.name, scale.window
        ),
        format!("{} + the bound; each window is used", scale.limit),
    );
    assert_eq!(arrived.len() as u64, count(&heard, 200));
    for (admitted, bound) in &windows {
        assert!(
            *bound <= scale.limit / 2,
            "a bound that allows anything: {windows:?}"
        );
        let most = scale.limit + bound + CLIENTS;
        assert!(
            (scale.limit * 8 / 10..=most).contains(admitted),
            "{windows:?}"
        );
    }
    assert!(
        count(&heard, 429) > count(&heard, 200),
        "it was more than the limit"
    );
    assert!(wrong.is_empty(), "a later end is named: {wrong:?}");
    assert!(resets > 0, "none named the end of the window");
    for (offset, expected) in offsets.iter().zip(CLOCKS) {
        let offset = offset.as_i64().expect("an offset");
        assert!((offset - expected).abs() < 1_000, "{offsets:?}");
    }
}

#[test]
fn windows_of_requests_begin_once_whatever_the_clocks_say() {
    let Scale { limit, window, .. } = scale();
    press(Case {
        name: "fixed windows",
        unit: "requests",
        limits: format!("rate_limits: [{{requests: {limit}, every: {window}, window: fixed}}]"),
        requests_in_one: 1.0,
    });
}

#[test]
fn periods_of_a_budget_begin_once_whatever_the_clocks_say() {
    let Scale { limit, window, .. } = scale();
    let usd = *limit as f64 / REQUESTS_IN_A_DOLLAR;
    press(Case {
        name: "budget",
        unit: "usd",
        limits: format!("budgets: [{{limit_usd: {usd}, every: {window}}}]"),
        requests_in_one: REQUESTS_IN_A_DOLLAR,
    });
}
