//! What this node sees, for others to read.

use std::collections::BTreeSet;

use super::peer::Peer;
use super::{Core, MemberState, Now};
use crate::data_dir::NodeKey;
use crate::membership::{Identity, Member};
use crate::message::{CAP_HOLDS, ConfigurationMark};
#[cfg(test)]
use crate::origin::Origin;
use crate::view::{
    ClusterView, DegradedReason, Figures, LeadersView, LimitView, MemberView, TermView,
    VIEW_LIMITS, WaitingFeature,
};

/// Most members of a view.
const VIEW_MEMBERS: usize = 512;

/// A clock that is further off is a reason for concern.
const SKEW_MS: u64 = 100;

/// Amounts by counter and epoch.
#[cfg(test)]
type CountedOf = std::collections::BTreeMap<(String, i64), u64>;

impl Core {
    /// The cluster as this node sees it.
    pub(crate) fn view(&self, now: Now) -> ClusterView {
        let live: BTreeSet<NodeKey> = self
            .live_peers()
            .map(|member| member.identity.node)
            .collect();
        let leaders = self.leaders.current();
        let held = self.duties.held(now.mono);
        ClusterView {
            cluster: self.config.cluster.clone(),
            node: self.config.name.clone(),
            members: self.member_views(now),
            caught_up: self.ready.caught_up,
            degraded: self.degraded(),
            waiting: self.waiting_features(),
            protocol: self.common_protocol(),
            divided_among: self.judging.divided_among(),
            leaders: LeadersView {
                cluster: leaders.cluster.clone(),
                regions: leaders.by_region.clone(),
            },
            terms: held
                .map(|(task, scope, term)| TermView {
                    task: task.to_owned(),
                    scope: scope.to_owned(),
                    term,
                })
                .collect(),
            limits: self.limit_views(now),
            clock_offset_ms: self.clock.offset_ms(),
            revocations: self.revocations.shown(&live),
            figures: self.figures_now(now),
        }
    }

    /// What this node has of a process's cells: settled, by counter and epoch.
    #[cfg(test)]
    pub(crate) fn counted_of(&self, origin: Origin) -> CountedOf {
        let cells = self.counting.store.origin(origin).into_iter();
        cells
            .flat_map(|cells| cells.iter())
            .filter(|(_, state)| state.used > 0)
            .map(|((slot, epoch), state)| {
                let text = self.counting.counters.text(slot).map(ToString::to_string);
                let key = (text.unwrap_or_default(), epoch);
                (key, state.used)
            })
            .collect()
    }

    /// Which revision of entities each linked process is taken to serve by.
    #[cfg(test)]
    pub(crate) fn applied_by(&self) -> Vec<(Origin, u64)> {
        let peers = self.peers.iter();
        peers
            .filter_map(|(node, peer)| {
                let origin = self.membership.by_node(*node)?.origin();
                Some((origin, peer.applied?))
            })
            .collect()
    }

    fn member_views(&self, now: Now) -> Vec<MemberView> {
        let mut members = vec![self.view_of_me()];
        members.extend(
            self.membership
                .members()
                .take(VIEW_MEMBERS - 1)
                .map(|member| self.view_of(member, now)),
        );
        members.sort_by(|left, right| (&left.node, left.key).cmp(&(&right.node, right.key)));
        members
    }

    fn view_of_me(&self) -> MemberView {
        let me = self.membership.me();
        let mark = self.news.mark.as_ref();
        MemberView {
            boot: self.config.me.boot,
            state: MemberState::Up,
            version: self.config.build.clone(),
            is_self: true,
            link_up: true,
            clock_offset_ms: Some(0),
            configuration_hash: mark.map(|mark| mark.hash),
            configuration_revision: mark.and_then(|mark| mark.revision),
            applied_revision: self.news.applied,
            ..self.place(me, None)
        }
    }

