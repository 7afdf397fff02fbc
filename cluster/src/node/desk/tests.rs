//! Requests and answers, over a store that fails, hangs and loses answers.

use std::sync::atomic::Ordering;

use policy::ManualClock;
use tokio::sync::mpsc::{Receiver as Replies, channel};

use super::*;
use crate::audit::AuditKey;
use crate::entity::Expect;
use crate::message::Outcome;
use crate::store::{FleetStore, SEAL_TASK};
use crate::testing::{EXPIRY, FlakyStore, change, charge, entity_write, origin, record};

const ME: Origin = origin(7, 100);

struct Bench {
    store: FlakyStore,
    status: Arc<NodeStatus>,
    clock: Arc<ManualClock>,
    entities: EntityLog,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let store = FlakyStore::default();
        let dir = tempfile::tempdir().unwrap();
        let shared = Arc::new(store.clone());
        Self {
            entities: EntityLog::open(shared, AuditKey::keyless(), dir.path()).unwrap(),
            store,
            status: Arc::new(NodeStatus::new()),
            clock: Arc::default(),
            _dir: dir,
        }
    }

    fn start(&self, kept: Option<Vec<(Origin, Cell)>>) -> (StoreDesk, Replies<StoreReply>) {
        let (replies, answers) = channel(4);
        let parts = DeskParts {
            store: Arc::new(self.store.clone()),
            entities: self.entities.clone(),
            status: Arc::clone(&self.status),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            me: ME,
            name: "one".to_owned(),
            region: "eu".to_owned(),
            kept,
            fatal: crate::testing::fatal,
        };
        (StoreDesk::start(parts, replies).unwrap(), answers)
    }
}

fn told(used: u64) -> Vec<(Origin, WireCell)> {
    let cell = WireCell {
        counter: "a".into(),
        epoch: 1,
        ver: 3,
        used,
        held: 5,
        expires_at: EXPIRY,
    };
    vec![(ME, cell)]
}

fn take_term(task: &str) -> StoreRequest {
    StoreRequest::TakeTerm {
        scope: "cluster".to_owned(),
        task: task.to_owned(),
    }
}

fn used(cells: &[(Origin, WireCell)]) -> Vec<(Origin, u64, u64, u64)> {
    let one = |(of, cell): &(Origin, WireCell)| (*of, cell.used, cell.ver, cell.held);
    cells.iter().map(one).collect()
}

#[test]
fn every_request_has_its_answer() {
    let bench = Bench::new();
    let (desk, mut answers) = bench.start(None);
    let mut ask = |request| {
        desk.ask(request).unwrap();
        answers.blocking_recv().unwrap()
    };
    let heard = ask(StoreRequest::Heartbeat);
    assert!(matches!(heard, StoreReply::Heartbeat(Ok(()))));
    let StoreReply::Heartbeats(Ok(rows)) = ask(StoreRequest::Heartbeats) else {
        panic!("rows")
    };
    let row = (rows[0].origin, &*rows[0].name, &*rows[0].region);
    assert_eq!(row, (ME, "one", "eu"));
    let StoreReply::FlushCells { cells, result } = ask(StoreRequest::FlushCells(told(9))) else {
        panic!("the cells")
    };
    assert_eq!((cells, result), (told(9), Ok(())));
    let StoreReply::LoadCells(Ok(cells)) = ask(StoreRequest::LoadCells) else {
        panic!("cells")
    };
    assert_eq!(used(&cells), [(ME, 9, 0, 0)]);
    let StoreReply::TakeTerm { task, result, .. } = ask(take_term("t")) else {
        panic!("a term")
    };
    assert_eq!((&*task, result), ("t", Ok(Some(1))));
    let outcome = Outcome {
        task: "t".to_owned(),
        scope: "cluster".to_owned(),
        term: 1,
        hash: [1; 32],
        at: Timestamp(1),
        body: [1, 2].into(),
    };
    let saved = ask(StoreRequest::SaveOutcome(outcome.clone()));
    let StoreReply::SaveOutcome { term, result, .. } = saved else {
        panic!("whether it was kept")
    };
    assert_eq!((term, result), (1, Ok(true)));
    let StoreReply::LoadOutcomes(Ok(outcomes)) = ask(StoreRequest::LoadOutcomes) else {
        panic!("outcomes")
    };
    assert_eq!(outcomes, [outcome]);
    let write = [entity_write("a", Expect::Any, Some("{}"))];
    let written = bench.entities.write(&write, &change("a")).unwrap();
    let since = ask(StoreRequest::EntitiesSince { after: 0 });
    let StoreReply::EntitiesSince { after, result } = since else {
        panic!("entities")
    };
    assert_eq!((after, result), (0, Ok(written)));
    desk.stop();
}

