//! Everything there is in a run, and the one loop through which time passes.
//!
//! An event happens, the node it belongs to is told, and what its core wants done becomes new
//! events. Nothing else moves the run on, so its seed decides all of it.

mod bounds;
mod effects;
mod entities;
mod network;
mod operations;
mod requests;
mod store;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::agenda::Agenda;
use super::chance::Chance;
use super::clock::NodeClock;
use super::database::Database;
use super::ledger::Ledger;
use super::links::{Life, Links};
use super::load::Request;
use super::node::Node;
use super::scenario::{Health, Scenario};
use super::traffic::Traffic;
use super::weather::Paths;
use crate::core::{ExchangeFailure, Input, StoreReply, StoreRequest, TICK};
use crate::data_dir::NodeKey;
use crate::entity::Entity;
use crate::message::Outcome;
use crate::origin::Origin;

/// One thing that happens.
#[derive(Debug)]
pub(super) enum Event {
    /// One of the scenario's list.
    Operation(usize),
    Tick {
        node: usize,
        life: Life,
    },
    Resume {
        node: usize,
        life: Life,
    },
    /// A process that is leaving looks whether it has served everything.
    Leaving {
        node: usize,
        life: Life,
    },
    Datagram {
        node: usize,
        bytes: Bytes,
    },
    /// One node's exchange has come to another.
    Exchange {
        node: usize,
        exchange: u64,
        bytes: Bytes,
    },
    /// Its answer, or its end without one.
    Answer {
        exchange: u64,
        result: Result<Bytes, ExchangeFailure>,
    },
    /// A dial has come to the other node.
    Dialled {
        from: usize,
        life: Life,
        node: usize,
        name: String,
    },
    /// Something that a process is told.
    Tell {
        node: usize,
        life: Life,
        input: Input,
    },
    /// What one end of a link has sent may have arrived.
    Lane {
        link: u64,
        from: usize,
    },
    /// A link on a path that was cut is given up if the path still is.
    Silence {
        link: u64,
    },
    /// The database does what a process asked for.
    Serve {
        node: usize,
        life: Life,
        request: StoreRequest,
    },
    Reply {
        node: usize,
        life: Life,
        reply: StoreReply,
    },
    /// A request comes to the cluster, and the one after it is drawn.
    NextRequest,
    /// A request has come to a node.
    Arrival {
        node: usize,
        request: Request,
    },
    /// A request ends.
    Finish {
        node: usize,
        life: Life,
        number: u64,
    },
    DutyDone {
        node: usize,
        life: Life,
        outcome: Outcome,
    },
    /// A process has taken a revocation over.
    RevocationInForce {
        node: usize,
        life: Life,
        hash: String,
    },
    /// Everyone who was reachable must have the revocation by now.
    RevocationDue {
        hash: String,
        reachable: Vec<(usize, Life)>,
    },
    /// An entity was written at a node.
    Written {
        node: usize,
        life: Life,
        entity: Entity,
    },
    /// Something says that there are new entities, or may be.
    Poll {
        node: usize,
        life: Life,
    },
    PollDue {
        node: usize,
        life: Life,
    },
    PollServed {
        node: usize,
        life: Life,
    },
    Polled {
        node: usize,
        life: Life,
        result: Option<Vec<Entity>>,
    },
    /// The onlooker compares.
    Watch,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation(pub(super) String);

/// A run under way.
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) agenda: Agenda<Event>,
    pub(super) chance: Chance,
    pub(super) nodes: Vec<Node>,
    pub(super) paths: Paths,
    pub(super) links: Links,
    pub(super) database: Database,
    pub(super) health: Health,
    pub(super) ledger: Ledger,
    pub(super) traffic: Traffic,
    /// Exchanges without an answer yet: who asked whom, at what address.
    exchanges: BTreeMap<u64, (usize, Life, SocketAddr)>,
    exchange: u64,
    request: u64,
    revocation: u64,
    /// Who was given each duty: task, scope, term.
    duties: BTreeMap<(String, String, u64), Origin>,
    pub(super) seen: watch::Seen,
    pub(super) violation: Option<Violation>,
    /// A hash over everything that has happened.
    pub(super) trace: u64,
    pub(super) events: u64,
}

// === impl World ===

