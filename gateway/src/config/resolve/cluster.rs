//! `cluster`: what a node needs to find others and to be found.
//!
//! A cluster that is off is judged for its form only: its references are not
//! read, as what they name need not exist.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::Checks;
use super::server::{LEAST_KEY, named_file};
use crate::config::file::{Cluster, ClusterTls, Partition, SecretText, StoreType};
use crate::config::load::Document;
use crate::config::problem::FieldPath;
use crate::config::reference::References;

/// Exchanges of counters: more often costs, more seldom lets limits be passed.
const SYNC_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(10);

/// Shortest time after which a node may be forgotten: a restart takes as long.
const LEAST_FORGET: Duration = Duration::from_secs(10);

/// How this node takes part in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Nodes of another name never join.
    pub name: String,
    /// Where the node is.
    pub region: String,
    /// The part of the region.
    pub zone: Option<String>,
    /// Where gossip is listened to, UDP and TCP.
    pub gossip: SocketAddr,
    /// What others use instead of the address of `gossip`.
    pub advertise: Option<IpAddr>,
    /// Where links of other nodes are taken.
    pub grpc: SocketAddr,
    /// How long connecting to another node may take.
    pub dial_timeout: Duration,
    /// How long a suspicion lasts.
    pub suspicion: Duration,
    /// Failed probes that start a suspicion.
    pub failure_threshold: u32,
    /// How often counters are exchanged.
    pub sync_interval: Duration,
    /// What a part of a split cluster may spend.
    pub partition: Partition,
    /// After this time without a sign a node's share goes to the others.
    pub forget_after: Duration,
    /// The newest protocol to speak; `None`: the newest known.
    pub protocol_max: Option<u8>,
    /// The operator's certificates; `None`: made from the secret.
    pub tls: Option<ClusterTlsFiles>,
    /// `host:port` of others' gossip.
    pub peers: Vec<String>,
    /// All are accepted, the first seals; empty on loopback only. A reload may
    /// change them.
    pub secrets: Vec<SecretText>,
}

/// Certificates between nodes as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterTlsFiles {
    /// Who signs nodes.
    pub ca: PathBuf,
    /// This node's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl ClusterSettings {
    /// Whether `other` differs in what takes a restart.
    pub(super) fn is_fixed_as(&self, other: &Self) -> bool {
        let secrets = other.secrets.clone();
        let mine = ClusterSettings {
            secrets,
            ..self.clone()
        };
        mine == *other
    }
}

/// How the node takes part; `None`: it stands alone.
pub(super) fn cluster(
    checks: &mut Checks<'_>,
    document: &Document,
    node_id: &str,
) -> Option<ClusterSettings> {
    let cluster = &document.file.cluster;
    let at = FieldPath::root().key("cluster");
    if cluster.discovery.enabled {
        checks.problem(
            &at.key("discovery").key("enabled"),
            "discovery is not supported by this version of Tyr: set `enabled: false`",
        );
    }
    let threshold = at.key("gossip").key("config").key("success_threshold");
    if document.has(&threshold) {
        checks.warning(&threshold, "`success_threshold` does nothing");
    }
    let references = checks.references;
    if !cluster.enabled {
        checks.references = References::Skip;
    }
    let settings = settings(checks, &at, cluster);
    checks.references = references;
    if !cluster.enabled {
        return None;
    }
    if document.file.store.kind == StoreType::Sqlite {
        let message = "needs `store.type: postgres`: nodes count together in one store that all of \
                       them reach, and a SQLite file is one node's own";
        checks.problem(&at.key("enabled"), message);
    }
    names(checks, &at, cluster, node_id);
    protected(checks, &at, &settings);
    Some(settings)
}

fn settings(checks: &mut Checks<'_>, at: &FieldPath, cluster: &Cluster) -> ClusterSettings {
    let gossip = &cluster.gossip;
    let at_gossip = at.key("gossip");
    let bind = ip(checks, &at_gossip.key("bind"), &gossip.bind.0);
    let advertise = gossip
        .advertise
        .as_ref()
        .and_then(|text| ip(checks, &at_gossip.key("advertise"), &text.0));
    if advertise.is_some_and(|ip| ip.is_unspecified()) {
        let message = "must be an address that others can reach";
        checks.problem(&at_gossip.key("advertise"), message);
    }
    let bind = bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let at_grpc = at.key("grpc");
    let grpc_bind = match &cluster.grpc.bind {
        Some(text) => ip(checks, &at_grpc.key("bind"), &text.0).unwrap_or(bind),
        None => bind,
    };
    let grpc = SocketAddr::new(grpc_bind, cluster.grpc.port);
    if bind == grpc_bind && gossip.port == cluster.grpc.port {
        checks.problem(&at_grpc.key("port"), "is also the port of gossip");
    }
    if !SYNC_INTERVALS.contains(&cluster.sync_interval.get()) {
        let message = "must be between 10ms and 10s";
        checks.problem(&at.key("sync_interval"), message);
    }
    if cluster.forget_after.get() < LEAST_FORGET {
        let message = "must be 10s or more: a restart takes as long";
        checks.problem(&at.key("forget_after"), message);
    }
    let newest = ::cluster::PROTOCOL_MAX;
    if cluster.protocol_max.is_some_and(|pinned| pinned > newest) {
        let message = format!("this version speaks protocols up to {newest}");
        checks.problem(&at.key("protocol_max"), message);
    }
    if let Some(token) = cluster
        .broker
        .as_ref()
        .and_then(|broker| broker.auth_token.as_ref())
    {
        checks.secret(&at.key("broker").key("auth_token"), &token.0, 1);
    }
    let tls = cluster.tls.as_ref();
    ClusterSettings {
        name: cluster.name.clone(),
        region: cluster.region.clone(),
        zone: cluster.zone.clone(),
        gossip: SocketAddr::new(bind, gossip.port),
        advertise,
        grpc,
        dial_timeout: Duration::from_secs(cluster.grpc.dial_timeout_seconds.into()),
        suspicion: Duration::from_secs(gossip.config.timeout_seconds.into()),
        failure_threshold: gossip.config.failure_threshold,
        sync_interval: cluster.sync_interval.get(),
        partition: cluster.partition,
        forget_after: cluster.forget_after.get(),
        protocol_max: cluster.protocol_max,
        tls: tls.map(|tls| tls_files(checks, &at.key("tls"), tls)),
        peers: peers(checks, &at.key("peers"), cluster),
        secrets: secrets(checks, at, cluster),
    }
}

