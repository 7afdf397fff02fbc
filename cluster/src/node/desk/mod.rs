//! What the core of a cluster wants of the store, on a thread of its own, `tyr-cluster-store`.
//!
//! Promise: who asks never waits, and every request has one answer; a store that hangs delays other
//! answers and nothing else. Heartbeats and terms, which have a deadline, go before the rest.
//! Owner: this value; requests and answers are bounded queues.
//! Failure: a request that has no room, or that the store refuses, is answered as failed. Nothing is
//! kept for later here: the core asks again. A panic ends the process.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use policy::{Cell, Clock, Timestamp};
use tokio::sync::mpsc::Sender;

use crate::core::{GONE, StoreReply, StoreRequest};
use crate::entity::EntityLog;
use crate::error::{StartError, StoreError};
use crate::message::WireCell;
use crate::origin::Origin;
use crate::status::NodeStatus;
use crate::store::{SEAL_AFTER_MS, SEALED_KEPT_MS, Sealed, Sealing, Store};

const THREAD: &str = "tyr-cluster-store";

/// Requests that wait.
const QUEUE: usize = 64;

/// How long a term is held without being renewed.
const LEASE: Duration = Duration::from_secs(20);

/// How often the cells of a process that is about to go are read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long after the end what was asked for is still written.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Windows sealed in one transaction, and how long such transactions may follow each other.
const SEAL_AT_ONCE: u32 = 1_000;
const SEAL_FOR: Duration = Duration::from_secs(2);

/// The running thread. It ends when this is dropped and everything asked was answered.
#[derive(Debug)]
pub(crate) struct StoreDesk {
    requests: SyncSender<StoreRequest>,
    thread: JoinHandle<()>,
}

/// Everything that the thread needs.
#[derive(Debug)]
pub(crate) struct DeskParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) entities: EntityLog,
    pub(crate) status: Arc<NodeStatus>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) me: Origin,
    pub(crate) name: String,
    pub(crate) region: String,
    /// What the node kept of the store's cells, if that was away at the start.
    pub(crate) kept: Option<Vec<(Origin, Cell)>>,
    /// Ends the process if the thread panics: requests would have no answer any more.
    pub(crate) fatal: fn(&str),
}

/// The thread's own state.
struct Worker {
    parts: DeskParts,
    requests: Receiver<StoreRequest>,
    replies: Sender<StoreReply>,
    /// Taken out of `requests`, in the order of coming.
    waiting: VecDeque<StoreRequest>,
    /// When the cells of the process before this one were last read; `None` once it has gone.
    looked: Option<Instant>,
    /// Since when nobody takes answers.
    alone: Option<Instant>,
}

// === impl StoreDesk ===

impl StoreDesk {
    /// Starts the thread. What the node kept is told first.
    pub(crate) fn start(parts: DeskParts, replies: Sender<StoreReply>) -> Result<Self, StartError> {
        let (requests, taken) = sync_channel(QUEUE);
        let is_followed = parts.status.taking_over();
        let worker = Worker {
            parts,
            requests: taken,
            replies,
            waiting: VecDeque::new(),
            looked: is_followed.then(Instant::now),
            alone: None,
        };
        let thread = thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || {
                let fatal = worker.parts.fatal;
                if catch_unwind(AssertUnwindSafe(|| worker.run())).is_err() {
                    fatal("the thread tyr-cluster-store panicked");
                }
            })
            .map_err(|source| StartError::Thread {
                name: THREAD,
                source,
            })?;
        Ok(Self { requests, thread })
    }

    /// Asks for one thing and returns at once. With an error there was no room: that is the answer.
    pub(crate) fn ask(&self, request: StoreRequest) -> Result<(), Box<StoreReply>> {
        match self.requests.try_send(request) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) => {
                Err(Box::new(request.failed()))
            }
        }
    }

    /// Waits until everything asked was done. Blocks for the store.
    pub(crate) fn stop(self) {
        drop(self.requests);
        if self.thread.join().is_err() {
            tracing::error!(thread = THREAD, "thread panicked");
        }
    }
}

// === impl Worker ===

impl Worker {
    fn run(mut self) {
        if let Some(kept) = self.parts.kept.take() {
            self.tell(StoreReply::KeptCells(wire(kept)));
        }
        while let Some(request) = self.next() {
            let is_wanted = match self.alone {
                None => true,
                Some(since) => leaves_something(&request) && since.elapsed() < LAST_WRITES,
            };
            if is_wanted {
                let reply = self.parts.answer(request);
                self.tell(reply);
            }
        }
    }

    /// The next request, the most urgent first; `None` at the end.
    fn next(&mut self) -> Option<StoreRequest> {
        loop {
            let room = QUEUE.saturating_sub(self.waiting.len());
            self.waiting.extend(self.requests.try_iter().take(room));
            let first = self.waiting.iter().position(is_urgent).unwrap_or(0);
            if let Some(request) = self.waiting.remove(first) {
                return Some(request);
            }
            let Some(looked) = self.looked else {
                return self.requests.recv().ok();
            };
            let pause = LOOK_EVERY.saturating_sub(looked.elapsed());
            match self.requests.recv_timeout(pause) {
                Ok(request) => return Some(request),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.look(),
            }
        }
    }

    /// Tells what the process before this one has settled; the last time after it has gone.
    fn look(&mut self) {
        let is_there = self.parts.status.taking_over();
        let reply = self.parts.answer(StoreRequest::LoadCells);
        let failed = matches!(reply, StoreReply::LoadCells(Err(())));
        self.looked = (is_there || failed).then(Instant::now);
        self.tell(reply);
    }

