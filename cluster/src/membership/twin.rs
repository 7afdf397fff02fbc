//! Another live process with this node's key: somebody copied its `data_dir`.
//!
//! Promise: both are told, and for as long as both live. A process of this node that ended, or left
//! for this one, is none. Failure: until one of them is stopped the others take now this one and now
//! that one for the node, so what either counts may be missing elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use crate::origin::Origin;

use super::Identity;

/// How long after it was last heard it is taken to live.
const SILENT: Duration = Duration::from_secs(30);

/// Another process with this node's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Twin {
    pub(crate) origin: Origin,
    /// Where it gossips.
    pub(crate) addr: SocketAddr,
    /// It came before this process, which therefore stands back.
    pub(crate) is_first: bool,
}

/// What is known of such processes.
#[derive(Debug, Default)]
pub(super) struct Twins {
    heard: Option<(Twin, Duration)>,
    /// The boot and identity that gossip told last of an earlier process.
    earlier: Option<(u64, u64)>,
    known: Option<Twin>,
}

// === impl Twins ===

impl Twins {
    pub(super) fn known(&self) -> Option<Twin> {
        self.known
    }

    /// Something came from that process itself.
    pub(super) fn heard(&mut self, me: &Identity, from: &Identity, now: Duration) {
        if from.node != me.node || from.boot == me.boot {
            return;
        }
        let twin = Twin {
            origin: from.origin(),
            addr: from.addr,
            is_first: from.boot < me.boot,
        };
        self.heard = Some((twin, now));
    }

    /// Gossip tells of a process; an earlier one with this node's key lives only if it takes new
    /// identities: others may not know yet that it ended, or hold it for dead because of this one.
    pub(super) fn told(&mut self, me: &Identity, of: &Identity, alive: bool, now: Duration) {
        if of.node != me.node {
            return;
        }
        if of.boot > me.boot && alive {
            self.heard(me, of, now);
        } else if of.boot < me.boot {
            let known = self.earlier.filter(|(boot, _)| *boot >= of.boot);
            let before = known.unwrap_or((of.boot, of.bump));
            if before.0 == of.boot && before.1 < of.bump {
                self.heard(me, of, now);
            }
            self.earlier = Some(before.max((of.boot, of.bump)));
        }
    }

    /// Judges by time; `Some` when something changed.
    pub(super) fn judge(&mut self, now: Duration) -> Option<Option<Twin>> {
        self.heard = self
            .heard
            .filter(|(_, at)| now.saturating_sub(*at) < SILENT);
        let twin = self.heard.map(|(twin, _)| twin);
        let changed = twin != self.known;
        self.known = twin;
        changed.then_some(twin)
    }
}