fn secrets(checks: &mut Checks<'_>, at: &FieldPath, cluster: &Cluster) -> Vec<SecretText> {
    let mut secrets = Vec::new();
    let mut secret = |checks: &mut Checks<'_>, at: &FieldPath, text: &SecretText| {
        let read = checks.secret(at, &text.0, LEAST_KEY);
        secrets.push(SecretText(read.expose().to_owned()));
    };
    if let Some(text) = &cluster.secret {
        secret(checks, &at.key("secret"), text);
    } else if !cluster.additional_secrets.is_empty() {
        let message = "stands beside no `secret`, which is what seals";
        checks.problem(&at.key("additional_secrets"), message);
    }
    for (index, text) in cluster.additional_secrets.iter().enumerate() {
        secret(checks, &at.key("additional_secrets").index(index), text);
    }
    secrets
}

fn peers(checks: &mut Checks<'_>, all: &FieldPath, cluster: &Cluster) -> Vec<String> {
    let mut peers = Vec::new();
    for (index, peer) in cluster.peers.iter().enumerate() {
        let at = all.index(index);
        let Some(peer) = checks.read(&at, &peer.0) else {
            continue;
        };
        match split(&peer) {
            Some(_) => peers.push(peer),
            None => checks.problem(&at, "expected `host:port`"),
        }
    }
    peers
}

/// Host and port of a `host:port`.
fn split(peer: &str) -> Option<(&str, u16)> {
    let (host, port) = peer.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let plain = |c: char| c.is_ascii_graphic() && c != '/' && c != '@';
    (!host.is_empty() && host.chars().all(plain)).then_some((host, port))
}

/// Names that stand in certificates.
fn names(checks: &mut Checks<'_>, at: &FieldPath, cluster: &Cluster, node_id: &str) {
    const EXPECTED: &str = "expected 1 to 63 letters, digits, `.`, `_` and `-`";
    let fits = |name: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        (1..=63).contains(&name.len()) && name.chars().all(plain)
    };
    if !fits(&cluster.name) {
        checks.problem(&at.key("name"), EXPECTED);
    }
    if !fits(&cluster.region) {
        checks.problem(&at.key("region"), EXPECTED);
    }
    if cluster.zone.as_deref().is_some_and(|zone| !fits(zone)) {
        checks.problem(&at.key("zone"), EXPECTED);
    }
    if !fits(node_id) {
        let message = format!("{EXPECTED}, found `{}`", node_id.escape_debug());
        checks.problem(&at.key("node_id"), message);
    }
}

/// Without a secret anybody who reaches the ports could join.
fn protected(checks: &mut Checks<'_>, at: &FieldPath, settings: &ClusterSettings) {
    if !settings.secrets.is_empty() {
        return;
    }
    let bound = [settings.gossip.ip(), settings.grpc.ip()];
    let own = bound.into_iter().chain(settings.advertise);
    let open = own.filter(|ip| !ip.is_loopback()).map(|ip| ip.to_string());
    let peers = settings.peers.iter();
    let far = peers.filter(|peer| !is_loopback(peer)).cloned();
    let Some(open) = open.chain(far).next() else {
        return;
    };
    let message = format!("is required, as {open} is not a loopback address");
    checks.problem(&at.key("secret"), message);
}

fn is_loopback(peer: &str) -> bool {
    let Some((host, _)) = split(peer) else {
        return false;
    };
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    match plain.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// An IP address; `None` when it was not read or is none.
fn ip(checks: &mut Checks<'_>, at: &FieldPath, text: &str) -> Option<IpAddr> {
    let text = checks.read(at, text)?;
    let ip = text.parse().ok();
    if ip.is_none() {
        let shown = text.escape_debug();
        let message = format!("expected an IP address such as `10.0.0.7`, found `{shown}`");
        checks.problem(at, message);
    }
    ip
}

fn tls_files(checks: &mut Checks<'_>, at: &FieldPath, tls: &ClusterTls) -> ClusterTlsFiles {
    ClusterTlsFiles {
        ca: named_file(checks, &at.key("ca"), &tls.ca),
        cert: named_file(checks, &at.key("cert"), &tls.cert),
        key: named_file(checks, &at.key("key"), &tls.key),
    }
}
