//! Judges each limit: by which rule it admits here, and how far.

use std::collections::BTreeSet;
use std::time::Duration;

use policy::{Counter, Enforcement, Fleet, Mode};

use super::tracked::Limited;
use super::{Core, Now, TICK};
use crate::cell::Slot;
use crate::data_dir::NodeKey;
use crate::enforcement::{self, Sight};
use crate::view::VIEW_LIMITS;

/// Counters judged by time in one tick, and because they changed.
const PER_TICK: usize = 1_000;

/// Counters judged in one tick because they are near their end.
const NEAR_PER_TICK: usize = 250;

/// How often every counter is judged at least.
const ROUND: Duration = Duration::from_secs(1);

/// A guard band ends when so much more than the band is left.
const LEAVE_PARTS: u64 = 2;

/// From which part of its limit on a counter is judged at each tick, in tenths.
const NEAR_TENTHS: u128 = 5;

/// D before anything was measured.
const FIRST_DELAY: Duration = Duration::from_millis(50);

/// The number of a node that has no part of what does not divide evenly.
const LAST: u64 = u32::MAX as u64;

/// No share of a strict limit at all: its state cannot be known.
const NOTHING: (u64, u64) = (LAST, LAST);

/// Which limits are judged when.
#[derive(Debug)]
pub(super) struct Judging {
    next: Slot,
    round_began: Duration,
    /// Near their end, or not by the simple rule: judged at each tick.
    near: BTreeSet<Slot>,
    /// Where the next tick goes on among those, and among those that changed.
    next_near: Slot,
    next_stale: Slot,
    /// The nearest their end, of the round before; and of this one so far.
    pub(super) nearest: Vec<Slot>,
    found: Vec<(u64, Slot)>,
    division: (u64, u64),
    /// What is this side's part of all limits.
    pub(super) parts: (u64, u64),
    /// This node's place among those that the configuration names.
    pub(super) rank: Option<u64>,
}

/// What limits one counter, besides its amount.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    ceiling: u64,
    mode: Mode,
    /// `None`: what others hold does not count here, so nothing can be said.
    bound: Option<u64>,
}

/// The live peers, the same for all limits.
#[derive(Debug)]
struct InSight {
    /// Sorted.
    live: Vec<NodeKey>,
    /// Who has not been heard for too long: when it was, and how long ago that is.
    silent: Vec<(NodeKey, Duration, Duration)>,
}

// === impl Judging ===

impl Judging {
    pub(super) fn new() -> Self {
        Self {
            next: Slot::FIRST,
            round_began: Duration::ZERO,
            near: BTreeSet::new(),
            next_near: Slot::FIRST,
            next_stale: Slot::FIRST,
            nearest: Vec::new(),
            found: Vec::new(),
            division: (1, 0),
            parts: (1, 1),
            rank: None,
        }
    }

    /// Among how many nodes strict limits are divided; `None`: this node has no part.
    pub(super) fn divided_among(&self) -> Option<u64> {
        (self.division != NOTHING).then_some(self.division.0)
    }

    fn begin_round(&mut self) {
        self.next = Slot::FIRST;
        self.round_began = Duration::ZERO;
        self.found.clear();
    }
}

// === impl Core ===

impl Core {
    /// What is known of the fleet.
    pub(super) fn sight(&self, now: Duration) -> Sight {
        let links = self.peers.values().filter_map(|peer| peer.link.as_ref());
        let mut delay = None;
        let mut skew = self.clock.error();
        for link in links {
            delay = delay.max(link.sync.lag(now));
            if let Some(best) = link.samples.best() {
                skew = skew.max(self.clock.error() + best.rtt / 2);
            }
        }
        Sight {
            nodes: 1 + self.live_peers().count() as u64,
            interval: self.config.sync_interval,
            delay: delay.unwrap_or(FIRST_DELAY) + TICK,
            tick: TICK,
            skew,
        }
    }

    /// Judges what changed, what is near its end, and a part of all the rest.
    pub(super) fn judge_limits(&mut self, now: Now) {
        self.divide();
        self.part();
        if std::mem::take(&mut self.judge_all) {
            self.judging.begin_round();
        }
        let sight = self.sight(now.mono);
        let peers = self.peers_in_sight(now.mono);
        let judging = &mut self.judging;
        let mut due = in_turn(&self.counting.stale, &mut judging.next_stale, PER_TICK);
        for slot in &due {
            self.counting.stale.remove(slot);
        }
        due.extend(in_turn(
            &judging.near,
            &mut judging.next_near,
            NEAR_PER_TICK,
        ));
        let (some, next) = self
            .counting
            .counters
            .some_from(self.judging.next, PER_TICK);
        let in_round = self.judging.next != Slot::FIRST
            || self.judging.round_began.is_zero()
            || now.mono.saturating_sub(self.judging.round_began) >= ROUND;
        if in_round {
            if self.judging.next == Slot::FIRST {
                self.judging.round_began = now.mono;
            }
            for slot in &some {
                self.note_nearest(*slot, now);
                if self.counting.give_up_idle(*slot) {
                    due.remove(slot);
                    self.judging.near.remove(slot);
                } else {
                    due.insert(*slot);
                }
            }
            self.judging.next = next.unwrap_or(Slot::FIRST);
            if next.is_none() {
                self.end_round();
            }
        }
        for slot in due {
            self.judge(slot, &sight, &peers, now);
        }
    }

