//! The cluster as the API shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::view::{LeadersView, LimitView, MemberState};
use cluster::{ClusterView, DegradedReason, Diagnosis, MemberView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admin::Degraded;
use crate::admin::standing::{Amount, amount};

/// The cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterShown {
    /// Whether the node is part of a cluster; else it is its only member.
    pub enabled: bool,
    /// The name of this node.
    pub node: String,
    /// The cluster's name; null without one.
    pub cluster: Option<String>,
    /// Whether this node knows what the others had, and is ready.
    pub caught_up: bool,
    /// By name, this node among them.
    pub members: Vec<MemberShown>,
    /// Who leads.
    pub leaders: LeadersShown,
    /// Tasks that this node has the lead of now.
    pub terms: Vec<TermShown>,
    /// What is not as it should be, in a word each.
    pub degraded: Vec<String>,
    /// The same with names.
    pub detail: Vec<DegradedShown>,
    /// Features that wait for nodes that lack them.
    pub waiting: Vec<WaitingShown>,
    /// The protocol that all live members speak.
    pub protocol: u8,
    /// Among how many nodes strict limits are divided; null where they are not,
    /// or while this node does not know what was used and has no part of them.
    #[serde(default)]
    pub divided_among: Option<u64>,
    /// What is added to this node's clock.
    pub clock_offset_ms: i64,
    /// From an admission to its being seen by all, as measured.
    pub sync_lag_ms: f64,
    /// Age of the oldest count that the store does not have.
    pub flush_lag_ms: f64,
    /// Limits that are nearest their end, 200 at most.
    pub limits: Vec<FleetLimit>,
}

/// One member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemberShown {
    /// Its name.
    pub node: String,
    /// Which run of it this is: unix milliseconds of its start.
    #[serde(default)]
    pub boot: u64,
    /// `up`, `degraded` (it is there, but cannot be linked to), `suspect`,
    /// `down` or `left`.
    pub state: String,
    /// Whether it is the node that answers.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// Where it is.
    pub region: String,
    /// The part of the region.
    pub zone: String,
    /// Of its program; empty until it was linked to.
    pub version: String,
    /// Whether it leads the cluster.
    pub leader: bool,
    /// Whether it leads its region.
    pub regional_leader: bool,
    /// Where it gossips.
    pub address: String,
    /// The newest protocol that it speaks.
    pub protocol: u8,
    /// Whether there is a link to it.
    pub linked: bool,
    /// Round trip over the link, best of the last eight.
    pub rtt_ms: Option<f64>,
    /// From sending counts to their acknowledgement, worst of the last seconds.
    pub lag_ms: Option<f64>,
    /// Changes that it has not acknowledged.
    pub unacked: u64,
    /// Its clock less this node's.
    pub clock_offset_ms: Option<i64>,
    /// Since something was last heard over the link.
    pub silent_ms: Option<f64>,
    /// The hash of its file, in hexadecimal digits.
    pub configuration: Option<String>,
    /// `revision` of its file, where that is a number.
    pub configuration_revision: Option<u64>,
    /// Whether its file is the newest of those that differ.
    pub configuration_newest: bool,
    /// Up to which revision it serves by what the API made.
    pub applied_revision: Option<u64>,
}

/// Who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeadersShown {
    /// The whole cluster.
    pub cluster: Option<String>,
    /// Each region.
    pub regions: BTreeMap<String, String>,
}

/// A task that this node has the lead of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TermShown {
    /// Its name.
    pub task: String,
    /// `cluster`, or the region.
    pub scope: String,
    /// The number of the lead; a larger one takes it over.
    pub term: u64,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DegradedShown {
    /// In a word.
    pub reason: String,
    /// Whom it concerns.
    pub nodes: Vec<String>,
    /// For people.
    pub message: String,
}

/// A feature that is off because a live node lacks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingShown {
    /// Its name.
    pub feature: String,
    /// Who lacks it.
    pub nodes: Vec<String>,
}

