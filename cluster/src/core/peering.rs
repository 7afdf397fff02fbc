//! Members and the links to them.
//!
//! Of each pair the node with the lower key dials. A link that is lost is dialled again at once, then
//! ever more seldom.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;

use super::peer::{Link, Peer};
use super::{Core, Effect, ExchangeFailure, LOOK, Now, ProbeOutcome};
use crate::data_dir::NodeKey;
use crate::membership::{Member, MembershipEffect, Twin};
use crate::message::{Frame, Hello, PROTOCOL_MIN};
use crate::origin::Origin;

/// First and longest time between two dials.
const REDIAL: Duration = Duration::from_millis(100);
const REDIAL_MOST: Duration = Duration::from_secs(5);

/// After which time a dial that has not been answered is joined by another: the host may have slept.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a link is pinged; a small cluster can afford more.
const PING: Duration = Duration::from_millis(500);
const PING_SMALL: Duration = Duration::from_millis(250);
const SMALL: usize = 10;

/// In how many sync intervals something is said on every link, so that silence means something.
const SAY_WITHIN: u32 = 2;

/// A link that is silent for so long is given up.
const DEAD: Duration = Duration::from_secs(5);

/// How often everything known is compared with one other node.
pub(super) const DIGEST_EVERY: Duration = Duration::from_secs(10);

/// How often, and how many times, after a member went: not all may have heard its last words.
const HURRY: Duration = Duration::from_millis(500);
const HURRIED: u32 = 8;

impl Core {
    /// Live members besides this node.
    pub(super) fn live_peers(&self) -> impl Iterator<Item = &Member> {
        self.membership.members().filter(|member| member.is_live())
    }

    pub(super) fn live_origins(&self) -> BTreeSet<Origin> {
        let links = self.peers.values().filter_map(|peer| peer.link.as_ref());
        let linked = links.map(|link| link.hello.origin);
        self.live_peers()
            .map(Member::origin)
            .chain(linked)
            .collect()
    }

    pub(super) fn link(&self, node: NodeKey) -> Option<&Link> {
        self.peers.get(&node)?.link.as_ref()
    }

    pub(super) fn link_mut(&mut self, node: NodeKey) -> Option<&mut Link> {
        self.peers.get_mut(&node)?.link.as_mut()
    }

    /// Sends a frame to a node, if there is a link.
    pub(super) fn send(&mut self, node: NodeKey, frame: Frame) {
        if let Some(link) = self.link_mut(node) {
            link.said = true;
            let link = link.id;
            self.effects.push(Effect::Frame { link, frame });
        }
    }

    /// Sends a frame to every linked node but one.
    pub(super) fn send_all(&mut self, frame: &Frame, except: Option<NodeKey>) {
        for (node, peer) in &mut self.peers {
            if let Some(link) = peer.link.as_mut().filter(|_| Some(*node) != except) {
                link.said = true;
                self.effects.push(Effect::Frame {
                    link: link.id,
                    frame: frame.clone(),
                });
            }
        }
    }

