//! When the price list is fetched, and by whom.
//!
//! A node that stands alone asks the source once per interval. In a cluster one
//! node does so for all: it is given the duty, and what it found comes to the
//! others as an outcome. No other fetch is made there, or nodes would charge by
//! different lists. Alone, a node that failed waits [`PAUSE`].
//!
//! Owner of when the source was last asked. Nothing here runs on a thread that
//! serves requests, and files and the lock of the configuration are left to
//! threads that may block.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cluster::{ClusterHandle, Outcome, Task, TaskScope};
use policy::{Clock, Timestamp};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::source::Stamp;
use super::{FetchError, Fetched, PriceBoard, PriceList, PriceSource, kept};
use crate::config::Reloader;
use crate::peers::Tasks;
use crate::state::Live;
use crate::telemetry::Metrics;

/// The task's name in a cluster.
pub const TASK: &str = "catalogue";

/// How often it is looked whether a fetch is due.
const LOOK: Duration = Duration::from_secs(1);

/// Least time between two tries of one source; less if it is to be asked more
/// often than that.
const PAUSE: Duration = Duration::from_secs(60);

/// The cluster, as far as this task has to do with it.
pub trait Fleet: Send + Sync {
    /// Tells all nodes what came of a duty.
    fn done(&self, outcome: Outcome);
    /// A duty of this term came to nothing.
    fn failed(&self, task: &str, term: u64);
}

impl Fleet for ClusterHandle {
    fn done(&self, outcome: Outcome) {
        self.task_done(outcome);
    }

    fn failed(&self, task: &str, term: u64) {
        self.task_failed(task, term);
    }
}

/// Most orders that wait while a fetch runs.
const ORDERS: usize = 8;

/// The task as a cluster is told of it. To fetch a list twice does no harm.
pub fn task(source: &PriceSource) -> Task {
    Task {
        name: TASK.to_owned(),
        every: source.every,
        scope: TaskScope::Cluster,
        idempotent: true,
    }
}

/// Hands what the cluster says to [`PriceSync`]. Other tasks come to nothing.
pub struct PriceDuties {
    fleet: Arc<dyn Fleet>,
    orders: mpsc::Sender<Order>,
}

impl fmt::Debug for PriceDuties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriceDuties").finish_non_exhaustive()
    }
}

/// Both ends of the way from the cluster to [`PriceSync`].
pub fn duties(fleet: impl Fleet + 'static) -> (PriceDuties, Orders) {
    let fleet: Arc<dyn Fleet> = Arc::new(fleet);
    let (orders, taken) = mpsc::channel(ORDERS);
    let duties = PriceDuties {
        fleet: Arc::clone(&fleet),
        orders,
    };
    (duties, (fleet, taken))
}

impl Tasks for PriceDuties {
    fn duty(&self, task: &str, scope: &str, term: u64) {
        let scope = scope.to_owned();
        let order = Order::Duty { scope, term };
        if task != TASK || self.orders.try_send(order).is_err() {
            self.fleet.failed(task, term);
        }
    }

    fn outcome(&self, outcome: Outcome) {
        if outcome.task == TASK && self.orders.try_send(Order::Outcome(outcome)).is_err() {
            tracing::warn!("a price list was left out: the one before is still being taken over");
        }
    }
}

/// What the cluster says to this task.
#[derive(Clone, Debug)]
pub enum Order {
    /// This node is to fetch the list for all.
    Duty {
        /// For whom.
        scope: String,
        /// Under which term.
        term: u64,
    },
    /// Some node has fetched it.
    Outcome(Outcome),
}

/// The cluster, and what it orders.
pub type Orders = (Arc<dyn Fleet>, mpsc::Receiver<Order>);

