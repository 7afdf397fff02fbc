//! Gossip: foca with its timers, its packets and what it lacks (TCP where UDP fails, patience of a
//! node that is late itself, slower suspicion where probes are lost).
//!
//! Promise: sans I/O, deterministic. Owner of foca's state. Failure: a packet that cannot be read is
//! counted; an error of foca's own leaves its state as it was.

mod path;
mod timers;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use bytes::BufMut;
use foca::{Codec, Config, Foca, Header, Message, Notification, Runtime, State, Timer};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tracing::{debug, info};

use self::path::{Paths, Way};
pub(super) use self::timers::LATE;
use self::timers::Timers;

use super::effect::{GossipStats, MembershipEffect, Ping};
use super::identity::Identity;
use super::notice::{Notice, NoticeBoard};
use super::wire::{Exchange, WRAPPED, WireCodec};
use super::{DATAGRAM_BYTES, MembershipConfig, PINGS};

/// A change is told at least so many times by each who learns it, twice as often where probes are
/// lost.
const TRANSMISSIONS: u8 = 4;
/// Members that are told directly that this node leaves; the others learn it by gossip.
const FAREWELLS: usize = 64;

/// Who sent a packet.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) from: Identity,
    /// The sender has this node in its list, with its present identity.
    pub(super) lists_us: bool,
}

/// The probe that foca runs; it runs one at a time.
#[derive(Debug)]
struct Probe {
    to: Identity,
    number: foca::ProbeNumber,
    packet: Vec<u8>,
    by_udp: bool,
    answered: bool,
    answered_by_udp: bool,
}

pub(super) struct Swim {
    foca: Foca<Identity, WireCodec, StdRng, NoticeBoard>,
    inbox: Receiver<Notice>,
    outbox: Outbox,
    timers: Timers,
    paths: Paths,
    probe: Option<Probe>,
    /// Packets that go over TCP when the call ends.
    wraps: BTreeMap<SocketAddr, Vec<Vec<u8>>>,
    /// While the answer to a peer's wrapped packets is made: what goes to that peer.
    captured: Option<(SocketAddr, Vec<Vec<u8>>)>,
    /// While a peer's probe by UDP is answered: that peer.
    answers_by_udp: Option<SocketAddr>,
    effects: Vec<MembershipEffect>,
    suspicion: Duration,
    indirect_probes: NonZeroUsize,
    /// Numbers of pings that were given away.
    pings: u8,
    /// What foca's configuration was made for: a power of two of members, and lost probes.
    made_for: (u32, bool),
    stats: GossipStats,
}

impl Swim {
    pub(super) fn new(me: Identity, config: &MembershipConfig, seed: u64) -> Self {
        let (board, inbox) = NoticeBoard::new();
        let indirect_probes = usize::try_from(config.failure_threshold.clamp(1, 8))
            .ok()
            .and_then(NonZeroUsize::new)
            .unwrap_or(NonZeroUsize::MIN);
        let made_for = (2, true);
        let foca = Foca::with_custom_broadcast(
            me,
            foca_config(made_for, config.suspicion, indirect_probes),
            StdRng::seed_from_u64(seed),
            WireCodec,
            board,
        );
        Self {
            foca,
            inbox,
            outbox: Outbox::default(),
            timers: Timers::default(),
            paths: Paths::default(),
            probe: None,
            wraps: BTreeMap::new(),
            captured: None,
            answers_by_udp: None,
            effects: Vec::new(),
            suspicion: config.suspicion,
            indirect_probes,
            pings: 0,
            made_for,
            stats: GossipStats::default(),
        }
    }

    pub(super) fn me(&self) -> &Identity {
        self.foca.identity()
    }

    /// All that gossip knows, dead members included.
    pub(super) fn states(&self) -> impl Iterator<Item = &foca::Member<Identity>> {
        self.foca.iter_membership_state()
    }

    pub(super) fn stats(&self) -> GossipStats {
        self.stats
    }

    pub(super) fn stats_mut(&mut self) -> &mut GossipStats {
        &mut self.stats
    }

    /// Members whose packets go over TCP, since UDP does not reach them.
    pub(super) fn wrapped_peers(&self) -> usize {
        self.paths.wrapped()
    }

    pub(super) fn health(&self) -> u32 {
        self.timers.health()
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.timers.due()
    }

    pub(super) fn overdue(&self, now: Duration) -> Duration {
        self.timers.overdue(now)
    }

