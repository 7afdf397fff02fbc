//! Clocks that are wrong: of others, and this node's own.

use super::*;

const BUDGET: &str = "virtual_key/a/usd/1M/calendar";

fn cell_of(counter: &str, at: u64) -> WireCell {
    let id: CounterId = counter.parse().expect("a counter");
    let epoch = id.epoch(Timestamp(at));
    WireCell {
        counter: counter.into(),
        epoch,
        ver: 1,
        used: 9,
        held: 0,
        expires_at: id.expires_at(epoch).expect("a window"),
    }
}

fn used(bench: &Bench, counter: &str) -> u64 {
    let id: CounterId = counter.parse().expect("a counter");
    bench.table.counter(&id).total(bench.now().wall)
}

#[test]
fn what_is_further_ahead_than_clocks_may_be_does_not_count_and_is_not_kept() {
    const MONTH: u64 = 31 * 24 * 3_600_000;
    let cases = [
        (COUNTER, 59_000, 9),
        (COUNTER, 70_000, 0),
        (BUDGET, 0, 9),
        (BUDGET, MONTH, 0),
        (BUDGET, 20 * MONTH, 0),
    ];
    for (counter, ahead, counted) in cases {
        let mut bench = Bench::serving();
        bench.link(5, origin(2, 20));
        let cell = cell_of(counter, WALL + bench.ms + ahead);
        let batch = bench.cells(origin(2, 20), 1, vec![cell.clone()]);
        bench.frame(5, batch);
        assert_eq!(used(&bench, counter), counted, "{counter} {ahead}");
        let figures = bench.core.view(bench.now()).figures;
        let expected = (u64::from(counted > 0), u64::from(counted == 0));
        assert_eq!((figures.cells, figures.cells_ahead), expected);
        // Nor when it comes from the store.
        let stored = vec![(origin(3, 30), cell)];
        bench.tell(Input::Store(StoreReply::LoadCells(Ok(stored))));
        assert_eq!(used(&bench, counter), counted * 2, "{counter} {ahead}");
    }
}

#[test]
fn cells_of_unknown_counters_and_of_ended_requests_are_not_kept_for_ever() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    let cell = |counter: &str, ver| WireCell {
        counter: counter.into(),
        epoch: 0,
        ver,
        used: 0,
        held: 1,
        expires_at: Timestamp::NEVER,
    };
    let cells = vec![
        cell("virtual_key/a/concurrent/-/fixed", 1),
        cell("of/the/future", 2),
    ];
    let batch = bench.cells(origin(2, 20), 2, cells);
    bench.frame(5, batch);
    let kept = |bench: &Bench| {
        let store = &bench.core.counting.store;
        store
            .origin(origin(2, 20))
            .map_or(0, |cells| cells.iter().count())
    };
    assert_eq!(kept(&bench), 2);
    let sweep = |bench: &mut Bench, days: u64| {
        let now = Timestamp(WALL + days * 24 * 3_600_000 + 3_600_000);
        bench.core.counting.store.sweep(100, now, |_| true, drop);
    };
    sweep(&mut bench, 1);
    assert_eq!(kept(&bench), 1);
    sweep(&mut bench, 367);
    assert_eq!(kept(&bench), 0);
}

fn digests(effects: &[Effect]) -> usize {
    let digests = frames(effects)
        .into_iter()
        .filter(|frame| matches!(frame, Frame::Digest(_)));
    digests.count()
}

fn loads(effects: &[Effect]) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::Store(StoreRequest::LoadCells)))
}

/// One that expects others, and whose clock is 5 s ahead of theirs.
fn ahead() -> Bench {
    let mut bench = Bench::expecting();
    let mut greeting = bench.link(5, origin(2, 20));
    greeting.extend(bench.pass(100));
    assert_eq!(digests(&greeting), 0, "its clock is not known");
    assert!(!loads(&greeting));
    bench
}

fn pong(bench: &Bench, ahead_ms: u64) -> Frame {
    Frame::Pong {
        number: 1,
        echoed: bench.now().mono,
        wall: Timestamp(bench.now().wall.0 - ahead_ms),
    }
}

#[test]
fn a_clock_that_is_ahead_is_put_right_before_anything_is_counted() {
    let mut bench = ahead();
    bench.frame(5, pong(&bench, 5_000));
    let asked = bench.pass(1_100);
    assert_eq!(bench.core.offset(), -5_000);
    assert_eq!((digests(&asked), loads(&asked)), (1, true));
    // From now on its time never steps back.
    bench.frame(5, pong(&bench, 9_000));
    bench.pass(100);
    assert!(bench.core.offset() >= -5_010 - 4, "{}", bench.core.offset());
}

#[test]
fn a_node_whose_peers_do_not_tell_their_time_waits_three_seconds() {
    let mut bench = ahead();
    bench.pass(2_500);
    let kept = vec![(origin(3, 30), bench.cell(0, 7, 0))];
    bench.tell(Input::Store(StoreReply::KeptCells(kept)));
    assert_eq!(bench.total(), 0);
    let asked = bench.pass(500);
    assert_eq!((digests(&asked), loads(&asked)), (1, true));
    assert_eq!(bench.total(), 7, "its own copy counts from then on");
}

#[test]
fn a_node_that_slept_asks_for_all_that_it_refused_meanwhile() {
    let mut bench = Bench::serving();
    let peer = origin(2, 20);
    bench.link(5, peer);
    let cell = cell_of(COUNTER, WALL + 3_600_000);
    let batch = bench.cells(peer, 1, vec![cell]);
    bench.frame(5, batch);
    assert_eq!(bench.core.counting.store.seen(peer), 1);
    let theirs = Frame::Pong {
        number: 1,
        echoed: bench.now().mono,
        wall: Timestamp(bench.now().wall.0 + 3_600_000),
    };
    let mut third = bench.core.hello();
    third.origin = origin(3, 30);
    third.name = "node-3".to_owned();
    bench.tell(Input::LinkUp {
        link: 6,
        hello: third,
    });
    for (link, node) in [(5, 2), (6, 3)] {
        bench.tell(Input::Frame {
            link,
            node: NodeKey(node),
            frame: theirs.clone(),
        });
    }
    let closed = bench.pass(10);
    let closes = |effect: &&Effect| matches!(effect, Effect::CloseLink { .. });
    assert_eq!(closed.iter().filter(closes).count(), 2, "{closed:?}");
    assert_eq!(bench.core.counting.store.seen(peer), 0);
    let greeting = bench.link(7, peer);
    assert_eq!(digests(&greeting), 1);
    assert!(loads(&closed), "and the store is read again");
}

#[test]
fn a_clock_that_was_set_is_followed_by_a_node_that_is_alone() {
    const SLEPT: u64 = 6 * 3_600_000;
    for alone in [true, false] {
        let mut bench = Bench::serving();
        if !alone {
            bench.link(5, origin(2, 20));
            bench.frame(5, pong(&bench, 0));
        }
        let mut effects = Vec::new();
        for _ in 0..20 {
            bench.ms += 10;
            let mut now = bench.now();
            now.wall.0 += SLEPT;
            bench.core.tick(now);
            effects.extend(bench.core.take_effects());
        }
        let expected = if alone { 0 } else { -(SLEPT as i64) };
        assert_eq!(bench.core.offset(), expected);
        assert_eq!(
            loads(&effects),
            alone,
            "what was refused before may count now"
        );
    }
}
