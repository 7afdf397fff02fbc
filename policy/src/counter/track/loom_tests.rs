//! Every interleaving of those who change a counter and the one who looks,
//! relaxed memory included:
//! `RUSTFLAGS="--cfg loom" cargo test -p policy --lib loom_`.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::*;

/// A counter, its mark, and how often it stands in the queue.
#[derive(Default)]
struct Model {
    amount: AtomicU64,
    mark: Mark,
    queued: AtomicU64,
}

impl Model {
    fn change(&self) {
        // Nothing but the mark orders this.
        self.amount.fetch_add(1, Ordering::Relaxed);
        if self.mark.set() {
            let before = self.queued.fetch_add(1, Ordering::AcqRel);
            assert!(before < 2, "the one that is just being taken, and one more");
        }
    }

    /// What is told to others, as `Tracker::take` does it.
    fn take(&self, told: &mut u64) {
        if self.queued.load(Ordering::Acquire) > 0 {
            self.queued.fetch_sub(1, Ordering::AcqRel);
            self.mark.clear();
            *told = self.amount.load(Ordering::Relaxed);
        }
    }
}

fn check(changing: u64, takes: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let model = Arc::new(Model::default());
        let threads: Vec<_> = (0..changing)
            .map(|_| {
                let model = Arc::clone(&model);
                thread::spawn(move || model.change())
            })
            .collect();
        let mut told = 0;
        for _ in 0..takes {
            model.take(&mut told);
        }
        for thread in threads {
            thread.join().unwrap();
        }
        model.take(&mut told);
        assert_eq!(told, changing, "a change that nobody told");
        model.take(&mut told);
        assert_eq!(model.queued.load(Ordering::Acquire), 0, "queued twice");
    });
}

#[test]
fn loom_one_changes_while_another_looks() {
    check(1, 2);
}

#[test]
fn loom_two_change_while_another_looks() {
    check(2, 2);
}
