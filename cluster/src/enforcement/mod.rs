//! How far this node may go on a limit that others use, too. Pure arithmetic.
//!
//! Promise: the parts of all nodes with the same view add up to what is left, and the shares of all
//! sides of a partition to the limit; rounding is always down. The bound is a formula of measured
//! rates and delays.

mod rate;
pub(crate) mod rendezvous;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use self::rate::{Peak, Rate};

use crate::data_dir::NodeKey;

/// A node tells the others at once when it has taken this part of its part of what is left.
const TRIGGER_PARTS: u64 = 100;

/// Part of the whole rate that every node is given beside its own, so that one that begins has
/// something.
const FOR_BEGINNERS: f64 = 0.05;

/// Below this many live members a cell far from its limit is not sent less often.
const SMALL_FLEET: u64 = 8;

/// What is known of the fleet, the same for all limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sight {
    /// Live members, this node among them.
    pub(crate) nodes: u64,
    /// S: how long a change waits to be sent.
    pub(crate) interval: Duration,
    /// D: from being sent to being taken in everywhere, at worst.
    pub(crate) delay: Duration,
    /// How long a node takes to notice that it should send at once.
    pub(crate) tick: Duration,
    /// θ: how far the clocks of live members may be apart.
    pub(crate) skew: Duration,
}

impl Sight {
    /// S + D.
    pub(crate) fn staleness(&self) -> Duration {
        self.interval + self.delay
    }
}

/// Below which rest a limit is near its end: what all nodes can take before they hear of it.
pub(crate) fn band(rate: f64, sight: &Sight) -> u64 {
    ceil(rate * sight.staleness().as_secs_f64())
}

/// How much this node may take before the others should hear of it at once.
pub(crate) fn trigger(limit: u64, seen: u64, nodes: u64) -> u64 {
    (limit.saturating_sub(seen) / TRIGGER_PARTS / nodes.max(1)).max(1)
}

/// How long a change of a counter may wait to be sent.
pub(crate) fn interval(base: Duration, seen: u64, limit: Option<u64>, nodes: u64) -> Duration {
    let Some(limit) = limit.filter(|_| nodes > SMALL_FLEET) else {
        return base;
    };
    let (seen, limit) = (u128::from(seen), u128::from(limit));
    if seen * 2 < limit {
        base * 10
    } else if seen * 10 < limit * 9 {
        base * 5 / 2
    } else {
        base
    }
}

/// This node's part of `rest`, by how fast each node uses the limit; the parts of all are `rest`.
pub(crate) fn part_of(rest: u64, counter: &str, me: NodeKey, rates: &[(NodeKey, f64)]) -> u64 {
    let nodes = rates.len();
    let total: f64 = rates.iter().map(|(_, rate)| rate).sum();
    if nodes == 0 {
        return rest;
    }
    let weight = |rate: f64| match total > 0.0 {
        true => (rate + total * FOR_BEGINNERS / nodes as f64) / (total * (1.0 + FOR_BEGINNERS)),
        false => 1.0 / nodes as f64,
    };
    let floor = |rate: f64| ((rest as f64 * weight(rate)) as u64).min(rest);
    let given = rates
        .iter()
        .fold(0_u64, |sum, (_, rate)| sum.saturating_add(floor(*rate)));
    // Rounding of very large numbers could give too much.
    let given = given.min(rest);
    let left = usize::try_from(rest - given).unwrap_or(usize::MAX);
    let mut order: Vec<(bool, u64, NodeKey)> = rates
        .iter()
        .map(|(node, rate)| (*rate > 0.0, rendezvous::weight(counter, *node), *node))
        .collect();
    order.sort_unstable_by(|left, right| right.cmp(left));
    let mine = rates
        .iter()
        .find(|(node, _)| *node == me)
        .map_or(0, |(_, rate)| floor(*rate));
    let rank = order.iter().position(|(_, _, node)| *node == me);
    let more = rank.map_or(0, |rank| left / nodes + usize::from(rank < left % nodes));
    mine.saturating_add(more as u64)
}

/// What a side of a partition may reach: what all had used when it began, and its part of the rest.
pub(crate) fn share_ceiling(limit: u64, base: u64, visible: u64, members: u64) -> u64 {
    let base = base.min(limit);
    let rest = u128::from(limit - base);
    let part = rest * u128::from(visible.min(members)) / u128::from(members.max(1));
    base + u64::try_from(part).expect("a part of a u64")
}

/// What a silent peer may have taken meanwhile: as fast as before, but no more than its part.
pub(crate) fn silent(rate: f64, silence: Duration, rest: u64, nodes: u64) -> u64 {
    ceil(rate * silence.as_secs_f64()).min(rest / nodes.max(1))
}

/// By how much all nodes together may pass a limit: `min(R (S + D), εL + R D') + R θ + H`, where
/// `R (S + D)` is at least one for each other node, as each may take the last unit at the same moment
/// however seldom it takes any, `D'` has the time until a node notices that it should send at once,
/// `ε L` is at least one per node, and `H` is what requests took beyond their holds. Of one node
/// alone only `H` is left.
pub(crate) fn overshoot_bound(limit: u64, rate: f64, beyond_holds: u64, sight: &Sight) -> u64 {
    if sight.nodes <= 1 {
        return beyond_holds;
    }
    let others = (sight.nodes - 1) as f64;
    let by_interval = others.max(rate * sight.staleness().as_secs_f64());
    let unsent = (limit / TRIGGER_PARTS).max(sight.nodes) as f64;
    let by_trigger = unsent + rate * (sight.delay + sight.tick).as_secs_f64();
    let skewed = rate * sight.skew.as_secs_f64();
    ceil(by_interval.min(by_trigger) + skewed).saturating_add(beyond_holds)
}

/// A float that is not negative, rounded up.
fn ceil(value: f64) -> u64 {
    value.ceil() as u64
}
