//! Nodes over a network in memory, on a clock of its own.
//!
//! Time goes in steps of 10 ms, as the driver's; packets arrive in between. Links are kept as the
//! driver keeps them: made between members that see each other, ended at once by a refusing host and
//! after 4 s of silence otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Bound;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::core::{ExchangeFailure, MemberState, ProbeOutcome};
use crate::data_dir::NodeKey;
use crate::membership::wire::Exchange;
use crate::membership::{DATAGRAM_BYTES, Identity, Membership, MembershipConfig, MembershipEffect};
use crate::origin::Origin;

const STEP: Duration = Duration::from_millis(10);
const KEEPALIVE: Duration = Duration::from_secs(4);

/// What became of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Running,
    /// The process stands still; its kernel takes connections.
    Paused,
    /// The process is dead; its host refuses.
    Refusing,
    /// Nothing answers.
    Silent,
}

pub(super) struct Node {
    pub(super) membership: Membership,
    pub(super) host: Host,
}

enum Event {
    Datagram(Vec<u8>),
    Exchange {
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    Answer {
        peer: SocketAddr,
        result: Result<Vec<u8>, ExchangeFailure>,
    },
    Probed {
        node: NodeKey,
        outcome: ProbeOutcome,
    },
    Asked {
        by: SocketAddr,
        about: Origin,
    },
    Verdict {
        about: Origin,
        by: NodeKey,
        gone: bool,
    },
    LinkDown(Origin),
}

struct Link {
    ends: [(SocketAddr, Origin); 2],
    heard: Duration,
}

pub(super) struct Net {
    pub(super) now: Duration,
    pub(super) nodes: BTreeMap<SocketAddr, Node>,
    /// Part of datagrams that are lost.
    pub(super) loss: f64,
    pub(super) udp: bool,
    pub(super) tcp: bool,
    /// Whether exchanges carry datagrams, or lists only.
    pub(super) wrapping: bool,
    /// Whether members make links.
    pub(super) linking: bool,
    /// Addresses cut off from all others that are not in it.
    pub(super) island: BTreeSet<SocketAddr>,
    /// When which node was told what about whom.
    pub(super) told: Vec<(Duration, SocketAddr, MembershipEffect)>,
    /// One line for each effect.
    pub(super) trace: Vec<String>,
    /// All that was sent over UDP and TCP.
    pub(super) sent: Vec<Vec<u8>>,
    pub(super) tracing: bool,
    queue: BTreeMap<(Duration, u64), (SocketAddr, Event)>,
    count: u64,
    links: BTreeMap<(SocketAddr, SocketAddr), Link>,
    rng: StdRng,
}

pub(super) fn addr(n: u16) -> SocketAddr {
    let [high, low] = (n + 1).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, high, low)), 10_101)
}

pub(super) fn identity(n: u16, boot: u64) -> Identity {
    Identity {
        node: NodeKey(u128::from(n) + 1),
        boot,
        name: format!("node-{n}"),
        grpc_port: 10_102,
        proto_min: 1,
        proto_max: 2,
        caps: 1,
        region: "us-east-1".into(),
        zone: "us-east-1a".into(),
        ..Identity::unknown_at(addr(n))
    }
}