#[test]
fn periods_are_sealed_some_minutes_after_their_end() {
    let bench = Bench::new();
    let mut usage = record(1);
    usage.charges = vec![charge("virtual_key/k/usd/1d/calendar", 1, 5)];
    usage.charges[0].expires_at = Timestamp(1_000_000);
    let inner = &bench.store.inner;
    crate::store::Store::record_usage(&**inner, ME, &[usage]).unwrap();
    let (desk, mut answers) = bench.start(None);
    desk.ask(take_term(SEAL_TASK)).unwrap();
    let taken = answers.blocking_recv().unwrap();
    assert!(matches!(
        taken,
        StoreReply::TakeTerm {
            result: Ok(Some(1)),
            ..
        }
    ));
    for (now, expected) in [(1_299_999, 0), (1_300_000, 1), (1_300_000, 0)] {
        bench.clock.set(Timestamp(now));
        desk.ask(StoreRequest::SealWindows { term: 1 }).unwrap();
        let sealed = answers.blocking_recv().unwrap();
        let StoreReply::SealWindows { term: 1, result } = sealed else {
            panic!("{sealed:?}")
        };
        assert_eq!(result, Ok(expected), "at {now}");
    }
    // The books are kept for 400 days.
    bench
        .clock
        .set(Timestamp(1_000_000 + 400 * 24 * 3_600 * 1_000));
    desk.ask(StoreRequest::SealWindows { term: 1 }).unwrap();
    answers.blocking_recv().unwrap();
    let left = inner.forget_sealed(Sealing {
        me: ME,
        term: 1,
        before: Timestamp::NEVER,
        most: 9,
    });
    assert_eq!(left.unwrap().windows, 0);
    desk.stop();
}

