//! A member of a cluster without its sockets, disk and clock: what it was told goes in, what is to
//! be done comes out.
//!
//! Promise: the same inputs at the same times with the same seed give the same effects, and no input
//! makes it fail. It never waits. Owner of all that this node knows of the others: members, their
//! cells, terms, revocations and clocks; the counts of this process stay in the `CounterTable`.
//! Failure: what cannot be done is shown in the view and tried again.

mod clock;
mod counting;
mod diagnose;
mod duty;
mod effect;
mod flush;
mod frames;
mod heartbeats;
mod horizon;
mod input;
mod limits;
mod news;
mod outcomes;
mod peer;
mod peering;
mod ready;
mod revoke;
mod round_trips;
mod sharing;
mod show;
mod split;
mod tracked;
mod whose;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use policy::CounterTable;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(crate) use self::clock::STEP_MS;
pub use self::effect::{Diagnosis, Incoming};
pub(crate) use self::effect::{Effect, StoreRequest};
pub(crate) use self::heartbeats::GONE;
pub use self::input::Command;
pub(crate) use self::input::{HeartbeatRow, Input, Now, StoreReply};

use self::clock::{ClockSync, LEAP_MS};
use self::counting::Counting;
use self::duty::Duties;
use self::flush::Flush;
use self::heartbeats::Heartbeats;
use self::limits::Judging;
use self::news::News;
use self::peer::Peer;
use self::ready::Ready;
use self::revoke::Revocations;
use self::round_trips::RoundTrips;
use self::split::Split;

use crate::config::{Partition, Task};
use crate::data_dir::NodeKey;
use crate::leader::LeaderWatch;
use crate::membership::{Identity, Membership, MembershipConfig};
use crate::message::{CAP_HOLDS, Hello, PROTOCOL_MIN};
use crate::origin::Origin;
use crate::view::Figures;

/// How often [`Core::tick`] is to be called at least.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// What a core is told at its start.
#[derive(Clone, Debug)]
pub(crate) struct CoreConfig {
    pub(crate) me: Origin,
    pub(crate) name: String,
    /// The cluster's name.
    pub(crate) cluster: String,
    pub(crate) region: String,
    pub(crate) zone: String,
    /// Where others reach this node's gossip.
    pub(crate) gossip: SocketAddr,
    pub(crate) grpc_port: u16,
    pub(crate) build: String,
    pub(crate) proto_max: u8,
    /// Bits as `CAP_HOLDS`.
    pub(crate) caps: u64,
    pub(crate) suspicion: Duration,
    pub(crate) failure_threshold: u32,
    pub(crate) sync_interval: Duration,
    pub(crate) partition: Partition,
    pub(crate) forget_after: Duration,
    pub(crate) tasks: Vec<Task>,
    /// Whether peers are expected: without, an empty seed list is no reason to wait.
    pub(crate) seeds_expected: bool,
    /// How many nodes the configuration names, this one among them: strict limits are divided by no
    /// fewer.
    pub(crate) configured_nodes: u64,
}

/// How often members, limits and duties are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A tick that comes so much too late is told to membership: this node did not run.
const LATE: Duration = Duration::from_millis(250);

/// One member, as a state machine.
#[derive(Debug)]
pub(crate) struct Core {
    config: CoreConfig,
    rng: StdRng,
    membership: Membership,
    clock: ClockSync,
    counting: Counting,
    judging: Judging,
    judge_all: bool,
    peers: BTreeMap<NodeKey, Peer>,
    split: Split,
    heartbeats: Heartbeats,
    leaders: LeaderWatch,
    members_changed: bool,
    duties: Duties,
    revocations: Revocations,
    news: News,
    ready: Ready,
    flush: Flush,
    round_trips: RoundTrips,
    figures: Figures,
    draining: bool,
    left: bool,
    name_taken: Option<Origin>,
    ticked: Duration,
    next_look: Duration,
    next_digest: Duration,
    hurried_digests: u32,
    effects: Vec<Effect>,
}

