//! The cluster as metrics.
//!
//! Promise: series are bounded: a member is in a view at most 512 times, a
//! limit 200 times, and those that left the view leave the metrics with the
//! next scrape. Counts never fall. Read from one view at each scrape; requests
//! touch none of it.

use std::fmt;
use std::time::Duration;

use cluster::view::{Figures, MemberState};
use cluster::{ClusterView, DegradedReason, LimitView, MemberView};
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::metrics::{Maker, raise, whole};
use crate::admin::state_word;

const STATES: [MemberState; 5] = [
    MemberState::Up,
    MemberState::Degraded,
    MemberState::Suspect,
    MemberState::Down,
    MemberState::Left,
];

/// What a node says of its cluster.
pub(super) struct ClusterSeries {
    members: IntGaugeVec,
    member_changes: IntCounterVec,
    link_changes: IntCounterVec,
    caught_up: IntGauge,
    leader: IntGaugeVec,
    leader_changes: IntCounter,
    term: IntGaugeVec,
    peer_up: IntGaugeVec,
    peer_rtt: GaugeVec,
    peer_lag: GaugeVec,
    peer_clock_offset: GaugeVec,
    peer_unacked: IntGaugeVec,
    config_mismatch: IntGauge,
    clock_correction: Gauge,
    bytes: IntCounterVec,
    packets: IntCounterVec,
    packets_refused: IntCounter,
    probes: IntCounterVec,
    peers_over_tcp: IntGauge,
    exchanges_failed: IntCounter,
    rejoins: IntCounter,
    frames_dropped: IntCounter,
    cells_moved: IntCounterVec,
    cells_refused: IntCounterVec,
    outcomes_refused: IntCounter,
    gaps: IntCounter,
    too_large: IntCounter,
    cells: IntGauge,
    origins: IntGauge,
    unflushed: IntGauge,
    flush_lag: Gauge,
    sync_lag: Gauge,
    overshoot_bound: GaugeVec,
    overshoot_observed: GaugeVec,
}

