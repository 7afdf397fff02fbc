//! Who belongs to the cluster, and how each of them is. No I/O.
//!
//! Promise: every member learns of every other, however the cluster was started or torn; a member is
//! called down only when gossip and its link both say so, or when it is gone beyond doubt. The same
//! inputs at the same times with the same seed give the same effects. Owner of the member list.
//! Failure: what cannot be read is counted and dropped; who does not answer is asked again, for ever.

mod effect;
mod evidence;
mod identity;
mod join;
mod link;
mod lists;
mod member;
mod notice;
mod refresh;
mod swim;
#[cfg(test)]
mod tests;
mod twin;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use foca::State;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(crate) use self::effect::{
    GossipStats, MembershipConfig, MembershipEffect, MembershipError, Ping,
};
pub(crate) use self::identity::Identity;
pub(crate) use self::member::{LinkSight, Member};

use self::join::{InView, Join};
use self::notice::{Intent, Notice};
use self::swim::{Heard, LATE, Swim};
pub(crate) use self::twin::Twin;
use self::twin::Twins;
use crate::core::MemberState;
use crate::data_dir::NodeKey;
use crate::origin::Origin;

/// Largest payload of a datagram, before it is sealed.
pub(crate) const DATAGRAM_BYTES: usize = 1_340;
/// How often states are judged by time alone.
const LOOK: Duration = Duration::from_millis(100);
/// Pings that go by one call of `Membership::ping_numbers`.
pub(crate) const PINGS: u8 = 4;
/// How long a lost member is asked for often.
const LATELY: Duration = Duration::from_secs(600);

/// The member list of one node.
#[derive(Debug)]
pub(crate) struct Membership {
    cluster: String,
    suspicion: Duration,
    swim: Swim,
    join: Join,
    members: BTreeMap<NodeKey, Member>,
    /// Links to processes that gossip has not told of yet.
    early_links: BTreeMap<NodeKey, (Origin, LinkSight)>,
    /// Notices of such processes.
    early_notices: BTreeSet<Notice>,
    rng: StdRng,
    effects: Vec<MembershipEffect>,
    now: Duration,
    next_look: Duration,
    draining: bool,
    left: bool,
    name_taken_by: Option<Origin>,
    twins: Twins,
}

impl Membership {
    /// A node that knows only itself and its seeds. `seed` is of its random choices; `now` is time
    /// since the process started, as in all other calls.
    pub(crate) fn new(me: Identity, config: MembershipConfig, seed: u64, now: Duration) -> Self {
        if !me.fits() {
            tracing::error!(
                name = me.name,
                "name, region or zone is too long: the others will not read this node's packets"
            );
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let swim = Swim::new(me, &config, rng.random());
        let mut join = Join::default();
        join.set_seeds(&config.seeds);
        Self {
            cluster: config.cluster,
            suspicion: config.suspicion,
            swim,
            join,
            members: BTreeMap::new(),
            early_links: BTreeMap::new(),
            early_notices: BTreeSet::new(),
            rng,
            effects: Vec::new(),
            now,
            next_look: now,
            draining: false,
            left: false,
            name_taken_by: None,
            twins: Twins::default(),
        }
    }

    /// Replaces the addresses to join by, the first 1,024. It removes no member.
    pub(crate) fn set_seeds(&mut self, seeds: &[SocketAddr]) {
        self.join.set_seeds(seeds);
    }

    /// Takes in an opened datagram.
    pub(crate) fn datagram(&mut self, bytes: &[u8], now: Duration) {
        if self.begin(now) {
            self.packet(bytes, false, now);
            self.refresh(now);
        }
    }

    /// Does what is due by time.
    pub(crate) fn tick(&mut self, now: Duration) {
        if !self.begin(now) {
            return;
        }
        let due = self.due().is_some_and(|due| now >= due);
        if !due {
            return;
        }
        self.swim.fire(now);
        self.ask_around(now);
        self.weigh_evidence(now);
        self.refresh(now);
    }

    /// When `tick` is due; `None`: never, this node has left.
    pub(crate) fn due(&self) -> Option<Duration> {
        if self.left {
            return None;
        }
        let evidence = self
            .members
            .values()
            .filter(|member| member.is_live())
            .filter_map(|member| member.evidence.as_ref().map(evidence::Evidence::due));
        let others = [self.join.due(), self.next_look]
            .into_iter()
            .chain(self.swim.due());
        others.chain(evidence).min()
    }

    /// Tells the others that this node goes. Nothing is sent afterwards.
    pub(crate) fn leave(&mut self, now: Duration) {
        if !self.begin(now) {
            return;
        }
        let notice = Notice::new(self.me().origin(), Intent::Leave);
        self.swim.leave(notice, now);
        self.effects.extend(self.swim.take_effects(now));
        self.left = true;
    }

    /// Tells the others that this node is about to go.
    pub(crate) fn announce_drain(&mut self) {
        if !self.draining && !self.left {
            self.draining = true;
            let notice = Notice::new(self.me().origin(), Intent::Drain);
            self.swim.tell(notice);
        }
    }

    /// A member said over its link that it is about to go.
    pub(crate) fn note_drain(&mut self, origin: Origin, now: Duration) {
        self.note(Notice::new(origin, Intent::Drain), now);
    }

    /// All other members, also those that are down or left, by node.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(crate) fn me(&self) -> &Identity {
        self.swim.me()
    }

    pub(crate) fn by_node(&self, node: NodeKey) -> Option<&Member> {
        self.members.get(&node)
    }

    /// Whether every seed answered, refused or was silent for 3 s, as of the last call.
    pub(crate) fn seeds_settled(&self) -> bool {
        self.join.settled(self.now, &self.view())
    }

