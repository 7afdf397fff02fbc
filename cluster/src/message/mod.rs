//! What nodes tell each other over a link, as plain values.
//!
//! Promise: no frame is an increment. Whatever is sent twice, late or out of order leaves the same
//! state, so a receiver needs no memory of what it has had.
//! Owner: nobody; the wire form is made and read in `convert`.
//! Failure: none here; what cannot be read never becomes one of these values.

use std::sync::Arc;
use std::time::Duration;

use policy::Timestamp;
use sha2::{Digest, Sha256};

use crate::entity::{Change, Entity};
use crate::origin::Origin;

/// The oldest protocol that this build speaks: cells without holds.
pub(crate) const PROTOCOL_MIN: u8 = 1;

/// The newest protocol that this build speaks: cells with holds.
pub const PROTOCOL_MAX: u8 = 2;

/// Capability: holds of others count. It changes decisions, so it waits for every live member.
pub(crate) const CAP_HOLDS: u64 = 1;

/// Most cells of one batch.
pub(crate) const BATCH_CELLS: usize = 2_000;

/// Largest body of an [`Outcome`], in bytes.
pub const OUTCOME_BYTES: usize = 4 << 20;

/// Tells messages apart that ask for a [`Frame::Received`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MessageId(pub(crate) u128);

/// One message of a link.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    /// The first of each side, and the only one of its kind.
    Hello(Hello),
    /// Up to which version everything of an origin was seen, for each origin known. The answer is
    /// what is missing.
    Digest(Vec<(Origin, u64)>),
    /// All that the receiver's first digest asked for has been sent.
    CaughtUp,
    Cells(CellBatch),
    /// Up to which version everything of an origin was received over this link.
    Ack(Vec<(Origin, u64)>),
    /// Entities that were just written, or were asked for.
    Entities(EntityBatch),
    /// Asks for entities changed after a revision.
    EntitiesWanted {
        after: u64,
    },
    /// Virtual keys to refuse from now on.
    Revocations {
        id: MessageId,
        revocations: Vec<Revocation>,
    },
    /// A message is in force here.
    Received(MessageId),
    /// The sender serves by the entities up to this revision.
    Applied {
        revision: u64,
    },
    Outcome(Outcome),
    Ping {
        number: u64,
        /// Of the sender's monotonic clock.
        sent: Duration,
    },
    Pong {
        number: u64,
        /// The ping's `sent`.
        echoed: Duration,
        /// The answerer's own wall clock, without its cluster offset.
        wall: Timestamp,
    },
    /// Asks whether the receiver, too, takes this process to be gone.
    Suspect {
        about: Origin,
    },
    /// The answer.
    Verdict {
        about: Origin,
        gone: bool,
    },
    /// The sender is about to go; its absence will be no partition.
    Drain,
    /// Whether the sender has not reached the store for longer than a term lasts: others that have
    /// lead in its place.
    StoreAway {
        away: bool,
    },
    Configuration(ConfigurationMark),
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) origin: Origin,
    /// The node's name; its certificate carries the same.
    pub(crate) name: String,
    /// The cluster's name.
    pub(crate) cluster: String,
    pub(crate) region: String,
    pub(crate) zone: String,
    /// Version of the build, to show.
    pub(crate) build: String,
    pub(crate) proto_min: u8,
    pub(crate) proto_max: u8,
    /// Bits as [`CAP_HOLDS`].
    pub(crate) caps: u64,
    pub(crate) grpc_port: u16,
}

/// Changed cells of one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CellBatch {
    pub(crate) origin: Origin,
    /// The receiver has everything up to here, if it got the batch before.
    pub(crate) from_ver: u64,
    /// With this batch it has everything up to here of what the sender had when it began to send.
    pub(crate) to_ver: u64,
    /// What the sender itself has everything up to. A batch with `to_ver` below it has a successor;
    /// only with the last one is the receiver as far as the sender.
    pub(crate) head: u64,
    /// At most [`BATCH_CELLS`], by `ver`.
    pub(crate) cells: Vec<WireCell>,
}

/// One cell: what an origin counted in one epoch of one counter, in total.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireCell {
    /// The counter's text.
    pub(crate) counter: Arc<str>,
    pub(crate) epoch: i64,
    /// The origin's number of this state; larger is newer.
    pub(crate) ver: u64,
    /// Settled total; never falls.
    pub(crate) used: u64,
    /// Held by requests in flight. 0 from a node of protocol 1.
    pub(crate) held: u64,
    /// When it no longer counts.
    pub(crate) expires_at: Timestamp,
}

/// Entities as they are in the sender's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntityBatch {
    pub(crate) id: MessageId,
    /// These are all changes after this revision, up to that of the last of them. Of what was just
    /// written it is the revision before; of what was asked for, what the request said.
    pub(crate) after: u64,
    /// Ordered by revision; a revision is never cut in two.
    pub(crate) entities: Vec<Entity>,
}

/// A virtual key that is refused from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revocation {
    /// Hexadecimal digits of the key's hash.
    pub(crate) hash: String,
    pub(crate) change: Change,
}

/// What a leader's task found, for all members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The task's name.
    pub task: String,
    /// `cluster`, or a region's name.
    pub scope: String,
    /// The term that the leader held; an outcome of a smaller one than seen is dropped.
    pub term: u64,
    /// Of the body, by [`Outcome::hash_of`]; one that is not is refused.
    pub hash: [u8; 32],
    /// Cluster time at which the task ended.
    pub at: Timestamp,
    /// At most [`OUTCOME_BYTES`].
    pub body: Arc<[u8]>,
}

// === impl Outcome ===

impl Outcome {
    /// SHA-256 of a body.
    #[must_use]
    pub fn hash_of(body: &[u8]) -> [u8; 32] {
        Sha256::digest(body).into()
    }
}

/// What a node's configuration file says, as a hash that all members compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationMark {
    /// Over everything that has to agree.
    pub hash: [u8; 32],
    /// `revision:` of the file, if it has one.
    pub revision: Option<u64>,
    /// The same by part of the file (`providers`, `models`, …), to name what differs. At most 16.
    pub parts: Vec<(String, [u8; 32])>,
}
