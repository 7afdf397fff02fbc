//! The way to a running cluster for the rest of the process.
//!
//! Promise: no call waits for the network except those that say that they block, and a view is
//! always there. What is asked for is done by the thread `tyr-cluster`, in the order of the calls.
//! Owner: the driver owns all state; here are only the ends of its channels. Failure: once the node
//! has stopped, calls do nothing and blocking ones return at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use policy::Clock;
use tokio::sync::mpsc;

use crate::core::{Command, Diagnosis, Incoming, MemberState};
use crate::driver::{ClusterClock, Inbox, IncomingReceiver};
use crate::entity::{Change, Entity};
use crate::message::{ConfigurationMark, Outcome};
use crate::transport::keys::{KeyError, Keys};
use crate::transport::tls::Trust;
use crate::view::{AppliedOn, ClusterView};

/// Most orders that wait for the driver. It takes them within milliseconds; beyond this it hangs, or
/// has not begun. Only revocations are kept then.
const ORDERS: usize = 4_096;

/// Most revocations that wait where there was no room for them.
const LATE: usize = 65_536;

/// Most findings of one diagnosis that wait to be read; more are left out.
const FINDINGS: usize = 4_096;

/// After which time without a view the thread hangs: it posts one each 100 ms.
pub(crate) const STALLED: Duration = Duration::from_secs(5);

/// The way to a running cluster. Clones lead to the same one.
#[derive(Clone)]
pub struct ClusterHandle {
    shared: Arc<Shared>,
}

struct Shared {
    orders: mpsc::Sender<Order>,
    board: Arc<Board>,
    inbox: Arc<Inbox>,
    clock: Arc<ClusterClock>,
    keys: Keys,
    trust: Trust,
}

/// What the driver is asked to do.
#[derive(Debug)]
pub(crate) enum Order {
    Command(Command),
    Diagnose(SyncSender<Diagnosis>),
    /// Calls it on the driver's thread.
    #[cfg(test)]
    Call(fn()),
}

/// The newest view, and a bell for those that wait for a newer one.
#[derive(Default)]
pub(crate) struct Board {
    view: ArcSwap<ClusterView>,
    posted: Mutex<Posted>,
    bell: Condvar,
    /// Revocations for which the orders had no room, by hash.
    late: Mutex<BTreeMap<String, Command>>,
}

#[derive(Default)]
struct Posted {
    times: u64,
    /// When it last was.
    at: Option<Instant>,
    closed: bool,
}

// === impl ClusterHandle ===

impl ClusterHandle {
    /// A handle, and where its orders come out.
    pub(crate) fn new(
        board: Arc<Board>,
        inbox: Arc<Inbox>,
        clock: Arc<ClusterClock>,
        keys: Keys,
        trust: Trust,
    ) -> (Self, mpsc::Receiver<Order>) {
        let (orders, taken) = mpsc::channel(ORDERS);
        let shared = Arc::new(Shared {
            orders,
            board,
            inbox,
            clock,
            keys,
            trust,
        });
        (Self { shared }, taken)
    }

    /// The cluster as this node saw it within the last 100 ms.
    #[must_use]
    pub fn view(&self) -> Arc<ClusterView> {
        self.shared.board.view.load_full()
    }

