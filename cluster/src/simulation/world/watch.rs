//! The onlooker: what it has seen of the run, and the rules it holds it to.

use std::collections::BTreeMap;
use std::time::Duration;

use policy::{Timestamp, Unit};

use super::super::database::Client;
use super::super::links::Life;
use super::super::node::{Process, SYNC};
use super::super::scenario::Health;
use super::bounds::Told;
use super::{Event, World};
use crate::origin::Origin;

/// How often the onlooker compares.
pub(super) const WATCH: Duration = Duration::from_millis(200);

/// The longest that a side of a split may go on as if it were whole: until the silence is noticed,
/// and half a second.
const UNNOTICED: Duration = Duration::from_secs(1);

/// What the onlooker remembers.
#[derive(Debug)]
pub(in super::super) struct Seen {
    pub(in super::super) admitted: u64,
    pub(in super::super) refused: u64,
    pub(super) duties: u64,
    /// Most requests that waited for the store of one node.
    pub(super) most_asked: usize,
    /// When a total last changed anywhere.
    pub(in super::super) changed_at: Duration,
    /// Largest difference between the cluster times of two serving nodes, in milliseconds.
    pub(in super::super) skew_ms: u64,
    disturbed: Vec<Duration>,
    clients: BTreeMap<(usize, Life), Client>,
    pub(in super::super) revocations: BTreeMap<String, (usize, Life)>,
    /// What processes may have taken with them, by account; and by whom.
    pub(in super::super) may_be_lost: BTreeMap<(Origin, usize), u64>,
    flushed_at: Vec<Duration>,
    crashed_at: Vec<Duration>,
    /// By account.
    pub(in super::super) told: Vec<Told>,
}

impl Seen {
    pub(super) fn new(nodes: usize, accounts: usize) -> Self {
        Self {
            admitted: 0,
            refused: 0,
            duties: 0,
            most_asked: 0,
            changed_at: Duration::ZERO,
            skew_ms: 0,
            disturbed: vec![Duration::ZERO; nodes],
            clients: BTreeMap::new(),
            revocations: BTreeMap::new(),
            may_be_lost: BTreeMap::new(),
            flushed_at: vec![Duration::ZERO; nodes],
            crashed_at: Vec::new(),
            told: (0..accounts).map(|_| Told::default()).collect(),
        }
    }

    pub(super) fn started(&mut self, node: usize, life: Life, client: Client) {
        self.clients.insert((node, life), client);
    }

    /// Who a process is or was.
    pub(super) fn client(&self, node: usize, life: Life) -> Option<Client> {
        self.clients.get(&(node, life)).cloned()
    }

    pub(super) fn clock_stepped(&mut self, by_ms: i64) {
        self.skew_ms = self.skew_ms.max(by_ms.unsigned_abs());
    }

    pub(super) fn disturb(&mut self, node: usize, until: Duration) {
        self.disturbed[node] = self.disturbed[node].max(until);
    }

    /// Whether nothing kept a node from hearing the others lately.
    pub(super) fn undisturbed(&self, node: usize, now: Duration) -> bool {
        self.disturbed[node] <= now
    }

    pub(super) fn revoked(&mut self, hash: String, node: usize, life: Life) {
        self.revocations.insert(hash, (node, life));
    }

    pub(super) fn flushed(&mut self, node: usize, now: Duration) {
        self.flushed_at[node] = now;
    }

    /// Whether a process has gone in this run: what it counted last may be repaired only when two
    /// nodes compare what they have.
    pub(in super::super) fn somebody_went(&self) -> bool {
        !self.crashed_at.is_empty()
    }
}

impl World {
    /// Compares what can be compared while the run goes on.
    pub(super) fn watch(&mut self) {
        self.agenda.after(WATCH, Event::Watch);
        for node in 0..self.nodes.len() {
            self.watch_readiness(node);
        }
        self.watch_clocks();
        self.watch_bounds();
        self.watch_entities();
    }

