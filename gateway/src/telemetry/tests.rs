//! The registry as a scrape sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::view::{Figures, MemberState, TermView};
use cluster::{ClusterView, DegradedReason, LimitView, MemberView, NodeKey};
use policy::{Mode, NanoUsd, ScopeKind, Timestamp, Unit, Usage};

use super::metrics::{Metrics, NONE, OTHER, RequestLabels, UsageStatus};
use super::series::Finished;
use crate::api::Endpoint;

const DOCUMENTED: &str = include_str!("../../../conf/METRICS.md");

fn finished(status: u16, end: &'static str) -> Finished {
    Finished {
        endpoint: Endpoint::ChatCompletions,
        status,
        end,
        total: Duration::from_millis(1_200),
        first_byte: Some(Duration::from_millis(80)),
        overhead: Duration::from_micros(120),
    }
}

fn usage() -> Usage {
    Usage {
        input: 1,
        cache_read: 2,
        cache_write: 3,
        cache_write_1h: 4,
        output: 5,
        reasoning: 6,
    }
}

/// Touches every family once.
fn exercised() -> Metrics {
    let metrics = Metrics::new();
    metrics.configure([("openai", "gpt-4o-mini")]);
    let series = metrics.series("openai", "gpt-4o-mini");
    series.request(&finished(200, "success"));
    series.tokens(&usage());
    series.cost(NanoUsd(1_250));
    series.attempt("success");
    metrics.refusal("rate_limit");
    let governance = metrics.governance();
    governance.limit_refused(ScopeKind::Team, Unit::Requests);
    governance.shadow_refused(ScopeKind::User, Unit::Usd);
    governance.prompt_counted("exact");
    governance.clamped();
    metrics.connection_refused("per_address");
    metrics.reload(Ok(7), Timestamp(1_700_000_000_500));
    metrics.observe_readiness(true, [("store", false)]);
    metrics.observe_usage(UsageStatus {
        store_ok: true,
        written: 3,
        queue_depth: 2,
        ..UsageStatus::default()
    });
    metrics.observe_cluster(&view("n2"));
    metrics
}

/// A cluster of two, with one limit.
fn view(peer: &str) -> ClusterView {
    let member = |node: &str, is_self| MemberView {
        node: node.to_owned(),
        key: NodeKey(7),
        boot: 1,
        state: MemberState::Up,
        region: "eu".to_owned(),
        zone: String::new(),
        version: "1".to_owned(),
        protocol: 2,
        capabilities: 1,
        address: "127.0.0.1:1".parse().expect("an address"),
        leader: is_self,
        regional_leader: false,
        is_self,
        link_up: true,
        rtt: Some(Duration::from_millis(3)),
        lag: Some(Duration::from_millis(40)),
        unacked: 5,
        clock_offset_ms: Some(-250),
        configuration_hash: None,
        configuration_revision: None,
        applied_revision: None,
        silent_for: None,
    };
    let limit = LimitView {
        counter: "team/search/requests/1m/sliding"
            .parse()
            .expect("the name of a counter"),
        limit: 10,
        total: 12,
        own: 6,
        mode: Mode::Live,
        rate: 1.5,
        overshoot_bound: Some(3),
        overshoot_observed: 2,
    };
    let term = TermView {
        task: "seal".to_owned(),
        scope: "cluster".to_owned(),
        term: 9,
    };
    ClusterView {
        members: vec![member("n1", true), member(peer, false)],
        caught_up: true,
        degraded: vec![DegradedReason::ConfigurationMismatch {
            node: peer.to_owned(),
            parts: vec!["teams".to_owned()],
        }],
        terms: vec![term],
        limits: vec![limit],
        figures: Figures {
            gossip_bytes_sent: 100,
            link_bytes_received: 200,
            flush_lag: Duration::from_millis(1_500),
            ..Figures::default()
        },
        ..ClusterView::default()
    }
}