    /// Divides strict limits among all nodes that there may be.
    fn divide(&mut self) {
        let division = match self.ready.knows_nothing() {
            true => NOTHING,
            false => self.known_nodes(),
        };
        if division != self.judging.division {
            self.judging.division = division;
            self.counting.table.divide(division.0, division.1);
        }
    }

    /// Nodes that strict limits are divided among, and this one's number. The first ones have what
    /// is left of the division, so the number is of what the configuration says alone: who is in
    /// view differs between the sides of a split.
    fn known_nodes(&self) -> (u64, u64) {
        let live = self.live_peers().map(|member| member.identity.node);
        let missing = self.split.missing.keys().copied();
        let others: BTreeSet<NodeKey> = live.chain(missing).collect();
        let nodes = others.len() as u64 + 1;
        let rank = self.judging.rank.unwrap_or(u64::MAX);
        (nodes.max(self.config.configured_nodes), rank)
    }

    fn judge(&mut self, slot: Slot, sight: &Sight, peers: &InSight, now: Now) {
        let staleness = sight.staleness();
        let counted = self.counting.counts_holds();
        let Some(tracked) = self.counting.counters.at_mut(slot) else {
            self.judging.near.remove(&slot);
            return;
        };
        let Some(counter) = tracked.counter.clone() else {
            return;
        };
        if tracked.limited().is_none() {
            return;
        }
        let told: Vec<(i64, u64)> = tracked.told().collect();
        let seen = counter.total(now.wall);
        self.note_base(slot, &told, now);
        self.note_elsewhere(slot, &counter, now);
        let verdict = self.verdict(slot, &counter, seen, sight, peers, now);
        let Some(limited) = self
            .counting
            .counters
            .at_mut(slot)
            .and_then(|tracked| tracked.limited.as_mut())
        else {
            return;
        };
        let ceiling = verdict.ceiling.min(limited.limit);
        // Admissions elsewhere may be behind what those who are apart take.
        let theirs = limited.elsewhere.sum;
        let (here, full) = (seen.saturating_sub(theirs), ceiling.saturating_sub(theirs));
        limited.beyond.note(here, full, staleness, now.mono);
        let rate = limited.rate(now.mono);
        limited.peak.add(rate, now.mono);
        let fleet = Fleet {
            ceiling: verdict.ceiling,
            mode: verdict.mode,
            overshoot_bound: verdict.bound.filter(|_| counted || sight.nodes <= 1),
            trigger: enforcement::trigger(limited.limit, seen, sight.nodes),
        };
        if limited.fleet != Some(fleet) {
            limited.fleet = Some(fleet);
            counter.set_fleet(fleet);
        }
        let near = u128::from(seen) * 10 >= u128::from(ceiling) * NEAR_TENTHS;
        if near && (sight.nodes > 1 || verdict.mode == Mode::Share) {
            self.judging.near.insert(slot);
        } else {
            self.judging.near.remove(&slot);
        }
    }

    fn verdict(
        &mut self,
        slot: Slot,
        counter: &Counter,
        seen: u64,
        sight: &Sight,
        peers: &InSight,
        now: Now,
    ) -> Verdict {
        let silent = self.silent_rates(slot, peers);
        let share = self.share_of(slot, counter, now);
        let elsewhere = self.taken_elsewhere(slot, counter, now);
        let me = self.config.me.node;
        let live = &peers.live;
        let (gap, given_up) = (self.split.gap, self.split.given_up);
        let Some(limited) = self
            .counting
            .counters
            .at_mut(slot)
            .and_then(|tracked| tracked.limited())
        else {
            return Verdict::open(0);
        };
        let (limit, peak) = (limited.limit, limited.peak.at_time(now.mono));
        limited
            .others
            .retain(|node, _| live.binary_search(node).is_ok());
        let mut bound = enforcement::overshoot_bound(limit, peak, limited.beyond.largest, sight);
        if limited.enforcement == Enforcement::Strict {
            return Verdict {
                ceiling: u64::MAX,
                mode: if sight.nodes > 1 {
                    Mode::Divided
                } else {
                    Mode::Live
                },
                bound: Some(limited.beyond.largest),
            };
        }
        let whole = share.map_or(limit, |share| share.ceiling);
        let rest = whole.saturating_sub(seen);
        let phantom = silent.iter().fold(0_u64, |sum, (rate, silence)| {
            sum.saturating_add(enforcement::silent(*rate, *silence, rest, sight.nodes))
        });
        let rest = rest.saturating_sub(phantom);
        let guard = guard(limited, counter, me, seen, rest, live, sight, now.mono);
        let mut ceiling = match (share, phantom) {
            (None, 0) => u64::MAX,
            _ => whole.saturating_sub(phantom),
        };
        let mut mode = Mode::Live;
        if let Some(guard) = guard {
            ceiling = ceiling.min(guard);
            mode = Mode::GuardBand;
        }
        let apart = share.map(|share| {
            mode = Mode::Share;
            share.beyond(peak, gap)
        });
        let apart = apart.or(elsewhere.map(|taken| (taken, 0)));
        let id = counter.id();
        let until = id.expires_at(id.epoch(now.wall));
        limited.apart.follow(apart, given_up, until, now.wall);
        bound = bound.saturating_add(limited.apart.at_time(now.wall));
        Verdict {
            ceiling,
            mode,
            bound: Some(bound),
        }
    }