    fn watch_readiness(&mut self, node: usize) {
        let now = self.now();
        let time = self.nodes[node].time(now);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if process.ready_at.is_some() || process.paused.is_some() {
            return;
        }
        if !process.core.view(time).caught_up {
            return;
        }
        process.ready_at = Some(now);
        self.check_caught_up(node, time.wall);
    }

    /// Whoever serves knows at least what the database had when it started, if anyone could tell it.
    pub(super) fn check_caught_up(&mut self, node: usize, wall: Timestamp) {
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let peers = self.links.of_node(node).iter();
        let peers = peers.filter_map(|number| self.links.link(*number));
        let told = peers.map(|link| link.other(node)).any(|other| {
            let peer = self.nodes[other].process.as_ref();
            peer.is_some_and(|peer| peer.ready_at.is_some())
        });
        let alone = self.health != Health::Well && !told;
        if alone || !self.seen.undisturbed(node, self.now()) {
            return;
        }
        // A clock that was ahead at the start has let the oldest part of a window go.
        let skewed = wall.plus(Duration::from_millis(self.seen.skew_ms) + WATCH);
        for (account, books) in self.ledger.accounts.iter().enumerate() {
            let cells = process.at_start.iter();
            let known: u64 = cells
                .filter(|(of, epoch, _)| *of == account && books.counts(*epoch, skewed))
                .map(|(.., used)| used)
                .sum();
            let total = process.gateway.counters[account].total(wall);
            if total < known {
                let what = format!(
                    "I8: {} serves with {total} on {}, though {known} were known when it started",
                    self.nodes[node].name, books.text
                );
                return self.violate(what);
            }
        }
    }

    /// What the database has of every account: account, epoch, amount.
    pub(super) fn stored_now(&self) -> Vec<(usize, i64, u64)> {
        let cells = self.database.cells();
        cells
            .filter_map(|(_, counter, epoch, used)| {
                let mut accounts = self.ledger.accounts.iter();
                let account = accounts.position(|books| books.text == *counter)?;
                Some((account, epoch, used))
            })
            .collect()
    }

    fn watch_clocks(&mut self) {
        let now = self.now();
        let serving = self.nodes.iter().filter(|node| {
            let process = node.process.as_ref();
            process.is_some_and(|process| process.ready_at.is_some() && process.paused.is_none())
        });
        let ahead: Vec<i64> = serving.map(|node| node.cluster_time_ahead(now)).collect();
        if let (Some(least), Some(most)) = (ahead.iter().min(), ahead.iter().max()) {
            self.seen.skew_ms = self.seen.skew_ms.max(least.abs_diff(*most));
        }
    }

    /// I1: what all nodes have admitted of a strict limit is within it, to the unit. Each node's part
    /// is what it counts by its own clock: windows of one limit begin at different moments where
    /// clocks differ, and no node knows another's better than that. What killed processes had told
    /// nobody is left out: there are no disks here from which their next start would read it.
    pub(super) fn check_strict(&mut self, node: usize, account: usize) {
        let now = self.now();
        let walls: Vec<Timestamp> = self.nodes.iter().map(|node| node.time(now).wall).collect();
        let books = &self.ledger.accounts[account];
        let total = books.total_by(|node| walls[node]);
        let total = total.saturating_sub(self.lost(account));
        if total > books.limit {
            let what = format!(
                "I1: with what {} admitted there are {total} of {} on {}, which is strict",
                self.nodes[node].name, books.limit, books.text
            );
            self.violate(what);
        }
    }

