//! Every interleaving of somebody who fetches a counter and the table that
//! drops it: `RUSTFLAGS="--cfg loom" cargo test -p policy --lib loom_`.

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::*;

/// Whether one fetching thread got it, and whether the table dropped it.
fn check(fetching: usize) {
    let mut model = loom::model::Builder::new();
    // Without a bound two fetching threads take hours.
    model.preemption_bound = Some(3);
    model.check(move || {
        let life = Arc::new(Life::default());
        // Stands for the reference count, as weakly ordered as `Arc`'s.
        let references = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..fetching)
            .map(|_| {
                let (life, references) = (Arc::clone(&life), Arc::clone(&references));
                thread::spawn(move || {
                    references.fetch_add(1, Ordering::Relaxed);
                    life.keep()
                })
            })
            .collect();
        let dropped = life.end(|| references.load(Ordering::Relaxed) > 0);
        let kept: Vec<bool> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        if dropped {
            assert!(
                kept.iter().all(|kept| !kept),
                "one has it and the table has not"
            );
            assert!(!life.keep());
        } else {
            assert!(kept.iter().all(|kept| *kept), "nobody dropped it");
        }
    });
}

#[test]
fn loom_one_fetches_while_the_table_drops() {
    check(1);
}

#[test]
fn loom_two_fetch_while_the_table_drops() {
    check(2);
}
