//! What goes wrong, and how it is made good.

use std::time::Duration;

use super::super::scenario::{Health, Operation, Sabotage};
use super::super::weather::Weather;
use super::{Event, World, random_key};
use crate::core::Command;
use crate::entity::Change;

/// How long after a revocation every reachable node refuses the key.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);

/// How often a leaving process looks whether it has served everything.
const LEAVING: Duration = Duration::from_millis(100);

impl World {
    pub(in super::super) fn operate(&mut self, operation: Operation) {
        match operation {
            Operation::Crash { node, with_host } => self.crash(node, with_host),
            Operation::Start { node, keeps_key } => self.start(node, keeps_key),
            Operation::Leave { node } => self.leave(node),
            Operation::Pause { node, lasts } => self.pause(node, lasts),
            Operation::StepClock { node, by_ms } => {
                self.nodes[node].clock.step(by_ms);
                self.seen.clock_stepped(by_ms);
            }
            Operation::CutOneWay { from, to } => self.cut(|one, other| one == from && other == to),
            Operation::Split { sides } => self.cut(|one, other| sides[one] != sides[other]),
            Operation::Ring => {
                let nodes = self.nodes.len();
                self.cut(|one, other| (one + 1) % nodes != other && (other + 1) % nodes != one);
            }
            Operation::Reconnect => self.paths.heal(),
            Operation::BreakLinks { node } => {
                for link in self.links.of_node(node).to_vec() {
                    self.break_link(link, Duration::ZERO);
                }
            }
            Operation::Weather(weather) => self.set_weather(weather),
            Operation::Database(health) => self.health = health,
            Operation::Revoke { node } => self.revoke(node),
            Operation::Write { node } => self.write(node),
            Operation::Noise { node } => self.noise(node),
        }
    }

    /// Everything is made whole: paths, weather, processes that stand still, the database.
    pub(in super::super) fn heal(&mut self) {
        self.paths.heal();
        self.set_weather(self.paths.weather());
        self.health = Health::Well;
        for node in 0..self.nodes.len() {
            self.resume(node);
        }
    }

    /// A fault may end after everything was made whole: what it brings back is no fault.
    fn set_weather(&mut self, mut weather: Weather) {
        if self.now() >= self.scenario.heal_at {
            weather.loss = 0.0;
        }
        self.paths.set_weather(weather);
    }

    fn start(&mut self, node: usize, keeps_key: bool) {
        if self.nodes[node].process.is_some() {
            return;
        }
        if !keeps_key {
            self.nodes[node].key = random_key(&mut self.chance);
            self.nodes[node].kept = Default::default();
        }
        let seed = self.chance.next();
        let now = self.agenda.now();
        let nodes = self.nodes.len();
        let stored = self.stored_now();
        let shelf = self.first_shelf(node);
        let revision = shelf.revision;
        let process = self.nodes[node].start(&self.scenario.load, nodes, seed, now);
        process.at_start = stored;
        process.shelf = shelf;
        let life = process.life;
        let at_once = self.scenario.sabotage == Some(Sabotage::ServeAtOnce);
        process.ready_at = at_once.then_some(now);
        if at_once {
            self.check_caught_up(node, self.nodes[node].time(now).wall);
        }
        if let Some(client) = self.nodes[node].client() {
            self.seen.started(node, life, client);
        }
        let seeds = (0..nodes.min(3)).map(super::super::node::address).collect();
        self.command(node, Command::SetSeeds(seeds));
        self.begin_entities(node, life, revision);
        let most = self.tick_every();
        let phase = self.chance.time(Duration::ZERO, most);
        self.agenda.after(phase, Event::Tick { node, life });
    }

    pub(super) fn crash(&mut self, node: usize, with_host: bool) {
        let Some(process) = self.nodes[node].process.take() else {
            return;
        };
        self.nodes[node].host_gone = with_host;
        self.nodes[node].last_offset = process.core.offset();
        self.nodes[node].kept = (process.shelf.entities.clone(), process.shelf.revision);
        self.note_losses(node, &process);
        for open in process.open.into_values() {
            for held in open.held {
                self.ledger.end(held);
            }
        }
        self.end_links(node, with_host);
    }

