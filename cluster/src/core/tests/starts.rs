//! A node that has nothing to go by.

use super::*;

fn caught_up(bench: &Bench) -> bool {
    bench.core.view(bench.now()).caught_up
}

/// One that knows nothing, while the store is away.
fn empty() -> Bench {
    let mut bench = Bench::new();
    bench.core.start_empty();
    bench.tell(Input::Store(StoreReply::LoadCells(Err(()))));
    bench
}

#[test]
fn a_node_that_kept_something_serves_after_ten_seconds_and_one_that_did_not_never() {
    let mut kept = Bench::new();
    kept.tell(Input::Store(StoreReply::LoadCells(Err(()))));
    kept.pass(11_000);
    assert!(caught_up(&kept));
    let mut nothing = empty();
    nothing.pass(120_000);
    assert!(!caught_up(&nothing));
    // The store is back: the counts at once, the entities with the next look.
    nothing.tell(Input::Store(StoreReply::LoadCells(Ok(Vec::new()))));
    nothing.pass(1_000);
    assert!(!caught_up(&nothing));
    nothing.order(Command::Applied { revision: 0 });
    nothing.pass(1_000);
    assert!(caught_up(&nothing));
}

#[test]
fn a_node_that_kept_nothing_waits_for_the_entities_of_a_peer_too() {
    let mut bench = empty();
    bench.link(5, origin(2, 20));
    bench.frame(5, Frame::Applied { revision: 7 });
    bench.frame(5, Frame::CaughtUp);
    bench.pass(500);
    assert!(!caught_up(&bench), "it has the counts and no entities");
    bench.order(Command::Applied { revision: 6 });
    bench.pass(500);
    assert!(!caught_up(&bench), "not all of them");
    bench.order(Command::Applied { revision: 7 });
    bench.pass(100);
    assert!(caught_up(&bench));
}
