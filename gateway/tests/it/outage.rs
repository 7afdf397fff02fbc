//! Postgres goes away under load and comes back: nobody notices, and nothing is lost.
//!
//! `TYR_OUTAGE_SECONDS` is how long it is away; default: 8.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::conf::{KEY, key};
use crate::harness::database::{Database, Sums, readiness, used};
use crate::harness::load::{Diary, Load, Served};
use crate::harness::wait::within;
use crate::harness::{Ask, Conf, Mock, Node, eventually};

const CHAT: &str = "/v1/chat/completions";

/// Far from any end; nothing of it passes while a test runs.
const LIMITS: &str = "rate_limits: [{requests: 100000000, every: 1d}, {tokens: 100000000000, every: 1d}]\nbudgets: [{limit_usd: 1000000, every: 1Y}]";

/// Prices of the model in nano-dollars a token.
const INPUT_NANOS: u64 = 150;
const OUTPUT_NANOS: u64 = 600;

/// How old a settled request is at most that a kill may take: one commit interval, and the time
/// that a busy machine takes to answer, to write and to look at the clock.
const AT_RISK: Duration = Duration::from_millis(100 + 200);

/// How long the store may take to catch up, besides a tenth of the outage.
const CATCH_UP: Duration = Duration::from_secs(30);

fn outage() -> Duration {
    let told = std::env::var("TYR_OUTAGE_SECONDS").ok();
    Duration::from_secs(told.map_or(8, |told| told.parse().expect("a number of seconds")))
}

/// A node with limits on every level, a provider, and a key that the API made.
struct Bench {
    database: Database,
    mock: Mock,
    node: Node,
    made: String,
}

impl Bench {
    fn start() -> Self {
        let database = Database::start();
        let mock = Mock::with(&["--ttft-ms", "10", "--no-record"]);
        let mut conf = database.store_of(Conf::for_upstream(mock.address));
        let limits = LIMITS.replace('\n', ", ");
        conf.customers = format!("  - {{name: acme, {limits}}}\n");
        conf.teams = format!("  - {{name: search, customer: acme, {limits}}}\n");
        conf.keys = key("demo", KEY, &format!("team: search\n{LIMITS}"));
        let node = Node::start(&conf);
        let made = node.made_key(&json!({"name": "made", "team": "search", "providers": [{"name": "openai"}],
                "rate_limits": [{"requests": 100_000_000, "every": "1d"}, {"tokens": 100_000_000_000_u64, "every": "1d"}],
                "budgets": [{"limit_usd": 1_000_000, "every": "1Y"}]}),
        );
        Self {
            database,
            mock,
            node,
            made,
        }
    }

    /// Two clients of each key, one of them streaming, and one more with long streams.
    fn load(&self) -> Load {
        let ask = |key: &str, tokens: u64, stream: bool| {
            let body = json!({"model": "gpt-4o-mini", "stream": stream, "max_tokens": tokens,
                "messages": [{"role": "user", "content": format!("{tokens} tokens, please")}]});
            Ask::post(CHAT, &body).bearer(key)
        };
        let asks = vec![
            ask(KEY, 3, false),
            ask(KEY, 7, true),
            ask(&self.made, 5, false),
            ask(&self.made, 11, true),
            ask(KEY, 20, true).header("x-mock", "token_ms=20"),
        ];
        Load::start(self.node.data, asks)
    }

    /// What the store has once nothing waits any more.
    fn caught_up(&self, records: u64) -> Sums {
        let limit = CATCH_UP + outage() / 10;
        let done = within(limit, || {
            let found = self.database.usage();
            (found.records >= records && readiness(&self.node) == (200, Vec::new()))
                .then_some(found)
        });
        done.unwrap_or_else(|| {
            let (found, ready) = (self.database.usage(), readiness(&self.node));
            panic!("{records} records are not in the store after {limit:?}: {found:?}, {ready:?}")
        })
    }