/// Keeps the price list fresh. Clones share everything.
#[derive(Clone)]
pub struct PriceSync {
    /// What runs; says where the list comes from.
    pub live: Arc<ArcSwap<Live>>,
    /// Lets the configuration run with another list.
    pub reloader: Arc<Reloader>,
    /// Tells when a list was fetched.
    pub clock: Arc<dyn Clock>,
    /// Counts fetches.
    pub metrics: Arc<Metrics>,
    /// Says how it goes.
    pub board: Arc<PriceBoard>,
    /// Where the last good list is kept.
    pub data_dir: PathBuf,
}

/// What this node remembers of its own tries.
#[derive(Default)]
pub(super) struct Tries {
    /// The source that was asked last, and when.
    last: Option<([u8; 32], Timestamp)>,
    /// The version of the file that was read last.
    stamp: Stamp,
}

impl PriceSync {
    /// With what is known without asking anybody: the start of a node. Blocks
    /// on files.
    pub fn begun(
        data_dir: &Path,
        live: &Arc<ArcSwap<Live>>,
        reloader: &Arc<Reloader>,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let sync = Self {
            live: Arc::clone(live),
            reloader: Arc::clone(reloader),
            clock: Arc::clone(clock),
            metrics: Arc::clone(metrics),
            board: Arc::default(),
            data_dir: data_dir.to_owned(),
        };
        sync.begin();
        sync
    }

    /// Takes what is known without asking anybody: the list that was last good,
    /// or that of a file. Blocks on files; for the start of the node.
    pub fn begin(&self) {
        let source = self.live.load().pricing.source.clone();
        let Some(source) = source else { return };
        let list = kept::last_good(&self.data_dir).or_else(|| {
            let raw = source.is_file().then(|| source.read_file())?;
            let list = raw.and_then(|raw| {
                let now = self.clock.now();
                let list = PriceList::published(&raw, *source.name(), None, now);
                list.map_err(FetchError::List)
            });
            list.inspect_err(|error| self.complain(error)).ok()
        });
        if let Some(list) = list {
            take(&self.reloader, &self.board, &self.metrics, list);
        }
    }