pub(super) fn config(seeds: Vec<SocketAddr>) -> MembershipConfig {
    MembershipConfig {
        suspicion: Duration::from_secs(10),
        failure_threshold: 3,
        seeds,
        cluster: "tyr".into(),
    }
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Duration::from_secs(1),
            nodes: BTreeMap::new(),
            loss: 0.0,
            udp: true,
            tcp: true,
            wrapping: true,
            linking: true,
            island: BTreeSet::new(),
            told: Vec::new(),
            trace: Vec::new(),
            sent: Vec::new(),
            tracing: false,
            queue: BTreeMap::new(),
            count: 0,
            links: BTreeMap::new(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// A running cluster of `n`, all joined by the first.
    pub(super) fn joined(seed: u64, n: u16) -> Self {
        let mut net = Self::new(seed);
        for i in 0..n {
            net.start(identity(i, 1), vec![addr(0)]);
        }
        net.run(40);
        assert!(net.all_up(), "the cluster is complete: {}", net.states());
        net.told.clear();
        net
    }

    pub(super) fn start(&mut self, me: Identity, seeds: Vec<SocketAddr>) {
        let at = me.addr;
        let membership = Membership::new(me, config(seeds), self.rng.random(), self.now);
        let host = Host::Running;
        self.nodes.insert(at, Node { membership, host });
    }

    pub(super) fn set(&mut self, n: u16, host: Host) {
        let at = addr(n);
        self.nodes.get_mut(&at).unwrap().host = host;
        if host == Host::Refusing {
            self.cut(at);
        }
    }

    /// Ends all links of a host, as a reset does.
    pub(super) fn cut(&mut self, at: SocketAddr) {
        let gone: Vec<_> = self
            .links
            .keys()
            .filter(|(a, b)| *a == at || *b == at)
            .copied()
            .collect();
        for key in gone {
            let link = self.links.remove(&key).unwrap();
            self.end(&link);
        }
    }

    fn end(&mut self, link: &Link) {
        let [(a, first), (b, second)] = link.ends;
        self.post(a, Duration::from_millis(1), Event::LinkDown(second));
        self.post(b, Duration::from_millis(1), Event::LinkDown(first));
    }

    pub(super) fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.step();
        }
    }

    /// Runs until `done`, which is looked at each 50 ms, and answers how long it took.
    pub(super) fn run_until(
        &mut self,
        seconds: u64,
        what: &str,
        done: impl Fn(&Self) -> bool,
    ) -> Duration {
        let start = self.now;
        while !done(self) {
            assert!(
                self.now < start + Duration::from_secs(seconds),
                "within {seconds} s: {what}; {}",
                self.states()
            );
            for _ in 0..5 {
                self.step();
            }
        }
        self.now - start
    }

    pub(super) fn step(&mut self) {
        let end = self.now + STEP;
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= end
        {
            let ((at, _), (to, event)) = entry.remove_entry();
            self.now = at.max(self.now);
            self.deliver(to, event);
        }
        self.now = end;
        let all: Vec<SocketAddr> = self.nodes.keys().copied().collect();
        for at in all {
            let node = self.nodes.get_mut(&at).unwrap();
            if node.host == Host::Running {
                node.membership.tick(end);
                self.collect(at);
            }
        }
        if self.linking && end.as_millis().is_multiple_of(100) {
            self.keep_links();
        }
    }

    fn post(&mut self, to: SocketAddr, after: Duration, event: Event) {
        self.count += 1;
        self.queue
            .insert((self.now + after, self.count), (to, event));
    }

    fn deliver(&mut self, to: SocketAddr, event: Event) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&to) else {
            return;
        };
        if node.host != Host::Running {
            // A paused process reads later what its kernel holds; here that is lost.
            if let Event::Exchange { from, .. } = event {
                let (failure, after) = match node.host {
                    Host::Refusing => (ExchangeFailure::Refused, Duration::from_millis(2)),
                    _ => (ExchangeFailure::TimedOut, Duration::from_secs(5)),
                };
                let result = Err(failure);
                self.post(from, after, Event::Answer { peer: to, result });
            }
            return;
        }
        let membership = &mut node.membership;
        match event {
            Event::Datagram(bytes) => membership.datagram(&bytes, now),
            Event::Exchange { from, bytes } => {
                let result = membership.exchange_asked(&bytes, now);
                let result = result.map_err(|_| ExchangeFailure::Broken);
                self.post(
                    from,
                    Duration::from_millis(2),
                    Event::Answer { peer: to, result },
                );
            }
            Event::Answer { peer, result } => {
                let result = result.as_deref().map_err(|failure| *failure);
                membership.exchange_answered(peer, result, now);
            }
            Event::Probed { node, outcome } => membership.link_probed(node, outcome, now),
            Event::Asked { by, about } => {
                let gone = membership.asked_about(about);
                let me = membership.me().node;
                self.post(
                    by,
                    Duration::from_millis(1),
                    Event::Verdict {
                        about,
                        by: me,
                        gone,
                    },
                );
            }
            Event::Verdict { about, by, gone } => membership.confirmed(about, by, gone, now),
            Event::LinkDown(origin) => membership.link_down(origin, now),
        }
        self.collect(to);
    }

    /// Whether packets get from one to the other.
    fn reaches(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.island.contains(&from) == self.island.contains(&to)
    }

    fn collect(&mut self, at: SocketAddr) {
        let effects = self.nodes.get_mut(&at).unwrap().membership.take_effects();
        for effect in effects {
            if self.tracing {
                self.trace.push(format!("{:?} {at} {effect:?}", self.now));
                if let MembershipEffect::Datagram { bytes, .. }
                | MembershipEffect::Exchange { bytes, .. } = &effect
                {
                    self.sent.push(bytes.clone());
                }
            }
            match effect {
                MembershipEffect::Datagram { to, bytes } => {
                    assert!(
                        bytes.len() <= DATAGRAM_BYTES,
                        "a datagram of {}",
                        bytes.len()
                    );
                    let lost = self.rng.random_bool(self.loss);
                    if self.udp && !lost && self.reaches(at, to) {
                        let after = Duration::from_micros(self.rng.random_range(500..2_000));
                        self.post(to, after, Event::Datagram(bytes));
                    }
                }
                MembershipEffect::Exchange { to, bytes } => self.exchange(at, to, bytes),
                MembershipEffect::ProbeLink { node, addr } => self.probe(at, node, addr),
                MembershipEffect::AskOthers { about } => {
                    let peers: Vec<SocketAddr> = self.peers(at);
                    for peer in peers {
                        self.post(
                            peer,
                            Duration::from_millis(1),
                            Event::Asked { by: at, about },
                        );
                    }
                }
                told => self.told.push((self.now, at, told)),
            }
        }
    }

    fn exchange(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let carried = self.wrapping || matches!(Exchange::decode(&bytes), Ok(Exchange::Lists(_)));
        if self.tcp && carried && self.reaches(from, to) && self.nodes.contains_key(&to) {
            self.post(
                to,
                Duration::from_millis(3),
                Event::Exchange { from, bytes },
            );
        } else {
            let result = Err(ExchangeFailure::TimedOut);
            self.post(
                from,
                Duration::from_secs(5),
                Event::Answer { peer: to, result },
            );
        }
    }

    fn probe(&mut self, from: SocketAddr, node: NodeKey, link: SocketAddr) {
        let gossip = SocketAddr::new(link.ip(), 10_101);
        let host = self.nodes.get(&gossip).map(|node| node.host);
        let (outcome, after) = match host {
            Some(Host::Running | Host::Paused) if self.reaches(from, gossip) => {
                (ProbeOutcome::Open, 2)
            }
            Some(Host::Refusing) if self.reaches(from, gossip) => (ProbeOutcome::Refused, 2),
            _ => (ProbeOutcome::Silent, 1_000),
        };
        self.post(
            from,
            Duration::from_millis(after),
            Event::Probed { node, outcome },
        );
    }

    fn peers(&self, at: SocketAddr) -> Vec<SocketAddr> {
        let ends = self.links.keys().filter(|(a, b)| *a == at || *b == at);
        let others = ends.map(|(a, b)| if *a == at { *b } else { *a });
        others.filter(|peer| self.reaches(at, *peer)).collect()
    }

    /// Makes, hears and ends links.
    fn keep_links(&mut self) {
        let now = self.now;
        let running = self.running();
        for (a, first) in &running {
            for (b, second) in running.range((Bound::Excluded(*a), Bound::Unbounded)) {
                if !self.reaches(*a, *b) || self.links.contains_key(&(*a, *b)) {
                    continue;
                }
                let dialer = &self.nodes[a].membership;
                if dialer
                    .by_node(second.node)
                    .is_some_and(|m| m.is_live() && m.origin() == *second)
                {
                    let ends = [(*a, *first), (*b, *second)];
                    self.links.insert((*a, *b), Link { ends, heard: now });
                    self.on(*a, |m| m.link_up(*second, now));
                    self.on(*b, |m| m.link_up(*first, now));
                }
            }
        }
        let mut silent = Vec::new();
        let mut heard = Vec::new();
        for (key, link) in &mut self.links {
            let alive = link
                .ends
                .iter()
                .all(|(at, origin)| running.get(at) == Some(origin));
            let joined = self.island.contains(&key.0) == self.island.contains(&key.1);
            if alive && joined {
                if now >= link.heard + Duration::from_secs(1) {
                    link.heard = now;
                    heard.push(link.ends);
                }
            } else if now >= link.heard + KEEPALIVE {
                silent.push(*key);
            }
        }
        for [(a, first), (b, second)] in heard {
            self.on(a, |m| m.link_heard(second, now));
            self.on(b, |m| m.link_heard(first, now));
        }
        for key in silent {
            let link = self.links.remove(&key).unwrap();
            self.end(&link);
        }
    }

    fn running(&self) -> BTreeMap<SocketAddr, Origin> {
        let running = self
            .nodes
            .iter()
            .filter(|(_, node)| node.host == Host::Running);
        running
            .map(|(at, node)| (*at, node.membership.me().origin()))
            .collect()
    }

    fn on(&mut self, at: SocketAddr, call: impl FnOnce(&mut Membership)) {
        call(&mut self.nodes.get_mut(&at).unwrap().membership);
        self.collect(at);
    }

    pub(super) fn with(&mut self, n: u16, call: impl FnOnce(&mut Membership, Duration)) {
        let now = self.now;
        self.on(addr(n), |membership| call(membership, now));
    }

    pub(super) fn node(&self, n: u16) -> &Membership {
        &self.nodes[&addr(n)].membership
    }

    /// How node `n` sees node `other`.
    pub(super) fn state(&self, n: u16, other: u16) -> Option<MemberState> {
        let key = NodeKey(u128::from(other) + 1);
        self.node(n).by_node(key).map(|member| member.state)
    }

    /// Whether all running nodes see exactly all running nodes as up.
    pub(super) fn all_up(&self) -> bool {
        let running = self.running();
        running.iter().all(|(at, me)| {
            let seen: BTreeSet<Origin> = self.nodes[at]
                .membership
                .members()
                .filter(|m| m.is_live() && (!self.linking || m.state == MemberState::Up))
                .map(|member| member.origin())
                .collect();
            let others = running.values().copied().filter(|origin| origin != me);
            others.collect::<BTreeSet<_>>() == seen
        })
    }

    /// Whether all running nodes see that node as down or gone.
    pub(super) fn all_see_down(&self, other: u16) -> bool {
        let at = addr(other);
        self.nodes
            .iter()
            .filter(|(a, node)| **a != at && node.host == Host::Running)
            .all(|(_, node)| {
                let key = NodeKey(u128::from(other) + 1);
                node.membership
                    .by_node(key)
                    .is_none_or(|member| !member.is_live())
            })
    }

    /// Who was told that somebody is down.
    pub(super) fn downs(&self) -> Vec<&(Duration, SocketAddr, MembershipEffect)> {
        let downs = self.told.iter();
        downs
            .filter(|(.., effect)| matches!(effect, MembershipEffect::Down { .. }))
            .collect()
    }

    pub(super) fn states(&self) -> String {
        use std::fmt::Write;
        let mut text = format!("at {:?}:", self.now);
        for (at, node) in self.nodes.iter().take(12) {
            write!(text, "\n{} {:?}:", at.ip(), node.host).unwrap();
            for member in node.membership.members().take(12) {
                let (name, state) = (&member.identity.name, member.state);
                write!(text, " {name}={state:?}").unwrap();
            }
        }
        text
    }
}