    /// Usage, cells and standings say the same, to the token and the nano-dollar.
    fn assert_all_agree(&self, sums: Sums) {
        let Sums { input, output, .. } = sums;
        assert_eq!(
            sums.nano_usd,
            input * INPUT_NANOS + output * OUTPUT_NANOS,
            "{sums:?}"
        );
        for key in ["demo", "made"] {
            self.node.settled(key, "tokens");
        }
        let cells = self.database.cells();
        let mut shown = used(&self.node, "demo");
        shown.append(&mut used(&self.node, "made"));
        // Key, team and customer; requests, tokens and dollars.
        assert_eq!(shown.len(), 4 * 3, "{shown:?}");
        assert_eq!(
            shown, cells,
            "what the API shows, and the cells in Postgres"
        );
        let of = |scope: &str, unit: &str| -> u64 {
            let start = format!("{scope}/");
            let wanted = shown
                .iter()
                .filter(|(id, _)| id.starts_with(&start) && id.split('/').nth(2) == Some(unit));
            wanted.map(|(_, amount)| amount).sum()
        };
        for scope in ["virtual_key", "team", "customer"] {
            let shown = ["requests", "tokens", "usd"].map(|unit| of(scope, unit));
            assert_eq!(
                shown,
                [sums.records, input + output, sums.nano_usd],
                "{scope}"
            );
        }
    }

    /// Records, input and output tokens that the provider served.
    fn provided(&self) -> [u64; 3] {
        let stats = eventually("the provider is idle", || {
            let stats = self.mock.stats();
            (stats["in_flight"] == 0).then_some(stats)
        });
        let served = &stats["served"];
        [
            &stats["requests"],
            &served["input_tokens"],
            &served["output_tokens"],
        ]
        .map(|figure| figure.as_u64().expect("a count"))
    }

    /// The API as it is to be while the store is away: it reads and does not write.
    fn assert_read_only(&self, before: &Value) {
        let node = &self.node;
        for path in [
            "/api/virtual-keys",
            "/api/limits",
            "/api/config",
            "/api/teams",
        ] {
            assert_eq!(node.admin("GET", path).status(), 200, "{path}");
        }
        let other = json!({"name": "late", "providers": [{"name": "openai"}]});
        let renamed = json!({"name": "made", "providers": []});
        let writes = [
            ("POST", "/api/virtual-keys", &other),
            ("PUT", "/api/virtual-keys/late", &other),
            ("PUT", "/api/virtual-keys/made", &renamed),
            ("DELETE", "/api/virtual-keys/made", &Value::Null),
            ("POST", "/api/virtual-keys/made/rotate", &json!({})),
            ("POST", "/api/teams", &json!({"name": "late"})),
        ];
        for (method, path, body) in writes {
            let answer = node.call(method, path, body);
            assert_eq!(answer.status(), 503, "{method} {path}: {}", answer.text());
        }
        let gone = ["/api/virtual-keys/late", "/api/teams/late"];
        assert_eq!(
            gone.map(|path| node.admin("GET", path).status()),
            [404, 404]
        );
        assert_eq!(&self.made_as_shown(), before, "nothing has changed");
    }

    fn made_as_shown(&self) -> Value {
        let mut shown = self.node.admin("GET", "/api/virtual-keys/made").json();
        shown["standing"].take();
        shown
    }
}

fn served_by(diaries: &[Diary]) -> Vec<Served> {
    let served = diaries.iter().flat_map(|diary| diary.served.iter());
    served.cloned().collect()
}

fn assert_served(load: &Load, more: u64) {
    let goal = load.served() + more;
    eventually("the clients are served", || {
        (load.served() >= goal || load.is_disturbed()).then_some(())
    });
}

#[test]
fn postgres_goes_under_load_and_nobody_notices() {
    let mut bench = Bench::start();
    let before = bench.made_as_shown();
    let load = bench.load();
    assert_served(&load, 100);
    bench.database.server.stop();
    eventually("the node says what it is without", || {
        (readiness(&bench.node) == (200, vec!["store".to_string()])).then_some(())
    });
    bench.assert_read_only(&before);
    assert_served(&load, 20);
    within(outage(), || load.is_disturbed().then_some(()));
    assert_eq!(readiness(&bench.node), (200, vec!["store".to_string()]));
    bench.assert_read_only(&before);
    let waiting = bench.node.metric("tyr_usage_waiting_bytes", "");
    assert!(waiting > 0.0);
    bench.database.server.resume();
    let back = Instant::now();
    eventually("the node has its store", || {
        (readiness(&bench.node) == (200, Vec::new())).then_some(())
    });
    let whole = back.elapsed();
    assert_served(&load, 100);
    let diaries = load.stop();
    for diary in &diaries {
        assert!(diary.fault.is_none(), "{:?}", diary.fault);
    }
    let served = served_by(&diaries);
    let sums = bench.caught_up(served.len() as u64);
    eprintln!(
        "Postgres away for {:?}: {} requests, 0 failed; {waiting} bytes waited; /readyz whole again after {whole:.1?}",
        outage(),
        served.len(),
    );
    assert_eq!(
        [sums.records, sums.input, sums.output],
        bench.provided(),
        "what Postgres has, and what the provider served"
    );
    let ids: BTreeSet<String> = served.into_iter().map(|one| one.request_id).collect();
    let stored: BTreeSet<String> = bench.database.request_ids().into_iter().collect();
    assert_eq!(stored, ids);
    bench.assert_all_agree(sums);
    let metrics = ["tyr_usage_records_lost_total", "tyr_usage_waiting_bytes"];
    assert_eq!(metrics.map(|name| bench.node.metric(name, "")), [0.0, 0.0]);
    // The store takes writes again, and what was refused has left nothing.
    let late = json!({"name": "late", "providers": [{"name": "openai"}]});
    bench.node.made_key(&late);
    let trail = "SELECT action, name FROM audit_log ORDER BY seq";
    assert_eq!(bench.database.rows(trail), "create|made\ncreate|late");
}