    /// The live node that has this node's name and came before it.
    pub(crate) fn name_taken_by(&self) -> Option<Origin> {
        self.name_taken_by
    }

    /// Another live process with this node's key.
    pub(crate) fn twin(&self) -> Option<Twin> {
        self.twins.known()
    }

    /// 0 when this node is on time; each time it is late adds one, up to 8, each 10 s on time take one
    /// away.
    pub(crate) fn local_health(&self) -> u32 {
        self.swim.health()
    }

    /// Members that datagrams do not reach, so that TCP is used.
    pub(crate) fn peers_over_tcp(&self) -> usize {
        self.swim.wrapped_peers()
    }

    /// This node did not run for that long: what was due meanwhile is put off, and nobody is
    /// suspected for an answer that could not be read. Lateness that shows in overdue timers is noted
    /// without this call.
    pub(crate) fn note_lateness(&mut self, late: Duration, now: Duration) {
        self.swim.note_lateness(late, now);
    }

    /// The first of [`PINGS`] numbers in a row that neither gossip nor anybody else uses soon.
    pub(crate) fn ping_numbers(&mut self) -> u8 {
        self.swim.ping_numbers()
    }

    /// Pings a member beside gossip, which learns nothing from what does not come back. `false`: not
    /// sent, since it is no member or too many exchanges with it have no answer yet.
    pub(crate) fn ping(&mut self, ping: Ping, now: Duration) -> bool {
        let Some(member) = self.members.get(&ping.to) else {
            return false;
        };
        let to = member.identity.clone();
        let sent = self.begin(now) && self.swim.ping(&to, ping, now);
        self.effects.extend(self.swim.take_effects(now));
        sent
    }

    /// What is to be done, in this order.
    pub(crate) fn take_effects(&mut self) -> Vec<MembershipEffect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn stats(&self) -> GossipStats {
        self.swim.stats()
    }

    /// Opens a call; `false` when this node has left.
    fn begin(&mut self, now: Duration) -> bool {
        self.now = self.now.max(now);
        let overdue = self.swim.overdue(now);
        if overdue > LATE {
            self.swim.note_lateness(overdue, now);
        }
        !self.left
    }

    /// Takes in one packet, whichever way it came.
    fn packet(&mut self, bytes: &[u8], by_tcp: bool, now: Duration) {
        if let Some(Heard { from, lists_us }) = self.swim.receive(bytes, by_tcp, now) {
            self.twins.heard(self.swim.me(), &from, now);
            self.refresh_members(now);
            self.heard(&from, lists_us, now);
        }
    }

    /// A packet came from that process.
    fn heard(&mut self, from: &Identity, lists_us: bool, now: Duration) {
        let Some(member) = self.members.get_mut(&from.node) else {
            return;
        };
        if member.identity != *from {
            return;
        }
        let evidence = member.evidence.take();
        member.evidence = evidence.and_then(|evidence| evidence.after_packet(now));
        if lists_us {
            member.listed_us_back = true;
        }
    }

    /// Asks those whose turn it is for their lists.
    fn ask_around(&mut self, now: Duration) {
        let listed = self
            .members
            .values()
            .any(|member| member.is_live() && member.listed_us_back);
        let seeds = if self.join.is_seed_due(now) {
            let view = self.view();
            self.join.due_seeds(now, listed, &view, &mut self.rng)
        } else {
            Vec::new()
        };
        for seed in seeds {
            self.ask(seed, now);
            self.swim.announce(Identity::unknown_at(seed), now);
        }
        let live: Vec<SocketAddr> = self
            .members
            .values()
            .filter(|member| member.is_live())
            .map(|member| member.identity.addr)
            .collect();
        if self.join.member_due(live.len(), now, &mut self.rng)
            && let Some(addr) = pick(&live, &mut self.rng)
        {
            self.ask(*addr, now);
        }
        // Who is heard over its link and dead in gossip has to learn that, to come back. Who was lost
        // lately may be behind a split, which is to heal soon after the network has.
        let lost = |member: &Member| {
            member.gossip == State::Down
                && (member.is_live()
                    || member.state == MemberState::Down && now < member.since + LATELY)
        };
        let eager = live.is_empty() || self.members.values().any(lost);
        if self.join.dead_due(eager, now, &mut self.rng)
            && let Some(dead) = pick(&self.dead(), &mut self.rng)
        {
            self.ask(dead.addr, now);
            self.swim.announce(dead.clone(), now);
        }
    }

    /// Dead members that may come back.
    fn dead(&self) -> Vec<Identity> {
        self.swim
            .states()
            .filter(|state| state.state() == State::Down)
            .map(foca::Member::id)
            .filter(|id| id.node != self.me().node)
            .filter(|id| {
                self.members.get(&id.node).is_none_or(|member| {
                    member.identity.boot <= id.boot
                        && member.gossip == State::Down
                        && !member.announced_leave
                })
            })
            .cloned()
            .collect()
    }

    /// Addresses and keys of the live members and of this node itself.
    fn view(&self) -> InView {
        let mut view = InView::default();
        let live = self.members.values();
        let live = live.filter(|member| member.gossip != State::Down);
        for identity in live
            .map(|member| &member.identity)
            .chain(std::iter::once(self.me()))
        {
            view.addrs.insert(identity.addr);
            view.nodes.insert(identity.node);
        }
        view
    }
}

fn pick<'a, T>(among: &'a [T], rng: &mut StdRng) -> Option<&'a T> {
    (!among.is_empty()).then(|| &among[rng.random_range(0..among.len())])
}
