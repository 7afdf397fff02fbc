//! A few cores and what is between them: paths that can be cut, and a store that each of them
//! reaches or does not.

use std::collections::{BTreeMap, VecDeque};

use policy::Enforcement;

use super::limited::Limited;
use super::*;

/// A limit of this many requests, on each node.
pub(super) const LIMIT: u64 = 90;

const STEP: u64 = 10;

/// Nodes 1 to n, by index from 0.
pub(super) struct Fleet {
    pub(super) nodes: Vec<Bench>,
    pub(super) limits: Vec<Limited>,
    /// Nodes of different sides do not hear each other.
    pub(super) side: Vec<u8>,
    /// Two that do not hear each other, though others hear both.
    pub(super) parted: Option<(usize, usize)>,
    /// Whose requests the store answers.
    pub(super) stored: Vec<bool>,
    /// A node that does not run.
    pub(super) off: Vec<bool>,
    links: BTreeMap<u64, (usize, usize)>,
    number: u64,
    on_way: VecDeque<(usize, Input)>,
    beats: BTreeMap<NodeKey, (HeartbeatRow, u64)>,
    cells: BTreeMap<(Origin, Arc<str>, i64), WireCell>,
    /// Of each task: who has it, and its term.
    terms: BTreeMap<String, (usize, u64)>,
    pub(super) asked_outcomes: u32,
    pub(super) fail_outcomes: u32,
    /// What diagnoses found, and when; nothing: its end.
    pub(super) diagnosed: Vec<(u64, u64, Option<Diagnosis>)>,
    pub(super) ms: u64,
}

impl Fleet {
    /// Nodes that know the addresses of all, and have found each other.
    pub(super) fn whole(count: u16) -> Self {
        let mut fleet = Self::begun(count, |_| {});
        fleet.pass(8_000);
        for node in 0..usize::from(count) {
            let view = fleet.nodes[node].core.view(fleet.nodes[node].now());
            assert!(view.caught_up && view.degraded.is_empty(), "{view:?}");
        }
        fleet
    }

    /// Nodes at their start.
    pub(super) fn begun(count: u16, change: impl Fn(&mut CoreConfig)) -> Self {
        let mut fleet = Self {
            nodes: Vec::new(),
            limits: Vec::new(),
            side: vec![0; usize::from(count)],
            parted: None,
            stored: vec![true; usize::from(count)],
            off: vec![false; usize::from(count)],
            links: BTreeMap::new(),
            number: 0,
            on_way: VecDeque::new(),
            beats: BTreeMap::new(),
            cells: BTreeMap::new(),
            terms: BTreeMap::new(),
            asked_outcomes: 0,
            fail_outcomes: 0,
            diagnosed: Vec::new(),
            ms: 0,
        };
        for number in 1..=count {
            let (bench, limited) = member(number, 10, count, &change);
            fleet.nodes.push(bench);
            fleet.limits.push(limited);
        }
        fleet.join();
        fleet
    }

    fn join(&mut self) {
        let count = self.nodes.len();
        for node in 0..count {
            let others = (0..count).filter(|other| *other != node);
            let seeds = others.map(|other| address(other + 1)).collect();
            let input = Input::Command(Command::SetSeeds(seeds));
            self.on_way.push_back((node, input));
        }
    }