    pub(super) fn note_lateness(&mut self, late: Duration, now: Duration) {
        self.timers.note_lateness(late, now);
    }

    /// Notices that came since the last call.
    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        self.inbox.try_iter().collect()
    }

    /// Whether the others took this process for dead since the last call, so that it has a new
    /// identity.
    pub(super) fn take_rejoined(&mut self) -> bool {
        std::mem::take(&mut self.outbox.rejoined)
    }

    /// What is to be sent.
    pub(super) fn take_effects(&mut self, now: Duration) -> Vec<MembershipEffect> {
        for (to, packets) in std::mem::take(&mut self.wraps) {
            let count = packets.len() as u64;
            let from = self.me().addr;
            if self.exchange(to, Exchange::Wrapped { from, packets }, now) {
                self.stats.wrapped += count;
            }
        }
        std::mem::take(&mut self.effects)
    }

    /// Does what is due by time.
    pub(super) fn fire(&mut self, now: Duration) {
        self.timers.recover(now);
        while let Some(timer) = self.timers.next(now) {
            match &timer {
                Timer::SendIndirectProbe { probed_id, .. } => self.probe_by_tcp(probed_id),
                // foca tells a member that it is down although it refuted the suspicion meanwhile,
                // and a member that is told so takes another identity.
                Timer::ChangeSuspectToDown {
                    member_id,
                    incarnation,
                    ..
                } if !self.is_suspect(member_id, *incarnation) => continue,
                _ => {}
            }
            if let Err(error) = self.foca.handle_timer(timer, &mut self.outbox) {
                debug!(%error, "gossip timer");
            }
            self.absorb(now);
        }
        self.refit(now);
    }

    fn is_suspect(&self, id: &Identity, incarnation: foca::Incarnation) -> bool {
        self.foca.iter_members().any(|member| {
            member.id() == id
                && member.incarnation() == incarnation
                && member.state() == State::Suspect
        })
    }

    /// The direct probe has no answer yet: while others are asked to probe, ask the same over TCP.
    fn probe_by_tcp(&mut self, probed: &Identity) {
        let Some(probe) = &self.probe else { return };
        if probe.answered || probe.to != *probed || !probe.by_udp {
            return;
        }
        self.paths.missed(probed.addr);
        push(&mut self.wraps, probed.addr, probe.packet.clone());
    }

    /// Takes in a packet. `None` when it cannot be read or is no peer's.
    pub(super) fn receive(&mut self, bytes: &[u8], by_tcp: bool, now: Duration) -> Option<Heard> {
        self.stats.datagrams_received += 1;
        self.stats.bytes_received += bytes.len() as u64;
        let header = match WireCodec.decode_header(bytes) {
            Ok(header) if bytes.len() <= DATAGRAM_BYTES && header.src.addr != self.me().addr => {
                header
            }
            _ => {
                self.stats.malformed += 1;
                return None;
            }
        };
        let lists_us = header.dst == *self.me() && header.message != Message::TurnUndead;
        self.note_life(&header, by_tcp, now);
        if let Err(error) = self.foca.handle_data(bytes, &mut self.outbox) {
            debug!(%error, from = %header.src.addr, "gossip packet");
            self.stats.malformed += 1;
        }
        // A probe by UDP is answered by UDP: the prober wants to know whether that works.
        let tries_udp = !by_tcp && matches!(header.message, Message::Ping(_));
        self.answers_by_udp = tries_udp.then_some(header.src.addr);
        self.absorb(now);
        self.answers_by_udp = None;
        Some(Heard {
            from: header.src,
            lists_us,
        })
    }

    /// Far from the number of foca's probe, which grows by one a second.
    pub(super) fn ping_numbers(&mut self) -> u8 {
        let probe = self.probe.as_ref().map_or(0, |probe| probe.number);
        self.pings = self.pings.wrapping_add(PINGS) % 128;
        probe.wrapping_add(64).wrapping_add(self.pings)
    }

    /// Pings a member by the way that is asked for, whatever is known of the ways.
    pub(super) fn ping(&mut self, to: &Identity, ping: Ping, now: Duration) -> bool {
        let header = Header {
            src: self.me().clone(),
            src_incarnation: 0,
            dst: to.clone(),
            message: Message::Ping(ping.number),
        };
        let mut bytes = Vec::new();
        if WireCodec.encode_header(&header, &mut bytes).is_err() {
            return false;
        }
        let to = to.addr;
        if ping.by_tcp {
            let (from, packets) = (self.me().addr, vec![bytes]);
            return self.exchange(to, Exchange::Wrapped { from, packets }, now);
        }
        self.stats.datagrams_sent += 1;
        self.stats.bytes_sent += bytes.len() as u64;
        self.effects.push(MembershipEffect::Datagram { to, bytes });
        true
    }

    fn note_life(&mut self, header: &Header<Identity>, by_tcp: bool, now: Duration) {
        let from = header.src.addr;
        if let Message::Ack(number) = header.message {
            let to = header.src.node;
            let ping = Ping { to, by_tcp, number };
            self.effects.push(MembershipEffect::Answered(ping));
        }
        if let Message::Ack(number) = header.message
            && let Some(probe) = &mut self.probe
            && probe.number == number
            && probe.to == header.src
        {
            if probe.by_udp && !by_tcp && !probe.answered_by_udp {
                probe.answered_by_udp = true;
                self.paths.answered(from);
                self.stats.probes_answered += 1;
            }
            probe.answered = true;
        }
        self.stats.probes_lost += u64::from(self.paths.heard(from, by_tcp, now));
    }

    /// Packets to `to` are kept until [`Self::captured`], to go back as an answer.
    pub(super) fn capture(&mut self, to: SocketAddr) {
        self.captured = Some((to, Vec::new()));
    }

    pub(super) fn captured(&mut self) -> Vec<Vec<u8>> {
        self.captured
            .take()
            .map(|(_, packets)| packets)
            .unwrap_or_default()
    }

    /// Asks whoever is there to tell about its cluster.
    pub(super) fn announce(&mut self, to: Identity, now: Duration) {
        if let Err(error) = self.foca.announce(to, &mut self.outbox) {
            debug!(%error, "gossip announce");
        }
        self.absorb(now);
    }

    /// Takes in what was learnt otherwise than by gossip, and tells it on.
    pub(super) fn apply(&mut self, members: Vec<foca::Member<Identity>>, now: Duration) {
        let applied = self
            .foca
            .apply_many(members.into_iter(), true, &mut self.outbox);
        if let Err(error) = applied {
            debug!(%error, "gossip states");
        }
        self.absorb(now);
    }

    /// Gossips a notice.
    pub(super) fn tell(&mut self, notice: Notice) {
        if let Err(error) = self.foca.add_broadcast(&notice.encode()) {
            debug!(%error, "gossip notice");
        }
    }

    /// Forgets a dead member.
    pub(super) fn forget(&mut self, dead: Identity, now: Duration) {
        let timer = Timer::RemoveDown(dead);
        if let Err(error) = self.foca.handle_timer(timer, &mut self.outbox) {
            debug!(%error, "gossip forget");
        }
        self.absorb(now);
    }

    /// Tells everybody that this node goes.
    pub(super) fn leave(&mut self, notice: Notice, now: Duration) {
        self.tell(notice);
        let told: Vec<Identity> = self
            .foca
            .iter_members()
            .take(FAREWELLS)
            .map(|member| member.id().clone())
            .collect();
        for to in told {
            if let Some(packet) = self.farewell(&to, notice) {
                self.route(&to, packet, now);
            }
        }
        if let Err(error) = self.foca.leave_cluster(&mut self.outbox) {
            debug!(%error, "gossip leave");
        }
        self.absorb(now);
    }

    /// A gossip packet that holds nothing but this node's end. foca itself tells a few members only.
    fn farewell(&self, to: &Identity, notice: Notice) -> Option<Vec<u8>> {
        let header = Header {
            src: self.me().clone(),
            src_incarnation: 0,
            dst: to.clone(),
            message: Message::Gossip,
        };
        let mut packet = Vec::new();
        WireCodec.encode_header(&header, &mut packet).ok()?;
        packet.put_u16(1);
        let end = foca::Member::new(self.me().clone(), 0, State::Down);
        WireCodec.encode_member(&end, &mut packet).ok()?;
        let notice = notice.encode();
        packet.put_u16(u16::try_from(notice.len()).ok()?);
        packet.extend_from_slice(&notice);
        (packet.len() <= DATAGRAM_BYTES).then_some(packet)
    }

    /// Asks an exchange of `to`. Nothing is asked where too many are unanswered.
    pub(super) fn exchange(&mut self, to: SocketAddr, what: Exchange, now: Duration) -> bool {
        if !self.paths.begin_exchange(to, now) {
            return false;
        }
        self.stats.exchanges_asked += 1;
        let bytes = what.encode();
        self.effects.push(MembershipEffect::Exchange { to, bytes });
        true
    }

    /// An exchange that was asked for has ended.
    pub(super) fn exchange_ended(&mut self, to: SocketAddr, failed: bool) {
        self.paths.end_exchange(to, failed);
    }

    /// Puts what foca wants into effect.
    fn absorb(&mut self, now: Duration) {
        for (after, timer) in std::mem::take(&mut self.outbox.timers) {
            self.timers.schedule(after, timer, now);
        }
        for (to, packet) in std::mem::take(&mut self.outbox.packets) {
            self.route(&to, packet, now);
        }
    }

    fn route(&mut self, to: &Identity, packet: Vec<u8>, now: Duration) {
        let number = match WireCodec.decode_header(packet.as_slice()) {
            Ok(Header {
                message: Message::Ping(number),
                ..
            }) => Some(number),
            _ => None,
        };
        let way = if self.answers_by_udp == Some(to.addr) {
            Way::Udp
        } else {
            self.paths.way(to.addr, number.is_some(), now)
        };
        if let Some(number) = number {
            self.probe = Some(Probe {
                to: to.clone(),
                number,
                packet: packet.clone(),
                by_udp: way != Way::Tcp,
                answered: false,
                answered_by_udp: false,
            });
        }
        if let Some((captured, packets)) = &mut self.captured
            && *captured == to.addr
            && packets.len() < WRAPPED
        {
            packets.push(packet);
            return;
        }
        if way != Way::Udp {
            push(&mut self.wraps, to.addr, packet.clone());
        }
        if way != Way::Tcp {
            self.stats.datagrams_sent += 1;
            self.stats.bytes_sent += packet.len() as u64;
            self.effects.push(MembershipEffect::Datagram {
                to: to.addr,
                bytes: packet,
            });
        }
    }

    /// Fits foca's configuration to the size of the cluster and to the loss of probes.
    fn refit(&mut self, now: Duration) {
        let members = u32::try_from(self.foca.num_members() + 1).unwrap_or(u32::MAX / 2);
        let fit = (members.next_power_of_two().max(2), self.paths.lossy());
        if fit == self.made_for {
            return;
        }
        self.made_for = fit;
        let config = foca_config(fit, self.suspicion, self.indirect_probes);
        if let Err(error) = self.foca.set_config(config) {
            debug!(%error, "gossip configuration");
        }
        let foca = &self.foca;
        self.paths.keep(
            |addr| {
                foca.iter_membership_state()
                    .any(|member| member.id().addr == addr)
            },
            now,
        );
    }
}

