//! What the nodes of one cluster leave each other in the store: cells by origin, heartbeats, terms of
//! leaders and what came of them, sealed windows, and word of news.
//!
//! Promise: whatever is repeated, late or out of order leaves the same rows. A cell is a total that
//! only grows, a term belongs to one process at a time, and of two terms the larger one counts.
//! Time is the database's own, so no node's clock decides about a lease, or makes windows end that
//! others are in.
//! Failure: as for all of [`super::Store`]: every call may be repeated as it is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use policy::{Cell, CounterId, Timestamp, WindowKind};

use crate::core::HeartbeatRow;
use crate::error::StoreError;
use crate::message::{Outcome, WireCell};
use crate::origin::Origin;

/// The task whose term sealing needs.
pub(crate) const SEAL_TASK: &str = "seal";

/// The scope of tasks that one node does for all.
pub(crate) const CLUSTER_SCOPE: &str = "cluster";

/// How long after its end a window is sealed, in milliseconds: what comes later is late.
pub(crate) const SEAL_AFTER_MS: u64 = 5 * 60 * 1_000;

/// How long the books of a period are kept after its end, in milliseconds: a year and a month.
pub(crate) const SEALED_KEPT_MS: u64 = 400 * 24 * 3_600 * 1_000;
/// How long after its end a window is removed, in milliseconds: no two clocks that matter are so far
/// apart.
pub(super) const ENDED_KEPT_MS: u64 = 10 * 60 * 1_000;

/// How long the row of a silent node is kept.
const HEARTBEAT_KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The fleet's side of a store. Calls block; none is made on a request's path.
pub(crate) trait FleetStore {
    /// Settled cells that still matter at `now`, each origin's apart; of those that an origin told
    /// and those that its records add up to, the larger.
    fn cells_by_origin(&self, now: Timestamp) -> Result<Vec<(Origin, Cell)>, StoreError>;

    /// Raises what is known of these cells to their `used`, if that is more. Records are not needed
    /// for it, and make up for it when they come.
    fn flush_cells(&self, cells: &[(Origin, WireCell)]) -> Result<(), StoreError>;

    /// Removes cells of windows that ended ten minutes ago, by `now` and by the database's own clock
    /// both, except those that are to be sealed. The cells are everybody's, and would not come back.
    fn expire_windows(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// Renews a node's row; does nothing for a boot that a later one has replaced.
    fn heartbeat(&self, origin: Origin, name: &str, region: &str) -> Result<(), StoreError>;

    /// The rows of all nodes that were there in the last days, ordered by node.
    fn heartbeats(&self) -> Result<Vec<HeartbeatRow>, StoreError>;

    /// Takes the term of a task, or renews it for `lease` from now. `None`: another node holds it.
    /// Renewed, it is the same number; taken anew, even by the same node, a larger one than ever.
    fn take_term(
        &self,
        scope: &str,
        task: &str,
        me: Origin,
        lease: Duration,
    ) -> Result<Option<u64>, StoreError>;

    /// Ends the lease of this term, if it is held.
    fn release_term(
        &self,
        scope: &str,
        task: &str,
        me: Origin,
        term: u64,
    ) -> Result<(), StoreError>;

    /// The last term of a task that was given to anybody; `None`: none was.
    fn present_term(&self, scope: &str, task: &str) -> Result<Option<u64>, StoreError>;

    /// Keeps what came of a task. `false`: a larger term is known, and nothing was changed.
    fn save_outcome(&self, outcome: &Outcome) -> Result<bool, StoreError>;

    /// The outcomes kept, one of each scope and task.
    fn outcomes(&self) -> Result<Vec<Outcome>, StoreError>;

    /// Closes the books of calendar periods, see [`Sealing`]. Says nothing about windows of other
    /// kinds.
    fn seal_windows(&self, sealing: Sealing) -> Result<Sealed, StoreError>;

    /// Removes sealed windows that ended up to `sealing.before`, and what came to them late, under the
    /// same term; the oldest first.
    fn forget_sealed(&self, sealing: Sealing) -> Result<Sealed, StoreError>;

    /// Calls `news` soon after somebody wrote entities, and whenever it may have missed that. A store
    /// that cannot know never calls it.
    fn listen(&self, news: News) {
        let _ = news;
    }
}

/// Under which term windows are sealed, and which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealing {
    /// Who holds the term of [`SEAL_TASK`] for the whole cluster.
    pub(crate) me: Origin,
    pub(crate) term: u64,
    /// Windows that ended up to here, and [`SEAL_AFTER_MS`] ago by the database's own clock.
    pub(crate) before: Timestamp,
    /// Most windows of one call.
    pub(crate) most: u32,
}

/// What one call sealed, or removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// Windows sealed or removed now.
    pub(crate) windows: u64,
    /// Windows sealed before to which something was added; additions removed.
    pub(crate) late: u64,
    /// The term is not held any more; nothing was done.
    pub(crate) stale: bool,
    /// There may be more.
    pub(crate) more: bool,
}

/// Tells of news; must not block.
#[derive(Clone)]
pub(crate) struct News(Arc<dyn Fn() + Send + Sync>);

/// Whether a counter's cells are to be sealed: those of calendar periods.
pub(super) fn is_sealed(counter: &str) -> bool {
    let id = counter.parse::<CounterId>();
    id.is_ok_and(|id| id.window == WindowKind::Calendar)
}

/// How long the row of a silent node is kept, in milliseconds.
pub(super) fn heartbeat_kept_ms() -> i64 {
    i64::try_from(HEARTBEAT_KEPT.as_millis()).unwrap_or(i64::MAX)
}

/// A length of time in milliseconds, as databases take it.
pub(super) fn millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

// === impl News ===

impl News {
    pub(crate) fn new(tell: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(super) fn tell(&self) {
        (self.0)();
    }
}

impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("News")
    }
}
