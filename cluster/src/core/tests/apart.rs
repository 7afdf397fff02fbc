//! Silent peers, shares, and what is bounded.

use super::*;

fn peer_link(now: Duration) -> super::super::peer::Link {
    let hello = Bench::new().core.hello();
    let mut link = super::super::peer::Link::new(1, origin(1, 10), hello, PROTOCOL_MAX, now);
    link.caught_up = true;
    link
}

#[test]
fn something_is_said_on_a_link_in_every_second_interval() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    bench.frame(5, Frame::Digest(Vec::new()));
    bench.pass(1_000);
    let mut last = bench.ms;
    let mut longest = 0;
    for _ in 0..500 {
        bench.pass(0);
        let effects = bench.pass(10);
        if !frames(&effects).is_empty() {
            longest = longest.max(bench.ms - last);
            last = bench.ms;
        }
    }
    // The link is dead after that: nobody answers.
    assert!(longest <= 200, "{longest} ms of silence");
}

#[test]
fn patience_with_a_silent_link() {
    use super::super::split::patience;
    let ms = Duration::from_millis;
    for (interval, expected) in [(10, 500), (100, 500), (101, 505), (1_000, 5_000)] {
        assert_eq!(patience(ms(interval)), ms(expected), "{interval}");
    }
}

#[test]
fn a_link_is_steady_again_when_an_answer_came_after_the_silence() {
    let ms = Duration::from_millis;
    // (frames heard at, echoes of pings sent at, steady)
    let cases: [(&[u64], &[u64], bool); 6] = [
        (&[100, 300], &[], true),
        (&[100, 700], &[], false),
        (&[100, 700, 710], &[690], false),
        (&[100, 700, 800], &[690, 700], true),
        (&[100, 700, 1_100], &[700], true),
        (&[600, 1_200], &[500], false),
    ];
    for (heard, echoes, steady) in cases {
        let mut link = peer_link(Duration::ZERO);
        for at in heard {
            link.note_heard(ms(500), ms(*at));
        }
        for sent in echoes {
            link.note_echo(ms(*sent));
        }
        assert_eq!(link.is_steady(), steady, "{heard:?} {echoes:?}");
    }
    let mut link = peer_link(Duration::ZERO);
    link.caught_up = false;
    assert!(!link.is_steady());
}

#[test]
fn parts_of_a_split() {
    let nodes = |numbers: &[u128]| numbers.iter().copied().map(NodeKey).collect();
    // (all, apart, configured, (visible, of))
    let cases = [
        (&[1, 2, 3][..], &[][..], 3, (3, 3)),
        (&[1, 2, 3][..], &[3][..], 3, (2, 3)),
        (&[1, 2, 3][..], &[2, 3][..], 3, (1, 3)),
        // The third had crashed before.
        (&[1, 2][..], &[2][..], 3, (1, 2)),
        // One that was there only for the others.
        (&[1, 2, 3][..], &[4][..], 3, (3, 4)),
        (&[1][..], &[4][..], 0, (1, 2)),
        (&[1][..], &[4][..], 3, (1, 3)),
        (&[][..], &[4][..], 0, (1, 2)),
    ];
    for (full, apart, configured, expected) in cases {
        let (full, apart) = (nodes(full), nodes(apart));
        let split = Split {
            full,
            ..Split::default()
        };
        assert_eq!(split.parts(&apart, configured), expected, "{apart:?}");
    }
}

#[test]
fn a_counter_that_nobody_looks_after_is_not_held_back() {
    use policy::{Enforcement, Fleet, Limit, Mode, OnTight};

    use super::super::tracked::Limited;
    let mut bench = Bench::serving();
    let peer = origin(2, 20);
    bench.link(5, peer);
    let cell = bench.cell(1, 1, 0);
    bench.frame(5, bench.cells(peer, 1, vec![cell]));
    let id: CounterId = COUNTER.parse().expect("a counter");
    let limit = Limit {
        counter: bench.table.counter(&id),
        id,
        amount: 2,
        enforcement: Enforcement::Eventual,
        shadow: false,
        on_tight: OnTight::Refuse,
        overridden: None,
    };
    // In a split this side has no share of so small a limit.
    let fleet = Fleet {
        ceiling: 0,
        mode: Mode::Share,
        overshoot_bound: Some(1),
        trigger: 1,
    };
    limit.counter.set_fleet(fleet);
    let counters = &mut bench.core.counting.counters;
    let slot = counters.find(COUNTER).expect("it has a cell");
    let mut limited = Limited::new(2, Enforcement::Eventual);
    limited.fleet = Some(fleet);
    counters.at_mut(slot).expect("it was found").limited = Some(Box::new(limited));
    assert_eq!(limit.standing(bench.now().wall).remaining, 0);
    bench.pass(75_000);
    assert!(bench.core.counting.counters.find(COUNTER).is_none());
    assert_eq!(limit.standing(bench.now().wall).remaining, 2);
}