/// One limit as all nodes hold it together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FleetLimit {
    /// Its name in resets and overrides.
    pub id: String,
    /// What it counts.
    pub unit: String,
    /// What may be reached.
    pub limit: Amount,
    /// Of all nodes, holds included.
    pub total: Amount,
    /// Of this node.
    pub own: Amount,
    /// `live`, `guard_band`, `share` or `divided`.
    pub mode: String,
    /// Per second, of all nodes.
    pub rate: f64,
    /// By how much it can be passed at most; null: not known yet.
    pub overshoot_bound: Option<Amount>,
    /// By how much it was passed at most, as seen here.
    pub overshoot_observed: Amount,
}

/// One line of a diagnosis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DiagnosisLine {
    /// What was found.
    Found(Finding),
    /// The last line.
    End {
        /// Whether every check was made.
        done: bool,
        /// How many of them found something wrong.
        failed: u64,
    },
}

impl DiagnosisLine {
    pub(super) fn end(done: bool, failed: u64) -> Self {
        DiagnosisLine::End { done, failed }
    }
}

/// One finding of a diagnosis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// The member.
    pub node: String,
    /// What was checked.
    pub check: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// For people.
    pub detail: String,
    /// How long it took, where that is measured.
    pub took_ms: Option<f64>,
}

impl From<Diagnosis> for Finding {
    fn from(finding: Diagnosis) -> Self {
        Finding {
            node: finding.node,
            check: finding.check.to_owned(),
            ok: finding.ok,
            detail: finding.detail,
            took_ms: finding.took.map(millis),
        }
    }
}

impl ClusterShown {
    /// Says that all of it is old.
    pub(super) fn note_stalled(&mut self) {
        let reason = Degraded::ClusterStalled.as_str().to_owned();
        self.degraded.push(reason.clone());
        self.detail.push(DegradedShown {
            reason,
            nodes: Vec::new(),
            message: "the thread that talks to the others hangs: all of this is old".to_owned(),
        });
    }

    /// A node without a cluster.
    pub(super) fn alone(node: &str) -> Self {
        ClusterShown {
            node: node.to_owned(),
            caught_up: true,
            members: vec![MemberShown {
                node: node.to_owned(),
                state: "up".to_owned(),
                is_self: true,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..MemberShown::default()
            }],
            ..ClusterShown::default()
        }
    }
}

/// A view as the API shows it.
pub(in crate::admin) fn of_view(view: &ClusterView) -> ClusterShown {
    let newest = newest(view);
    let members = view.members.iter();
    let mut degraded: Vec<String> = Vec::new();
    for reason in &view.degraded {
        if !degraded.iter().any(|word| word == reason.as_str()) {
            degraded.push(reason.as_str().to_owned());
        }
    }
    let LeadersView { cluster, regions } = view.leaders.clone();
    ClusterShown {
        enabled: true,
        node: view.node.clone(),
        cluster: Some(view.cluster.clone()),
        caught_up: view.caught_up,
        members: members.map(|member| of_member(member, newest)).collect(),
        leaders: LeadersShown { cluster, regions },
        terms: terms(view),
        degraded,
        detail: view.degraded.iter().map(of_reason).collect(),
        waiting: view
            .waiting
            .iter()
            .map(|waiting| WaitingShown {
                feature: waiting.feature.clone(),
                nodes: waiting.nodes.clone(),
            })
            .collect(),
        protocol: view.protocol,
        divided_among: view.divided_among.filter(|nodes| *nodes > 1),
        clock_offset_ms: view.clock_offset_ms,
        sync_lag_ms: millis(view.figures.sync_lag),
        flush_lag_ms: millis(view.figures.flush_lag),
        limits: view.limits.iter().map(of_limit).collect(),
    }
}

/// The largest revision of files that differ; `None` when they do not.
fn newest(view: &ClusterView) -> Option<u64> {
    let mut hashes = view.members.iter().filter_map(|m| m.configuration_hash);
    let first = hashes.next()?;
    if hashes.all(|hash| hash == first) {
        return None;
    }
    view.members
        .iter()
        .filter_map(|member| member.configuration_revision)
        .max()
}

