//! The thread `tyr-cluster`: periodic work and, in a cluster, the way to the other nodes, on a runtime
//! of its own.
//!
//! It waits for time and for the network and never for the disk or the store (it asks `tyr-store` and
//! `tyr-cluster-store` and goes on), so that its timers stay exact whatever a database does. It owns
//! no state that a request reads.
//!
//! Failure: a node must not go on as a member when this is lost: others would not learn what it admits,
//! nor it what they do. A panic, or sockets that are gone, end the process (`ClusterConfig::fatal`);
//! that it hangs is seen from outside (`ClusterHandle::is_stalled`).

mod clock;
mod inbox;
mod mesh;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use policy::Clock;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

pub(crate) use self::clock::ClusterClock;
pub(crate) use self::inbox::Inbox;
pub use self::inbox::{IncomingReceiver, NoNews};
pub use self::mesh::ClusterError;
pub(crate) use self::mesh::{Mesh, MeshParts};
use crate::entity::EntityLog;
use crate::error::StartError;
use crate::journal::{Recorder, Recovery};
use crate::node::StoreDesk;

const THREAD: &str = "tyr-cluster";

/// How often cells of windows that have passed are removed, and trouble is reported.
const EVERY: Duration = Duration::from_secs(60);

/// How often it is asked whether the process before this one has gone.
const SUCCESSION_EVERY: Duration = Duration::from_millis(200);

/// How often waiting revocations are tried again.
const REVOCATIONS_EVERY: Duration = Duration::from_secs(1);

/// How often it is tried to learn what the store has, after a start without it.
const RECOVERY_EVERY: Duration = Duration::from_millis(500);

/// How long the end of the thread is waited for: its goodbye, what the store is given last, and one
/// call of the store that hangs.
const STOPS_WITHIN: Duration = Duration::from_secs(15);

/// The running thread. Dropping it ends the thread soon; [`Driver::stop`] waits for that.
#[derive(Debug)]
pub(crate) struct Driver {
    stop: oneshot::Sender<()>,
    /// Closed by the thread's end.
    ended: Mutex<Receiver<()>>,
    thread: JoinHandle<()>,
}

impl Driver {
    pub(crate) fn start(
        clock: Arc<dyn Clock>,
        recorder: Recorder,
        entities: EntityLog,
        recovery: Arc<Recovery>,
        mesh: Option<Mesh>,
    ) -> Result<Self, StartError> {
        let failed = |source: io::Error| StartError::Thread {
            name: THREAD,
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .enable_io()
            .build()
            .map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let (ends, ended) = sync_channel(0);
        let thread = thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || {
                let _ends = ends;
                let fatal = mesh.as_ref().map(Mesh::fatal);
                let first = match mesh {
                    // By then its clocks are compared.
                    Some(_) => EVERY,
                    None => Duration::ZERO,
                };
                let work = run(clock, recorder, entities, recovery, first);
                let all = AssertUnwindSafe(|| runtime.block_on(work_until(stopped, work, mesh)));
                let desk = catch_unwind(all).unwrap_or_else(|_| {
                    if let Some(fatal) = fatal {
                        fatal("the thread tyr-cluster panicked");
                    }
                    None
                });
                // Ends what still runs, so that nobody takes answers of the store any more.
                runtime.shutdown_background();
                if let Some(desk) = desk {
                    desk.stop();
                }
            })
            .map_err(failed)?;
        Ok(Self {
            stop,
            ended: Mutex::new(ended),
            thread,
        })
    }

    /// Ends the thread and waits for it, for [`STOPS_WITHIN`] at most.
    pub(crate) fn stop(self) {
        self.stop_within(STOPS_WITHIN);
    }

    fn stop_within(self, at_most: Duration) {
        // An error means that the thread is gone already.
        let _ = self.stop.send(());
        let ended = self.ended.into_inner();
        let ended = ended.unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(at_most) == Err(RecvTimeoutError::Timeout) {
            tracing::error!(thread = THREAD, "thread hangs, and is left behind");
        } else if self.thread.join().is_err() {
            tracing::error!(thread = THREAD, "thread panicked");
        }
    }
}

/// Does the periodic `work`, and takes part in a cluster, until `stopped`. A node that has left its
/// cluster goes on with its own work.
async fn work_until(
    stopped: oneshot::Receiver<()>,
    work: impl Future<Output = ()>,
    mesh: Option<Mesh>,
) -> Option<StoreDesk> {
    let (leave, left) = oneshot::channel();
    let mesh = mesh.map(|mesh| tokio::spawn(take_part(mesh, left)));
    tokio::select! {
        () = work => {}
        // An error says that the other end was dropped, which means the same.
        _ = stopped => {}
    }
    drop(leave);
    // An error says that it panicked with the process about to end.
    mesh?.await.ok().flatten()
}

/// Runs the mesh until its end. One that ends otherwise than by leaving ends the process.
async fn take_part(mesh: Mesh, left: oneshot::Receiver<()>) -> Option<StoreDesk> {
    let fatal = mesh.fatal();
    match tokio::spawn(mesh.run(left)).await {
        Ok(Ok(desk)) => return Some(desk),
        Ok(Err(error)) => fatal(&format!("the node lost its part in the cluster: {error}")),
        Err(_) => fatal("the driver of the cluster panicked"),
    }
    None
}

/// For ever; cells are removed after `first` for the first time.
async fn run(
    clock: Arc<dyn Clock>,
    recorder: Recorder,
    entities: EntityLog,
    recovery: Arc<Recovery>,
    first: Duration,
) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = tokio::time::interval(SUCCESSION_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tries = tokio::time::interval(REVOCATIONS_EVERY);
    tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hopes = tokio::time::interval(RECOVERY_EVERY);
    hopes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let status = Arc::clone(recorder.status());
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                recorder.request_prune(clock.now());
                report(&recorder);
            }
            // Other threads change what is asked here, so it is asked each time.
            _ = tries.tick() => if entities.waiting_revocations() > 0 {
                recorder.request_revocations();
            },
            _ = hopes.tick() => if recovery.is_pending() {
                recorder.request_recovery(clock.now());
            },
            _ = looks.tick() => if status.taking_over() {
                recorder.request_succession();
            },
        }
    }
}

/// Says so in the log as long as usage waits for the store.
fn report(recorder: &Recorder) {
    let status = recorder.status().snapshot();
    if status.store_ok && status.journal_ok {
        return;
    }
    tracing::warn!(
        store_ok = status.store_ok,
        journal_ok = status.journal_ok,
        segments = status.waiting_segments,
        bytes = status.waiting_bytes,
        held = status.records_held,
        lost = status.records_lost,
        error = status.last_error,
        "usage waits for the store"
    );
}

#[cfg(test)]
mod tests;