#[test]
fn what_nobody_used_when_members_parted_has_a_share_from_the_first_request_on() {
    use policy::{Enforcement, Limit, OnTight};

    let remaining = |bench: &Bench, name: &str| {
        let id: CounterId = COUNTER
            .replace("/a/", &format!("/{name}/"))
            .parse()
            .unwrap();
        let limit = Limit {
            counter: bench.table.counter(&id),
            id,
            amount: 10,
            enforcement: Enforcement::Eventual,
            shadow: false,
            on_tight: OnTight::Refuse,
            overridden: None,
        };
        limit.standing(bench.now().wall).remaining
    };
    let mut bench = Bench::serving();
    let part = |bench: &mut Bench, apart: &[u128]| {
        let split = &mut bench.core.split;
        split.full = (1..=4).map(NodeKey).collect();
        split.apart = apart.iter().copied().map(NodeKey).collect();
        let now = bench.now();
        bench.core.judge_limits(now);
    };
    part(&mut bench, &[3, 4]);
    assert_eq!(remaining(&bench, "a"), 5);
    part(&mut bench, &[]);
    assert_eq!(remaining(&bench, "a"), 10);
    bench.core.config.partition = Partition::Available;
    part(&mut bench, &[3, 4]);
    assert_eq!(remaining(&bench, "a"), 10);
}

#[test]
fn slots_have_their_turn() {
    use super::super::limits::in_turn;
    let mut slots = crate::cell::Slots::new();
    let all: std::collections::BTreeSet<_> = (0..5)
        .map(|number| slots.find_or_insert(&format!("{number}").into(), || ()))
        .collect();
    let mut next = crate::cell::Slot::FIRST;
    let mut turns = Vec::new();
    for _ in 0..5 {
        turns.extend(in_turn(&all, &mut next, 2));
    }
    for slot in &all {
        assert_eq!(turns.iter().filter(|turn| *turn == slot).count(), 2);
    }
    assert_eq!(in_turn(&all, &mut next, 9).len(), 5);
}

#[test]
fn what_an_earlier_start_settled_last_is_told_to_peers_that_knew_it_before() {
    let mut bench = Bench::serving();
    let (peer, past) = (origin(2, 20), origin(1, 9));
    bench.link(5, peer);
    bench.frame(5, Frame::Digest(vec![(past, 4)]));
    let known = bench.cells(past, 4, vec![bench.cell(4, 10, 3)]);
    bench.frame(5, known);
    bench.pass(50);
    let load = |used, bench: &mut Bench| {
        let cell = bench.cell(0, used, 0);
        bench.tell(Input::Store(StoreReply::LoadCells(Ok(vec![(past, cell)]))));
        let sent = bench.pass(20);
        let batches = frames(&sent).into_iter().filter_map(|frame| match frame {
            Frame::Cells(batch) if batch.origin == past => Some(batch.cells[0].used),
            _ => None,
        });
        batches.collect::<Vec<u64>>()
    };
    assert_eq!(load(10, &mut bench), Vec::<u64>::new());
    assert_eq!(load(15, &mut bench), [15]);
    // Whoever comes later is told at once, though its digest says that it has all.
    bench.link(6, origin(3, 30));
    bench.tell(Input::Frame {
        link: 6,
        node: NodeKey(3),
        frame: Frame::Digest(vec![(past, 4)]),
    });
    let sent = bench.pass(20);
    let told = frames(&sent).into_iter().any(|frame| {
        matches!(frame, Frame::Cells(batch) if batch.origin == past && batch.cells[0].used == 15)
    });
    assert!(told, "{sent:?}");
}

#[test]
fn a_cell_of_a_far_future_counts_nowhere() {
    let mut bench = Bench::serving();
    let peer = origin(2, 20);
    bench.link(5, peer);
    let day = 24 * 3_600_000;
    // (counter, milliseconds ahead of the present, does it count)
    let cases = [
        (COUNTER, 0, true),
        (COUNTER, 5_000, true),
        (COUNTER, day, false),
        ("virtual_key/b/usd/1d/calendar", 5_000, true),
        ("virtual_key/c/usd/1d/calendar", day, false),
        ("virtual_key/d/usd/1M/calendar", 31 * day, false),
        ("virtual_key/d/usd/1M/calendar", 365 * day, false),
        ("virtual_key/e/requests/1s/sliding", 5_000, true),
        ("virtual_key/f/concurrent/-/fixed", 0, true),
    ];
    for (ver, (text, ahead, counts)) in (1..).zip(cases) {
        let id: CounterId = text.parse().expect("a counter");
        let counter = bench.table.counter(&id);
        let before = counter.total(bench.now().wall);
        let epoch = id.epoch(Timestamp(bench.now().wall.0 + ahead));
        let cell = WireCell {
            counter: text.into(),
            epoch,
            ver,
            used: 0,
            held: 7,
            expires_at: id.expires_at(epoch).unwrap_or(Timestamp::NEVER),
        };
        let batch = bench.cells(peer, ver, vec![cell]);
        bench.frame(5, batch);
        let after = counter.total(bench.now().wall);
        assert_eq!(after - before, if counts { 7 } else { 0 }, "{text} {ahead}");
    }
}