#[test]
fn a_store_that_hangs_delays_nobody_and_what_has_no_room_fails_at_once() {
    let bench = Bench::new();
    let (desk, mut answers) = bench.start(None);
    let hang = bench.store.gate.lock().unwrap();
    desk.ask(StoreRequest::LoadOutcomes).unwrap();
    // Until that one is at work.
    while bench.store.calls.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    let mut accepted = 0_u64;
    let refused = loop {
        match desk.ask(StoreRequest::FlushCells(told(accepted))) {
            Ok(()) => accepted += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(accepted, QUEUE as u64);
    let StoreReply::FlushCells { cells, result } = *refused else {
        panic!("{refused:?}")
    };
    assert_eq!((cells, result), (told(accepted), Err(())), "given back");
    drop(hang);
    assert!(matches!(
        answers.blocking_recv(),
        Some(StoreReply::LoadOutcomes(Ok(_)))
    ));
    for number in 0..accepted {
        let Some(StoreReply::FlushCells { cells, result }) = answers.blocking_recv() else {
            panic!("an answer for {number}")
        };
        assert_eq!((cells, result), (told(number), Ok(())));
    }
    desk.stop();
}

#[test]
fn what_has_a_deadline_goes_first() {
    let bench = Bench::new();
    let (desk, mut answers) = bench.start(None);
    let hang = bench.store.gate.lock().unwrap();
    desk.ask(StoreRequest::LoadOutcomes).unwrap();
    while bench.store.calls.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    desk.ask(StoreRequest::FlushCells(told(1))).unwrap();
    desk.ask(StoreRequest::LoadCells).unwrap();
    desk.ask(take_term("t")).unwrap();
    desk.ask(StoreRequest::Heartbeat).unwrap();
    drop(hang);
    let order: Vec<_> = (0..5)
        .map(|_| match answers.blocking_recv().unwrap() {
            StoreReply::LoadOutcomes(_) => "outcomes",
            StoreReply::TakeTerm { .. } => "term",
            StoreReply::Heartbeat(_) => "beat",
            StoreReply::FlushCells { .. } => "flush",
            StoreReply::LoadCells(_) => "load",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, ["outcomes", "term", "beat", "flush", "load"]);
    desk.stop();
}

#[test]
fn faults_are_told_and_a_repeated_flush_changes_nothing() {
    let bench = Bench::new();
    let (desk, mut answers) = bench.start(None);
    bench.store.refuse.store(1, Ordering::SeqCst);
    bench.store.lose_answer.store(1, Ordering::SeqCst);
    let mut results = Vec::new();
    for _ in 0..3 {
        desk.ask(StoreRequest::FlushCells(told(4))).unwrap();
        if let Some(StoreReply::FlushCells { cells, result }) = answers.blocking_recv() {
            assert_eq!(cells, told(4));
            results.push(result);
        }
    }
    assert_eq!(results, [Err(()), Err(()), Ok(())]);
    let cells = bench.store.inner.cells_by_origin(Timestamp(0)).unwrap();
    assert_eq!((cells.len(), cells[0].1.amount), (1, 4));
    desk.stop();
}

#[test]
fn what_was_asked_before_the_end_is_written() {
    let bench = Bench::new();
    let (desk, answers) = bench.start(None);
    let hang = bench.store.gate.lock().unwrap();
    desk.ask(StoreRequest::LoadCells).unwrap();
    desk.ask(StoreRequest::FlushCells(told(4))).unwrap();
    drop(answers);
    drop(hang);
    desk.stop();
    let cells = bench.store.inner.cells_by_origin(Timestamp(0)).unwrap();
    assert_eq!((cells.len(), cells[0].1.amount), (1, 4));
}

#[test]
fn what_the_node_kept_is_told_first_and_a_predecessor_until_it_has_gone() {
    let bench = Bench::new();
    bench.status.set_taking_over(true);
    let old = origin(ME.node.0, 99);
    let cell = Cell {
        counter: "a".to_owned(),
        epoch: 1,
        amount: 8,
        expires_at: EXPIRY,
    };
    let (desk, mut answers) = bench.start(Some(vec![(old, cell)]));
    let Some(StoreReply::KeptCells(kept)) = answers.blocking_recv() else {
        panic!("what was kept")
    };
    assert_eq!(used(&kept), [(old, 8, 0, 0)]);
    let mut told = told(11);
    told[0].0 = old;
    bench.store.inner.flush_cells(&told).unwrap();
    // Nobody asked.
    let Some(StoreReply::LoadCells(Ok(cells))) = answers.blocking_recv() else {
        panic!("the old one's cells")
    };
    assert_eq!(used(&cells), [(old, 11, 0, 0)]);
    told[0].1.used = 12;
    bench.store.inner.flush_cells(&told).unwrap();
    bench.status.set_taking_over(false);
    let mut last = 0;
    while last < 12 {
        let Some(StoreReply::LoadCells(Ok(cells))) = answers.blocking_recv() else {
            panic!("the old one's cells")
        };
        last = cells[0].1.used;
    }
    desk.ask(StoreRequest::Heartbeat).unwrap();
    while !matches!(
        answers.blocking_recv().unwrap(),
        StoreReply::Heartbeat(Ok(()))
    ) {}
    desk.stop();
}

/// Why the process would have ended.
static ENDED: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());

#[derive(Debug)]
struct BrokenClock;

impl Clock for BrokenClock {
    fn now(&self) -> Timestamp {
        panic!("on purpose")
    }
}

#[test]
fn a_panic_of_the_thread_ends_the_process() {
    let world = Bench::new();
    let (replies, _answers) = channel(4);
    let parts = DeskParts {
        store: Arc::new(world.store.clone()),
        entities: world.entities.clone(),
        status: Arc::clone(&world.status),
        clock: Arc::new(BrokenClock),
        me: ME,
        name: "one".to_owned(),
        region: "eu".to_owned(),
        kept: None,
        fatal: |why| ENDED.lock().unwrap().push(why.to_owned()),
    };
    let desk = StoreDesk::start(parts, replies).unwrap();
    assert!(desk.ask(StoreRequest::LoadCells).is_ok());
    desk.stop();
    let why = ["the thread tyr-cluster-store panicked".to_owned()];
    assert_eq!(*ENDED.lock().unwrap(), why);
}
