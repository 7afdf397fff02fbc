//! The books of an onlooker who sees every node at once: each unit that was admitted, and each that
//! was settled, by the process that did it.
//!
//! It knows nothing of replication. What it is told comes from the requests themselves: what they
//! asked for when they were admitted, and the charges that settling them gave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use policy::{Charge, CounterId, Timestamp};

use super::load::LimitSpec;
use crate::origin::Origin;

/// Offered amounts are kept in steps of this length.
const STEP: Duration = Duration::from_millis(10);

/// The books.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) accounts: Vec<Account>,
}

/// One counter.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) id: CounterId,
    pub(super) text: Arc<str>,
    pub(super) limit: u64,
    /// Settled by each process in each epoch.
    pub(super) settled: BTreeMap<(Origin, i64), u64>,
    /// The same with open holds, of all processes.
    counted: BTreeMap<i64, u64>,
    /// Of that, what each node has admitted, by whichever process; only of limits that are strict.
    by_node: BTreeMap<(usize, i64), u64>,
    strict: bool,
    /// What requests have asked for, all nodes together, by step.
    offered: Vec<u64>,
    /// By how much what was admitted has passed the limit at most.
    pub(super) worst: u64,
    /// That, as a part of what was allowed for it.
    pub(super) worst_part: f64,
}

/// What a request holds of one counter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) account: usize,
    node: usize,
    epoch: i64,
    amount: u64,
}

// === impl Ledger ===

impl Ledger {
    pub(super) fn new(limits: &[LimitSpec]) -> Self {
        let accounts = limits.iter().map(|spec| {
            let id = spec.id();
            Account {
                text: id.to_string().into(),
                id,
                limit: spec.amount,
                settled: BTreeMap::new(),
                counted: BTreeMap::new(),
                by_node: BTreeMap::new(),
                strict: spec.is_strict(),
                offered: Vec::new(),
                worst: 0,
                worst_part: 0.0,
            }
        });
        Self {
            accounts: accounts.collect(),
        }
    }

    /// A request asked for this much.
    pub(super) fn offer(&mut self, account: usize, amount: u64, now: Duration) {
        let offered = &mut self.accounts[account].offered;
        let step = step(now);
        if offered.len() <= step {
            offered.resize(step + 1, 0);
        }
        offered[step] += amount;
    }

    /// A process whose clock says `wall` has admitted this much.
    pub(super) fn hold(
        &mut self,
        node: usize,
        account: usize,
        amount: u64,
        wall: Timestamp,
    ) -> Held {
        let books = &mut self.accounts[account];
        let epoch = books.id.epoch(wall);
        books.add(node, epoch, amount);
        Held {
            account,
            node,
            epoch,
            amount,
        }
    }

    /// A hold is over: its request has ended, or its process.
    pub(super) fn end(&mut self, held: Held) {
        let books = &mut self.accounts[held.account];
        if let Some(counted) = books.counted.get_mut(&held.epoch) {
            *counted = counted.saturating_sub(held.amount);
        }
        if let Some(counted) = books.by_node.get_mut(&(held.node, held.epoch)) {
            *counted = counted.saturating_sub(held.amount);
        }
    }

    /// A process has settled this much.
    pub(super) fn settle(&mut self, node: usize, origin: Origin, charge: &Charge) -> Option<usize> {
        let mut accounts = self.accounts.iter();
        let account = accounts.position(|books| books.text == charge.counter)?;
        let books = &mut self.accounts[account];
        *books.settled.entry((origin, charge.epoch)).or_default() += charge.amount;
        books.add(node, charge.epoch, charge.amount);
        Some(account)
    }
}

// === impl Account ===

impl Account {
    fn add(&mut self, node: usize, epoch: i64, amount: u64) {
        *self.counted.entry(epoch).or_default() += amount;
        if self.strict {
            *self.by_node.entry((node, epoch)).or_default() += amount;
        }
    }

    /// What counts of a strict limit, of each node by the clock that it counts by.
    pub(super) fn total_by(&self, wall: impl Fn(usize) -> Timestamp) -> u64 {
        let counted = self.by_node.iter();
        counted
            .filter(|((node, epoch), _)| self.counts(*epoch, wall(*node)))
            .map(|(_, amount)| amount)
            .sum()
    }

    /// What counts at this time, holds included.
    pub(super) fn total(&self, wall: Timestamp) -> u64 {
        let counted = self.counted.iter().rev();
        counted
            .take_while(|(epoch, _)| self.counts(**epoch, wall))
            .map(|(_, amount)| amount)
            .sum()
    }

    pub(super) fn counts(&self, epoch: i64, wall: Timestamp) -> bool {
        self.id.expires_at(epoch).is_none_or(|end| end > wall)
    }

    /// The most that was asked for in any time of this length.
    pub(super) fn peak_within(&self, length: Duration) -> u64 {
        let steps = step(length) + usize::from(!length.is_zero());
        let (mut sum, mut peak) = (0, 0);
        for (at, offered) in self.offered.iter().enumerate() {
            sum += offered;
            if at >= steps {
                sum -= self.offered[at - steps];
            }
            peak = peak.max(sum);
        }
        peak
    }
}

fn step(now: Duration) -> usize {
    usize::try_from(now.as_micros() / STEP.as_micros()).unwrap_or(usize::MAX)
}