impl Core {
    /// A member that knows nobody yet. `seed` is of its random choices.
    pub(crate) fn new(
        config: CoreConfig,
        counters: Arc<CounterTable>,
        seed: u64,
        now: Now,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mono = now.mono;
        let membership = Membership::new(
            config.identity(),
            MembershipConfig {
                suspicion: config.suspicion,
                failure_threshold: config.failure_threshold,
                seeds: Vec::new(),
                cluster: config.cluster.clone(),
            },
            rng.random(),
            mono,
        );
        Self {
            membership,
            clock: ClockSync::new(),
            counting: Counting::new(config.me, counters, mono),
            judging: Judging::new(),
            judge_all: false,
            peers: BTreeMap::new(),
            split: Split::default(),
            heartbeats: Heartbeats::new(mono),
            leaders: LeaderWatch::new(),
            members_changed: true,
            duties: Duties::new(&config.tasks, &config.region),
            revocations: Revocations::default(),
            news: News::default(),
            ready: Ready::new(mono),
            flush: Flush::new(mono),
            round_trips: RoundTrips::default(),
            figures: Figures::default(),
            draining: false,
            left: false,
            name_taken: None,
            ticked: mono,
            next_look: mono,
            next_digest: mono + peering::DIGEST_EVERY,
            hurried_digests: 0,
            effects: Vec::new(),
            rng,
            config,
        }
    }

    /// Takes in one thing that happened.
    pub(crate) fn handle(&mut self, input: Input, now: Now) {
        let now = self.correct(now);
        match input {
            Input::Datagram(bytes) => self.membership.datagram(&bytes, now.mono),
            Input::ExchangeAsked { exchange, bytes } => self.exchange_asked(exchange, &bytes, now),
            Input::ExchangeAnswered { to, result } => {
                self.exchange_answered(to, result.as_deref().map_err(|error| *error), now);
            }
            Input::LinkUp { link, hello } => self.link_came_up(link, hello, now),
            Input::LinkDown { link, node } => self.link_went_down(link, node, now),
            Input::DialFailed { node, refused } => self.dial_failed(node, refused, now),
            Input::Frame { link, node, frame } => self.frame_came(link, node, frame, now),
            Input::Probed { node, outcome } => {
                self.membership.link_probed(node, outcome, now.mono);
            }
            Input::Store(reply) => self.store_answered(reply, now),
            Input::EntitiesRead { revision } => self.entities_read(revision),
            Input::Command(command) => self.obey(command, now),
        }
        self.follow_membership(now);
    }

    fn obey(&mut self, command: Command, now: Now) {
        match command {
            Command::SetSeeds(seeds) => {
                self.ready.seeds_known = true;
                self.membership.set_seeds(&seeds);
            }
            Command::SetConfigured { nodes, rank } => {
                self.config.configured_nodes = nodes;
                self.config.seeds_expected = nodes > 1;
                self.judging.rank = rank;
            }
            Command::Announce(entities) => self.announce(entities),
            Command::Revoke { hash, change } => self.revoke(&hash, &change),
            Command::RevocationApplied { hash } => self.revocation_applied(&hash),
            Command::RevocationPersisted { hash } => self.revocation_persisted(&hash),
            Command::Applied { revision } => self.applied_here(revision),
            Command::Configuration(mark) => self.set_configuration(mark),
            Command::ReloadCells => self.flush.reload_at(now.mono),
            Command::Drain => self.drain(),
            Command::Leave => self.leave(now),
            Command::Diagnose { id } => self.diagnose(id, now),
            Command::TaskDone(outcome) => self.task_done(outcome, now),
            Command::TaskFailed { task, term } => self.task_failed(&task, term, now),
        }
    }

