//! One run from its seed to its verdict.

use std::time::Duration;

use policy::Mode;

use super::node::SYNC;
use super::scenario::Scenario;
use super::world::World;
use crate::core::MemberState;

/// How long a cluster may take after its heal to be as if nothing had been.
const RECOVERY: Duration = Duration::from_secs(75);

/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// What came of a run.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// Hash over everything that happened.
    pub(super) trace: u64,
    pub(super) events: u64,
    pub(super) admitted: u64,
    pub(super) refused: u64,
    /// The worst passing of a limit, as a part of what its delay explains.
    pub(super) worst_part: f64,
    /// From the last change, with every link up, to the same totals everywhere.
    pub(super) convergence: Option<Duration>,
    /// From the heal until every two nodes had a link again.
    pub(super) rejoined: Option<Duration>,
}

/// Runs a scenario; the error says which rule was broken.
pub(super) fn run(scenario: Scenario) -> Result<Report, String> {
    let mut world = World::new(scenario);
    world.run_until(world.scenario.heal_at);
    finish(world)
}

/// Ends all that goes wrong, and holds what comes of it against the rules.
pub(super) fn finish(mut world: World) -> Result<Report, String> {
    world.heal();
    world.run_until(world.scenario.idle_at);
    let mut report = recover(&mut world);
    report.trace = world.trace;
    report.events = world.events;
    report.admitted = world.seen.admitted;
    report.refused = world.seen.refused;
    let parts = world.ledger.accounts.iter().map(|books| books.worst_part);
    report.worst_part = parts.fold(0.0, f64::max);
    match world.violation {
        Some(violation) => Err(violation.0),
        None => Ok(report),
    }
}

/// Waits until the cluster is as if nothing had been.
fn recover(world: &mut World) -> Report {
    let mut report = Report {
        trace: 0,
        events: 0,
        admitted: 0,
        refused: 0,
        worst_part: 0.0,
        convergence: None,
        rejoined: None,
    };
    let deadline = world.scenario.idle_at + RECOVERY;
    let mut whole_since = None;
    let look = if world.nodes.len() > 10 {
        LOOK * 5
    } else {
        LOOK
    };
    while world.violation.is_none() {
        world.run_until(world.now() + look);
        let now = world.now();
        if !world.is_whole() {
            (whole_since, report.convergence) = (None, None);
        } else if whole_since.is_none() {
            whole_since = Some(now);
            report.rejoined = Some(now - world.scenario.heal_at);
        }
        if let (Some(since), true) = (whole_since, world.is_idle()) {
            let from = since.max(world.seen.changed_at);
            converge(world, &mut report, from);
        }
        if report.convergence.is_some() {
            match world.unsettled() {
                None => break,
                Some(what) if now >= deadline => world.violate(what),
                Some(_) => {}
            }
        } else if now >= deadline {
            let what = world.why_not_whole();
            world.violate(what);
        }
    }
    report
}

/// Notes when all nodes have the same totals, and holds them to their time.
fn converge(world: &mut World, report: &mut Report, from: Duration) {
    let now = world.now();
    if report.convergence.is_some() {
        return;
    }
    if world.totals_agree() {
        report.convergence = Some(now - from);
        return;
    }
    let sync = if world.nodes.len() > 8 {
        SYNC * 10
    } else {
        SYNC
    };
    let within = sync * 3 + world.paths.longest() * 2 + world.stream_slack() + LOOK * 10;
    if now > from + within && !world.seen.somebody_went() {
        let what = world.disagreement();
        world.violate(format_args!("I5: not the same after {within:?}: {what}"));
    }
}

impl World {
    /// Whether every two processes have a link.
    fn is_whole(&self) -> bool {
        self.unjoined().is_none()
    }