#[test]
fn a_member_that_left_leaves_the_metrics_and_counts_never_fall() {
    let metrics = exercised();
    let all = samples(&metrics.render());
    let of = |series: &str| all.get(series).copied();
    assert_eq!(of(r#"tyr_cluster_members{state="up"}"#), Some(2.0));
    assert_eq!(of(r#"tyr_cluster_leader{scope="cluster"}"#), Some(1.0));
    assert_eq!(
        of(r#"tyr_cluster_peer_rtt_seconds{peer="n2"}"#),
        Some(0.003)
    );
    assert_eq!(
        of(r#"tyr_cluster_clock_offset_seconds{peer="n2"}"#),
        Some(-0.25)
    );
    assert_eq!(
        of(r#"tyr_cluster_peer_up{peer="n1"}"#),
        None,
        "not of itself"
    );
    assert_eq!(of("tyr_cluster_config_mismatch"), Some(1.0));
    assert_eq!(of("tyr_cluster_flush_lag_seconds"), Some(1.5));
    let bound = r#"tyr_cluster_overshoot_bound{limit="team/search/requests/1m/sliding"}"#;
    assert_eq!(of(bound), Some(3.0));
    let sent = r#"tyr_cluster_bytes_total{channel="gossip",direction="sent"}"#;
    assert_eq!(of(sent), Some(100.0));
    let mut later = view("n3");
    later.limits.clear();
    later.figures = Figures::default();
    metrics.observe_cluster(&later);
    let all = samples(&metrics.render());
    assert!(all.contains_key(r#"tyr_cluster_peer_up{peer="n3"}"#));
    assert!(!all.contains_key(r#"tyr_cluster_peer_up{peer="n2"}"#));
    assert!(!all.contains_key(bound));
    assert_eq!(all.get(sent), Some(&100.0));
}

/// Sample lines by "name{labels}"; panics on a line that is no sample.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a name and a value");
            let value = value.parse().expect("a number");
            (series.to_owned(), value)
        })
        .collect()
}

fn families(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| line.split_once(' ').expect("a name and a type"))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

#[test]
fn the_operators_table_lists_every_metric_with_its_type() {
    let documented: BTreeMap<String, String> = DOCUMENTED
        .lines()
        .filter_map(|line| line.strip_prefix("| `tyr_"))
        .map(|row| {
            let mut cells = row.split('|').map(str::trim);
            let name = cells.next().expect("a name").trim_end_matches('`');
            let kind = cells.next().expect("a type");
            (format!("tyr_{name}"), kind.to_owned())
        })
        .collect();
    assert_eq!(documented, families(&exercised().render()));
}

#[test]
fn values_arrive_where_they_belong() {
    let all = samples(&exercised().render());
    let labels = r#"provider="openai""#;
    let expected = [
        (
            format!(r#"tyr_cost_nano_usd_total{{model="gpt-4o-mini",{labels}}}"#),
            1_250.0,
        ),
        (
            format!(r#"tyr_tokens_total{{kind="cache_write_1h",model="gpt-4o-mini",{labels}}}"#),
            4.0,
        ),
        (
            r#"tyr_overhead_seconds_bucket{endpoint="chat_completions",le="0.0001"}"#.to_owned(),
            0.0,
        ),
        (
            r#"tyr_overhead_seconds_bucket{endpoint="chat_completions",le="0.00015"}"#.to_owned(),
            1.0,
        ),
        (
            format!(
                r#"tyr_requests_total{{end="success",endpoint="chat_completions",model="gpt-4o-mini",{labels},status="200"}}"#
            ),
            1.0,
        ),
        (
            format!(
                r#"tyr_request_duration_seconds_count{{end="success",endpoint="chat_completions",model="gpt-4o-mini",{labels},status="2xx"}}"#
            ),
            1.0,
        ),
        ("tyr_config_revision".to_owned(), 7.0),
        (
            "tyr_config_last_reload_timestamp_seconds".to_owned(),
            1_700_000_000.5,
        ),
        ("tyr_usage_records_written_total".to_owned(), 3.0),
        ("tyr_usage_queue_depth".to_owned(), 2.0),
    ];
    for (series, value) in expected {
        assert_eq!(all.get(&series), Some(&value), "{series}");
    }
}

#[test]
fn a_rejected_reload_keeps_revision_and_time_of_the_last_good_one() {
    let metrics = exercised();
    metrics.reload(Err(()), Timestamp(1_700_000_100_000));
    let all = samples(&metrics.render());
    assert_eq!(all["tyr_config_last_reload_successful"], 0.0);
    assert_eq!(all["tyr_config_revision"], 7.0);
    assert_eq!(
        all["tyr_config_last_reload_timestamp_seconds"],
        1_700_000_100.0
    );
    assert_eq!(
        all["tyr_config_last_reload_success_timestamp_seconds"],
        1_700_000_000.5
    );
}

#[test]
fn a_hundred_thousand_junk_names_add_one_series() {
    let metrics = exercised();
    let count = |metrics: &Metrics, family: &str| {
        let text = metrics.render();
        samples(&text)
            .keys()
            .filter(|name| name.starts_with(family))
            .count()
    };
    let watched = [
        "tyr_requests_total",
        "tyr_tokens_total{kind=\"input\"",
        "tyr_cost_nano_usd_total",
        "tyr_request_duration_seconds_count",
        "tyr_upstream_attempts_total",
    ];
    let before = watched.map(|family| count(&metrics, family));
    for n in 0..100_000 {
        let junk = format!("junk-{n}");
        let labels = RequestLabels {
            provider: "",
            model: &junk,
        };
        metrics.request(labels, &finished(404, "refused"));
        metrics.tokens("", &junk, &usage());
        metrics.cost("", &junk, NanoUsd(1));
        metrics.attempt(&junk, "success");
    }
    let after = watched.map(|family| count(&metrics, family));
    for ((family, before), after) in watched.iter().zip(before).zip(after) {
        assert!(after <= before + 1, "{family}: {before} became {after}");
    }
    let pairs: BTreeSet<_> = [
        ("x", "y"),
        ("openai", "y"),
        ("", "gpt-4o-mini"),
        ("", "y"),
        ("", ""),
    ]
    .map(|(provider, model)| metrics.series(provider, model))
    .iter()
    .map(|series| (series.provider().to_owned(), series.model().to_owned()))
    .collect();
    let expected = [
        (OTHER, OTHER),
        ("openai", OTHER),
        (NONE, "gpt-4o-mini"),
        (NONE, OTHER),
        (NONE, NONE),
    ]
    .map(|(provider, model)| (provider.to_owned(), model.to_owned()));
    assert_eq!(pairs, BTreeSet::from(expected));
}

#[test]
fn counters_never_fall_between_scrapes() {
    let metrics = exercised();
    let before = samples(&metrics.render());
    // A store that was opened anew counts from zero.
    metrics.observe_usage(UsageStatus::default());
    metrics.configure([("openai", "gpt-5")]);
    let after = samples(&metrics.render());
    for (series, value) in before.iter().filter(|(name, _)| name.contains("_total")) {
        assert!(after[series] >= *value, "{series}");
    }
}

#[test]
fn guards_lower_their_gauge_when_dropped() {
    let metrics = Metrics::new();
    let held = (metrics.in_flight(), metrics.in_flight(), metrics.stream());
    assert_eq!(metrics.in_flight_now(), 2);
    drop(held);
    let all = samples(&metrics.render());
    for gauge in ["tyr_in_flight_requests", "tyr_streams"] {
        assert_eq!(all[gauge], 0.0, "{gauge}");
    }
}

#[test]
fn open_connections_are_asked_for_at_each_scrape() {
    let metrics = Metrics::new();
    metrics.watch_connections(|| 17);
    assert_eq!(samples(&metrics.render())["tyr_connections"], 17.0);
}

#[test]
fn odd_statuses_and_ends_stay_bounded() {
    let metrics = Metrics::new();
    for status in [0, 42, 99, 600, u16::MAX] {
        metrics
            .series(OTHER, OTHER)
            .request(&finished(status, "drained"));
    }
    let all = samples(&metrics.render());
    let requests: Vec<_> = all
        .iter()
        .filter(|(name, _)| name.starts_with("tyr_requests_total"))
        .collect();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests[0].0.contains(r#"status="other""#));
}
