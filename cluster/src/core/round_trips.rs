//! Round trips to every member, made for a diagnosis: over UDP, over TCP and over the link.
//!
//! Promise: each is told as soon as its answer comes, and as failed after [`DEADLINE`] at the latest;
//! then the diagnosis ends. Nothing else changes by them, and a member that does not answer is not
//! suspected for it. Owner of what is awaited. Failure: a datagram may be lost, so it is sent up to
//! [`TRIES`] times.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::effect::Diagnosis;
use super::{Core, Effect, ExchangeFailure, Now};
use crate::data_dir::NodeKey;
use crate::membership::{PINGS, Ping};
use crate::message::Frame;

/// How long an answer is waited for.
const DEADLINE: Duration = Duration::from_secs(2);

/// How often, and how many times at most, a datagram is sent until one is answered.
const AGAIN: Duration = Duration::from_millis(500);
const TRIES: u8 = PINGS - 1;

/// Diagnoses at a time.
const ROUNDS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    Udp,
    Tcp,
    Grpc,
}

/// All that one diagnosis waits for.
#[derive(Debug)]
struct Round {
    until: Duration,
    /// The first of the numbers of its pings: one over TCP, the others over UDP.
    first: u8,
    awaited: Vec<Awaited>,
}

#[derive(Clone, Debug)]
struct Awaited {
    node: NodeKey,
    channel: Channel,
    name: String,
    addr: SocketAddr,
    /// For how long the stream has been up.
    up: Duration,
    /// Numbers, and when each went.
    sent: Vec<(u64, Duration)>,
}

/// Diagnoses that are not over.
#[derive(Debug, Default)]
pub(super) struct RoundTrips(BTreeMap<u64, Round>);

// === impl Channel ===

impl Channel {
    const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Grpc];

    fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Grpc => "grpc",
        }
    }
}

// === impl Round ===

impl Round {
    /// The number of a ping that goes over UDP for the nth time.
    fn over_udp(&self, nth: u8) -> u8 {
        self.first.wrapping_add(nth)
    }

    fn take(&mut self, which: impl Fn(&Awaited) -> bool) -> Vec<Awaited> {
        let (taken, left) = std::mem::take(&mut self.awaited)
            .into_iter()
            .partition(which);
        self.awaited = left;
        taken
    }
}

// === impl RoundTrips ===

impl RoundTrips {
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < ROUNDS
    }

    /// What is awaited no longer, with the diagnosis it belongs to.
    fn take(&mut self, which: impl Fn(&Awaited) -> bool) -> Vec<(u64, Awaited)> {
        let rounds = self.0.iter_mut();
        let taken = rounds.flat_map(|(id, round)| {
            let taken = round.take(&which).into_iter();
            taken.map(|awaited| (*id, awaited))
        });
        taken.collect()
    }
}

// === impl Core ===

impl Core {
    /// Sends a ping to each member by each channel.
    pub(super) fn begin_round_trips(
        &mut self,
        id: u64,
        members: Vec<(NodeKey, String, SocketAddr)>,
        now: Now,
    ) {
        let mut round = Round {
            until: now.mono + DEADLINE,
            first: self.membership.ping_numbers(),
            awaited: Vec::new(),
        };
        for (node, name, addr) in members {
            let link = self.link(node);
            let up = link.map_or(Duration::ZERO, |link| now.mono.saturating_sub(link.since));
            for channel in Channel::ALL {
                let mut awaited = Awaited {
                    node,
                    channel,
                    name: name.clone(),
                    addr,
                    up,
                    sent: Vec::new(),
                };
                let sent = match channel {
                    Channel::Udp => self.ping_by_gossip(node, false, round.over_udp(1), now),
                    Channel::Tcp => self.ping_by_gossip(node, true, round.first, now),
                    Channel::Grpc => self.ping_by_link(node, now),
                };
                match sent {
                    Ok(number) => {
                        awaited.sent.push((number, now.mono));
                        round.awaited.push(awaited);
                    }
                    Err(detail) => self.tell_round_trip(id, awaited, Err(detail)),
                }
            }
        }
        self.round_trips.0.insert(id, round);
        self.close_rounds();
    }

    fn ping_by_gossip(
        &mut self,
        to: NodeKey,
        by_tcp: bool,
        number: u8,
        now: Now,
    ) -> Result<u64, String> {
        let ping = Ping { to, by_tcp, number };
        match self.membership.ping(ping, now.mono) {
            true => Ok(number.into()),
            false => Err("not asked: too many exchanges with it have no answer".to_owned()),
        }
    }

    fn ping_by_link(&mut self, node: NodeKey, now: Now) -> Result<u64, String> {
        let Some(link) = self.link_mut(node) else {
            return Err(self.why_no_link(node));
        };
        link.pings += 1;
        let (number, sent) = (link.pings, now.mono);
        self.send(node, Frame::Ping { number, sent });
        Ok(number)
    }

    fn why_no_link(&self, node: NodeKey) -> String {
        if node < self.config.me.node {
            let port = self.config.grpc_port;
            return format!("no stream: the other one connects, to port {port} of this node");
        }
        let failures = self.peers.get(&node).map_or(0, |peer| peer.dial.failures);
        match self.membership.by_node(node) {
            Some(member) => {
                let addr = member.identity.link_addr();
                format!("no stream: {failures} tries to connect to {addr} failed")
            }
            None => "no stream".to_owned(),
        }
    }

