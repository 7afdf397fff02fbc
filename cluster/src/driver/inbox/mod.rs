//! What the cluster has for the rest of the process.
//!
//! Promise: whoever takes out waits for nothing but news, and whoever puts in never waits. Newer
//! news replaces older of the same thing, so what waits is bounded by the number of things, by
//! [`MOST`], and by [`MOST_BYTES`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::core::Incoming;

/// Most things that wait. A revocation beyond it is brought again by its sender, who is not told
/// that it was applied.
const MOST: usize = 65_536;

/// Most bytes of all that waits.
const MOST_BYTES: usize = 64 << 20;

/// Between the driver and one [`IncomingReceiver`].
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// By their turn.
    news: BTreeMap<u64, Incoming>,
    /// The turn of each thing.
    turns: HashMap<Thing, u64>,
    /// The last turn that was given.
    last: u64,
    bytes: usize,
    closed: bool,
    taken: bool,
}

/// What news is about.
#[derive(PartialEq, Eq, Hash)]
enum Thing {
    Poll,
    Revocation(String),
    Outcome { task: String, scope: String },
    Duty { task: String, scope: String },
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
        let is_kept = self.lock().put(news);
        if is_kept {
            self.bell.notify_one();
        }
        is_kept
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

// === impl Waiting ===

impl Waiting {
    /// In the logarithm of what waits.
    fn put(&mut self, news: Incoming) -> bool {
        let thing = Thing::of(&news);
        let older = self.turns.get(&thing).copied();
        let old = older.and_then(|turn| self.news.get(&turn));
        let bytes = self.bytes - old.map_or(0, weight) + weight(&news);
        if bytes > MOST_BYTES || older.is_none() && self.news.len() >= MOST {
            return false;
        }
        if let Some(turn) = older {
            self.news.remove(&turn);
        }
        self.bytes = bytes;
        self.last += 1;
        self.turns.insert(thing, self.last);
        self.news.insert(self.last, news);
        true
    }

    fn take(&mut self) -> Option<Incoming> {
        let (_, news) = self.news.pop_first()?;
        self.turns.remove(&Thing::of(&news));
        self.bytes -= weight(&news);
        Some(news)
    }
}

// === impl Thing ===

impl Thing {
    fn of(news: &Incoming) -> Self {
        match news {
            Incoming::Poll => Self::Poll,
            Incoming::Revoked { hash, .. } => Self::Revocation(hash.clone()),
            Incoming::Outcome(outcome) => Self::Outcome {
                task: outcome.task.clone(),
                scope: outcome.scope.clone(),
            },
            Incoming::Duty { task, scope, .. } => Self::Duty {
                task: task.clone(),
                scope: scope.clone(),
            },
        }
    }
}

/// About how many bytes it takes.
fn weight(news: &Incoming) -> usize {
    const LEAST: usize = 256;
    let texts = match news {
        Incoming::Poll => 0,
        Incoming::Revoked { hash, change } => {
            let bodies = [&change.before, &change.after].into_iter().flatten();
            hash.len() + change.name.len() + bodies.map(String::len).sum::<usize>()
        }
        Incoming::Outcome(outcome) => outcome.body.len(),
        Incoming::Duty { task, scope, .. } => task.len() + scope.len(),
    };
    LEAST + texts
}

impl IncomingReceiver {
    /// The oldest news; waits at most `at_most` for some. Blocks.
    pub fn recv_timeout(&self, at_most: Duration) -> Result<Incoming, NoNews> {
        let until = Instant::now() + at_most;
        let mut waiting = self.inbox.lock();
        loop {
            if let Some(news) = waiting.take() {
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
        let waiting = self.lock().news.len();
        f.debug_struct("Inbox").field("waiting", &waiting).finish()
    }
}

#[cfg(test)]
mod tests;