    /// Whether this node has merged what the others had, and may serve.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.shared.board.view.load().caught_up
    }

    /// Whether the thread `tyr-cluster` hangs: it has posted no view for five seconds. What it would do
    /// is then not done, and what `view` shows is old.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.shared.board.silent_for() >= STALLED
    }

    /// Tells the others of entities that were just written here.
    pub fn announce(&self, entities: Vec<Entity>) {
        self.order(Command::Announce(entities));
    }

    /// Makes all members refuse the virtual key with this hash (hexadecimal digits). It has to be
    /// in force here already.
    pub fn revoke(&self, hash: &str, change: &Change) {
        let (hash, change) = (hash.to_owned(), change.clone());
        self.order(Command::Revoke { hash, change });
    }

    /// Says that a revocation that came in is in force here.
    pub fn revocation_applied(&self, hash: &str) {
        let hash = hash.to_owned();
        self.order(Command::RevocationApplied { hash });
    }

    /// Says that the store has a revocation, so that members that come need not be told.
    pub fn revocation_persisted(&self, hash: &str) {
        let hash = hash.to_owned();
        self.order(Command::RevocationPersisted { hash });
    }

    /// Says that this node serves by the entities up to `revision`.
    pub fn applied(&self, revision: u64) {
        self.order(Command::Applied { revision });
    }

    /// Waits until all live members serve by the entities up to `revision`, or for `at_most`, and
    /// says how many do. Blocks.
    #[must_use]
    pub fn wait_applied(&self, revision: u64, at_most: Duration) -> AppliedOn {
        self.wait(at_most, |view| applied_on(view, revision))
    }

    /// Waits until all live members refuse the virtual key with this hash, or for `at_most`, and
    /// says how many do. Blocks.
    #[must_use]
    pub fn wait_revoked(&self, hash: &str, at_most: Duration) -> AppliedOn {
        self.wait(at_most, |view| view.revocations.get(hash).copied())
    }

    /// What this node's configuration says, to compare with the others'.
    pub fn set_configuration(&self, mark: ConfigurationMark) {
        self.order(Command::Configuration(mark));
    }

    /// Uses other secrets from now on: the first seals, all open. Links that a secret stands for which
    /// is no longer among them end and are made anew; the others stay up.
    pub fn set_secrets(&self, secrets: Vec<Vec<u8>>) -> Result<(), KeyError> {
        self.shared.keys.replace(&secrets)?;
        self.shared.trust.renew();
        Ok(())
    }

    /// Tells the others that this node is about to go.
    pub fn drain(&self) {
        self.order(Command::Drain);
    }

    /// Leaves the cluster and frees its addresses; the node works on without it. For a process that
    /// only ends its last streams after another has taken over.
    pub fn leave(&self) {
        self.order(Command::Leave);
    }

    /// Says that there is news in the entity log, as if a peer had said so.
    pub(crate) fn tell_news(&self) {
        // With a full inbox there is more than enough to do.
        self.shared.inbox.put(Incoming::Poll);
    }

    /// Checks the way to every member. What was found comes one by one; the end of it is the end.
    #[must_use]
    pub fn diagnose(&self) -> Receiver<Diagnosis> {
        let (found, findings) = sync_channel(FINDINGS);
        self.send(Order::Diagnose(found));
        findings
    }

    /// What came of a duty.
    pub fn task_done(&self, outcome: Outcome) {
        self.order(Command::TaskDone(outcome));
    }

    /// A duty came to nothing.
    pub fn task_failed(&self, task: &str, term: u64) {
        let task = task.to_owned();
        self.order(Command::TaskFailed { task, term });
    }

    /// What comes from the others; given once.
    #[must_use]
    pub fn incoming(&self) -> Option<IncomingReceiver> {
        self.shared.inbox.receiver()
    }

    /// The time that all members agree on.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::<ClusterClock>::clone(&self.shared.clock)
    }

    /// As if the names of peers meant these from now on.
    #[cfg(test)]
    pub(crate) fn seeds_moved(&self, seeds: Vec<std::net::SocketAddr>) {
        self.order(Command::SetSeeds(seeds));
    }

    #[cfg(test)]
    pub(crate) fn call(&self, function: fn()) {
        self.send(Order::Call(function));
    }

    fn order(&self, command: Command) {
        self.send(Order::Command(command));
    }

    fn send(&self, order: Order) {
        match self.shared.orders.try_send(order) {
            // After the end there is nothing to do.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(Order::Command(
                command @ (Command::Revoke { .. } | Command::RevocationApplied { .. }),
            ))) => self.shared.board.keep(command),
            // It is not shown: what is announced are bodies of entities.
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::error!("the cluster thread hangs: an order was left out");
            }
        }
    }

    /// Waits until `enough` says so of a view; `false` if none was within `at_most`. Blocks.
    #[cfg(test)]
    pub(crate) fn wait_view(
        &self,
        at_most: Duration,
        enough: impl Fn(&ClusterView) -> bool,
    ) -> bool {
        let mut seen = false;
        self.shared.board.wait(at_most, |view| {
            seen = enough(view);
            seen
        });
        seen
    }

    /// Waits for a view in which `of_view` says that all have it.
    fn wait(
        &self,
        at_most: Duration,
        of_view: impl Fn(&ClusterView) -> Option<AppliedOn>,
    ) -> AppliedOn {
        let mut last = AppliedOn::default();
        self.shared.board.wait(at_most, |view| {
            if let Some(now) = of_view(view) {
                last = now;
            }
            last.of > 0 && last.on >= last.of
        });
        last
    }
}

impl fmt::Debug for ClusterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterHandle")
            .field("cluster", &self.shared.keys.cluster())
            .finish_non_exhaustive()
    }
}

/// On how many live members the entities up to `revision` are in force.
fn applied_on(view: &ClusterView, revision: u64) -> Option<AppliedOn> {
    let live = |state| !matches!(state, MemberState::Down | MemberState::Left);
    let members = view.members.iter().filter(|member| live(member.state));
    let applied = members.map(|member| member.applied_revision >= Some(revision));
    let (on, of) = applied.fold((0, 0), |(on, of), has| (on + usize::from(has), of + 1));
    Some(AppliedOn { on, of })
}

// === impl Board ===

impl Board {
    pub(crate) fn post(&self, view: ClusterView) {
        self.view.store(Arc::new(view));
        let mut posted = self.lock();
        posted.times += 1;
        posted.at = Some(Instant::now());
        drop(posted);
        self.bell.notify_all();
    }

    /// Since the last view; nothing before the first one and after the end.
    fn silent_for(&self) -> Duration {
        let posted = self.lock();
        let since = posted.at.filter(|_| !posted.closed);
        since.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Keeps a revocation until the driver asks for it. One that is made here says more than one that
    /// is in force here.
    fn keep(&self, command: Command) {
        let hash = match &command {
            Command::Revoke { hash, .. } | Command::RevocationApplied { hash } => hash.clone(),
            _ => return,
        };
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        if late.len() >= LATE && !late.contains_key(&hash) {
            tracing::error!(
                "the cluster thread hangs: a revocation is in force on this node alone"
            );
            return;
        }
        match command {
            Command::Revoke { .. } => drop(late.insert(hash, command)),
            command => drop(late.entry(hash).or_insert(command)),
        }
    }

    /// The revocations for which there was no room.
    pub(crate) fn take_late(&self) -> Vec<Command> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *late).into_values().collect()
    }

    /// No more views will come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.bell.notify_all();
    }

    /// Waits until `enough` says so of a view, which it is asked of each, or for `at_most`.
    fn wait(&self, at_most: Duration, mut enough: impl FnMut(&ClusterView) -> bool) {
        let until = Instant::now() + at_most;
        let mut posted = self.lock();
        loop {
            let seen = posted.times;
            drop(posted);
            if enough(&self.view.load()) {
                return;
            }
            posted = self.lock();
            while posted.times == seen {
                let left = until.saturating_duration_since(Instant::now());
                if posted.closed || left.is_zero() {
                    return;
                }
                posted = match self.bell.wait_timeout(posted, left) {
                    Ok((posted, _)) => posted,
                    Err(poisoned) => poisoned.into_inner().0,
                };
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}