    /// Who the live peers are, and which of them have not been heard for too long.
    fn peers_in_sight(&self, now: Duration) -> InSight {
        let patience = self.config.sync_interval * 3;
        let live: Vec<NodeKey> = self
            .live_peers()
            .map(|member| member.identity.node)
            .collect();
        let silent = live
            .iter()
            .filter(|node| !self.split.apart.contains(node))
            .filter_map(|node| {
                let heard = self.peers.get(node)?.heard?;
                let silence = now.saturating_sub(heard);
                (silence >= patience).then_some((*node, heard, silence))
            })
            .collect();
        InSight { live, silent }
    }

    /// Rates of silent peers, and for how long they are.
    fn silent_rates(&self, slot: Slot, peers: &InSight) -> Vec<(f64, Duration)> {
        let tracked = self.counting.counters.at(slot);
        let Some(limited) = tracked.and_then(|tracked| tracked.limited.as_ref()) else {
            return Vec::new();
        };
        let silent = peers.silent.iter();
        silent
            .filter_map(|(node, heard, silence)| {
                let rate = limited.others.get(node)?;
                // Who had stopped before it fell silent is not thought to go on.
                let active = heard.saturating_sub(rate.grew_at()?) < Duration::from_secs(1);
                active.then(|| (rate.at_time(*heard), *silence))
            })
            .collect()
    }

    fn note_nearest(&mut self, slot: Slot, now: Now) {
        let Some(tracked) = self.counting.counters.at(slot) else {
            return;
        };
        let (Some(counter), Some(limited)) = (&tracked.counter, &tracked.limited) else {
            return;
        };
        let parts =
            u128::from(counter.total(now.wall)) * 1_000_000 / u128::from(limited.limit.max(1));
        self.judging
            .found
            .push((u64::try_from(parts).unwrap_or(u64::MAX), slot));
        if self.judging.found.len() >= VIEW_LIMITS * 8 {
            self.shorten_found();
        }
    }

    fn shorten_found(&mut self) {
        let found = &mut self.judging.found;
        found.sort_unstable_by(|left, right| right.0.cmp(&left.0).then(left.1.cmp(&right.1)));
        found.truncate(VIEW_LIMITS);
    }

    fn end_round(&mut self) {
        self.shorten_found();
        let found = std::mem::take(&mut self.judging.found);
        self.judging.nearest = found.into_iter().map(|(_, slot)| slot).collect();
    }
}

// === impl Verdict ===

impl Verdict {
    fn open(bound: u64) -> Self {
        Self {
            ceiling: u64::MAX,
            mode: Mode::Live,
            bound: Some(bound),
        }
    }
}

/// At most `most` of the slots, going on at `next`, so that all have their turn.
pub(super) fn in_turn(slots: &BTreeSet<Slot>, next: &mut Slot, most: usize) -> BTreeSet<Slot> {
    let after = slots.range(*next..);
    let before = slots.range(..*next);
    let mut turn = after.chain(before).copied();
    let some = turn.by_ref().take(most).collect();
    *next = turn.next().unwrap_or(Slot::FIRST);
    some
}

/// Up to where this node may go near the end of a limit: what is seen and its part of the rest. It
/// stands for as long as the others need to hear of what was taken.
#[expect(
    clippy::too_many_arguments,
    reason = "one formula of independent figures"
)]
fn guard(
    limited: &mut Limited,
    counter: &Counter,
    me: NodeKey,
    seen: u64,
    rest: u64,
    live: &[NodeKey],
    sight: &Sight,
    now: Duration,
) -> Option<u64> {
    let band = match limited.round {
        None => enforcement::band(limited.rate(now), sight),
        Some(_) => enforcement::band(limited.rate(now), sight).saturating_mul(LEAVE_PARTS),
    };
    if sight.nodes <= 1 || rest >= band {
        limited.round = None;
        return None;
    }
    if let Some((began, ceiling)) = limited.round
        && now.saturating_sub(began) < sight.staleness()
    {
        return Some(ceiling);
    }
    let mut rates: Vec<(NodeKey, f64)> = live
        .iter()
        .map(|node| {
            (
                *node,
                limited
                    .others
                    .get(node)
                    .map_or(0.0, |rate| rate.at_time(now)),
            )
        })
        .collect();
    rates.push((me, limited.own.at_time(now)));
    let part = enforcement::part_of(rest, counter.text(), me, &rates);
    let ceiling = seen.saturating_add(part);
    limited.round = Some((now, ceiling));
    Some(ceiling)
}
