use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::counter::tests::{id, kinds};
use crate::counter::{CounterId, CounterTable, Hold};
use crate::scope::Unit;
use crate::window::WindowKind;

const STRICT: Enforcement = Enforcement::Strict;

fn strict(amount: u64) -> Bound {
    Bound {
        amount,
        enforcement: STRICT,
    }
}

/// A node with one counter, and what it knows of the others.
struct Node {
    table: CounterTable,
    counter: Arc<Counter>,
    open: Vec<Hold>,
    /// Cells of this node that others may have, by epoch, and their version.
    told: BTreeMap<i64, (u64, u64)>,
    /// Cells of others by node and epoch, and their version.
    known: BTreeMap<(usize, i64), (u64, u64)>,
}

/// A cell on its way: whose, its epoch, amount and version.
type Message = (usize, i64, u64, u64);

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Reserve(u64),
    Hold(u64),
    Settle(u64),
    Release,
    Tell,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        2 => (0_u64..3_000).prop_map(Step::Pass),
        5 => (0_u64..9).prop_map(Step::Reserve),
        1 => (0_u64..9).prop_map(Step::Hold),
        3 => (0_u64..9).prop_map(Step::Settle),
        1 => Just(Step::Release),
        2 => Just(Step::Tell),
    ];
    prop::collection::vec((0_usize..2, step), 1..80)
}

// === impl Node ===

