//! Telling a process something, and doing what its core wants done.

use std::time::Duration;

use bytes::Bytes;

use super::super::node::at_address;
use super::super::scenario::Sabotage;
use super::{Event, World};
use crate::core::{Command, Effect, ExchangeFailure, Incoming, Input};
use crate::message::{Frame, Outcome};

/// An exchange without an answer is given up after this.
const EXCHANGE_TIME: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn tick(&mut self, node: usize) {
        let now = self.nodes[node].time(self.now());
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        process.core.tick(now);
        if self.scenario.sabotage == Some(Sabotage::PassStrict) {
            process.table.divide(1, 0);
        }
        self.carry_out(node);
    }

    pub(in super::super) fn tell(&mut self, node: usize, input: Input) {
        let now = self.nodes[node].time(self.now());
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        process.core.handle(input, now);
        self.carry_out(node);
    }

    pub(in super::super) fn command(&mut self, node: usize, command: Command) {
        self.tell(node, Input::Command(command));
    }

    fn carry_out(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let life = process.life;
        for effect in process.core.take_effects() {
            match effect {
                Effect::Datagram { to, bytes } => self.send_datagram(node, to, &bytes),
                Effect::Exchange { to, bytes } => self.exchange(node, to, bytes.into()),
                Effect::AnswerExchange { exchange, bytes } => {
                    self.traffic.exchange(node, bytes.len());
                    self.answer_later(exchange, Ok(bytes.into()));
                }
                Effect::Dial {
                    node: key,
                    name,
                    addr,
                } => self.dial(node, key, name, addr),
                Effect::CloseLink { link } => self.close(link, node),
                Effect::Frame { link, frame } => self.send_frame(link, node, frame),
                Effect::ProbeLink { node: key, addr } => self.probe(node, key, addr),
                Effect::Store(request) => self.ask_store(node, request),
                Effect::Offer { after, entities } => self.offered(node, after, entities),
                Effect::Incoming(incoming) => self.incoming(node, life, incoming),
                Effect::Diagnosed { .. } | Effect::DiagnosisEnded { .. } => {}
            }
        }
    }

    fn send_datagram(&mut self, node: usize, to: std::net::SocketAddr, bytes: &[u8]) {
        self.traffic.datagram(node, bytes.len());
        let Some(target) = at_address(to).filter(|target| *target < self.nodes.len()) else {
            return;
        };
        for delay in self.paths.datagram(node, target, &mut self.chance) {
            let bytes = Bytes::copy_from_slice(bytes);
            self.agenda.after(
                delay,
                Event::Datagram {
                    node: target,
                    bytes,
                },
            );
        }
    }

    fn exchange(&mut self, node: usize, to: std::net::SocketAddr, bytes: Bytes) {
        self.traffic.exchange(node, bytes.len());
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        self.exchange += 1;
        let exchange = self.exchange;
        self.exchanges.insert(exchange, (node, process.life, to));
        let timed_out = Err(ExchangeFailure::TimedOut);
        self.agenda.after(
            EXCHANGE_TIME,
            Event::Answer {
                exchange,
                result: timed_out,
            },
        );
        let Some(target) = at_address(to).filter(|target| *target < self.nodes.len()) else {
            return;
        };
        // A handshake, then the request: three ways.
        let way = self.paths.stretch(node, target, &mut self.chance) * 3;
        if self.paths.pair_cut_since(node, target).is_none() {
            self.agenda.after(
                way,
                Event::Exchange {
                    node: target,
                    exchange,
                    bytes,
                },
            );
        }
    }

    /// An exchange's answer sets out.
    pub(super) fn answer_later(&mut self, exchange: u64, result: Result<Bytes, ExchangeFailure>) {
        let Some((asker, _, to)) = self.exchanges.get(&exchange) else {
            return;
        };
        let Some(target) = at_address(*to) else {
            return;
        };
        if self.paths.pair_cut_since(*asker, target).is_none() {
            let way = self.paths.stretch(target, *asker, &mut self.chance);
            self.agenda.after(way, Event::Answer { exchange, result });
        }
    }

    pub(super) fn answered(&mut self, exchange: u64, result: Result<Bytes, ExchangeFailure>) {
        if let Some((node, life, to)) = self.exchanges.remove(&exchange) {
            let input = Input::ExchangeAnswered { to, result };
            self.happen(Event::Tell { node, life, input });
        }
    }

    fn incoming(&mut self, node: usize, life: u32, incoming: Incoming) {
        match incoming {
            Incoming::Poll => self.poll(node),
            Incoming::Revoked { hash, .. } => {
                let delay = self.chance.time(Duration::ZERO, Duration::from_millis(5));
                self.agenda
                    .after(delay, Event::RevocationInForce { node, life, hash });
            }
            Incoming::Outcome(outcome) => self.outcome_came(node, &outcome),
            Incoming::Duty { task, scope, term } => self.duty(node, life, task, scope, term),
        }
    }

    fn duty(&mut self, node: usize, life: u32, task: String, scope: String, term: u64) {
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let origin = process.origin;
        let key = (task.clone(), scope.clone(), term);
        let first = *self.duties.entry(key).or_insert(origin);
        let given = self.database.holder(&scope, &task, term);
        if first != origin || given != Some(origin) {
            self.violate(format_args!(
                "I7: {origin} is to do {task} of {scope} in term {term}, which was given to {given:?}, and {first} did it"
            ));
        }
        self.seen.duties += 1;
        let outcome = Outcome {
            hash: Outcome::hash_of(&[1, 2, 3]),
            at: self.nodes[node].time(self.now()).wall,
            body: vec![1, 2, 3].into(),
            task,
            scope,
            term,
        };
        let took = self
            .chance
            .time(Duration::from_millis(10), Duration::from_secs(2));
        self.agenda.after(
            took,
            Event::DutyDone {
                node,
                life,
                outcome,
            },
        );
    }

    pub(super) fn duty_done(&mut self, node: usize, outcome: Outcome) {
        self.command(node, Command::TaskDone(outcome));
    }

    fn outcome_came(&mut self, node: usize, outcome: &Outcome) {
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let key = (outcome.task.clone(), outcome.scope.clone());
        let newest = process.terms.entry(key).or_default();
        let older = outcome.term < *newest;
        *newest = outcome.term.max(*newest);
        if older {
            let (name, term) = (&self.nodes[node].name, outcome.term);
            let what = format!("I7: {name} was told an outcome of term {term} after a newer one");
            self.violate(what);
        }
    }

    /// A process has taken a revocation over, and says so.
    pub(super) fn revocation_in_force(&mut self, node: usize, hash: String) {
        let now = self.now();
        if let Some(process) = self.nodes[node].process.as_mut() {
            process.revoked.entry(hash.clone()).or_insert(now);
        }
        self.command(node, Command::RevocationApplied { hash });
    }

    /// Everyone who could be reached when a virtual key was revoked must refuse it by now.
    pub(super) fn revocation_due(&mut self, hash: &str, reachable: &[(usize, u32)]) {
        for (node, life) in reachable {
            let late = self.nodes[*node].living(*life).is_some_and(|process| {
                process.paused.is_none() && !process.revoked.contains_key(hash)
            });
            if late && self.seen.undisturbed(*node, self.now()) {
                let what = format!(
                    "I6: {} does not refuse {hash} in time",
                    self.nodes[*node].name
                );
                self.violate(what);
            }
        }
    }

    pub(super) fn send_frame(&mut self, link: u64, node: usize, frame: Frame) {
        let now = self.now();
        let Some(other) = self.links.link(link).map(|link| link.other(node)) else {
            return;
        };
        self.traffic.frame(link, node, &frame, now);
        let delay = self.paths.stretch(node, other, &mut self.chance);
        match self.links.send(link, node, frame, now, delay) {
            Ok(Some(arrives)) => self.agenda.at(arrives, Event::Lane { link, from: node }),
            Ok(None) => {}
            Err(()) => self.break_link(link, Duration::ZERO),
        }
    }
}
