//! The thread `tyr-peers`: what the other nodes of the cluster tell this one.
//!
//! Promise: a revocation is in force within milliseconds of its arrival,
//! whatever the store, a reload or a write is waiting for: this thread waits
//! for news alone. Everything slower is handed to a thread that may wait: news
//! of the entity log to `tyr-config`, tasks of a leader to their own.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cluster::{Incoming, IncomingReceiver, NoNews, Outcome};
use tokio::sync::watch;

use crate::config::Catalogue;

/// How often it is looked whether the process ends.
const LOOK: Duration = Duration::from_millis(250);

/// What a leader does for all, and what all do with what came of it. No call
/// may wait.
pub trait Tasks: Send {
    /// This node is to do it now, and to tell the cluster what came of it.
    fn duty(&self, task: &str, scope: &str, term: u64);
    /// A leader did it.
    fn outcome(&self, outcome: Outcome);
}

/// The running thread.
#[derive(Debug)]
pub struct Peers {
    thread: JoinHandle<()>,
}

/// What the thread works with.
pub struct PeersParts {
    /// What comes.
    pub incoming: IncomingReceiver,
    /// Where revocations and entities go.
    pub catalogue: Arc<Catalogue>,
    /// Where tasks go.
    pub tasks: Box<dyn Tasks>,
}

impl fmt::Debug for PeersParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeersParts").finish_non_exhaustive()
    }
}

impl Peers {
    /// Listens until `stopped` says so, or the cluster has ended.
    pub fn start(parts: PeersParts, stopped: watch::Receiver<bool>) -> io::Result<Self> {
        let thread = thread::Builder::new()
            .name("tyr-peers".to_owned())
            .spawn(move || parts.listen(&stopped))?;
        Ok(Peers { thread })
    }

    /// Waits for the thread's end.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the thread that listens to the other nodes ended in a panic");
        }
    }
}

impl PeersParts {
    fn listen(&self, stopped: &watch::Receiver<bool>) {
        while !*stopped.borrow() {
            match self.incoming.recv_timeout(LOOK) {
                Ok(news) => self.take(news),
                Err(NoNews::Yet) => {}
                Err(NoNews::EverMore) => return,
            }
        }
    }

    fn take(&self, news: Incoming) {
        match news {
            Incoming::Revoked { hash, change } => self.catalogue.adopt(&hash, &change),
            Incoming::Poll => self.catalogue.news().notify_one(),
            Incoming::Outcome(outcome) => self.tasks.outcome(outcome),
            Incoming::Duty { task, scope, term } => self.tasks.duty(&task, &scope, term),
        }
    }
}
