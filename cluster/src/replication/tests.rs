use std::sync::Arc;

use policy::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::cell::{Amounts, Slot, Slots};
use crate::data_dir::NodeKey;

const NOW: Timestamp = Timestamp(1_000);
const LATER: Timestamp = Timestamp(1_000_000);

fn origin(node: u128) -> Origin {
    Origin {
        node: NodeKey(node),
        boot: 1,
    }
}

/// One side of a link.
struct Side {
    me: Origin,
    store: CellStore,
    slots: Slots<()>,
    sync: LinkSync,
}

impl Wording for Slots<()> {
    fn wire(&self, (slot, epoch): CellKey, state: CellState) -> Option<WireCell> {
        Some(WireCell {
            counter: Arc::clone(self.text(slot)?),
            epoch,
            ver: state.ver,
            used: state.used,
            held: state.held,
            expires_at: state.expires_at,
        })
    }
}

impl Side {
    fn new(me: u128, peer: u128) -> Self {
        Self {
            me: origin(me),
            store: CellStore::new(100_000),
            slots: Slots::new(),
            sync: LinkSync::new(origin(me), origin(peer)),
        }
    }

    fn slot(&mut self, counter: u64) -> Slot {
        self.slots
            .find_or_insert(&Arc::from(format!("c{counter}")), || ())
    }

    fn count(&mut self, counter: u64, used: u64) {
        let key = (self.slot(counter), 0);
        let amounts = Amounts { used, held: 0 };
        self.store.publish(self.me, key, amounts, LATER);
    }

    fn digest(&self) -> Vec<(Origin, u64)> {
        let origins = self.store.origins();
        origins
            .map(|(origin, cells)| (origin, cells.seen()))
            .collect()
    }

    fn pump(&mut self, now: Duration) -> Vec<CellBatch> {
        self.sync.pump(&self.store, &self.slots, now)
    }

    fn take(&mut self, batch: &CellBatch) -> Received {
        for cell in &batch.cells {
            let slot = self.slots.find_or_insert(&cell.counter, || ());
            let state = CellState {
                ver: cell.ver,
                used: cell.used,
                held: cell.held,
                expires_at: cell.expires_at,
            };
            self.store
                .merge(batch.origin, (slot, cell.epoch), state, NOW);
        }
        let seen = self.store.seen(batch.origin);
        let received = self.sync.received(batch, seen);
        if let Some(seen) = received.seen {
            self.store.advance(batch.origin, seen);
        }
        received
    }

    fn known(&self, of: Origin) -> Vec<(Arc<str>, u64)> {
        let cells = self.store.origin(of).into_iter();
        let mut known: Vec<_> = cells
            .flat_map(|cells| cells.iter())
            .filter_map(|((slot, _), state)| Some((Arc::clone(self.slots.text(slot)?), state.used)))
            .collect();
        known.sort();
        known
    }
}