    /// Keeps the list fresh, for ever; dropped to stop it. Without `orders` the
    /// node stands alone. Not for a thread that serves requests.
    pub async fn tend(self, mut orders: Option<Orders>) {
        let mut tries = Tries::default();
        if let Some((fleet, orders)) = &mut orders {
            while let Some(order) = orders.recv().await {
                self.obey(&mut tries, &**fleet, order).await;
            }
            // The cluster has ended, and the process is about to.
            return std::future::pending().await;
        }
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            self.look(&mut tries).await;
        }
    }

    /// Asks the source if that is due, as a node that stands alone.
    pub(super) async fn look(&self, tries: &mut Tries) {
        let source = self.live.load().pricing.source.clone();
        let Some(source) = source else { return };
        if !tries.is_due(&source, &self.known(), self.clock.now()) {
            return;
        }
        if let Ok(list) = self.fetch(tries, &source).await {
            self.keep(list).await;
        }
    }

    /// Does what the cluster says.
    pub(super) async fn obey(&self, tries: &mut Tries, fleet: &dyn Fleet, order: Order) {
        match order {
            Order::Duty { scope, term } => {
                let source = self.live.load().pricing.source.clone();
                match source {
                    Some(source) => self.serve(tries, fleet, &source, (scope, term)).await,
                    None => fleet.failed(TASK, term),
                }
            }
            Order::Outcome(outcome) => match PriceList::from_bytes(&outcome.body) {
                Ok(list) => self.keep(list).await,
                Err(error) => self.complain(&FetchError::List(error)),
            },
        }
    }

    /// Fetches for all nodes.
    async fn serve(
        &self,
        tries: &mut Tries,
        fleet: &dyn Fleet,
        source: &PriceSource,
        (scope, term): (String, u64),
    ) {
        let Ok(list) = self.fetch(tries, source).await else {
            return fleet.failed(TASK, term);
        };
        let body = list.to_bytes();
        self.keep(list).await;
        fleet.done(Outcome {
            task: TASK.to_owned(),
            scope,
            term,
            hash: Outcome::hash_of(&body),
            at: self.clock.now(),
            body: body.into(),
        });
    }

    /// Asks the source once. What goes wrong is told here.
    async fn fetch(
        &self,
        tries: &mut Tries,
        source: &PriceSource,
    ) -> Result<PriceList, FetchError> {
        let now = self.clock.now();
        self.board.trying(now);
        tries.last = Some((*source.name(), now));
        // Older than what is read: a change meanwhile is seen by the next look.
        tries.stamp = source.stamp();
        let known = self.known();
        let asked = match source.fetch(known.etag_of(source.name())).await {
            Ok(Fetched::Unchanged) => Ok((known.seen_again(now), "unchanged")),
            Ok(Fetched::List { raw, etag }) => {
                let name = *source.name();
                let read = move || PriceList::published(&raw, name, etag, now);
                match tokio::task::spawn_blocking(read).await {
                    Ok(list) => list.map(|list| (list, "fetched")).map_err(FetchError::List),
                    Err(_) => Err(FetchError::Lost),
                }
            }
            Err(error) => Err(error),
        };
        match asked {
            Ok((list, outcome)) => {
                self.metrics.prices().fetch(outcome);
                tracing::info!(models = list.len(), outcome, %source, "the price list was fetched");
                Ok(list)
            }
            Err(error) => {
                self.complain(&error);
                Err(error)
            }
        }
    }

    /// Lets a list run and puts it where the next start finds it.
    async fn keep(&self, list: PriceList) {
        let known = self.known();
        if known.is_newer_than(&list) {
            return;
        }
        let (reloader, board) = (Arc::clone(&self.reloader), Arc::clone(&self.board));
        let (metrics, data_dir) = (Arc::clone(&self.metrics), self.data_dir.clone());
        let kept = tokio::task::spawn_blocking(move || {
            if let Err(error) = kept::keep(&data_dir, &list.to_bytes()) {
                tracing::warn!(%error, "the price list cannot be kept for the next start");
            }
            take(&reloader, &board, &metrics, list);
        });
        if let Err(error) = kept.await {
            tracing::error!(%error, "a price list was not taken over");
        }
    }

    fn known(&self) -> Arc<PriceList> {
        Arc::clone(&self.live.load().pricing.list)
    }

    fn complain(&self, error: &FetchError) {
        self.metrics.prices().fetch("failed");
        self.board.failed(&error.to_string());
        let known = self.known().len();
        tracing::warn!(%error, known, "no new price list; what is known stays");
    }
}

/// Lets the configuration run with a list. Blocks.
fn take(reloader: &Reloader, board: &PriceBoard, metrics: &Metrics, list: PriceList) {
    let list = Arc::new(list);
    let used = reloader.use_prices(Arc::clone(&list));
    // Only now: who reads the board may ask what runs.
    board.took(&list);
    metrics.prices().took(list.len(), list.fetched_at());
    match used {
        Ok(Some(revision)) => tracing::info!(revision, "prices have changed"),
        Ok(None) => {}
        Err(problems) => {
            let first = problems.first().map(ToString::to_string);
            let first = first.unwrap_or_default();
            tracing::error!(problem = %first, "new prices wait for the next reload");
            board.failed(&format!("new prices wait for the next reload: {first}"));
        }
    }
}

impl fmt::Debug for PriceSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriceSync")
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

// === impl Tries ===

impl Tries {
    /// Whether a node that stands alone should ask now.
    fn is_due(&self, source: &PriceSource, list: &PriceList, now: Timestamp) -> bool {
        let old = now.since(list.fetched_at()) >= source.every;
        let wanted = old || !list.is_of(source.name());
        // A file that was changed is read at once.
        source.stamp() != self.stamp || (wanted && self.has_rested(source, now))
    }

    fn has_rested(&self, source: &PriceSource, now: Timestamp) -> bool {
        match self.last {
            Some((name, at)) if name == *source.name() => now.since(at) >= PAUSE.min(source.every),
            _ => true,
        }
    }
}