    pub(super) fn link_came_up(&mut self, id: u64, hello: Hello, now: Now) {
        let node = hello.origin.node;
        let protocol = hello.proto_max.min(self.config.proto_max);
        let fits = hello.proto_min <= protocol && PROTOCOL_MIN <= protocol;
        let older = self
            .link(node)
            .is_some_and(|link| link.hello.origin.boot > hello.origin.boot);
        let foreign = node == self.config.me.node || hello.cluster != self.config.cluster;
        if foreign || !fits || older || self.is_named_otherwise(&hello) {
            tracing::warn!(
                node = hello.name,
                cluster = hello.cluster,
                protocols = %format_args!("{}-{}", hello.proto_min, hello.proto_max),
                "a link is refused"
            );
            self.effects.push(Effect::CloseLink { link: id });
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.dial.pending = None;
                peer.dial.not_before = now.mono + REDIAL_MOST;
            }
            return;
        }
        if let Some(old) = self.link(node) {
            let (old, origin) = (old.id, old.hello.origin);
            self.effects.push(Effect::CloseLink { link: old });
            self.membership.link_down(origin, now.mono);
        }
        self.figures.links_up += 1;
        let origin = hello.origin;
        let me = self.config.me;
        let peer = self.peers.entry(node).or_default();
        peer.build.clone_from(&hello.build);
        peer.heard = Some(now.mono);
        peer.dial = Default::default();
        peer.ahead_since = None;
        peer.store_away = false;
        peer.link = Some(Link::new(id, me, hello, protocol, now.mono));
        self.membership.link_up(origin, now.mono);
        self.greet(node, now);
    }

    /// Whether the node is known by another name than its certificate has: then it is not that node.
    /// One that was renamed comes back with a later boot, once its last link has ended.
    fn is_named_otherwise(&self, hello: &Hello) -> bool {
        let linked = self.link(hello.origin.node);
        let member = self.membership.by_node(hello.origin.node);
        let member = member.filter(|member| member.identity.boot >= hello.origin.boot);
        linked.is_some_and(|link| link.hello.name != hello.name)
            || member.is_some_and(|member| member.identity.name != hello.name)
    }

    /// What a new link carries first.
    fn greet(&mut self, node: NodeKey, now: Now) {
        if self.ready.clock_known {
            let digest = self.digest();
            self.send(node, Frame::Digest(digest));
        } else if let Some(link) = self.link_mut(node) {
            // What it counted is asked for when the clocks are compared.
            link.pings += 1;
            let number = link.pings;
            let sent = now.mono;
            self.send(node, Frame::Ping { number, sent });
        }
        if let Some(revision) = self.news.applied {
            self.send(node, Frame::Applied { revision });
        }
        if let Some(mark) = self.news.mark.clone() {
            self.send(node, Frame::Configuration(mark));
        }
        if self.draining {
            self.send(node, Frame::Drain);
        }
        if self.duties.store_away {
            self.send(node, Frame::StoreAway { away: true });
        }
        self.send_revocations(node);
        self.send_outcomes(node);
    }

    /// What is known of each origin. The store's cells have no version; who has them says 0.
    pub(super) fn digest(&self) -> Vec<(Origin, u64)> {
        self.counting
            .store
            .origins()
            .map(|(origin, cells)| (origin, cells.seen()))
            .collect()
    }

    pub(super) fn link_went_down(&mut self, id: u64, node: NodeKey, now: Now) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let Some(link) = peer.link.take_if(|link| link.id == id) else {
            return;
        };
        self.figures.links_down += 1;
        peer.dial.not_before = now.mono;
        self.membership.link_down(link.hello.origin, now.mono);
        self.revocations.unlinked(node);
    }

    pub(super) fn dial_failed(&mut self, node: NodeKey, refused: bool, now: Now) {
        let jitter = self.rng.random_range(0.5..1.0);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let dial = &mut peer.dial;
        dial.pending = None;
        dial.failures = dial.failures.saturating_add(1);
        let wait = (REDIAL * 2_u32.saturating_pow(dial.failures.min(8))).min(REDIAL_MOST);
        dial.not_before = now.mono + wait.mul_f64(jitter);
        let outcome = match refused {
            true => ProbeOutcome::Refused,
            false => ProbeOutcome::Silent,
        };
        self.membership.link_probed(node, outcome, now.mono);
    }

    /// Dials, pings, compares, and gives up links that are dead.
    pub(super) fn tend_links(&mut self, now: Now) {
        self.dial_members(now);
        let mut dead = Vec::new();
        let mut pings = Vec::new();
        let every = match self.peers.len() {
            ..=SMALL => PING_SMALL,
            _ => PING,
        };
        let silence = (self.config.sync_interval * SAY_WITHIN).saturating_sub(LOOK);
        for (node, peer) in &mut self.peers {
            let Some(link) = &mut peer.link else {
                continue;
            };
            let due = link.has_been_silent(silence, now.mono) || now.mono >= link.next_ping;
            if link.silent_for(now.mono) >= DEAD {
                dead.push((*node, link.id));
            } else if due {
                link.next_ping = now.mono + every;
                link.pings += 1;
                pings.push((*node, link.pings));
            }
        }
        for (node, link) in dead {
            self.effects.push(Effect::CloseLink { link });
            self.link_went_down(link, node, now);
        }
        for (node, number) in pings {
            let sent = now.mono;
            self.send(node, Frame::Ping { number, sent });
        }
        if now.mono >= self.next_digest {
            let hurried = self.hurried_digests > 0;
            self.hurried_digests = self.hurried_digests.saturating_sub(1);
            self.next_digest = now.mono + if hurried { HURRY } else { DIGEST_EVERY };
            self.compare_with_one();
        }
    }

    fn linked(&self) -> Vec<NodeKey> {
        let linked = self.peers.iter().filter(|(_, peer)| peer.link.is_some());
        linked.map(|(node, _)| *node).collect()
    }

    /// Asks every linked node for what it knows.
    pub(super) fn compare_with_all(&mut self) {
        for node in self.linked() {
            let digest = self.digest();
            self.send(node, Frame::Digest(digest));
        }
    }

    /// Cluster time leapt ahead: what came before was refused as too far ahead, or may be. Every link
    /// begins anew, and the store is read again.
    pub(super) fn ask_for_all_again(&mut self, now: Now) {
        self.counting.store.doubt(self.config.me);
        self.flush.reload_at(now.mono);
        for node in self.linked() {
            if let Some(link) = self.link(node).map(|link| link.id) {
                self.effects.push(Effect::CloseLink { link });
                self.link_went_down(link, node, now);
            }
        }
    }

    fn compare_with_one(&mut self) {
        let linked = self.linked();
        if linked.is_empty() || !self.ready.clock_known {
            return;
        }
        let node = linked[self.rng.random_range(0..linked.len())];
        let digest = self.digest();
        self.figures.digests_sent += 1;
        self.send(node, Frame::Digest(digest));
    }

    fn dial_members(&mut self, now: Now) {
        let me = self.config.me.node;
        let due: Vec<(NodeKey, String, SocketAddr)> = self
            .live_peers()
            .filter(|member| me < member.identity.node)
            .filter(|member| match self.peers.get(&member.identity.node) {
                None => true,
                Some(peer) => {
                    let boot = peer.link.as_ref().map(|link| link.hello.origin.boot);
                    boot.is_none_or(|boot| boot < member.identity.boot)
                        && peer
                            .dial
                            .pending
                            .is_none_or(|since| now.mono >= since + PATIENCE)
                        && now.mono >= peer.dial.not_before
                }
            })
            .map(|member| {
                let identity = &member.identity;
                (identity.node, identity.name.clone(), identity.link_addr())
            })
            .collect();
        for (node, name, addr) in due {
            self.peers.entry(node).or_default().dial.pending = Some(now.mono);
            self.effects.push(Effect::Dial { node, name, addr });
        }
    }

    pub(super) fn exchange_asked(&mut self, exchange: u64, bytes: &[u8], now: Now) {
        match self.membership.exchange_asked(bytes, now.mono) {
            Ok(bytes) => self
                .effects
                .push(Effect::AnswerExchange { exchange, bytes }),
            Err(error) => tracing::debug!(%error, "an exchange is refused"),
        }
    }

    pub(super) fn exchange_answered(
        &mut self,
        to: SocketAddr,
        result: Result<&[u8], ExchangeFailure>,
        now: Now,
    ) {
        if let Err(failure) = result {
            self.exchange_failed(to, failure);
        }
        self.membership.exchange_answered(to, result, now.mono);
    }

    /// Does what membership wants done.
    pub(super) fn follow_membership(&mut self, now: Now) {
        for effect in self.membership.take_effects() {
            match effect {
                MembershipEffect::Datagram { to, bytes } => {
                    self.effects.push(Effect::Datagram { to, bytes });
                }
                MembershipEffect::Exchange { to, bytes } => {
                    self.effects.push(Effect::Exchange { to, bytes });
                }
                MembershipEffect::ProbeLink { node, addr } => {
                    self.effects.push(Effect::ProbeLink { node, addr });
                }
                MembershipEffect::AskOthers { about } => {
                    self.send_all(&Frame::Suspect { about }, Some(about.node));
                }
                MembershipEffect::Up(origin) => self.member_came(origin, now),
                MembershipEffect::Down { origin, left } => self.member_went(origin, left, now),
                MembershipEffect::Changed(_) => self.members_changed = true,
                MembershipEffect::NameTaken { by, name } => {
                    tracing::error!(%by, name, "another live node has this node's name");
                    self.name_taken = Some(by);
                }
                MembershipEffect::Answered(ping) => self.ping_answered(ping, now),
                MembershipEffect::KeyTaken(twin) => self.key_taken(twin),
            }
        }
    }

    fn key_taken(&mut self, twin: Option<Twin>) {
        self.members_changed = true;
        match twin {
            None => tracing::info!("no other process has this node's key any more"),
            Some(twin) => tracing::error!(
                at = %twin.addr,
                boot = twin.origin.boot,
                came_first = twin.is_first,
                "another live process has this node's key: was its data_dir copied? Stop one of them and empty its data_dir"
            ),
        }
    }

    fn member_came(&mut self, origin: Origin, now: Now) {
        self.figures.members_up += 1;
        // What failed while it was away says nothing about now.
        self.peers.entry(origin.node).or_default().dial = Default::default();
        self.members_changed = true;
        self.name_taken = self.membership.name_taken_by();
        let mut origins = self.counting.store.origins().map(|(known, _)| known);
        if origins.any(|known| known.node == origin.node && known.boot < origin.boot) {
            // Its last run may have stored more than it told.
            self.flush
                .reload_at(now.mono + super::flush::RELOAD_AFTER_DEATH);
        }
    }

    fn member_went(&mut self, origin: Origin, left: bool, now: Now) {
        tracing::info!(%origin, left, "a member is gone");
        match left {
            true => self.figures.members_left += 1,
            false => self.figures.members_down += 1,
        }
        self.members_changed = true;
        self.name_taken = self.membership.name_taken_by();
        self.hurried_digests = HURRIED;
        self.next_digest = self.next_digest.min(now.mono + HURRY);
        // Who leaves ends its links itself: what it counted last may still be on its way.
        let closing = self
            .link(origin.node)
            .filter(|link| link.hello.origin == origin && !left)
            .map(|link| link.id);
        if let Some(link) = closing {
            self.effects.push(Effect::CloseLink { link });
            self.link_went_down(link, origin.node, now);
        }
        self.flush
            .reload_at(now.mono + super::flush::RELOAD_AFTER_DEATH);
    }

    /// Forgets what is kept of nodes that membership has forgotten.
    pub(super) fn forget_peers(&mut self) {
        let membership = &self.membership;
        self.peers.retain(|node, peer: &mut Peer| {
            peer.link.is_some() || membership.by_node(*node).is_some()
        });
    }
}