    /// A limit was passed by an admission of this node: was it by more than its delay explains?
    pub(super) fn passed(&mut self, node: usize, account: usize, over: u64) {
        self.exceeded(node, account, over);
        if over <= self.ledger.accounts[account].worst {
            return;
        }
        // Beside a build that does not tell its holds, nobody's holds count elsewhere: they are seen
        // when they are settled, and what only holds make up never is.
        let untold = self.scenario.old.contains(&true);
        if untold && self.scenario.load.limits[account].unit == Unit::Concurrent {
            return;
        }
        let unsettled = self.scenario.load.open_for * if untold { 6 } else { 0 };
        let lag = self.lag(node) + unsettled;
        let skew = Duration::from_millis(self.seen.skew_ms);
        let lost = self.lost(account);
        // Rates are no whole numbers, requests are: a usual one of each node.
        let uneven = self.scenario.load.limits[account].asked(300) * self.nodes.len() as u64;
        let books = &mut self.ledger.accounts[account];
        let allowed = books.peak_within(lag) + books.peak_within(skew) + lost + uneven;
        books.worst = over;
        books.worst_part = books.worst_part.max(over as f64 / allowed.max(1) as f64);
        if over > allowed {
            let what = format!(
                "I2: {} admitted {over} beyond {} on {}; {allowed} are explained by {lag:?} of delay, {skew:?} of skew and {lost} lost",
                self.nodes[node].name, books.limit, books.text
            );
            self.violate(what);
        }
    }

    /// What killed processes may have told nobody.
    fn lost(&self, account: usize) -> u64 {
        let lost = self.seen.may_be_lost.iter();
        let lost = lost.filter(|((_, of), _)| *of == account);
        lost.map(|(_, lost)| lost).sum()
    }

    /// How old the newest thing may be that this node does not know of the others.
    fn lag(&self, node: usize) -> Duration {
        let now = self.now();
        let Some(process) = &self.nodes[node].process else {
            return Duration::ZERO;
        };
        let usual = self.heard_within();
        let others = (0..self.nodes.len()).filter(|other| *other != node);
        let blind = others.map(|other| self.blind_for(node, other, process, now));
        usual + blind.max().unwrap_or_default().min(UNNOTICED)
    }

    /// How long it takes until everyone has heard of something.
    pub(super) fn heard_within(&self) -> Duration {
        let sync = if self.nodes.len() > 8 {
            SYNC * 5 / 2
        } else {
            SYNC
        };
        sync + self.paths.longest() * 2 + self.tick_every() * 3 + self.stream_slack()
    }

    /// For how long a node could not hear another that was serving.
    fn blind_for(&self, node: usize, other: usize, process: &Process, now: Duration) -> Duration {
        let serving = self.nodes[other]
            .process
            .as_ref()
            .and_then(|process| process.ready_at);
        let Some(serving_since) = serving else {
            return Duration::ZERO;
        };
        let silent = now.saturating_sub(process.heard[other].max(serving_since));
        // Requests that waited while it stood still are served before it hears of anything.
        let woke = process.woke_at.is_some_and(|at| now - at < WATCH);
        if woke {
            return silent;
        }
        let hears = self.links.joined(node, other) && !self.paths.is_cut(other, node);
        match hears && silent < Duration::from_millis(1_200) + self.paths.longest() * 2 {
            true => Duration::ZERO,
            false => silent,
        }
    }

    /// A process is gone. What it had settled and told nobody of is lost.
    pub(super) fn note_losses(&mut self, node: usize, process: &Process) {
        let now = self.now();
        self.seen.crashed_at.push(now);
        let together = self
            .seen
            .crashed_at
            .iter()
            .filter(|at| now - **at < Duration::from_secs(15));
        // Whom it told may have gone, too, before telling others.
        let back = if together.count() > 1 {
            Duration::from_secs(15)
        } else {
            Duration::from_millis(1_500)
        };
        let known = process
            .told_at
            .max(self.seen.flushed_at[node])
            .saturating_sub(back);
        for (_, account, amount) in process.recent.iter().filter(|(at, ..)| *at >= known) {
            *self
                .seen
                .may_be_lost
                .entry((process.origin, *account))
                .or_default() += amount;
        }
    }
}