impl ClusterSeries {
    #[rustfmt::skip] // one metric a line: this is the table of names
    pub(super) fn new(make: &Maker) -> Self {
        ClusterSeries {
            members: make.gauges("tyr_cluster_members", "Nodes of the cluster as this node sees them, itself included.", &["state"]),
            member_changes: make.counters("tyr_cluster_member_changes_total", "Other nodes that came up, were found gone, or said that they leave.", &["to"]),
            link_changes: make.counters("tyr_cluster_link_changes_total", "Links to other nodes that came up or ended.", &["to"]),
            caught_up: make.gauge("tyr_cluster_caught_up", "1 when this node knows what the others have counted, else 0."),
            leader: make.gauges("tyr_cluster_leader", "1 while this node leads, else 0.", &["scope"]),
            leader_changes: make.counter("tyr_cluster_leader_changes_total", "Changes of a leader, as this node saw them."),
            term: make.gauges("tyr_cluster_term", "The term under which this node has the lead of a task.", &["task", "scope"]),
            peer_up: make.gauges("tyr_cluster_peer_up", "1 while there is a link to the node, else 0.", &["peer"]),
            peer_rtt: make.real_gauges("tyr_cluster_peer_rtt_seconds", "Round trip over the link to the node, best of the last eight.", &["peer"]),
            peer_lag: make.real_gauges("tyr_cluster_peer_lag_seconds", "From sending counts to the node to their acknowledgement, worst of the last seconds.", &["peer"]),
            peer_clock_offset: make.real_gauges("tyr_cluster_clock_offset_seconds", "The node's clock less this node's.", &["peer"]),
            peer_unacked: make.gauges("tyr_cluster_peer_unacked", "Changes of counts that the node has not acknowledged.", &["peer"]),
            config_mismatch: make.gauge("tyr_cluster_config_mismatch", "1 while another node's configuration file differs from this node's, else 0."),
            clock_correction: make.real_gauge("tyr_cluster_clock_correction_seconds", "What is added to this node's clock."),
            bytes: make.counters("tyr_cluster_bytes_total", "Bytes between nodes.", &["channel", "direction"]),
            packets: make.counters("tyr_cluster_packets_total", "Datagrams of gossip.", &["direction"]),
            packets_refused: make.counter("tyr_cluster_packets_refused_total", "Datagrams that were not of this cluster, or came again."),
            probes: make.counters("tyr_cluster_probes_total", "Direct probes of other nodes by gossip.", &["outcome"]),
            peers_over_tcp: make.gauge("tyr_cluster_peers_over_tcp", "Nodes that datagrams do not reach, so that gossip goes over TCP."),
            exchanges_failed: make.counter("tyr_cluster_exchanges_failed_total", "Exchanges of member lists that failed."),
            rejoins: make.counter("tyr_cluster_rejoins_total", "Times that the others took this living node for dead."),
            frames_dropped: make.counter("tyr_cluster_frames_dropped_total", "Messages that a link could not take; it was made anew and told what it missed."),
            cells_moved: make.counters("tyr_cluster_cells_total", "Counts sent to and received from other nodes.", &["direction"]),
            cells_refused: make.counters("tyr_cluster_cells_refused_total", "Counts of other nodes that do not count here.", &["reason"]),
            outcomes_refused: make.counter("tyr_cluster_outcomes_refused_total", "Results of leaders that were damaged, or told under a term that was never given."),
            gaps: make.counter("tyr_cluster_gaps_total", "Messages that came after others were lost; these were asked for again."),
            too_large: make.counter("tyr_cluster_revisions_too_large_total", "Changes of entities too large for a link: others have them from the store alone."),
            cells: make.gauge("tyr_cluster_cells", "Counts of all nodes that are kept."),
            origins: make.gauge("tyr_cluster_origins", "Processes whose counts are kept."),
            unflushed: make.gauge("tyr_cluster_unflushed_cells", "Counts of this node that the store does not have."),
            flush_lag: make.real_gauge("tyr_cluster_flush_lag_seconds", "Age of the oldest count that the store does not have."),
            sync_lag: make.real_gauge("tyr_cluster_sync_lag_seconds", "From an admission to its being seen by all nodes, worst as measured."),
            overshoot_bound: make.real_gauges("tyr_cluster_overshoot_bound", "By how much a limit can be passed at most, from measured rates and delays.", &["limit"]),
            overshoot_observed: make.real_gauges("tyr_cluster_overshoot_observed", "By how much a limit was passed at most in its window.", &["limit"]),
        }
    }

    /// Takes over what a view says; call it before a scrape, one at a time.
    pub(super) fn observe(&self, view: &ClusterView) {
        for state in STATES {
            let many = view.members.iter().filter(|member| member.state == state);
            let gauge = self.members.with_label_values(&[state_word(state)]);
            gauge.set(i64::try_from(many.count()).unwrap_or(i64::MAX));
        }
        self.caught_up.set(i64::from(view.caught_up));
        let leads = |of: fn(&MemberView) -> bool| view.members.iter().any(|m| m.is_self && of(m));
        let cluster = self.leader.with_label_values(&["cluster"]);
        cluster.set(i64::from(leads(|member| member.leader)));
        let region = self.leader.with_label_values(&["region"]);
        region.set(i64::from(leads(|member| member.regional_leader)));
        self.term.reset();
        for term in &view.terms {
            let gauge = self.term.with_label_values(&[&term.task, &term.scope]);
            gauge.set(whole(term.term));
        }
        self.observe_peers(view);
        self.observe_limits(&view.limits);
        let differs = |reason: &DegradedReason| {
            matches!(reason, DegradedReason::ConfigurationMismatch { .. })
        };
        let differs = view.degraded.iter().any(differs);
        self.config_mismatch.set(i64::from(differs));
        self.clock_correction.set(seconds_of(view.clock_offset_ms));
        self.observe_figures(&view.figures);
    }