    /// A new process in the place of a node's.
    pub(super) fn restart(&mut self, node: usize, boot: u64) {
        let count = u16::try_from(self.nodes.len()).expect("few");
        let number = u16::try_from(node + 1).expect("few");
        let broken: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, ends)| ends.0 == node || ends.1 == node)
            .map(|(link, _)| *link)
            .collect();
        for link in broken {
            self.close(link);
        }
        self.on_way.retain(|(to, _)| *to != node);
        let (mut bench, limited) = member(number, boot, count, &|_| {});
        bench.ms = self.ms;
        let now = bench.now();
        let config = bench.core.config.clone();
        bench.core = Core::new(config, Arc::clone(&bench.table), 7, now);
        self.nodes[node] = bench;
        self.limits[node] = limited;
        self.off[node] = false;
        self.join();
    }

    /// A node is asked for something.
    pub(super) fn order(&mut self, node: usize, command: Command) {
        let effects = self.nodes[node].order(command);
        self.carry_out(node, effects);
    }

    /// A node says goodbye and goes.
    pub(super) fn leave(&mut self, node: usize) {
        self.order(node, Command::Leave);
        self.pass(500);
        self.off[node] = true;
    }

    pub(super) fn pass(&mut self, ms: u64) {
        for _ in 0..ms / STEP {
            self.ms += STEP;
            for (node, input) in std::mem::take(&mut self.on_way) {
                if !self.off[node] {
                    let effects = self.nodes[node].tell(input);
                    self.carry_out(node, effects);
                }
            }
            for node in 0..self.nodes.len() {
                if self.off[node] {
                    continue;
                }
                let effects = self.nodes[node].pass(STEP);
                self.carry_out(node, effects);
            }
        }
    }

    /// How many of so many requests each node admits, asked one after the other for a while.
    pub(super) fn admitted(&mut self, asked: u64) -> Vec<u64> {
        let mut admitted = vec![0; self.nodes.len()];
        for _ in 0..asked {
            for (node, sum) in admitted.iter_mut().enumerate() {
                if !self.off[node] {
                    *sum += self.limits[node].admitted(1, self.nodes[node].now().wall);
                }
            }
            self.pass(50);
        }
        admitted
    }

    pub(super) fn degraded(&self, node: usize) -> Vec<&'static str> {
        let view = self.nodes[node].core.view(self.nodes[node].now());
        view.degraded.iter().map(DegradedReason::as_str).collect()
    }

    pub(super) fn leader(&self, node: usize) -> Option<String> {
        let view = self.nodes[node].core.view(self.nodes[node].now());
        view.leaders.cluster
    }

    fn hears(&self, one: usize, other: usize) -> bool {
        let pair = (one.min(other), one.max(other));
        self.side[one] == self.side[other]
            && self.parted != Some(pair)
            && !self.off[one]
            && !self.off[other]
    }

    fn close(&mut self, link: u64) {
        if let Some((one, other)) = self.links.remove(&link) {
            for (end, far) in [(one, other), (other, one)] {
                let node = NodeKey(far as u128 + 1);
                self.on_way.push_back((end, Input::LinkDown { link, node }));
            }
        }
    }

    fn carry_out(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Datagram { to, bytes } if self.hears(node, at(to)) => {
                    let input = Input::Datagram(bytes.into());
                    self.on_way.push_back((at(to), input));
                }
                Effect::Exchange { to, bytes } => self.exchange(node, to, bytes),
                Effect::Dial { node: key, .. } => self.dial(node, key),
                Effect::CloseLink { link } => self.close(link),
                Effect::Frame { link, frame } => {
                    let Some((one, other)) = self.links.get(&link).copied() else {
                        continue;
                    };
                    let far = if one == node { other } else { one };
                    if self.hears(node, far) {
                        let node = NodeKey(node as u128 + 1);
                        let input = Input::Frame { link, node, frame };
                        self.on_way.push_back((far, input));
                    }
                }
                Effect::ProbeLink { node: key, .. } => {
                    let outcome = match self.hears(node, index(key)) {
                        true => ProbeOutcome::Open,
                        false => ProbeOutcome::Silent,
                    };
                    let input = Input::Probed { node: key, outcome };
                    self.on_way.push_back((node, input));
                }
                Effect::Store(request) => {
                    let reply = match self.stored[node] {
                        true => self.serve(node, request),
                        false => request.failed(),
                    };
                    self.on_way.push_back((node, Input::Store(reply)));
                }
                Effect::Diagnosed { id, diagnosis } => {
                    self.diagnosed.push((self.ms, id, Some(diagnosis)));
                }
                Effect::DiagnosisEnded { id } => self.diagnosed.push((self.ms, id, None)),
                _ => {}
            }
        }
    }

    fn exchange(&mut self, node: usize, to: SocketAddr, bytes: Vec<u8>) {
        let mut result = Err(ExchangeFailure::TimedOut);
        if self.hears(node, at(to)) {
            let asked = Input::ExchangeAsked {
                exchange: 1,
                bytes: bytes.into(),
            };
            let answers = self.nodes[at(to)].tell(asked);
            for effect in answers {
                match effect {
                    Effect::AnswerExchange { bytes, .. } => result = Ok(bytes.into()),
                    other => self.carry_out(at(to), vec![other]),
                }
            }
        }
        let input = Input::ExchangeAnswered { to, result };
        self.on_way.push_back((node, input));
    }

    fn dial(&mut self, node: usize, key: NodeKey) {
        let far = index(key);
        if !self.hears(node, far) {
            let refused = false;
            let input = Input::DialFailed { node: key, refused };
            return self.on_way.push_back((node, input));
        }
        self.number += 1;
        let link = self.number;
        self.links.insert(link, (node, far));
        for (end, other) in [(node, far), (far, node)] {
            let hello = self.nodes[other].core.hello();
            self.on_way.push_back((end, Input::LinkUp { link, hello }));
        }
    }

    fn serve(&mut self, node: usize, request: StoreRequest) -> StoreReply {
        match request {
            StoreRequest::Heartbeat | StoreRequest::Goodbye => {
                let config = &self.nodes[node].core.config;
                let gone = matches!(request, StoreRequest::Goodbye);
                let row = HeartbeatRow {
                    origin: config.me,
                    name: if gone {
                        GONE.to_owned()
                    } else {
                        config.name.clone()
                    },
                    region: String::new(),
                    stale_for: Duration::ZERO,
                };
                self.beats.insert(config.me.node, (row, self.ms));
                StoreReply::Heartbeat(Ok(()))
            }
            StoreRequest::Heartbeats => {
                let rows = self.beats.values().map(|(row, at)| HeartbeatRow {
                    stale_for: Duration::from_millis(self.ms - at),
                    ..row.clone()
                });
                StoreReply::Heartbeats(Ok(rows.collect()))
            }
            StoreRequest::LoadCells => {
                let cells = self.cells.iter();
                let cells = cells.map(|((origin, ..), cell)| (*origin, cell.clone()));
                StoreReply::LoadCells(Ok(cells.collect()))
            }
            StoreRequest::FlushCells(cells) => {
                for (origin, cell) in &cells {
                    let key = (*origin, Arc::clone(&cell.counter), cell.epoch);
                    let (ver, held) = (0, 0);
                    let kept = WireCell {
                        ver,
                        held,
                        ..cell.clone()
                    };
                    self.cells.insert(key, kept);
                }
                let result = Ok(());
                StoreReply::FlushCells { cells, result }
            }
            StoreRequest::TakeTerm { scope, task } => {
                let held = self.terms.entry(task.clone()).or_insert((node, 1));
                let result = Ok((held.0 == node).then_some(held.1));
                StoreReply::TakeTerm {
                    scope,
                    task,
                    result,
                }
            }
            StoreRequest::LoadOutcomes => {
                self.asked_outcomes += 1;
                let fails = self.asked_outcomes <= self.fail_outcomes;
                StoreReply::LoadOutcomes(if fails { Err(()) } else { Ok(Vec::new()) })
            }
            StoreRequest::SealWindows { term } => {
                let result = Ok(0);
                StoreReply::SealWindows { term, result }
            }
            StoreRequest::ReleaseTerm { .. } => StoreReply::ReleaseTerm(Ok(())),
            other => other.failed(),
        }
    }
}

fn member(
    number: u16,
    boot: u64,
    count: u16,
    change: &impl Fn(&mut CoreConfig),
) -> (Bench, Limited) {
    let bench = Bench::with(|config| {
        config.me = origin(number.into(), boot);
        config.name = format!("n{number}");
        config.gossip = address(number.into());
        config.seeds_expected = count > 1;
        config.configured_nodes = count.into();
        change(config);
    });
    let limited = Limited::new(&bench.table, COUNTER, LIMIT, Enforcement::Eventual);
    (bench, limited)
}

fn address(number: usize) -> SocketAddr {
    let port = u16::try_from(number).expect("few");
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn at(address: SocketAddr) -> usize {
    usize::from(address.port()) - 1
}

fn index(key: NodeKey) -> usize {
    usize::try_from(key.0).expect("few") - 1
}