#[test]
fn a_crash_of_postgres_is_ridden_out_again_and_again() {
    let mut bench = Bench::start();
    let load = bench.load();
    for _ in 0..3 {
        assert_served(&load, 50);
        bench.database.server.crash();
        assert_served(&load, 50);
        bench.database.server.resume();
    }
    let diaries = load.stop();
    for diary in &diaries {
        assert!(diary.fault.is_none(), "{:?}", diary.fault);
    }
    let sums = bench.caught_up(served_by(&diaries).len() as u64);
    assert_eq!([sums.records, sums.input, sums.output], bench.provided());
    bench.assert_all_agree(sums);
}

#[test]
fn a_kill_in_an_outage_takes_nothing_older_than_a_commit() {
    let mut bench = Bench::start();
    let load = bench.load();
    assert_served(&load, 50);
    bench.database.server.stop();
    eventually("the node says what it is without", || {
        (readiness(&bench.node).1 == ["store"]).then_some(())
    });
    within(outage() / 4, || load.is_disturbed().then_some(()));
    assert!(!load.is_disturbed());
    let killed = Instant::now();
    bench.node.process.kill();
    let first = served_by(&load.stop());

    bench.node.start_again();
    assert_eq!(readiness(&bench.node), (200, vec!["store".to_string()]));
    let after_kill = used(&bench.node, "demo");
    let load = bench.load();
    assert_served(&load, 50);
    bench.database.server.resume();
    assert_served(&load, 50);
    let diaries = load.stop();
    for diary in &diaries {
        assert!(diary.fault.is_none(), "{:?}", diary.fault);
    }
    let second = served_by(&diaries);

    let safe: BTreeSet<&str> = first
        .iter()
        .filter(|one| one.at + AT_RISK < killed)
        .chain(&second)
        .map(|one| one.request_id.as_str())
        .collect();
    let sums = bench.caught_up(safe.len() as u64);
    let stored = bench.database.request_ids();
    let stored: BTreeSet<&str> = stored.iter().map(String::as_str).collect();
    let lost: Vec<&&str> = safe.difference(&stored).collect();
    let missing = first
        .iter()
        .filter(|one| !stored.contains(one.request_id.as_str()));
    let oldest = missing.map(|one| killed - one.at).max();
    eprintln!(
        "killed while Postgres was away: {} requests before and {} after; the oldest lost one was answered {:?} earlier",
        first.len(),
        second.len(),
        oldest.unwrap_or_default(),
    );
    assert!(
        lost.is_empty(),
        "{} requests are lost: {lost:?}",
        lost.len()
    );
    // Besides these, only what was in flight or just answered at the kill can be there.
    let provided = bench.provided();
    assert!(
        sums.records <= provided[0] && sums.input <= provided[1] && sums.output <= provided[2],
        "{sums:?}, {provided:?}"
    );
    bench.assert_all_agree(sums);
    assert_counted_at_once(
        &after_kill,
        &used(&bench.node, "demo"),
        safe.len() - second.len(),
    );
}

/// The node that started without the store counted from where the killed one stood.
fn assert_counted_at_once(
    after_kill: &BTreeMap<String, u64>,
    in_the_end: &BTreeMap<String, u64>,
    at_least: usize,
) {
    let requests = "customer/acme/requests/1d/sliding";
    assert!(after_kill[requests] >= at_least as u64, "{after_kill:?}");
    for (id, amount) in after_kill {
        assert!(in_the_end[id] >= *amount, "{id}: {amount}, {in_the_end:?}");
    }
}