    fn view_of(&self, member: &Member, now: Now) -> MemberView {
        let identity = &member.identity;
        let peer = self.peers.get(&identity.node);
        let link = peer.and_then(|peer| peer.link.as_ref());
        let best = link.and_then(|link| link.samples.best());
        let head = self.counting.store.seen(self.config.me);
        let mark = peer.and_then(|peer| peer.mark.as_ref());
        MemberView {
            state: member.state,
            link_up: link.is_some(),
            rtt: best.map(|sample| sample.rtt),
            lag: link.and_then(|link| link.sync.lag(now.mono)),
            unacked: link.map_or(0, |link| link.sync.unacked(head)),
            clock_offset_ms: best.map(|sample| sample.offset_ms),
            configuration_hash: mark.map(|mark| mark.hash),
            configuration_revision: mark.and_then(|mark| mark.revision),
            applied_revision: peer.and_then(|peer| peer.applied),
            silent_for: peer
                .and_then(|peer| peer.heard)
                .map(|heard| now.mono.saturating_sub(heard)),
            ..self.place(identity, peer)
        }
    }

    /// What an identity says of itself, and its rank.
    fn place(&self, identity: &Identity, peer: Option<&Peer>) -> MemberView {
        let leaders = self.leaders.current();
        let name = Some(&identity.name);
        MemberView {
            node: identity.name.clone(),
            key: identity.node,
            boot: identity.boot,
            state: MemberState::Down,
            region: identity.region.clone(),
            zone: identity.zone.clone(),
            version: peer.map(|peer| peer.build.clone()).unwrap_or_default(),
            protocol: identity.proto_max,
            capabilities: identity.caps,
            address: identity.addr,
            leader: leaders.cluster.as_ref() == name,
            regional_leader: leaders.by_region.get(&identity.region) == name,
            is_self: false,
            link_up: false,
            rtt: None,
            lag: None,
            unacked: 0,
            clock_offset_ms: None,
            configuration_hash: None,
            configuration_revision: None,
            applied_revision: None,
            silent_for: None,
        }
    }

    fn degraded(&self) -> Vec<DegradedReason> {
        let mut reasons = Vec::new();
        if self.ready.caught_up && self.is_without_peers() {
            reasons.push(DegradedReason::Peers);
        }
        if !self.flush.ok {
            reasons.push(DegradedReason::Store);
        }
        for member in self.live_peers() {
            let node = member.identity.name.clone();
            if member.state == MemberState::Degraded {
                reasons.push(DegradedReason::StreamsBlocked { node: node.clone() });
            }
            let peer = self.peers.get(&member.identity.node);
            if let Some(parts) = peer.and_then(|peer| self.mismatch(peer.mark.as_ref())) {
                let node = node.clone();
                reasons.push(DegradedReason::ConfigurationMismatch { node, parts });
            }
            let link = peer.and_then(|peer| peer.link.as_ref());
            if let Some(best) = link.and_then(|link| link.samples.best()) {
                let ms = best.offset_ms.saturating_sub(self.clock.offset_ms());
                // What a round trip hides is no skew.
                let unsure = u64::try_from(best.rtt.as_millis()).unwrap_or(u64::MAX) / 2;
                if ms.unsigned_abs() > SKEW_MS.saturating_add(unsure) {
                    reasons.push(DegradedReason::ClockSkew { node, ms });
                }
            }
        }
        if self.clock.offset_ms().unsigned_abs() > SKEW_MS {
            reasons.push(DegradedReason::ClockSkew {
                node: self.config.name.clone(),
                ms: -self.clock.offset_ms(),
            });
        }
        if let Some(by) = self.name_taken {
            reasons.push(DegradedReason::NameTaken { by: by.node });
        }
        if let Some(twin) = self.membership.twin() {
            let at = twin.addr;
            reasons.push(match twin.is_first {
                true => DegradedReason::KeyTaken { at },
                false => DegradedReason::KeyShared { at },
            });
        }
        if !self.split.is_whole() {
            let missing = self.split.missing.values().cloned().collect();
            reasons.push(DegradedReason::Partition { missing });
        }
        if self.split.stopped {
            reasons.push(DegradedReason::Isolated);
        }
        if self.counting.is_full() {
            reasons.push(DegradedReason::TooManyCells);
        }
        reasons.sort();
        reasons
    }

