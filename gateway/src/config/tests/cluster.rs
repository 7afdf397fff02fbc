//! `cluster`: what is refused, what is taken over, what a reload may change.

use std::sync::Arc;
use std::time::Duration;

use policy::CounterTable;

use super::bad::{BASE, below};
use super::resolved;
use crate::config::{ClusterSettings, Startup};

const POSTGRES: &str = "store: {type: postgres, url: 'postgres://h/d'}\n";

/// `BASE` on Postgres with this cluster on line 13 gives exactly `expected`.
#[track_caller]
fn cluster(fields: &str, expected: &str) {
    below(
        &format!("{POSTGRES}cluster: {{enabled: true, node_id: n1, {fields}}}\n"),
        expected,
    );
}

#[track_caller]
fn startup(fields: &str) -> Startup {
    let text = format!("{BASE}{POSTGRES}cluster: {{enabled: true, node_id: n1, {fields}}}\n");
    resolved(&text, &Arc::new(CounterTable::new())).startup
}

fn settings(fields: &str) -> ClusterSettings {
    startup(fields).cluster.expect("it is enabled")
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const REFUSED: &[[&str; 2]] = &[
    [
        "sync_interval: 1ms",
        "t.yaml:13: cluster.sync_interval: must be between 10ms and 10s",
    ],
    [
        "forget_after: 1s",
        "t.yaml:13: cluster.forget_after: must be 10s or more: a restart takes as long",
    ],
    [
        "protocol_max: 200",
        "t.yaml:13: cluster.protocol_max: this version speaks protocols up to 2",
    ],
    [
        "gossip: {port: 10102}",
        "t.yaml:13: cluster.grpc.port: is also the port of gossip",
    ],
    [
        "gossip: {bind: localhost}",
        "t.yaml:13: cluster.gossip.bind: expected an IP address such as `10.0.0.7`, found `localhost`",
    ],
    [
        "gossip: {advertise: 0.0.0.0}, secret: 0123456789abcdef0123456789abcdef",
        "t.yaml:13: cluster.gossip.advertise: must be an address that others can reach",
    ],
    [
        "gossip: {bind: 0.0.0.0}",
        "t.yaml:13: cluster.secret: is required, as 0.0.0.0 is not a loopback address",
    ],
    [
        "grpc: {bind: 10.0.0.1}",
        "t.yaml:13: cluster.secret: is required, as 10.0.0.1 is not a loopback address",
    ],
    [
        "gossip: {advertise: 10.0.0.1}",
        "t.yaml:13: cluster.secret: is required, as 10.0.0.1 is not a loopback address",
    ],
    [
        "peers: ['127.0.0.2:10101', 'tyr-1.tyr:10101']",
        "t.yaml:13: cluster.secret: is required, as tyr-1.tyr:10101 is not a loopback address",
    ],
    [
        "additional_secrets: [0123456789abcdef0123456789abcdef]",
        "t.yaml:13: cluster.additional_secrets: stands beside no `secret`, which is what seals",
    ],
    [
        "secret: 0123456789abcdef0123456789abcdef, additional_secrets: [short]",
        "t.yaml:13: cluster.additional_secrets[0]: the value must have 32 or more characters",
    ],
    [
        "region: 'a b'",
        "t.yaml:13: cluster.region: expected 1 to 63 letters, digits, `.`, `_` and `-`",
    ],
    [
        "peers: ['127.0.0.2:0']",
        "t.yaml:13: cluster.peers[0]: expected `host:port`",
    ],
    [
        "discovery: {enabled: true, type: dns}",
        "t.yaml:13: cluster.discovery.enabled: discovery is not supported by this version of Tyr: set `enabled: false`",
    ],
];

#[test]
fn refused() {
    for [fields, expected] in REFUSED {
        cluster(fields, expected);
    }
    below(
        "cluster: {enabled: true, node_id: a/b}\n",
        "t.yaml:12: cluster.enabled: needs `store.type: postgres`: nodes count together in one store that all of them reach, and a SQLite file is one node's own\nt.yaml:12: cluster.node_id: expected 1 to 63 letters, digits, `.`, `_` and `-`, found `a/b`",
    );
}

#[test]
fn loopback_alone_needs_no_secret() {
    cluster(
        "peers: ['127.0.0.2:10101', '[::1]:10101', 'localhost:1']",
        "",
    );
    cluster("gossip: {bind: '::1'}", "");
    // One that is not read may be anything; the node itself reads it.
    cluster(
        "gossip: {bind: env.POD_IP}, secret: env.S, peers: [env.P]",
        "",
    );
}

#[test]
fn everything_is_taken_over() {
    let settings = settings(&format!(
        "name: prod, region: eu, zone: a, secret: {SECRET}, additional_secrets: [{SECRET}x], \
         peers: ['b:1'], gossip: {{bind: 0.0.0.0, advertise: 10.0.0.9, port: 7, \
         config: {{timeout_seconds: 4, failure_threshold: 5}}}}, grpc: {{port: 8, \
         dial_timeout_seconds: 2}}, sync_interval: 50ms, partition: available, \
         forget_after: 1m, protocol_max: 1"
    ));
    assert_eq!(settings.name, "prod");
    assert_eq!(
        (settings.region.as_str(), settings.zone.as_deref()),
        ("eu", Some("a"))
    );
    assert_eq!(settings.gossip, "0.0.0.0:7".parse().unwrap());
    assert_eq!(settings.grpc, "0.0.0.0:8".parse().unwrap());
    assert_eq!(settings.advertise, Some("10.0.0.9".parse().unwrap()));
    assert_eq!(settings.suspicion, Duration::from_secs(4));
    assert_eq!(settings.failure_threshold, 5);
    assert_eq!(settings.dial_timeout, Duration::from_secs(2));
    assert_eq!(settings.sync_interval, Duration::from_millis(50));
    assert_eq!(settings.forget_after, Duration::from_secs(60));
    assert_eq!(settings.protocol_max, Some(1));
    let secrets = settings.secrets.iter().map(|secret| secret.0.as_str());
    assert_eq!(secrets.collect::<Vec<_>>(), [SECRET, &format!("{SECRET}x")]);
    assert_eq!(settings.peers, ["b:1"]);
    assert!(
        !format!("{settings:?}").contains(SECRET),
        "secrets are masked"
    );
}

#[test]
fn a_reload_changes_secrets_and_nothing_else() {
    let base = startup(&format!("secret: {SECRET}"));
    let other = startup(&format!(
        "secret: {SECRET}x, additional_secrets: [{SECRET}]"
    ));
    assert_eq!(base.changed(&other), Vec::<&str>::new());
    for fields in ["region: eu", "sync_interval: 50ms", "peers: ['b:1']"] {
        let other = startup(&format!("secret: {SECRET}, {fields}"));
        assert_eq!(base.changed(&other), ["cluster"], "{fields}");
    }
    let off = resolved(BASE, &Arc::new(CounterTable::new())).startup;
    assert!(off.cluster.is_none());
    assert!(base.changed(&off).contains(&"cluster"));
}
