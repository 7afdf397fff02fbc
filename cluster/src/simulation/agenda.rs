//! What happens when: events in order of time, and in order of entry where the time is the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Events still to come.
#[derive(Debug)]
pub(super) struct Agenda<E> {
    entries: BinaryHeap<Reverse<Entry<E>>>,
    entered: u64,
    now: Duration,
}

#[derive(Debug)]
struct Entry<E> {
    at: Duration,
    number: u64,
    event: E,
}

// === impl Agenda ===

impl<E> Agenda<E> {
    pub(super) fn new() -> Self {
        Self {
            entries: BinaryHeap::new(),
            entered: 0,
            now: Duration::ZERO,
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// What was due before now happens now.
    pub(super) fn at(&mut self, at: Duration, event: E) {
        self.entered += 1;
        self.entries.push(Reverse(Entry {
            at: at.max(self.now),
            number: self.entered,
            event,
        }));
    }

    pub(super) fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now + delay, event);
    }

    /// The next event up to and with `end`; the time moves to it, or to `end` when there is none.
    pub(super) fn next(&mut self, end: Duration) -> Option<E> {
        if self
            .entries
            .peek()
            .is_none_or(|Reverse(entry)| entry.at > end)
        {
            self.now = self.now.max(end);
            return None;
        }
        let Reverse(entry) = self.entries.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

// === impl Entry ===

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
