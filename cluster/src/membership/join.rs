//! Whom to ask next: seeds until they are members, a random member, a dead one now and then.
//!
//! Promise: a node goes on asking until a peer has it in its list, and asks seeds that are not in the
//! view for ever, so that split starts and long partitions heal. Owner of what each seed answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::core::ExchangeFailure;
use crate::data_dir::NodeKey;

/// First and longest wait between two tries while nobody lists this node.
const EAGER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Wait between two tries of a seed that is not in the view.
const PATIENT: Duration = Duration::from_secs(30);
/// A seed that has not answered for so long is silent.
const SILENT: Duration = Duration::from_secs(3);
/// How often a dead member is asked, and how often when there is nobody else, when its link lives, or
/// when one was lost lately.
const DEAD: Duration = Duration::from_secs(60);
const DEAD_EAGER: Duration = Duration::from_secs(2);
/// Seeds that are looked at; more are left out.
pub(super) const SEEDS: usize = 1_024;

/// What is known of one seed.
#[derive(Debug, Default)]
struct Seed {
    first_asked: Option<Duration>,
    next: Duration,
    wait: Duration,
    node: Option<NodeKey>,
    refused: bool,
}

/// Who needs no asking.
#[derive(Debug, Default)]
pub(super) struct InView {
    pub(super) addrs: BTreeSet<SocketAddr>,
    pub(super) nodes: BTreeSet<NodeKey>,
}

impl InView {
    fn holds(&self, addr: SocketAddr, node: Option<NodeKey>) -> bool {
        self.addrs.contains(&addr) || node.is_some_and(|node| self.nodes.contains(&node))
    }
}

/// When to ask whom.
#[derive(Debug, Default)]
pub(super) struct Join {
    seeds: BTreeMap<SocketAddr, Seed>,
    next_member: Duration,
    next_dead: Duration,
}

impl Join {
    pub(super) fn set_seeds(&mut self, seeds: &[SocketAddr]) {
        let mut before = std::mem::take(&mut self.seeds);
        for addr in seeds.iter().take(SEEDS) {
            let seed = before.remove(addr).unwrap_or_default();
            self.seeds.insert(*addr, seed);
        }
    }

    pub(super) fn is_seed_due(&self, now: Duration) -> bool {
        self.seeds.values().any(|seed| now >= seed.next)
    }

    /// Seeds to ask now.
    pub(super) fn due_seeds(
        &mut self,
        now: Duration,
        listed: bool,
        view: &InView,
        rng: &mut StdRng,
    ) -> Vec<SocketAddr> {
        let mut due = Vec::new();
        for (addr, seed) in &mut self.seeds {
            if now < seed.next {
                continue;
            }
            if listed {
                seed.wait = PATIENT;
            } else {
                let longer = seed.wait.min(EAGER.1 / 2) * 2;
                seed.wait = longer.clamp(EAGER.0, EAGER.1);
            }
            seed.next = now + jittered(seed.wait, rng);
            if !view.holds(*addr, seed.node) {
                seed.first_asked.get_or_insert(now);
                due.push(*addr);
            }
        }
        due
    }

    /// Seeds are asked again soon, as at the start.
    pub(super) fn hurry(&mut self, now: Duration) {
        for seed in self.seeds.values_mut() {
            seed.wait = Duration::ZERO;
            seed.next = now;
        }
        self.next_member = now;
        self.next_dead = now;
    }

    /// Whether it is time to exchange lists with some member.
    pub(super) fn member_due(&mut self, members: usize, now: Duration, rng: &mut StdRng) -> bool {
        if now < self.next_member {
            return false;
        }
        let size = f64::from(u32::try_from(members + 1).unwrap_or(u32::MAX));
        let wait = Duration::from_secs_f64((10.0 * size.log2() / 4.0).clamp(5.0, 60.0));
        self.next_member = now + jittered(wait, rng);
        true
    }

    /// Whether it is time to ask a dead member.
    pub(super) fn dead_due(&mut self, eager: bool, now: Duration, rng: &mut StdRng) -> bool {
        let wait = if eager { DEAD_EAGER } else { DEAD };
        // A wait that was begun patiently ends when there is reason for haste.
        self.next_dead = self.next_dead.min(now + wait * 2);
        if now < self.next_dead {
            return false;
        }
        self.next_dead = now + jittered(wait, rng);
        true
    }

    pub(super) fn answered(&mut self, addr: SocketAddr, node: NodeKey) {
        if let Some(seed) = self.seeds.get_mut(&addr) {
            seed.node = Some(node);
            seed.refused = false;
        }
    }

    pub(super) fn failed(&mut self, addr: SocketAddr, failure: ExchangeFailure) {
        if let Some(seed) = self.seeds.get_mut(&addr) {
            seed.refused = failure == ExchangeFailure::Refused;
        }
    }

    /// Whether every seed answered, refused or was silent for long enough.
    pub(super) fn settled(&self, now: Duration, view: &InView) -> bool {
        self.seeds.iter().all(|(addr, seed)| {
            seed.node.is_some()
                || seed.refused
                || view.holds(*addr, None)
                || seed.first_asked.is_some_and(|asked| now >= asked + SILENT)
        })
    }

    pub(super) fn due(&self) -> Duration {
        self.seeds
            .values()
            .map(|seed| seed.next)
            .fold(self.next_member.min(self.next_dead), Duration::min)
    }
}

/// Between three quarters and five quarters of it.
fn jittered(wait: Duration, rng: &mut StdRng) -> Duration {
    wait.mul_f64(rng.random_range(0.75..1.25))
}