impl Node {
    fn new(id: &CounterId) -> Self {
        let table = CounterTable::tracking();
        let counter = table.counter(id);
        Self {
            table,
            counter,
            open: Vec::new(),
            told: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: &Step, limit: impl Into<Bound>, now: Timestamp) {
        match *step {
            Step::Reserve(amount) => self.open.extend(self.counter.reserve(amount, limit, now)),
            Step::Hold(amount) => self.open.push(self.counter.hold_always(amount, now)),
            Step::Settle(used) => {
                if let Some(hold) = self.open.pop() {
                    let _ = self.counter.settle(hold, used, now);
                }
            }
            Step::Release => {
                if let Some(hold) = self.open.pop() {
                    self.counter.release(hold, now);
                }
            }
            Step::Pass(_) | Step::Tell => {}
        }
    }

    /// What has changed, if the counter says that it has.
    fn tell(&mut self, me: usize, now: Timestamp, messages: &mut Vec<Message>) {
        for counter in self.table.take_changed(9) {
            let mut present = BTreeMap::new();
            counter.own(now, |cell| {
                present.insert(cell.epoch, cell.used + cell.held);
            });
            for (epoch, told) in &mut self.told {
                let amount = present.remove(epoch).unwrap_or(0);
                if told.0 != amount {
                    *told = (amount, told.1 + 1);
                    messages.push((me, *epoch, told.0, told.1));
                }
            }
            for (epoch, amount) in present {
                self.told.insert(epoch, (amount, 1));
                messages.push((me, epoch, amount, 1));
            }
        }
    }

    fn hear(&mut self, (from, epoch, amount, version): Message, now: Timestamp) {
        let known = self.known.entry((from, epoch)).or_default();
        if version > known.1 {
            self.counter.change_remote(epoch, known.0, amount, now);
            *known = (amount, version);
        }
    }
}

proptest! {
    /// Cells heard in any order, some twice: all nodes see the same total,
    /// which is what they have together.
    #[test]
    fn nodes_that_have_heard_each_other_agree(
        steps in steps(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 200),
    ) {
        for id in kinds() {
            let mut nodes = [Node::new(&id), Node::new(&id)];
            let mut messages = Vec::new();
            let mut now = Timestamp(100_000);
            for (node, step) in &steps {
                match step {
                    Step::Pass(millis) => now.0 += millis,
                    Step::Tell => nodes[*node].tell(*node, now, &mut messages),
                    step => nodes[*node].take(step, 20, now),
                }
            }
            for (me, node) in nodes.iter_mut().enumerate() {
                node.tell(me, now, &mut messages);
            }
            // Some twice and in any order, then the rest.
            let mut waiting = messages.clone();
            for index in &order {
                if messages.is_empty() {
                    break;
                }
                let message = messages[index.index(messages.len())];
                nodes[1 - message.0].hear(message, now);
            }
            while let Some(message) = waiting.pop() {
                nodes[1 - message.0].hear(message, now);
            }
            let own = nodes.each_ref().map(|node| node.counter.own_total(now));
            for node in &nodes {
                prop_assert_eq!(node.counter.total(now), own[0] + own[1], "{}", id);
            }
        }
    }

    /// Whatever others have and whatever the ceiling: an admission here never
    /// brings the total beyond either.
    #[test]
    fn admissions_stay_below_limit_and_ceiling(
        steps in steps(),
        remote in prop::collection::vec((-40_i64..40, 0_u64..9), 0..9),
        ceiling in 0_u64..40,
        limit in 0_u64..40,
    ) {
        for id in kinds() {
            let mut node = Node::new(&id);
            let mut now = Timestamp(100_000);
            for (epoch, amount) in &remote {
                let epoch = if id.unit == Unit::Concurrent { 0 } else { 100 + epoch };
                node.counter.change_remote(epoch, 0, *amount, now);
            }
            node.counter.set_fleet(Fleet { ceiling, mode: Mode::Share, ..Fleet::default() });
            for (_, step) in &steps {
                match step {
                    Step::Pass(millis) => now.0 += millis,
                    Step::Reserve(amount) if *amount > 0 => {
                        let before = node.counter.total(now);
                        let hold = node.counter.reserve(*amount, limit, now);
                        let fits = before + amount <= limit.min(ceiling);
                        prop_assert_eq!(hold.is_some(), fits, "{}", id);
                        node.open.extend(hold);
                    }
                    step => node.take(step, limit, now),
                }
            }
        }
    }

    /// Strict limits on any number of nodes: together never more than the
    /// limit, and all of it can be used.
    #[test]
    fn shares_of_a_divided_limit_are_the_limit(
        limit in prop_oneof![0_u64..300, any::<u64>()],
        count in 1_u64..40,
        takes in prop::collection::vec((any::<prop::sample::Index>(), 1_u64..9), 0..200),
    ) {
        for id in kinds() {
            let limit = if id.unit == Unit::Usd { limit } else { limit.min(1 << 39) };
            let nodes: Vec<Node> = (0..count).map(|_| Node::new(&id)).collect();
            for (rank, node) in (0..).zip(&nodes) {
                node.table.divide(count, rank);
            }
            let now = Timestamp(100_000);
            for (which, amount) in &takes {
                let node = &nodes[which.index(nodes.len())];
                let _ = node.counter.reserve(*amount, strict(limit), now);
            }
            let own = |node: &Node| node.counter.own_total(now);
            prop_assert!(nodes.iter().map(own).sum::<u64>() <= limit);
            for node in &nodes {
                let left = node.counter.ceiling(strict(limit)) - own(node);
                prop_assert!(node.counter.reserve(left, strict(limit), now).is_some());
                prop_assert!(node.counter.reserve(1, strict(limit), now).is_none());
            }
            prop_assert_eq!(nodes.iter().map(own).sum::<u64>(), limit);
        }
    }

    /// A node that was stopped still knows when others' use has left.
    #[test]
    fn others_leave_with_their_window(ahead in 0_i64..30, amount in 1_u64..9, back in 0_u64..5_000) {
        for id in kinds().into_iter().filter(|id| id.unit != Unit::Concurrent) {
            let counter = Counter::new(&id);
            let now = Timestamp(100_000);
            let epoch = id.epoch(now) + ahead;
            let end = id.expires_at(epoch).unwrap();
            counter.change_remote(epoch, 0, amount, now);
            prop_assert_eq!(counter.total(now), amount);
            prop_assert!(counter.reserve(1, amount, now).is_none());
            prop_assert!(!counter.is_idle(now));
            if id.window != WindowKind::Smooth {
                prop_assert_eq!(counter.total(Timestamp(end.0 - 1)), amount);
            }
            prop_assert!(counter.total(Timestamp(end.0.saturating_sub(1_001).max(now.0))) > 0);
            prop_assert_eq!(counter.total(end), 0);
            prop_assert!(counter.is_idle(end));
            prop_assert!(counter.reserve(amount, amount, end).is_some());
            // A clock that steps back brings nothing back.
            prop_assert_eq!(counter.total(Timestamp(end.0 - back)), amount);
            prop_assert_eq!(counter.remote_total(Timestamp(end.0 - back)), 0);
        }
    }

    /// Waiting as long as told is enough, and waiting less is not, with others
    /// beside.
    #[test]
    fn a_demand_fits_when_it_was_said_to(
        own in prop::collection::vec((0_u64..3_000, 1_u64..5), 0..9),
        others in prop::collection::vec((-35_i64..3, 1_u64..5), 0..9),
        amount in 1_u64..20,
    ) {
        const LIMIT: u64 = 20;
        let windows = [(Unit::Tokens, "30s", WindowKind::Sliding), (Unit::Usd, "1s", WindowKind::Calendar)];
        for (unit, period, window) in windows {
            let counter = Counter::new(&id(unit, period, window));
            let mut now = Timestamp(100_000);
            for (pass, amount) in &own {
                now.0 += pass;
                drop(counter.reserve(*amount, LIMIT, now));
            }
            for (epoch, amount) in &others {
                counter.change_remote(counter.id().epoch(now) + epoch, 0, *amount, now);
            }
            let mut at = now.plus(counter.retry_after(amount, LIMIT, now));
            if window == WindowKind::Calendar {
                // Only the present period is looked at; the next may be full.
                while !counter.fits(amount, LIMIT, at) {
                    let wait = counter.retry_after(amount, LIMIT, at);
                    prop_assert!(!wait.is_zero());
                    at = at.plus(wait);
                }
            } else if at > now {
                prop_assert!(!counter.fits(amount, LIMIT, Timestamp(at.0 - 1)));
            }
            prop_assert!(counter.reserve(amount, LIMIT, at).is_some());
        }
    }
}

#[test]
fn what_is_too_far_ahead_counts_now_and_can_be_taken_back() {
    for id in kinds().into_iter().filter(|id| id.unit != Unit::Concurrent) {
        let counter = Counter::new(&id);
        let now = Timestamp(100_000);
        counter.change_remote(100, 0, 2, now);
        counter.change_remote(100_000, 0, 5, now);
        counter.change_remote(100_000, 5, 9, now);
        assert_eq!(counter.total(now), 11, "{id}");
        counter.change_remote(100_000, 9, 1, now);
        assert_eq!(counter.total(now), 3, "{id}");
        counter.change_remote(100_000, 1, 0, now);
        assert_eq!(counter.total(now), 2, "{id}");
        // What has passed already never comes.
        counter.change_remote(60, 0, 7, now);
        counter.change_remote(-3, 0, 7, now);
        assert_eq!(counter.total(now), 2, "{id}");
    }
    // Many epochs of clocks that are far wrong are kept together.
    let budget = Counter::new(&id(Unit::Usd, "1s", WindowKind::Calendar));
    let now = Timestamp(100_000);
    for (from, to) in [(0, 3), (3, 1), (1, 0)] {
        for epoch in 100..300 {
            budget.change_remote(epoch, from, to, now);
        }
        assert_eq!(budget.total(now), 200 * to);
    }
}

#[test]
fn a_restart_gives_no_second_share() {
    for id in kinds() {
        let node = Node::new(&id);
        let now = Timestamp(100_000);
        let epoch = id.epoch(now);
        node.table.divide(3, 0);
        node.counter.change_past(epoch, 0, 4, now);
        // Others have used nothing, and still it has only its part.
        assert!(node.counter.reserve(7, strict(30), now).is_none(), "{id}");
        let hold = node.counter.reserve(6, strict(30), now).unwrap();
        assert!(node.counter.reserve(1, strict(30), now).is_none(), "{id}");
        assert_eq!(node.counter.total(now), 10);
        let _ = node.counter.settle(hold, 0, now);
        // What is used up among all is used up for everybody.
        node.counter.change_remote(epoch, 0, 24, now);
        assert!(node.counter.reserve(3, strict(30), now).is_none(), "{id}");
        assert!(node.counter.reserve(2, strict(30), now).is_some(), "{id}");
        assert!(node.counter.reserve(2, 60, now).is_some(), "not divided");
    }
}

#[test]
fn a_division_that_was_lifted_or_never_made() {
    let node = Node::new(&id(Unit::Usd, "1d", WindowKind::Calendar));
    for (nodes, rank, share) in [
        (1, 0, 11),
        (0, 0, 11),
        (2, 0, 6),
        (2, 1, 5),
        (4, 2, 3),
        (4, 3, 2),
        (u64::MAX, 11, 0),
        (1, 0, 11),
    ] {
        node.table.divide(nodes, rank);
        assert_eq!(node.counter.ceiling(strict(11)), share, "{nodes} {rank}");
        assert_eq!(node.counter.ceiling(11.into()), 11);
    }
}

#[test]
fn who_has_no_ceiling_of_its_own_has_the_sides_part() {
    let node = Node::new(&id(Unit::Usd, "1d", WindowKind::Calendar));
    let set = |ceiling| {
        let mode = Mode::Live;
        let fleet = Fleet::default();
        node.counter.set_fleet(Fleet {
            ceiling,
            mode,
            ..fleet
        });
    };
    let now = Timestamp(100_000);
    let reach = |limit: u64| node.counter.ceiling(limit.into());
    for (visible, nodes, part) in [(3, 3, 11), (2, 3, 7), (1, 3, 3), (0, 1, 0), (4, 0, 11)] {
        node.table.part(visible, nodes);
        assert_eq!(reach(11), part, "{visible} of {nodes}");
        assert!(node.counter.fits(part, 11, now) && !node.counter.fits(part + 1, 11, now));
    }
    node.table.part(2, 3);
    assert_eq!(reach(u64::MAX), u64::MAX / 3 * 2);
    for (ceiling, expected) in [(5, 5), (9, 9), (u64::MAX, 11)] {
        set(ceiling);
        assert_eq!(reach(11), expected, "{ceiling}");
    }
    node.counter.unset_ceiling();
    assert_eq!(reach(11), 7);
    // What others have alone is no ceiling.
    let other = node
        .table
        .counter(&id(Unit::Usd, "1w", WindowKind::Calendar));
    other.change_remote(other.id().epoch(now), 0, 2, now);
    assert_eq!(other.own_ceiling(11.into(), now), 5);
    node.table.part(3, 3);
    assert_eq!((reach(11), other.own_ceiling(11.into(), now)), (11, 9));
}

#[test]
fn own_cells_tell_settled_and_held_apart() {
    let now = Timestamp(100_000);
    let check = |id: CounterId, expected: OwnCell| {
        let counter = Counter::new(&id);
        let hold = counter.hold_always(5, now);
        let _open = counter.hold_always(2, now);
        let _ = counter.settle(hold, 3, now);
        let mut cells = Vec::new();
        counter.own(now, |cell| cells.push(cell));
        assert_eq!(cells, [expected], "{id}");
        assert_eq!(id.epoch(now), expected.epoch);
        assert_eq!(
            id.expires_at(expected.epoch).unwrap_or(Timestamp::NEVER),
            expected.expires_at
        );
    };
    let [tokens, requests, smooth, budget, gauge] = kinds();
    let cell = |epoch, used, held, expires_at| OwnCell {
        epoch,
        used,
        held,
        expires_at: Timestamp(expires_at),
    };
    check(tokens, cell(100, 3, 2, 131_000));
    check(requests, cell(100, 5, 2, 131_000));
    check(smooth, cell(100, 3, 2, 131_000));
    check(budget, cell(100, 3, 2, 101_000));
    check(gauge, cell(0, 0, 2, i64::MAX as u64));
}

#[test]
fn levels_show_what_others_have() {
    let now = Timestamp(100_000);
    for id in kinds() {
        let counter = Counter::new(&id);
        let _hold = counter.hold_always(2, now);
        counter.change_remote(id.epoch(now), 0, 9, now);
        counter.set_remote_held(4);
        let level = counter.level(now);
        let expected = if id.unit == Unit::Concurrent {
            (11, 0)
        } else {
            (5, 6)
        };
        assert_eq!((level.used, level.reserved), expected, "{id}");
        assert_eq!(level.own, 2);
        // The rest of a node that went away without a word is no part of it.
        counter.change_remote(id.epoch(now), 9, 3, now);
        let level = counter.level(now);
        assert_eq!(level.used + level.reserved, 5, "{id}");
        assert_eq!(counter.total(now), 5);
    }
    let [tokens, ..] = kinds();
    let counter = Counter::new(&tokens);
    counter.change_remote(102, 0, 1, now);
    assert_eq!(counter.level(now).resets_at, Timestamp(133_000));
    assert_eq!(counter.retry_after(1, 1, now), Duration::from_secs(33));
}

#[test]
fn a_counter_grown_by_its_trigger_is_urgent_once() {
    let now = Timestamp(100_000);
    for id in kinds() {
        let node = Node::new(&id);
        let fleet = |trigger| {
            node.counter.set_fleet(Fleet {
                trigger,
                mode: Mode::Live,
                ..Fleet::default()
            })
        };
        let take = |amount| node.counter.reserve(amount, 100, now).unwrap();
        fleet(5);
        let hold = take(4);
        assert!(!node.table.take_urgent(), "{id}");
        node.counter.release(hold, now);
        let hold = take(1);
        assert!(node.table.take_urgent(), "{id}");
        assert!(!node.table.take_urgent(), "{id}");
        node.counter.note_published();
        let _ = node.counter.settle(hold, 1, now);
        let _more = take(4);
        assert!(!node.table.take_urgent(), "{id}");
        fleet(u64::MAX);
        let _more = take(40);
        assert!(!node.table.take_urgent(), "{id}");
    }
}

#[test]
fn beyond_the_limit_is_seen() {
    let now = Timestamp(100_000);
    for id in kinds() {
        let node = Node::new(&id);
        let epoch = id.epoch(now);
        node.counter.change_remote(epoch, 0, 90, now);
        assert_eq!(node.counter.asked_limit(), None);
        assert_eq!(node.counter.overshoot_observed(), 0);
        let hold = node.counter.reserve(8, 100, now).unwrap();
        assert_eq!(
            node.counter.asked_limit(),
            Some((100, Enforcement::Eventual))
        );
        node.counter.change_remote(epoch, 90, 97, now);
        assert_eq!(node.counter.overshoot_observed(), 5, "{id}");
        node.counter.change_remote(epoch, 97, 0, now);
        assert_eq!(node.counter.overshoot_observed(), 5, "{id}");
        node.counter.release(hold, now);
        let _ = node.counter.level(now);
        assert_eq!(node.counter.overshoot_observed(), 0, "{id}");
        if id.unit != Unit::Concurrent {
            // It counts at once, and is no overshoot: another window began.
            node.counter.change_remote(epoch + 1, 0, 103, now);
            assert_eq!(node.counter.total(now), 103, "{id}");
            assert_eq!(node.counter.overshoot_observed(), 0, "{id}");
        }
        assert!(node.counter.reserve(1, strict(50), now).is_none() || id.unit == Unit::Concurrent);
        assert_eq!(node.counter.asked_limit(), Some((50, STRICT)));
    }
    // The worst is kept while anything beyond the limit is in the window.
    let node = Node::new(&kinds()[0]);
    let _ = node.counter.reserve(1, 10, now);
    for (epoch, from, to, expected) in [
        (100, 0, 15, 6),
        (100, 15, 11, 6),
        (100, 11, 9, 6),
        (130, 0, 0, 6),
        (131, 0, 1, 0),
        (131, 1, 12, 2),
    ] {
        let now = Timestamp(epoch * 1_000);
        let epoch = i64::try_from(epoch).unwrap();
        node.counter.change_remote(epoch, from, to, now);
        assert_eq!(node.counter.overshoot_observed(), expected, "at {epoch}");
    }
    let node = Node::new(&kinds()[3]);
    let _ = node.counter.reserve(1, u64::MAX, now);
    assert_eq!(node.counter.asked_limit().unwrap().0, u64::MAX / 2 - 1);
}

#[test]
fn counters_without_others_cost_nothing_more() {
    let counter = Counter::new(&kinds()[0]);
    counter.set_fleet(Fleet::default());
    counter.set_remote_held(0);
    counter.note_published();
    assert!(counter.fleet.get().is_none());
    let expected = ["single", "live", "guard_band", "share", "divided"];
    assert_eq!(MODES.map(Mode::as_str), expected);
    for mode in MODES {
        counter.set_fleet(Fleet {
            mode,
            overshoot_bound: Some(7),
            ..Fleet::default()
        });
        let shown = counter.mode(1.into());
        if mode != Mode::Single {
            assert_eq!(shown, (mode, Some(7)));
        }
    }
}