fn link(node: u128, peer: u128) -> (Side, Side) {
    let (mut left, mut right) = (Side::new(node, peer), Side::new(peer, node));
    let (ours, theirs) = (left.digest(), right.digest());
    left.sync.digest(&theirs, &left.store);
    right.sync.digest(&ours, &right.store);
    (left, right)
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn only_what_is_not_acknowledged_goes() {
    let (mut left, mut right) = link(1, 2);
    left.count(1, 5);
    left.count(2, 5);
    let batches = left.pump(at(0));
    assert_eq!(batches.len(), 1);
    let (from, to, head) = (batches[0].from_ver, batches[0].to_ver, batches[0].head);
    assert_eq!((from, to, head, batches[0].cells.len()), (0, 2, 2, 2));
    assert_eq!(left.pump(at(10)), []);
    right.take(&batches[0]);
    let acks = right.sync.take_acks(&right.store);
    assert_eq!(acks, [(left.me, 2)]);
    left.sync.acked(left.me, 2, at(30));
    assert_eq!(left.sync.lag(at(30)), Some(at(30)));
    assert_eq!(left.sync.unacked(2), 0);
    left.count(1, 6);
    let next = left.pump(at(40));
    assert_eq!(
        (next[0].from_ver, next[0].to_ver, next[0].cells.len()),
        (2, 3, 1)
    );
}

#[test]
fn a_lost_batch_is_sent_again_after_the_gap_shows() {
    let (mut left, mut right) = link(1, 2);
    left.count(1, 1);
    let lost = left.pump(at(0));
    left.count(2, 1);
    let second = left.pump(at(100));
    assert!(right.take(&second[0]).gap);
    assert_eq!(right.store.seen(left.me), 0, "no claim over a gap");
    let acks = right.sync.take_acks(&right.store);
    assert_eq!(acks, [(left.me, 0)]);
    left.sync.acked(left.me, 0, at(150));
    let again = left.pump(at(160));
    assert_eq!(again[0].cells.len(), 2);
    assert!(!right.take(&again[0]).gap);
    assert_eq!(right.known(left.me), left.known(left.me));
    assert_eq!(lost.len(), 1);
}

#[test]
fn a_lost_acknowledgement_is_not_waited_for_for_ever() {
    let (mut left, _right) = link(1, 2);
    left.count(1, 1);
    assert_eq!(left.pump(at(0)).len(), 1);
    left.sync.check(at(500));
    assert_eq!(left.pump(at(500)).len(), 0);
    left.sync.check(at(1_100));
    assert_eq!(left.pump(at(1_100)).len(), 1);
}

#[test]
fn a_slow_peer_gets_newer_cells_and_no_backlog() {
    let (mut left, mut right) = link(1, 2);
    let mut first = Vec::new();
    for round in 1..=1_000 {
        left.count(1, round);
        first.extend(left.pump(at(round)));
    }
    assert_eq!(first.len(), WINDOW);
    for batch in &first {
        right.take(batch);
    }
    for (origin, ver) in right.sync.take_acks(&right.store) {
        left.sync.acked(origin, ver, at(1_001));
    }
    let rest = left.pump(at(1_002));
    assert_eq!((rest.len(), rest[0].cells.len()), (1, 1));
    right.take(&rest[0]);
    assert_eq!(right.known(left.me), left.known(left.me));
}

#[test]
fn a_large_state_goes_in_parts_and_only_the_last_one_counts_as_all() {
    let (mut left, mut right) = (Side::new(1, 2), Side::new(2, 1));
    for counter in 0..3 * BATCH_CELLS as u64 {
        left.count(counter, 1);
    }
    left.sync.digest(&right.digest(), &left.store);
    let batches = left.pump(at(0));
    assert_eq!(batches.len(), 3);
    assert!(!left.sync.take_caught_up() || left.sync.first.is_empty());
    for batch in &batches[..2] {
        right.take(batch);
        assert_eq!(right.store.seen(left.me), 0, "the sender had more");
    }
    right.take(&batches[2]);
    assert_eq!(right.store.seen(left.me), 3 * BATCH_CELLS as u64);
}

#[test]
fn cells_of_a_third_origin_are_passed_on_with_those_from_the_store() {
    let (mut left, mut right) = (Side::new(1, 2), Side::new(2, 1));
    let dead = origin(9);
    let slot = left.slot(1);
    let state = |ver, used| CellState {
        ver,
        used,
        held: 0,
        expires_at: LATER,
    };
    left.store.merge(dead, (slot, 0), state(4, 10), NOW);
    left.store.merge(dead, (slot, 1), state(0, 7), NOW);
    left.store.advance(dead, 4);
    left.sync.digest(&right.digest(), &left.store);
    for batch in left.pump(at(0)) {
        right.take(&batch);
    }
    assert!(left.sync.take_caught_up());
    assert!(!left.sync.take_caught_up(), "once");
    assert_eq!(right.known(dead), left.known(dead));
    assert_eq!(right.store.seen(dead), 4);
    left.sync.acked(dead, 4, at(10));
    assert_eq!(left.pump(at(20)), []);
    assert!(
        !left.sync.out.contains_key(&dead),
        "what is done is forgotten"
    );
}

#[test]
fn a_part_that_is_claimed_is_no_head() {
    let (mut left, mut right) = link(1, 2);
    let many = (WINDOW + 1) * BATCH_CELLS;
    for counter in 0..many as u64 {
        left.count(counter, 1);
    }
    for batch in left.pump(at(0)) {
        right.take(&batch);
    }
    let word = left.sync.nothing_new(&left.store).unwrap();
    assert_eq!(right.take(&word).seen, None);
    assert_eq!(right.store.seen(left.me), 0);
}

#[test]
fn what_was_only_known_in_part_goes_on_whole_and_ends() {
    let (mut left, mut right) = (Side::new(1, 2), Side::new(2, 1));
    let dead = origin(9);
    let many = ((WINDOW + 2) * BATCH_CELLS) as u64;
    for counter in 0..many {
        let slot = left.slot(counter);
        let state = CellState {
            ver: 2 + counter,
            used: 1,
            held: 0,
            expires_at: LATER,
        };
        left.store.merge(dead, (slot, 0), state, NOW);
    }
    left.store.advance(dead, 1);
    left.sync.digest(&right.digest(), &left.store);
    for round in 0..40 {
        for batch in left.pump(at(round * 100)) {
            right.take(&batch);
        }
        for (origin, ver) in right.sync.take_acks(&right.store) {
            left.sync.acked(origin, ver, at(round * 100));
        }
        left.sync.check(at(round * 100));
    }
    assert!(left.sync.take_caught_up());
    assert_eq!(right.known(dead).len() as u64, many);
    assert_eq!(right.store.seen(dead), 1);
    assert!(!left.sync.out.contains_key(&dead));
}

#[test]
fn what_was_declined_is_sent_again_once_it_is_wanted() {
    let (mut left, mut right) = (Side::new(1, 2), Side::new(2, 1));
    let dead = origin(9);
    let many = ((WINDOW + 2) * BATCH_CELLS) as u64;
    for counter in 0..many {
        let slot = left.slot(counter);
        let state = CellState {
            ver: 1 + counter,
            used: 1,
            held: 0,
            expires_at: LATER,
        };
        left.store.merge(dead, (slot, 0), state, NOW);
    }
    left.store.advance(dead, many);
    left.sync.digest(&right.digest(), &left.store);
    for batch in left.pump(at(0)) {
        right.sync.declined(&batch);
    }
    for round in 0..10 {
        for (origin, ver) in right.sync.take_acks(&right.store) {
            left.sync.acked(origin, ver, at(round * 300));
        }
        for batch in left.pump(at(round * 300)) {
            right.take(&batch);
        }
    }
    assert_eq!(right.known(dead).len() as u64, many);
    assert_eq!(right.store.seen(dead), many);
}

proptest! {
    /// Batches and acknowledgements get lost, come twice and out of order; with time, all arrives.
    #[test]
    fn whatever_the_way_does_both_sides_end_equal(
        fates in prop::collection::vec((0_u8..6, 0_u64..6, 0_u64..4), 1..120)
    ) {
        let (mut left, mut right) = link(1, 2);
        let mut used = [0_u64; 6];
        let mut late: Vec<CellBatch> = Vec::new();
        let mut now = 0;
        for (fate, counter, more) in fates {
            now += 100;
            used[counter as usize] += more;
            left.count(counter, used[counter as usize]);
            for batch in left.pump(at(now)) {
                match fate {
                    0 => {}
                    1 => late.push(batch),
                    2 => { right.take(&batch); right.take(&batch); }
                    _ => { right.take(&batch); }
                }
            }
            if fate == 3 {
                while let Some(batch) = late.pop() {
                    right.take(&batch);
                }
            }
            let acks = right.sync.take_acks(&right.store);
            if fate != 4 {
                for (origin, ver) in acks {
                    prop_assert!(ver <= left.store.seen(left.me));
                    left.sync.acked(origin, ver, at(now + 20));
                }
            }
            left.sync.check(at(now + 30));
        }
        for _ in 0..50 {
            now += 1_100;
            left.sync.check(at(now));
            for batch in left.pump(at(now)) {
                right.take(&batch);
            }
            for (origin, ver) in right.sync.take_acks(&right.store) {
                left.sync.acked(origin, ver, at(now + 10));
            }
        }
        prop_assert_eq!(right.known(left.me), left.known(left.me));
        prop_assert_eq!(right.store.seen(left.me), left.store.seen(left.me));
        prop_assert_eq!(left.sync.unacked(left.store.seen(left.me)), 0);
    }
}