impl World {
    pub(super) fn new(scenario: Scenario) -> Self {
        let mut chance = Chance::new(scenario.seed ^ 0x5eed);
        let clocks = scenario.clocks.iter().zip(&scenario.old).enumerate();
        let nodes: Vec<Node> = clocks
            .map(|(number, ((drift, ahead), old))| {
                let clock = NodeClock::new(*drift, *ahead);
                Node::new(number, clock, *old, random_key(&mut chance))
            })
            .collect();
        let mut paths = Paths::new(nodes.len(), scenario.weather);
        for (node, distance) in scenario.distances.iter().enumerate() {
            paths.set_distance(node, *distance);
        }
        let mut world = Self {
            agenda: Agenda::new(),
            chance,
            paths,
            links: Links::new(nodes.len()),
            database: Database::new(scenario.sabotage),
            health: Health::Well,
            ledger: Ledger::new(&scenario.load.limits),
            traffic: Traffic::new(nodes.len()),
            exchanges: BTreeMap::new(),
            exchange: 0,
            request: 0,
            revocation: 0,
            duties: BTreeMap::new(),
            seen: watch::Seen::new(nodes.len(), scenario.load.limits.len()),
            violation: None,
            trace: 0xcbf2_9ce4_8422_2325,
            events: 0,
            nodes,
            scenario,
        };
        world.begin();
        world
    }

