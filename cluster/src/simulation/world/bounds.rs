//! I2 as operators see it: what was admitted beyond a limit is held against what the nodes tell.
//!
//! Each node tells of each limit by how much all nodes together may pass it. An excess is covered if
//! some live node told as much around the moment when it was admitted. Around is from a second
//! before, which is how often a limit far from its end is judged, until everyone can have heard of
//! the excess and judged it: no node can tell of a rate or a delay that nobody has seen yet.

use std::collections::VecDeque;
use std::time::Duration;

use super::World;
use super::watch::WATCH;
use crate::simulation::scenario::Sabotage;

/// How long before an excess the bound may have been told.
const BEFORE: Duration = Duration::from_secs(1);

/// What was told of one limit, and what is to be covered by it.
#[derive(Debug, Default)]
pub(in super::super) struct Told {
    /// The largest bound that a live node told, at each look; `None`: one of them could tell none.
    looks: VecDeque<(Duration, Option<u64>)>,
    /// The largest excess since the last look.
    fresh: Option<Excess>,
    open: VecDeque<Excess>,
    /// The largest part of a bound that an excess was.
    pub(in super::super) worst_part: f64,
}

/// So much was admitted beyond a limit.
#[derive(Clone, Copy, Debug)]
struct Excess {
    at: Duration,
    over: u64,
    node: usize,
    /// By then whoever tells anything has told of it.
    due: Duration,
}

// === impl Told ===

impl Told {
    fn take_due(&mut self, now: Duration) -> Option<Excess> {
        let first = self.open.front().map_or(now, |excess| excess.at);
        self.looks.retain(|(at, _)| *at + BEFORE + WATCH >= first);
        self.open.pop_front_if(|excess| excess.due <= now)
    }

    /// The largest bound that was told in this time; `None`: not everybody could tell one.
    fn largest(&self, from: Duration, until: Duration) -> Option<u64> {
        let looks = self.looks.iter();
        let around = looks.filter(|(at, _)| (from..=until).contains(at));
        around
            .map(|(_, told)| *told)
            .try_fold(0, |most, told| Some(most.max(told?)))
    }
}

impl World {
    /// This much was admitted beyond a limit, by this node.
    pub(super) fn exceeded(&mut self, node: usize, account: usize, over: u64) {
        let at = self.now();
        let due = at + self.heard_within() + WATCH * 2;
        let fresh = &mut self.seen.told[account].fresh;
        if fresh.is_none_or(|fresh| fresh.over < over) {
            *fresh = Some(Excess {
                at,
                over,
                node,
                due,
            });
        }
    }

    /// Notes what the nodes tell now, and judges what is due.
    pub(super) fn watch_bounds(&mut self) {
        let now = self.now();
        for account in 0..self.ledger.accounts.len() {
            let told = self.told_now(account);
            let books = &mut self.seen.told[account];
            books.looks.push_back((now, told));
            books.open.extend(books.fresh.take());
            while let Some(excess) = self.seen.told[account].take_due(now) {
                self.judge_excess(account, excess);
            }
        }
    }

    fn judge_excess(&mut self, account: usize, excess: Excess) {
        let books = &mut self.seen.told[account];
        let from = excess.at.saturating_sub(BEFORE);
        let Some(told) = books.largest(from, excess.due) else {
            return;
        };
        books.worst_part = books
            .worst_part
            .max(excess.over as f64 / told.max(1) as f64);
        if excess.over > told {
            let (name, text) = (
                &self.nodes[excess.node].name,
                &self.ledger.accounts[account].text,
            );
            let what = format!(
                "I2: {name} admitted {} beyond the limit of {text} at {:?}; until {:?} nobody told more than {told}",
                excess.over, excess.at, excess.due
            );
            self.violate(what);
        }
    }

    /// The largest bound that a serving node tells of a limit; `None`: one of them cannot tell any.
    fn told_now(&self, account: usize) -> Option<u64> {
        let mut most = 0;
        for node in &self.nodes {
            let Some(process) = node.process.as_ref() else {
                continue;
            };
            if process.ready_at.is_none() || process.paused.is_some() {
                continue;
            }
            let standing = process.gateway.limits[account].standing(node.time(self.now()).wall);
            let unknown = standing.overshoot_bound.is_none() && self.scenario.old.contains(&true);
            if unknown {
                return None;
            }
            most = most.max(standing.overshoot_bound.unwrap_or(0));
        }
        match self.scenario.sabotage {
            Some(Sabotage::TellNothing) => Some(0),
            _ => Some(most),
        }
    }
}