    /// Whether no other node is in reach though others are expected, or nobody's state was merged.
    fn is_without_peers(&self) -> bool {
        let others = self.config.seeds_expected || self.strangers().next().is_some();
        let merged = self.ready.merged && self.live_peers().next().is_some();
        others && !merged || self.ready.knows_nothing()
    }

    /// Which parts of a peer's configuration differ; `None`: it is the same, or not known.
    pub(super) fn mismatch(&self, theirs: Option<&ConfigurationMark>) -> Option<Vec<String>> {
        let (mine, theirs) = (self.news.mark.as_ref()?, theirs?);
        if mine.hash == theirs.hash {
            return None;
        }
        let differs = |part: &&(String, [u8; 32])| !theirs.parts.contains(part);
        Some(
            mine.parts
                .iter()
                .filter(differs)
                .map(|(name, _)| name.clone())
                .collect(),
        )
    }

    /// Names of live members without a capability.
    pub(super) fn lacking(&self, capability: u64) -> Vec<String> {
        let mut names: Vec<String> = self
            .live_peers()
            .filter(|member| member.identity.caps & capability == 0)
            .map(|member| member.identity.name.clone())
            .collect();
        if self.config.caps & capability == 0 {
            names.push(self.config.name.clone());
        }
        names
    }

    fn waiting_features(&self) -> Vec<WaitingFeature> {
        let nodes = self.lacking(CAP_HOLDS);
        if nodes.is_empty() {
            return Vec::new();
        }
        vec![WaitingFeature {
            feature: "holds".to_owned(),
            nodes,
        }]
    }

    fn common_protocol(&self) -> u8 {
        self.live_peers()
            .map(|member| member.identity.proto_max)
            .fold(self.config.proto_max, u8::min)
    }

    fn limit_views(&self, now: Now) -> Vec<LimitView> {
        let mut views: Vec<LimitView> = self
            .judging
            .nearest
            .iter()
            .filter_map(|slot| {
                let tracked = self.counting.counters.at(*slot)?;
                let counter = tracked.counter.as_ref()?;
                let limited = tracked.limited.as_ref()?;
                let fleet = limited.fleet?;
                Some(LimitView {
                    counter: counter.id().clone(),
                    limit: limited.limit,
                    total: counter.total(now.wall),
                    own: counter.own_total(now.wall),
                    mode: fleet.mode,
                    rate: limited.rate(now.mono),
                    overshoot_bound: fleet.overshoot_bound,
                    overshoot_observed: counter.overshoot_observed(),
                })
            })
            .collect();
        let fill = |view: &LimitView| view.total as f64 / view.limit.max(1) as f64;
        views.sort_by(|left, right| fill(right).total_cmp(&fill(left)));
        views.truncate(VIEW_LIMITS);
        views
    }

    fn figures_now(&self, now: Now) -> Figures {
        let sight = self.sight(now.mono);
        let gossip = self.membership.stats();
        Figures {
            leader_changes: self.leaders.changes(),
            cells: self.counting.store.len() as u64,
            origins: self.counting.store.origins().count() as u64,
            unflushed: self.flush.unflushed(),
            flush_lag: self.flush.lag(now.mono),
            sync_lag: match sight.nodes {
                ..=1 => std::time::Duration::ZERO,
                _ => sight.staleness(),
            },
            gossip_local_health: self.membership.local_health(),
            peers_over_tcp: self.membership.peers_over_tcp() as u64,
            probes_answered: gossip.probes_answered,
            probes_lost: gossip.probes_lost,
            exchanges_failed: gossip.exchanges_failed,
            rejoins: gossip.rejoins,
            ..self.figures.clone()
        }
    }
}