fn terms(view: &ClusterView) -> Vec<TermShown> {
    let terms = view.terms.iter().map(|term| TermShown {
        task: term.task.clone(),
        scope: term.scope.clone(),
        term: term.term,
    });
    terms.collect()
}

fn of_member(member: &MemberView, newest: Option<u64>) -> MemberShown {
    MemberShown {
        node: member.node.clone(),
        boot: member.boot,
        state: state_word(member.state).to_owned(),
        is_self: member.is_self,
        region: member.region.clone(),
        zone: member.zone.clone(),
        version: member.version.clone(),
        leader: member.leader,
        regional_leader: member.regional_leader,
        address: member.address.to_string(),
        protocol: member.protocol,
        linked: member.link_up,
        rtt_ms: member.rtt.map(millis),
        lag_ms: member.lag.map(millis),
        unacked: member.unacked,
        clock_offset_ms: member.clock_offset_ms,
        silent_ms: member.silent_for.map(millis),
        configuration: member.configuration_hash.map(hex::encode),
        configuration_revision: member.configuration_revision,
        configuration_newest: newest.is_some() && member.configuration_revision == newest,
        applied_revision: member.applied_revision,
    }
}

fn of_limit(limit: &LimitView) -> FleetLimit {
    let unit = limit.counter.unit;
    FleetLimit {
        id: limit.counter.without_generation().to_string(),
        unit: unit.as_str().to_owned(),
        limit: amount(unit, limit.limit),
        total: amount(unit, limit.total),
        own: amount(unit, limit.own),
        mode: limit.mode.as_str().to_owned(),
        rate: limit.rate,
        overshoot_bound: limit.overshoot_bound.map(|bound| amount(unit, bound)),
        overshoot_observed: amount(unit, limit.overshoot_observed),
    }
}

/// A state in a word.
pub fn state_word(state: MemberState) -> &'static str {
    match state {
        MemberState::Up => "up",
        MemberState::Degraded => "degraded",
        MemberState::Suspect => "suspect",
        MemberState::Down => "down",
        MemberState::Left => "left",
    }
}

/// A reason with names.
fn of_reason(reason: &DegradedReason) -> DegradedShown {
    let message = match reason {
        DegradedReason::Peers => "no other node is in reach".to_owned(),
        DegradedReason::Store => "the store does not answer".to_owned(),
        DegradedReason::StreamsBlocked { .. } => {
            "it gossips, but no link to its gRPC port can be made".to_owned()
        }
        DegradedReason::NameTaken { by } => {
            format!("another live node has this node's name: it has the key {by}")
        }
        DegradedReason::KeyTaken { at } => format!(
            "the process at {at} came first and has this node's key: data_dir was copied; empty it here"
        ),
        DegradedReason::KeyShared { at } => {
            format!("the process at {at} came later and has this node's key: data_dir was copied")
        }
        DegradedReason::ConfigurationMismatch { parts, .. } if parts.is_empty() => {
            "its file differs".to_owned()
        }
        DegradedReason::ConfigurationMismatch { parts, .. } => {
            format!("its file differs in {}", parts.join(", "))
        }
        DegradedReason::Partition { .. } => {
            "they are missing and had not said that they go: limits are held as \
             `cluster.partition` says"
                .to_owned()
        }
        DegradedReason::Isolated => {
            "most of the others and the store are out of reach: others may have this node's part \
             of limits, so it takes nothing more"
                .to_owned()
        }
        DegradedReason::ClockSkew { ms, .. } => format!("its clock is off by {ms} ms"),
        DegradedReason::TooManyCells => {
            "so many counts of others that new ones are left out".to_owned()
        }
    };
    DegradedShown {
        reason: reason.as_str().to_owned(),
        nodes: reason.nodes().to_vec(),
        message,
    }
}

fn millis(length: Duration) -> f64 {
    // To the microsecond: more is noise.
    (length.as_secs_f64() * 1e6).round() / 1e3
}
