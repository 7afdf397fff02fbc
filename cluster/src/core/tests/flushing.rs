//! How old what the store does not have is said to be.

use super::*;

/// Counts of others that change each tick, so that some are always to be written.
fn change(bench: &mut Bench, counters: u64, tick: u64) {
    for number in 0..counters {
        let text = format!("virtual_key/k{number}/requests/1h/fixed");
        let id: CounterId = text.parse().expect("a counter");
        let counter = bench.table.counter(&id);
        let slot = bench
            .core
            .counting
            .counters
            .find_or_insert(&text.as_str().into(), || {
                crate::core::tracked::Tracked::new(Some(Arc::clone(&counter)))
            });
        let (me, now) = (origin(1, 10), bench.now());
        let key = (slot, id.epoch(now.wall));
        let used = crate::cell::Amounts {
            used: tick + 1,
            held: 0,
        };
        let store = &mut bench.core.counting.store;
        store.publish(me, key, used, Timestamp(WALL + 3_600_000));
        bench.core.flush.note(me, &[key], now.mono);
    }
}

/// Runs under traffic, with a store that answers so or not at all; the largest lag that was told.
fn worst_lag(bench: &mut Bench, counters: u64, seconds: u64, answer: Option<bool>) -> Duration {
    let mut worst = Duration::ZERO;
    let mut due: Vec<Input> = Vec::new();
    for tick in 0..seconds * 20 {
        for input in std::mem::take(&mut due) {
            bench.tell(input);
        }
        for effect in bench.pass(50) {
            if let (Effect::Store(StoreRequest::FlushCells(cells)), Some(ok)) = (effect, answer) {
                let result = if ok { Ok(()) } else { Err(()) };
                due.push(Input::Store(StoreReply::FlushCells { cells, result }));
            }
        }
        // After what was asked, and before it is answered.
        change(bench, counters, tick);
        worst = worst.max(bench.core.view(bench.now()).figures.flush_lag);
    }
    worst
}

#[test]
fn what_a_busy_node_lacks_in_a_store_that_follows_is_young() {
    let mut bench = Bench::serving();
    let lag = worst_lag(&mut bench, 3, 60, Some(true));
    assert!(lag >= Duration::from_millis(500), "{lag:?}");
    assert!(lag < Duration::from_secs(2), "{lag:?}");
}

#[test]
fn more_than_one_write_takes_is_as_old_as_a_round_of_writes() {
    let mut bench = Bench::serving();
    let counters = 3 * crate::message::BATCH_CELLS as u64;
    let lag = worst_lag(&mut bench, counters, 8, Some(true));
    assert!(lag < Duration::from_secs(4), "{lag:?}");
}

#[test]
fn what_a_store_does_not_take_grows_old() {
    for answer in [Some(false), None] {
        let mut bench = Bench::serving();
        let lag = worst_lag(&mut bench, 3, 20, answer);
        assert!(lag > Duration::from_secs(19), "{lag:?}");
    }
}