    fn leave(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        process.draining = true;
        let life = process.life;
        self.agenda
            .after(Duration::ZERO, Event::Leaving { node, life });
    }

    /// Drained, said, gone: one step of it each time.
    pub(super) fn leaving(&mut self, node: usize, life: u32) {
        let Some(process) = self.nodes[node].living(life) else {
            return;
        };
        match process.leaving {
            0 => {
                process.leaving = 1;
                self.command(node, Command::Drain);
            }
            1 if process.open.is_empty() => {
                process.leaving = 2;
                self.command(node, Command::Leave);
            }
            1 => {}
            // What it had to say and to store has had half a second.
            2..7 => process.leaving += 1,
            _ => return self.crash(node, false),
        }
        self.agenda.after(LEAVING, Event::Leaving { node, life });
    }

    fn pause(&mut self, node: usize, lasts: Duration) {
        let now = self.agenda.now();
        let heal_at = self.scenario.heal_at;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if process.paused.is_some() {
            return;
        }
        process.paused = Some(now);
        let life = process.life;
        let until = (now + lasts).min(heal_at.max(now));
        self.agenda.at(until, Event::Resume { node, life });
        self.doubt_links(node);
        self.seen.disturb(node, until + Duration::from_secs(2));
    }

    pub(super) fn resume(&mut self, node: usize) {
        let now = self.agenda.now();
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if process.paused.take().is_none() {
            return;
        }
        process.woke_at = Some(now);
        for event in std::mem::take(&mut process.waiting) {
            self.happen(event);
        }
    }

    fn cut(&mut self, is_cut: impl Fn(usize, usize) -> bool) {
        let now = self.agenda.now();
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                if from != to && is_cut(from, to) {
                    self.paths.cut(from, to, now);
                }
            }
        }
        for node in 0..self.nodes.len() {
            self.doubt_links(node);
            self.seen
                .disturb(node, self.scenario.heal_at + Duration::from_secs(40));
        }
    }

    fn revoke(&mut self, node: usize) {
        let now = self.agenda.now();
        self.revocation += 1;
        let hash = format!("{:064x}", self.revocation);
        let change = Change {
            at: self.nodes[node].time(now).wall,
            actor: "admin".to_owned(),
            peer: "127.0.0.1".to_owned(),
            action: "revoke".to_owned(),
            kind: "virtual_key".to_owned(),
            name: format!("key-{}", self.revocation),
            before: None,
            after: None,
        };
        let Some(process) = self.nodes[node]
            .process
            .as_mut()
            .filter(|p| p.paused.is_none())
        else {
            return;
        };
        process.revoked.insert(hash.clone(), now);
        self.seen.revoked(hash.clone(), node, process.life);
        self.command(
            node,
            Command::Revoke {
                hash: hash.clone(),
                change,
            },
        );
        let reachable = self.linked_lives(node);
        let within = REVOKED_WITHIN + self.stream_slack();
        self.agenda
            .after(within, Event::RevocationDue { hash, reachable });
    }

    /// The processes that a node has a link to.
    fn linked_lives(&self, node: usize) -> Vec<(usize, u32)> {
        let links = self.links.of_node(node).iter();
        let links = links.filter_map(|number| self.links.link(*number));
        let others = links.map(|link| link.other(node));
        others
            .filter_map(|other| Some((other, self.nodes[other].process.as_ref()?.life)))
            .collect()
    }

    /// What a stream may need more than the delay of its path, when packets are lost.
    pub(in super::super) fn stream_slack(&self) -> Duration {
        let lossy = self.paths.weather().loss > 0.0;
        self.paths.longest() * 4 + Duration::from_secs(if lossy { 4 } else { 0 })
    }

    fn noise(&mut self, node: usize) {
        for _ in 0..20 {
            let length = self.chance.index(200);
            let bytes: Vec<u8> = (0..length)
                .map(|_| self.chance.next().to_le_bytes()[0])
                .collect();
            self.agenda.after(
                Duration::ZERO,
                Event::Datagram {
                    node,
                    bytes: bytes.into(),
                },
            );
        }
    }
}
