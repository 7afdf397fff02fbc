//! What the cluster has for the rest of the process.
//!
//! Promise: whoever takes out waits for nothing but news, and whoever puts in never waits. Newer
//! news replaces older of the same thing, so what waits is bounded by the number of things, and by
//! [`MOST`].

use std::collections::VecDeque;
use std::fmt;
use std::mem::discriminant;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::core::Incoming;

/// Most things that wait. A revocation beyond it is brought again by its sender, who is not told
/// that it was applied.
const MOST: usize = 65_536;

/// Between the driver and one [`IncomingReceiver`].
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<Incoming>,
    closed: bool,
    taken: bool,
}

/// The one that takes out.
#[derive(Debug)]
pub struct IncomingReceiver {
    inbox: Arc<Inbox>,
}

/// Why [`IncomingReceiver::recv_timeout`] has nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNews {
    /// Nothing came in that time. Ask again.
    Yet,
    /// The node has stopped; nothing will come.
    EverMore,
}

impl Inbox {
    /// Puts in what `news` says. Whether it was kept: not if too much waits.
    pub(crate) fn put(&self, news: Incoming) -> bool {
        let mut waiting = self.lock();
        waiting.queue.retain(|old| !replaces(&news, old));
        if waiting.queue.len() >= MOST {
            return false;
        }
        waiting.queue.push_back(news);
        self.bell.notify_one();
        true
    }

    /// Ends it: what waits can still be taken out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.bell.notify_all();
    }

    /// The way out, once.
    pub(crate) fn receiver(self: &Arc<Self>) -> Option<IncomingReceiver> {
        let mut waiting = self.lock();
        let first = !waiting.taken;
        waiting.taken = true;
        first.then(|| IncomingReceiver {
            inbox: Arc::clone(self),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `new` says all that `old` does.
fn replaces(new: &Incoming, old: &Incoming) -> bool {
    if discriminant(new) != discriminant(old) {
        return false;
    }
    match (new, old) {
        (Incoming::Revoked { hash, .. }, Incoming::Revoked { hash: old, .. }) => hash == old,
        (Incoming::Outcome(new), Incoming::Outcome(old)) => {
            new.task == old.task && new.scope == old.scope
        }
        (
            Incoming::Duty { task, scope, .. },
            Incoming::Duty {
                task: old,
                scope: old_scope,
                ..
            },
        ) => task == old && scope == old_scope,
        _ => true,
    }
}

impl IncomingReceiver {
    /// The oldest news; waits at most `at_most` for some. Blocks.
    pub fn recv_timeout(&self, at_most: Duration) -> Result<Incoming, NoNews> {
        let until = Instant::now() + at_most;
        let mut waiting = self.inbox.lock();
        loop {
            if let Some(news) = waiting.queue.pop_front() {
                return Ok(news);
            }
            if waiting.closed {
                return Err(NoNews::EverMore);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoNews::Yet);
            }
            waiting = match self.inbox.bell.wait_timeout(waiting, left) {
                Ok((waiting, _)) => waiting,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.lock().queue.len();
        f.debug_struct("Inbox").field("waiting", &waiting).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::Change;
    use policy::Timestamp;

    fn revoked(hash: &str) -> Incoming {
        let text = String::new;
        let change = Change {
            at: Timestamp(1),
            actor: text(),
            peer: text(),
            action: text(),
            kind: text(),
            name: text(),
            before: None,
            after: None,
        };
        let hash = hash.to_owned();
        Incoming::Revoked { hash, change }
    }

    fn duty(task: &str, term: u64) -> Incoming {
        let (task, scope) = (task.to_owned(), "cluster".to_owned());
        Incoming::Duty { task, scope, term }
    }

    #[test]
    fn newer_news_replaces_older_of_the_same_thing() {
        let inbox = Arc::new(Inbox::default());
        for news in [
            Incoming::Poll,
            revoked("a"),
            Incoming::Poll,
            revoked("b"),
            duty("prices", 1),
            duty("prices", 2),
            revoked("a"),
        ] {
            assert!(inbox.put(news));
        }
        inbox.close();
        let receiver = inbox.receiver().unwrap();
        let wait = Duration::from_secs(5);
        for expected in [
            Incoming::Poll,
            revoked("b"),
            duty("prices", 2),
            revoked("a"),
        ] {
            assert_eq!(receiver.recv_timeout(wait), Ok(expected));
        }
        assert_eq!(receiver.recv_timeout(wait), Err(NoNews::EverMore));
    }

    #[test]
    fn there_is_one_receiver() {
        let inbox = Arc::new(Inbox::default());
        let receiver = inbox.receiver().unwrap();
        assert!(inbox.receiver().is_none());
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(NoNews::Yet));
    }

    #[test]
    fn whoever_waits_is_woken() {
        let inbox = Arc::new(Inbox::default());
        let receiver = inbox.receiver().unwrap();
        let waits = std::thread::spawn(move || receiver.recv_timeout(Duration::from_secs(60)));
        assert!(inbox.put(Incoming::Poll));
        assert_eq!(waits.join().unwrap(), Ok(Incoming::Poll));
    }
}
