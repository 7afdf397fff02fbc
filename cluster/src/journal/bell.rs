//! How the journal thread sleeps without being woken for every record.
//!
//! Promise: the first record after a silence wakes the thread, those after it do not, and no wake is
//! missed. The thread says that it sleeps before it looks once more for work, and a caller leaves
//! its work before it looks whether the thread sleeps: one of the two sees the other.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// Wakes one thread.
#[derive(Debug, Default)]
pub(super) struct Bell {
    thread: OnceLock<Thread>,
    asleep: AtomicBool,
}

impl Bell {
    /// Names the thread that sleeps here. Before that, ringing does nothing.
    pub(super) fn hang(&self, thread: Thread) {
        // There is one thread only; a second name would be a second journal.
        let _ = self.thread.set(thread);
    }

    /// Wakes the thread; if it is at work, its next sleep ends at once.
    pub(super) fn ring(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Wakes the thread if it sleeps until there is work; the first of many callers does.
    pub(super) fn ring_if_asleep(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.ring();
        }
    }

    /// Sleeps until rung or until `timeout`, unless there is work. May end early.
    pub(super) fn sleep(&self, timeout: Option<Duration>, is_idle: impl FnOnce() -> bool) {
        self.asleep.store(true, Ordering::SeqCst);
        if is_idle() {
            match timeout {
                None => thread::park(),
                Some(timeout) => thread::park_timeout(timeout),
            }
        }
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Sleeps for `time`, whatever work comes; only [`Bell::ring`] ends it early.
    pub(super) fn rest(&self, time: Duration) {
        thread::park_timeout(time);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn the_first_caller_wakes_and_the_others_need_not() {
        let bell = Arc::new(Bell::default());
        let (sleeps, asleep) = sync_channel(1);
        let sleeper = thread::spawn({
            let bell = Arc::clone(&bell);
            move || {
                bell.sleep(None, || sleeps.send(()).is_ok());
            }
        });
        bell.hang(sleeper.thread().clone());
        asleep.recv().unwrap();
        bell.ring_if_asleep();
        assert!(!bell.asleep.load(Ordering::SeqCst), "nobody else rings");
        sleeper.join().unwrap();
    }

    #[test]
    fn neither_work_nor_a_ring_before_the_sleep_is_missed() {
        let bell = Bell::default();
        bell.hang(thread::current());
        bell.sleep(None, || false);
        bell.ring();
        bell.sleep(None, || true);
    }
}