    fn tell(&mut self, reply: StoreReply) {
        if self.replies.blocking_send(reply).is_err() && self.alone.is_none() {
            self.alone = Some(Instant::now());
            self.looked = None;
        }
    }
}

/// Whether it matters when nobody waits for the answer.
fn leaves_something(request: &StoreRequest) -> bool {
    use StoreRequest::{FlushCells, Goodbye, ReleaseTerm, SaveOutcome};
    matches!(
        request,
        FlushCells(_) | Goodbye | ReleaseTerm { .. } | SaveOutcome(_)
    )
}

fn is_urgent(request: &StoreRequest) -> bool {
    use StoreRequest::{Heartbeat, Heartbeats, ReleaseTerm, TakeTerm};
    matches!(
        request,
        Heartbeat | Heartbeats | TakeTerm { .. } | ReleaseTerm { .. }
    )
}

// === impl DeskParts ===

impl DeskParts {
    fn answer(&self, request: StoreRequest) -> StoreReply {
        let store = &*self.store;
        match request {
            StoreRequest::Heartbeat => {
                StoreReply::Heartbeat(heard(store.heartbeat(self.me, &self.name, &self.region)))
            }
            StoreRequest::Goodbye => {
                StoreReply::Heartbeat(heard(store.heartbeat(self.me, GONE, &self.region)))
            }
            StoreRequest::Heartbeats => StoreReply::Heartbeats(heard(store.heartbeats())),
            StoreRequest::LoadCells => {
                let cells = store.cells_by_origin(self.clock.now());
                StoreReply::LoadCells(heard(cells).map(wire))
            }
            StoreRequest::FlushCells(cells) => {
                let result = heard(store.flush_cells(&cells));
                StoreReply::FlushCells { cells, result }
            }
            StoreRequest::TakeTerm { scope, task } => {
                let result = heard(store.take_term(&scope, &task, self.me, LEASE));
                StoreReply::TakeTerm {
                    scope,
                    task,
                    result,
                }
            }
            StoreRequest::ReleaseTerm { scope, task, term } => {
                StoreReply::ReleaseTerm(heard(store.release_term(&scope, &task, self.me, term)))
            }
            StoreRequest::ReadTerm { scope, task } => {
                let result = heard(store.present_term(&scope, &task));
                StoreReply::ReadTerm {
                    scope,
                    task,
                    result,
                }
            }
            StoreRequest::SaveOutcome(outcome) => StoreReply::SaveOutcome {
                result: heard(store.save_outcome(&outcome)),
                term: outcome.term,
                task: outcome.task,
                scope: outcome.scope,
            },
            StoreRequest::LoadOutcomes => StoreReply::LoadOutcomes(heard(store.outcomes())),
            StoreRequest::EntitiesSince { after } => StoreReply::EntitiesSince {
                after,
                result: heard(self.entities.since(after)),
            },
            StoreRequest::SealWindows { term } => StoreReply::SealWindows {
                term,
                result: heard(self.seal(term)),
            },
        }
    }

    /// Seals what there is, then removes what was kept for long enough, for a moment; the rest when it
    /// is asked again.
    fn seal(&self, term: u64) -> Result<u64, StoreError> {
        let before = Timestamp(self.clock.now().0.saturating_sub(SEAL_AFTER_MS));
        let sealing = Sealing {
            me: self.me,
            term,
            before,
            most: SEAL_AT_ONCE,
        };
        let (begun, mut windows) = (Instant::now(), 0);
        loop {
            let sealed = self.store.seal_windows(sealing)?;
            windows += sealed.windows;
            if sealed.late > 0 {
                tracing::info!(
                    windows = sealed.late,
                    "usage came after its period was sealed"
                );
            }
            if sealed.stale {
                tracing::warn!(term, "another node holds the term: nothing was sealed");
                return Ok(windows);
            }
            if begun.elapsed() > SEAL_FOR {
                return Ok(windows);
            }
            if !sealed.more {
                break;
            }
        }
        let before = Timestamp(self.clock.now().0.saturating_sub(SEALED_KEPT_MS));
        let old = Sealing { before, ..sealing };
        while begun.elapsed() <= SEAL_FOR {
            let Sealed { windows, more, .. } = self.store.forget_sealed(old)?;
            if windows > 0 {
                tracing::info!(windows, "books of periods long past were removed");
            }
            if !more {
                break;
            }
        }
        Ok(windows)
    }
}

/// The answer without the fault, which is logged.
fn heard<T>(result: Result<T, StoreError>) -> Result<T, ()> {
    result.map_err(|error| match error {
        // Said once by the store itself.
        StoreError::Away { .. } => {
            tracing::debug!(%error, "the cluster's state is not in the store yet");
        }
        error => tracing::warn!(%error, "the cluster's state is not in the store yet"),
    })
}

fn wire(cells: Vec<(Origin, Cell)>) -> Vec<(Origin, WireCell)> {
    let wire = |cell: Cell| WireCell {
        counter: cell.counter.into(),
        epoch: cell.epoch,
        ver: 0,
        used: cell.amount,
        held: 0,
        expires_at: cell.expires_at,
    };
    cells
        .into_iter()
        .map(|(origin, cell)| (origin, wire(cell)))
        .collect()
}

#[cfg(test)]
mod tests;