fn push(wraps: &mut BTreeMap<SocketAddr, Vec<Vec<u8>>>, to: SocketAddr, packet: Vec<u8>) {
    let packets = wraps.entry(to).or_default();
    if packets.len() < WRAPPED {
        packets.push(packet);
    }
}

fn foca_config((members, lossy): (u32, bool), suspicion: Duration, probes: NonZeroUsize) -> Config {
    let mut config = Config::new_lan(NonZeroU32::new(members).unwrap_or(NonZeroU32::MIN));
    config.max_packet_size = NonZeroUsize::new(DATAGRAM_BYTES).unwrap_or(NonZeroUsize::MIN);
    config.num_indirect_probes = probes;
    let told = config.max_transmissions.get().max(TRANSMISSIONS);
    let told = if lossy { told.saturating_mul(2) } else { told };
    config.max_transmissions = NonZeroU8::new(told).unwrap_or(NonZeroU8::MIN);
    let calm = config.suspect_to_down_after.min(suspicion);
    config.suspect_to_down_after = if lossy { calm * 5 / 2 } else { calm };
    // The dead are asked for, so that a split heals however long it lasts; their number is bounded.
    config.remove_down_after = None;
    config
}

/// Without foca's inside.
impl fmt::Debug for Swim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swim")
            .field("me", self.me())
            .field("members", &self.foca.num_members())
            .finish_non_exhaustive()
    }
}

/// Takes what foca wants done.
#[derive(Debug, Default)]
struct Outbox {
    packets: Vec<(Identity, Vec<u8>)>,
    timers: Vec<(Duration, Timer<Identity>)>,
    rejoined: bool,
}

impl Runtime<Identity> for Outbox {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        if let Notification::Rejoin(identity) = notification {
            info!(bump = identity.bump, "the others took this node for dead");
            self.rejoined = true;
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.packets.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        self.timers.push((after, timer));
    }
}