    fn observe_peers(&self, view: &ClusterView) {
        self.peer_up.reset();
        self.peer_rtt.reset();
        self.peer_lag.reset();
        self.peer_clock_offset.reset();
        self.peer_unacked.reset();
        for member in view.members.iter().filter(|member| !member.is_self) {
            let label = [member.node.as_str()];
            let set = |gauges: &GaugeVec, value: Option<f64>| {
                if let Some(value) = value {
                    gauges.with_label_values(&label).set(value);
                }
            };
            let up = self.peer_up.with_label_values(&label);
            up.set(i64::from(member.link_up));
            let unacked = self.peer_unacked.with_label_values(&label);
            unacked.set(whole(member.unacked));
            set(&self.peer_rtt, member.rtt.map(|rtt| rtt.as_secs_f64()));
            set(&self.peer_lag, member.lag.map(|lag| lag.as_secs_f64()));
            set(
                &self.peer_clock_offset,
                member.clock_offset_ms.map(seconds_of),
            );
        }
    }

    fn observe_limits(&self, limits: &[LimitView]) {
        self.overshoot_bound.reset();
        self.overshoot_observed.reset();
        for limit in limits {
            let name = limit.counter.without_generation().to_string();
            let label = [name.as_str()];
            if let Some(bound) = limit.overshoot_bound {
                let gauge = self.overshoot_bound.with_label_values(&label);
                gauge.set(bound as f64);
            }
            let observed = self.overshoot_observed.with_label_values(&label);
            observed.set(limit.overshoot_observed as f64);
        }
    }

    fn observe_figures(&self, figures: &Figures) {
        let moved = [
            ("gossip", "sent", figures.gossip_bytes_sent),
            ("gossip", "received", figures.gossip_bytes_received),
            ("link", "sent", figures.link_bytes_sent),
            ("link", "received", figures.link_bytes_received),
        ];
        for (channel, direction, total) in moved {
            let labels = [channel, direction];
            raise(&self.bytes.with_label_values(&labels), total);
        }
        let directions = [
            ("sent", figures.gossip_packets_sent, figures.cells_sent),
            (
                "received",
                figures.gossip_packets_received,
                figures.cells_received,
            ),
        ];
        for (direction, packets, cells) in directions {
            raise(&self.packets.with_label_values(&[direction]), packets);
            raise(&self.cells_moved.with_label_values(&[direction]), cells);
        }
        let refused = [
            ("full", figures.cells_refused),
            ("ahead", figures.cells_ahead),
        ];
        for (reason, total) in refused {
            raise(&self.cells_refused.with_label_values(&[reason]), total);
        }
        raise(&self.outcomes_refused, figures.outcomes_refused);
        raise(&self.packets_refused, figures.gossip_packets_refused);
        let probes = [
            ("answered", figures.probes_answered),
            ("lost", figures.probes_lost),
        ];
        for (outcome, total) in probes {
            raise(&self.probes.with_label_values(&[outcome]), total);
        }
        self.peers_over_tcp.set(whole(figures.peers_over_tcp));
        raise(&self.exchanges_failed, figures.exchanges_failed);
        raise(&self.rejoins, figures.rejoins);
        raise(&self.frames_dropped, figures.link_frames_dropped);
        raise(&self.leader_changes, figures.leader_changes);
        let changes = [
            ("up", figures.members_up),
            ("down", figures.members_down),
            ("left", figures.members_left),
        ];
        for (to, total) in changes {
            raise(&self.member_changes.with_label_values(&[to]), total);
        }
        for (to, total) in [("up", figures.links_up), ("down", figures.links_down)] {
            raise(&self.link_changes.with_label_values(&[to]), total);
        }
        raise(&self.gaps, figures.gaps);
        raise(&self.too_large, figures.revisions_too_large);
        self.cells.set(whole(figures.cells));
        self.origins.set(whole(figures.origins));
        self.unflushed.set(whole(figures.unflushed));
        self.flush_lag.set(figures.flush_lag.as_secs_f64());
        self.sync_lag.set(figures.sync_lag.as_secs_f64());
    }
}

impl fmt::Debug for ClusterSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterSeries").finish_non_exhaustive()
    }
}

fn seconds_of(millis: i64) -> f64 {
    let length = Duration::from_millis(millis.unsigned_abs()).as_secs_f64();
    if millis < 0 { -length } else { length }
}