    fn unjoined(&self) -> Option<(usize, usize)> {
        let running: Vec<usize> = self.running().collect();
        for (place, one) in running.iter().enumerate() {
            for other in &running[place + 1..] {
                if !self.links.joined(*one, *other) {
                    return Some((*one, *other));
                }
            }
        }
        None
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].process.is_some())
    }

    /// Whether no request is open.
    fn is_idle(&self) -> bool {
        let mut processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        processes.all(|process| process.open.is_empty())
    }

    fn why_not_whole(&self) -> String {
        match self.unjoined() {
            Some((one, other)) => {
                format!(
                    "no link between node {one} and node {other} {RECOVERY:?} after all was well"
                )
            }
            None => "requests are open for ever".to_owned(),
        }
    }

    /// A node's totals by account, in cluster time.
    fn totals(&self, node: usize) -> Vec<u64> {
        let wall = self.nodes[node].time(self.now()).wall;
        let process = self.nodes[node].process.as_ref();
        process.map_or_else(Vec::new, |process| {
            process
                .gateway
                .counters
                .iter()
                .map(|counter| counter.total(wall))
                .collect()
        })
    }

    /// What a node counts as settled on these accounts. Holds are left out: those of a process that
    /// died end when its death is certain.
    fn settled_at(&self, node: usize, accounts: &[usize]) -> Vec<u64> {
        let wall = self.nodes[node].time(self.now()).wall;
        let process = self.nodes[node].process.as_ref();
        process.map_or_else(Vec::new, |process| {
            let used = |account: &usize| process.gateway.limits[*account].standing(wall).used;
            accounts.iter().map(used).collect()
        })
    }

    fn totals_agree(&self) -> bool {
        self.differing().is_none()
    }

    /// A node whose totals on accounts that do not slide differ from another's.
    fn differing(&self) -> Option<(usize, usize)> {
        let slow: Vec<usize> = (0..self.ledger.accounts.len())
            .filter(|account| self.scenario.load.limits[*account].every == "1h")
            .collect();
        let of = |node: usize| self.settled_at(node, &slow);
        let mut running = self.running();
        let first = running.next()?;
        let wanted = of(first);
        running
            .find(|node| of(*node) != wanted)
            .map(|node| (first, node))
    }

    fn disagreement(&self) -> String {
        match self.differing() {
            Some((one, other)) => {
                let (left, right) = (self.totals(one), self.totals(other));
                let stored: Vec<_> = self
                    .database
                    .cells()
                    .filter(|(_, counter, ..)| counter.contains("/1h/"))
                    .map(|(origin, _, _, used)| {
                        (
                            self.running().find(|n| self.origin(*n) == Some(origin)),
                            used,
                        )
                    })
                    .collect();
                let settled: Vec<_> = self
                    .ledger
                    .accounts
                    .iter()
                    .filter(|books| books.text.contains("/1h/"))
                    .map(|books| books.settled.values().copied().collect::<Vec<_>>())
                    .collect();
                format!(
                    "node {one} has {left:?}, node {other} {right:?}; stored {stored:?} settled {settled:?}"
                )
            }
            None => "nothing".to_owned(),
        }
    }

    /// What is not yet as it would be if nothing had gone wrong; none if all is.
    fn unsettled(&mut self) -> Option<String> {
        let checks = [
            Self::books_differ,
            Self::totals_differ,
            Self::members_differ,
            Self::revocations_differ,
            Self::entities_differ,
        ];
        checks.iter().find_map(|check| check(self))
    }

    /// I3: the database has what was settled, except what crashed processes told nobody.
    fn books_differ(&self) -> Option<String> {
        let now = self.now();
        for (account, books) in self.ledger.accounts.iter().enumerate() {
            let mut lost = std::collections::BTreeMap::new();
            for ((origin, epoch), settled) in &books.settled {
                let text = &books.text;
                let stored = self.database.used(*origin, text, *epoch);
                let alive = self
                    .running()
                    .any(|node| self.origin(node) == Some(*origin));
                let wall = super::clock::true_time(now);
                if stored > *settled {
                    return Some(format!(
                        "I3: {origin} settled {settled} on {text} in {epoch}, stored are {stored}"
                    ));
                }
                if alive
                    && stored < *settled
                    && books.counts(*epoch, wall.plus(Duration::from_secs(10)))
                {
                    return Some(format!(
                        "I3: {origin} settled {settled} on {text} in {epoch}, only {stored} are stored"
                    ));
                }
                if !alive && books.counts(*epoch, wall.plus(Duration::from_secs(10))) {
                    *lost.entry(*origin).or_insert(0) += settled - stored;
                }
            }
            for (origin, lost) in lost {
                let allowed = self
                    .seen
                    .may_be_lost
                    .get(&(origin, account))
                    .copied()
                    .unwrap_or(0);
                if lost > allowed {
                    return Some(format!(
                        "I3: {lost} of {origin} on {} are lost, at most {allowed} may be",
                        books.text
                    ));
                }
            }
        }
        None
    }

    fn origin(&self, node: usize) -> Option<crate::origin::Origin> {
        self.nodes[node]
            .process
            .as_ref()
            .map(|process| process.origin)
    }

    /// I3 and I4: every node counts what is stored, and nothing else: no holds.
    fn totals_differ(&self) -> Option<String> {
        for node in self.running() {
            let wall = self.nodes[node].time(self.now()).wall;
            let totals = self.totals(node);
            for (books, total) in self.ledger.accounts.iter().zip(&totals) {
                let stored: u64 = self
                    .database
                    .cells()
                    .filter(|(_, counter, epoch, _)| {
                        **counter == books.text && books.counts(*epoch, wall)
                    })
                    .map(|(.., used)| used)
                    .sum();
                if *total != stored {
                    let name = &self.nodes[node].name;
                    return Some(format!(
                        "I3, I4: {name} counts {total} on {}, stored are {stored}",
                        books.text
                    ));
                }
            }
        }
        None
    }

    /// All see each other up, follow the same leader, and hold limits as one fleet.
    fn members_differ(&self) -> Option<String> {
        let mut leader = None;
        for node in self.running() {
            let name = &self.nodes[node].name;
            let process = self.nodes[node].process.as_ref()?;
            let view = process.core.view(self.nodes[node].time(self.now()));
            for other in self.running() {
                let key = self.nodes[other].key;
                let member = view.members.iter().find(|member| member.key == key);
                // Datagrams go on being lost, so a suspicion may be under way at any moment; an open
                // link says that it is wrong.
                let up = member.is_some_and(|member| match member.state {
                    MemberState::Up => true,
                    MemberState::Suspect => member.link_up,
                    _ => member.is_self,
                });
                if !up {
                    let state = member.map(|member| member.state);
                    return Some(format!(
                        "{name} sees {} as {state:?}",
                        self.nodes[other].name
                    ));
                }
            }
            let first = leader.get_or_insert_with(|| view.leaders.cluster.clone());
            if *first != view.leaders.cluster || first.is_none() {
                return Some(format!(
                    "{name} follows {:?}, another {first:?}",
                    view.leaders.cluster
                ));
            }
            let split = view.limits.iter().find(|limit| {
                !matches!(
                    limit.mode,
                    Mode::Live | Mode::Single | Mode::GuardBand | Mode::Divided
                )
            });
            if let Some(limit) = split {
                return Some(format!(
                    "{name} holds {} by {:?}: {:?}",
                    limit.counter, limit.mode, view.degraded
                ));
            }
            if !view.caught_up {
                return Some(format!("{name} has not caught up"));
            }
        }
        None
    }

    /// I6: what one refuses, all refuse.
    fn revocations_differ(&self) -> Option<String> {
        let has = |node: usize, hash: &String| {
            let process = self.nodes[node].process.as_ref();
            process.is_some_and(|process| process.revoked.contains_key(hash))
        };
        for hash in self.seen.revocations.keys() {
            let known = self.running().any(|node| has(node, hash));
            if let Some(node) = self.running().find(|node| known && !has(*node, hash)) {
                return Some(format!(
                    "I6: {} never refused {hash}",
                    self.nodes[node].name
                ));
            }
        }
        None
    }
}