    /// A member answered a ping that is not of its link.
    pub(super) fn ping_answered(&mut self, ping: Ping, now: Now) {
        let channel = match ping.by_tcp {
            true => Channel::Tcp,
            false => Channel::Udp,
        };
        self.round_trip_ended(ping.to, channel, ping.number.into(), now);
    }

    /// A member answered a ping of its link.
    pub(super) fn link_answered(&mut self, node: NodeKey, number: u64, now: Now) {
        self.round_trip_ended(node, Channel::Grpc, number, now);
    }

    fn round_trip_ended(&mut self, node: NodeKey, channel: Channel, number: u64, now: Now) {
        let sent = |awaited: &Awaited| {
            let of = awaited.node == node && awaited.channel == channel;
            let mut sent = awaited.sent.iter().filter(|(sent, _)| *sent == number);
            sent.next().filter(|_| of).map(|(_, at)| *at)
        };
        for (id, awaited) in self.round_trips.take(|awaited| sent(awaited).is_some()) {
            let at = sent(&awaited).unwrap_or(now.mono);
            let took = now.mono.saturating_sub(at);
            self.tell_round_trip(id, awaited, Ok(took));
        }
        self.close_rounds();
    }

    /// An exchange came to nothing. One that broke off or timed out may be an older one.
    pub(super) fn exchange_failed(&mut self, to: SocketAddr, failure: ExchangeFailure) {
        let detail = match failure {
            ExchangeFailure::Refused => format!("{to} refuses to connect"),
            ExchangeFailure::NoRoom => "not asked: this node has too many exchanges".to_owned(),
            ExchangeFailure::Broken | ExchangeFailure::TimedOut => return,
        };
        let failed = |awaited: &Awaited| awaited.channel == Channel::Tcp && awaited.addr == to;
        for (id, awaited) in self.round_trips.take(failed) {
            self.tell_round_trip(id, awaited, Err(detail.clone()));
        }
        self.close_rounds();
    }

    /// Sends datagrams again, and gives up what was awaited for too long.
    pub(super) fn tend_round_trips(&mut self, now: Now) {
        let mut rounds = std::mem::take(&mut self.round_trips.0);
        for (id, round) in &mut rounds {
            if now.mono >= round.until {
                for awaited in round.take(|_| true) {
                    let detail = awaited.unanswered();
                    self.tell_round_trip(*id, awaited, Err(detail));
                }
            }
            let tries = (1..=TRIES)
                .map(|nth| round.over_udp(nth))
                .collect::<Vec<_>>();
            let late = |awaited: &&mut Awaited| {
                let last = awaited.sent.last().map(|(_, at)| *at);
                awaited.channel == Channel::Udp
                    && awaited.sent.len() < tries.len()
                    && last.is_some_and(|last| now.mono >= last + AGAIN)
            };
            for awaited in round.awaited.iter_mut().filter(late) {
                let number = tries[awaited.sent.len()];
                if let Ok(number) = self.ping_by_gossip(awaited.node, false, number, now) {
                    awaited.sent.push((number, now.mono));
                }
            }
        }
        self.round_trips.0 = rounds;
        self.close_rounds();
    }

    /// This node leaves: no answer comes any more.
    pub(super) fn end_round_trips(&mut self) {
        for (id, awaited) in self.round_trips.take(|_| true) {
            self.tell_round_trip(id, awaited, Err("this node leaves".to_owned()));
        }
        self.close_rounds();
    }

    fn close_rounds(&mut self) {
        let effects = &mut self.effects;
        self.round_trips.0.retain(|id, round| {
            let waits = !round.awaited.is_empty();
            if !waits {
                effects.push(Effect::DiagnosisEnded { id: *id });
            }
            waits
        });
    }

    fn tell_round_trip(&mut self, id: u64, awaited: Awaited, came: Result<Duration, String>) {
        let diagnosis = Diagnosis {
            check: awaited.channel.as_str(),
            ok: came.is_ok(),
            took: came.as_ref().ok().copied(),
            detail: match came {
                Ok(_) => awaited.answered(),
                Err(detail) => detail,
            },
            node: awaited.name,
        };
        self.effects.push(Effect::Diagnosed { id, diagnosis });
    }
}

// === impl Awaited ===

impl Awaited {
    fn answered(&self) -> String {
        match (self.channel, self.sent.len()) {
            (Channel::Grpc, _) => format!("the stream is up for {} s", self.up.as_secs()),
            (_, 0 | 1) => self.addr.to_string(),
            (_, sent) => format!("{}, {sent} datagrams sent", self.addr),
        }
    }

    fn unanswered(&self) -> String {
        let within = DEADLINE.as_secs();
        let Self { addr, sent, .. } = self;
        match self.channel {
            Channel::Udp => format!(
                "no answer to {} datagrams to {addr} in {within} s",
                sent.len()
            ),
            Channel::Tcp => format!("no answer from {addr} in {within} s"),
            Channel::Grpc => format!("no answer over the stream in {within} s"),
        }
    }
}