    /// Puts the first events on the agenda.
    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            let at = self
                .chance
                .time(Duration::ZERO, Duration::from_millis(1_500));
            self.agenda
                .at(at, Event::Operation(self.scenario.operations.len()));
            let start = super::scenario::Operation::Start {
                node,
                keeps_key: true,
            };
            self.scenario.operations.push((at, start));
        }
        for (number, (at, _)) in self.scenario.operations.iter().enumerate() {
            if number < self.scenario.operations.len() - self.nodes.len() {
                self.agenda.at(*at, Event::Operation(number));
            }
        }
        self.agenda.at(Duration::from_secs(1), Event::NextRequest);
        self.agenda.at(Duration::from_secs(1), Event::Watch);
    }

    pub(super) fn now(&self) -> Duration {
        self.agenda.now()
    }

    /// Lets time pass until `end`, or until a rule is broken.
    pub(super) fn run_until(&mut self, end: Duration) {
        while self.violation.is_none() {
            let Some(event) = self.agenda.next(end) else {
                return;
            };
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        self.events += 1;
        self.note(&event);
        let Some((node, life)) = event.process() else {
            return self.happen_outside(event);
        };
        let Some(process) = self.nodes[node].process.as_mut() else {
            return self.nobody_there(node, event);
        };
        if life.is_some_and(|life| life != process.life) {
            return;
        }
        if process.paused.is_some() && !matches!(event, Event::Resume { .. }) {
            return process.wait(event);
        }
        let event = self.still_true(event);
        self.happen_to(event);
    }

    /// A link may have broken before its hello came.
    fn still_true(&self, event: Event) -> Event {
        match event {
            Event::Tell {
                node,
                life,
                input: Input::LinkUp { link, hello },
            } if self.links.link(link).is_none() => {
                let input = Input::DialFailed {
                    node: hello.origin.node,
                    refused: false,
                };
                Event::Tell { node, life, input }
            }
            event => event,
        }
    }

    /// What happens to a process that runs.
    fn happen_to(&mut self, event: Event) {
        match event {
            Event::Tick { node, life } => {
                let due = self.now() + self.tick_every();
                self.agenda.at(due, Event::Tick { node, life });
                self.tick(node);
            }
            Event::Resume { node, .. } => self.resume(node),
            Event::Leaving { node, life } => self.leaving(node, life),
            Event::Datagram { node, bytes } => self.tell(node, Input::Datagram(bytes)),
            Event::Exchange {
                node,
                exchange,
                bytes,
                ..
            } => {
                self.tell(node, Input::ExchangeAsked { exchange, bytes });
            }
            Event::Tell { node, input, .. } => self.tell(node, input),
            Event::Reply { node, life, reply } => self.store_replied(node, life, reply),
            Event::Arrival { node, request } => self.arrive(node, request),
            Event::Finish { node, number, .. } => self.finish(node, number),
            Event::DutyDone { node, outcome, .. } => self.duty_done(node, outcome),
            Event::RevocationInForce { node, hash, .. } => self.revocation_in_force(node, hash),
            Event::Written { node, entity, .. } => self.written(node, entity),
            Event::Poll { node, .. } => self.poll(node),
            Event::PollDue { node, life } => self.poll_due(node, life),
            Event::Polled { node, result, .. } => self.polled(node, result),
            _ => {}
        }
    }

    /// How often a core is woken: in a large cluster less often, as if its machine were busy.
    pub(in super::super) fn tick_every(&self) -> Duration {
        match self.nodes.len() {
            0..=10 => TICK,
            11..=30 => TICK * 2,
            _ => TICK * 5,
        }
    }

    /// What happens between processes.
    fn happen_outside(&mut self, event: Event) {
        match event {
            Event::Operation(number) => {
                let operation = self.scenario.operations[number].1.clone();
                self.operate(operation);
            }
            Event::Answer { exchange, result } => self.answered(exchange, result),
            Event::Dialled {
                from,
                life,
                node,
                name,
            } => self.dialled(from, life, node, &name),
            Event::Lane { link, from } => self.deliver(link, from),
            Event::Silence { link } => self.fall_silent(link),
            Event::Serve {
                node,
                life,
                request,
            } => self.serve(node, life, request),
            Event::PollServed { node, life } => self.poll_served(node, life),
            Event::NextRequest => self.next_request(),
            Event::RevocationDue { hash, reachable } => self.revocation_due(&hash, &reachable),
            Event::Watch => self.watch(),
            _ => {}
        }
    }

    /// What a kernel says when there is no process.
    fn nobody_there(&mut self, node: usize, event: Event) {
        if let Event::Exchange { exchange, .. } = event
            && !self.nodes[node].host_gone
        {
            self.answer_later(exchange, Err(ExchangeFailure::Refused));
        }
    }

    /// Remembers the first rule that was broken.
    pub(super) fn violate(&mut self, what: impl fmt::Display) {
        let at = self.now();
        self.violation
            .get_or_insert_with(|| Violation(format!("at {at:?}: {what}")));
    }

    fn note(&mut self, event: &Event) {
        let (kind, node, size) = event.digest();
        let micros = u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX);
        for word in [micros, kind, node as u64, size] {
            self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// A key that no other node has.
pub(super) fn random_key(chance: &mut Chance) -> NodeKey {
    NodeKey(u128::from(chance.next()) << 64 | u128::from(chance.next()))
}

// === impl Event ===

impl Event {
    /// The node it happens to, and which of its processes: none = whichever there is.
    fn process(&self) -> Option<(usize, Option<Life>)> {
        match self {
            Self::Tick { node, life }
            | Self::Resume { node, life }
            | Self::Leaving { node, life }
            | Self::Tell { node, life, .. }
            | Self::Reply { node, life, .. }
            | Self::Finish { node, life, .. }
            | Self::DutyDone { node, life, .. }
            | Self::Written { node, life, .. }
            | Self::Poll { node, life }
            | Self::PollDue { node, life }
            | Self::Polled { node, life, .. }
            | Self::RevocationInForce { node, life, .. } => Some((*node, Some(*life))),
            Self::Datagram { node, .. }
            | Self::Exchange { node, .. }
            | Self::Arrival { node, .. } => Some((*node, None)),
            _ => None,
        }
    }

    /// Its kind, its node, and how large what it brings is, for the trace.
    fn digest(&self) -> (u64, usize, u64) {
        let length = |bytes: &Bytes| bytes.len() as u64;
        match self {
            Self::Operation(number) => (0, *number, 0),
            Self::Tick { node, life } => (1, *node, u64::from(*life)),
            Self::Resume { node, .. } => (2, *node, 0),
            Self::Leaving { node, .. } => (3, *node, 0),
            Self::Datagram { node, bytes } => (4, *node, length(bytes)),
            Self::Exchange { node, bytes, .. } => (5, *node, length(bytes)),
            Self::Answer { exchange, result } => {
                (6, 0, exchange ^ result.as_ref().map_or(0, length))
            }
            Self::Dialled { from, node, .. } => (7, *node, *from as u64),
            Self::Tell { node, .. } => (8, *node, 0),
            Self::Lane { link, from } => (9, *from, *link),
            Self::Silence { link } => (10, 0, *link),
            Self::Serve { node, .. } => (11, *node, 0),
            Self::Reply { node, .. } => (12, *node, 0),
            Self::NextRequest => (13, 0, 0),
            Self::Arrival { node, request } => (14, *node, request.used),
            Self::Finish { node, number, .. } => (15, *node, *number),
            Self::DutyDone { node, outcome, .. } => (16, *node, outcome.term),
            Self::RevocationInForce { node, .. } => (17, *node, 0),
            Self::RevocationDue { reachable, .. } => (18, 0, reachable.len() as u64),
            Self::Watch => (19, 0, 0),
            Self::Written { node, entity, .. } => (20, *node, entity.revision),
            Self::Poll { node, .. } => (21, *node, 0),
            Self::PollDue { node, .. } => (22, *node, 0),
            Self::PollServed { node, .. } => (23, *node, 0),
            Self::Polled { node, result, .. } => (
                24,
                *node,
                result.as_ref().map_or(0, |page| page.len() as u64 + 1),
            ),
        }
    }
}
