//! The only place that reads time, and whose time a node goes by.

use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use policy::{Clock, Timestamp};

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 counts as 1970; windows are monotone anyway.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Timestamp(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The machine's wall clock, shifted: shows what a node with a wrong clock does.
#[derive(Debug, Clone, Copy)]
pub struct ShiftedClock {
    /// Milliseconds that are added.
    pub by: i64,
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0.saturating_add_signed(self.by))
    }
}

/// The time that requests are judged by: the machine's, and that of the
/// cluster from the moment on when the node is part of one.
#[derive(Debug)]
pub struct NodeClock {
    wall: Arc<dyn Clock>,
    cluster: OnceLock<Arc<dyn Clock>>,
}

impl NodeClock {
    /// The time of this machine.
    pub fn new(wall: Arc<dyn Clock>) -> Self {
        NodeClock {
            wall,
            cluster: OnceLock::new(),
        }
    }

    /// The machine's own time, whatever the cluster says.
    pub fn wall(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.wall)
    }

    /// Follows the cluster's time from now on. Only the first call counts.
    pub fn follow(&self, cluster: Arc<dyn Clock>) {
        let _ = self.cluster.set(cluster);
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Timestamp {
        match self.cluster.get() {
            Some(cluster) => cluster.now(),
            None => self.wall.now(),
        }
    }
}

/// A point on the monotonic clock, for durations.
pub fn monotonic() -> Instant {
    Instant::now()
}