#[test]
fn cells_of_requests_in_flight_end_some_time_and_are_not_stored() {
    let text = "virtual_key/f/concurrent/-/fixed";
    let mut bench = Bench::serving();
    let id: CounterId = text.parse().expect("a counter");
    let counter = bench.table.counter(&id);
    let me = origin(1, 10);
    let slot = bench
        .core
        .counting
        .counters
        .find_or_insert(&text.into(), || {
            super::super::tracked::Tracked::new(Some(Arc::clone(&counter)))
        });
    let (now, key) = (bench.now(), (slot, 0));
    let held = crate::cell::Amounts { used: 0, held: 3 };
    let store = &mut bench.core.counting.store;
    store.publish(me, key, held, Timestamp::NEVER);
    bench.core.flush.note(me, &[key], now.mono);
    // It ended: the counter says nothing of it any more.
    bench.core.counting.dirty.insert(slot);
    let effects = bench.pass(3_000);
    let cells = bench.core.counting.store.origin(me).expect("own cells");
    let state = cells.state(key).expect("it is still told");
    assert_eq!(state.held, 0);
    assert!(state.expires_at < Timestamp(WALL + 25 * 3_600_000));
    let stored = |effect: &Effect| matches!(effect, Effect::Store(StoreRequest::FlushCells(_)));
    assert!(!effects.iter().any(stored), "{effects:?}");
}

#[test]
fn what_a_gone_process_held_is_no_part_of_what_is_in_flight_elsewhere() {
    let text = "virtual_key/f/concurrent/-/fixed";
    let mut bench = Bench::serving();
    let peer = origin(2, 20);
    bench.link(5, peer);
    let cell = WireCell {
        counter: text.into(),
        epoch: 0,
        ver: 1,
        used: 0,
        held: 7,
        expires_at: Timestamp::NEVER,
    };
    let batch = bench.cells(peer, 1, vec![cell]);
    bench.frame(5, batch);
    let now = bench.now().wall;
    let core = &mut bench.core;
    let slot = core.counting.counters.find(text).expect("it was told");
    core.split.apart = [peer.node].into();
    assert_eq!(core.held_apart(slot), 7);
    core.counting.set_gone([peer].into(), now);
    assert_eq!(core.held_apart(slot), 0);
}

#[test]
fn what_is_written_has_its_turn() {
    let mut flush = super::super::flush::Flush::new(Duration::ZERO);
    let mut slots = crate::cell::Slots::new();
    let slot = slots.find_or_insert(&"a".into(), || ());
    let me = origin(1, 1);
    let keys: Vec<_> = (0..4).map(|epoch| (slot, epoch)).collect();
    flush.note(me, &keys, Duration::ZERO);
    let mut written = Vec::new();
    for _ in 0..6 {
        let (_, (_, epoch)) = flush.next_dirty().expect("there is more");
        written.push(epoch);
        // The first ones change all the time.
        flush.note(me, &keys[..2], Duration::ZERO);
    }
    assert_eq!(written, [0, 1, 2, 3, 0, 1]);
}

#[test]
fn a_node_whose_seeds_are_not_looked_up_yet_is_not_alone() {
    let mut bench = Bench::new();
    bench.core.config.seeds_expected = true;
    bench.pass(3_100);
    bench.tell(Input::Store(StoreReply::Heartbeats(Ok(Vec::new()))));
    bench.tell(Input::Store(StoreReply::LoadCells(Ok(Vec::new()))));
    bench.pass(1_000);
    assert!(!bench.core.view(bench.now()).caught_up);
    // One that does not answer.
    bench.order(Command::SetSeeds(vec![SocketAddr::from((
        [127, 0, 0, 1],
        9,
    ))]));
    bench.pass(1_000);
    assert!(!bench.core.view(bench.now()).caught_up);
    bench.pass(3_000);
    assert!(bench.core.view(bench.now()).caught_up);
}