    /// Does what is due by time; at least every [`TICK`].
    pub(crate) fn tick(&mut self, now: Now) {
        let now = self.correct(now);
        let passed = now.mono.saturating_sub(self.ticked);
        self.ticked = now.mono;
        if passed >= LATE {
            self.membership.note_lateness(passed, now.mono);
            // What came meanwhile is still unread: no link is silent because of that.
            let links = self
                .peers
                .values_mut()
                .filter_map(|peer| peer.link.as_mut());
            links.for_each(|link| link.heard = (link.heard + passed).min(now.mono));
        }
        self.membership.tick(now.mono);
        self.follow_membership(now);
        if self.left {
            return;
        }
        if self.clock.creep(passed) >= LEAP_MS && self.ready.clock_known {
            self.ask_for_all_again(now);
        }
        if now.mono >= self.next_look {
            self.next_look = now.mono + LOOK;
            self.look(now);
        }
        self.sync_cells(now);
        self.judge_limits(now);
    }

    fn look(&mut self, now: Now) {
        self.watch_split(now);
        self.go_by_own_clock();
        self.watch_clock(now);
        self.watch_predecessors(&[], now);
        self.watch_ready(now);
        let holds = self.lacking(CAP_HOLDS).is_empty();
        self.counting.set_holds(holds, self.config.me, now.wall);
        self.tend_links(now);
        self.ask_for_entities(now);
        self.tend_duties(now);
        self.tend_outcomes(now);
        self.tend_store(now);
        self.forget_peers();
        self.tend_round_trips(now);
        self.follow_membership(now);
    }

    /// What is to be done, in this order.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// What this node says first on a link.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            origin: self.config.me,
            name: self.config.name.clone(),
            cluster: self.config.cluster.clone(),
            region: self.config.region.clone(),
            zone: self.config.zone.clone(),
            build: self.config.build.clone(),
            proto_min: PROTOCOL_MIN,
            proto_max: self.config.proto_max,
            caps: self.config.caps,
            grpc_port: self.config.grpc_port,
        }
    }

    /// Milliseconds to add to the wall clock.
    pub(crate) fn offset(&self) -> i64 {
        self.clock.offset_ms()
    }

    /// Takes a step of the wall clock out.
    fn correct(&mut self, now: Now) -> Now {
        let (now, step) = self.clock.correct(now);
        if step != 0 {
            tracing::warn!(
                ms = step,
                "the wall clock was set; cluster time goes on as before"
            );
            let links = self
                .peers
                .values_mut()
                .filter_map(|peer| peer.link.as_mut());
            links.for_each(|link| link.samples.shift(step));
        }
        now
    }

    fn drain(&mut self) {
        if !std::mem::replace(&mut self.draining, true) {
            self.membership.announce_drain();
            self.send_all(&crate::message::Frame::Drain, None);
            self.give_up_terms();
            self.members_changed = true;
        }
    }

    fn leave(&mut self, now: Now) {
        self.drain();
        // What was counted last goes to all, whatever its turn.
        self.publish_all(now);
        self.flush_last(now.mono);
        self.ask(StoreRequest::Goodbye);
        self.end_round_trips();
        self.membership.leave(now.mono);
        self.left = true;
    }
}

impl CoreConfig {
    fn identity(&self) -> Identity {
        Identity {
            addr: self.gossip,
            bump: 0,
            node: self.me.node,
            boot: self.me.boot,
            name: self.name.clone(),
            grpc_port: self.grpc_port,
            proto_min: PROTOCOL_MIN,
            proto_max: self.proto_max,
            caps: self.caps,
            region: self.region.clone(),
            zone: self.zone.clone(),
        }
    }
}

/// How a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberState {
    /// It gossips and there is a link.
    Up,
    /// It gossips, but there is no link.
    Degraded,
    Suspect,
    Down,
    Left,
}

/// What a try to connect to a member's link port gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeOutcome {
    Open,
    Refused,
    Silent,
}

/// Why an exchange came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExchangeFailure {
    Refused,
    TimedOut,
    Broken,
    /// This node had no room for it: nothing is known of the other.
    NoRoom,
}
