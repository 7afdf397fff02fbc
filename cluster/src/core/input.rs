//! What the core is told.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use policy::Timestamp;

use crate::data_dir::NodeKey;
use crate::entity::{Change, Entity};
use crate::message::{ConfigurationMark, Frame, Hello, Outcome, WireCell};
use crate::origin::Origin;

use super::{ExchangeFailure, ProbeOutcome};

/// The time of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// Since the process started; never steps.
    pub(crate) mono: Duration,
    /// Cluster time: the wall clock, with what `Core::offset` said after the call before.
    pub(crate) wall: Timestamp,
}

/// One thing that happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// An opened datagram.
    Datagram(Bytes),
    /// Somebody asks to exchange member lists; answered by `Effect::AnswerExchange`.
    ExchangeAsked {
        exchange: u64,
        bytes: Bytes,
    },
    ExchangeAnswered {
        to: SocketAddr,
        result: Result<Bytes, ExchangeFailure>,
    },
    /// Both have said hello; `link` is the driver's number of it, never used twice.
    LinkUp {
        link: u64,
        hello: Hello,
    },
    LinkDown {
        link: u64,
        node: NodeKey,
    },
    DialFailed {
        node: NodeKey,
        refused: bool,
    },
    Frame {
        link: u64,
        node: NodeKey,
        frame: Frame,
    },
    /// Whether a member's link port can be connected to.
    Probed {
        node: NodeKey,
        outcome: ProbeOutcome,
    },
    Store(StoreReply),
    /// The entity log has told everything up to this revision, whether it fits here or not.
    EntitiesRead {
        revision: u64,
    },
    Command(Command),
}

/// What the rest of the process asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Addresses to join by; an empty list removes nobody.
    SetSeeds(Vec<SocketAddr>),
    /// How many nodes the configuration names now that their names were looked up, this one among
    /// them; and the place of this one in that list, if all nodes must see the same list.
    SetConfigured {
        nodes: u64,
        rank: Option<u64>,
    },
    /// Entities that were just written here.
    Announce(Vec<Entity>),
    /// A virtual key that was revoked here; it is in force here already.
    Revoke {
        hash: String,
        change: Change,
    },
    /// A revocation that came from a peer is in force here.
    RevocationApplied {
        hash: String,
    },
    /// The store has it; it need not be sent again to whoever comes.
    RevocationPersisted {
        hash: String,
    },
    /// This node serves by the entities up to this revision.
    Applied {
        revision: u64,
    },
    Configuration(ConfigurationMark),
    /// Read the stored cells again: another process of this node still adds to them.
    ReloadCells,
    /// Tell the others that this node is about to go.
    Drain,
    /// Go.
    Leave,
    /// Check the way to every member; answered by `Effect::Diagnosed`.
    Diagnose {
        id: u64,
    },
    /// What came of a duty.
    TaskDone(Outcome),
    /// A duty came to nothing; it is given again when it is due.
    TaskFailed {
        task: String,
        term: u64,
    },
}

/// One row of the table of heartbeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeartbeatRow {
    pub(crate) origin: Origin,
    pub(crate) name: String,
    pub(crate) region: String,
    /// By the database's time.
    pub(crate) stale_for: Duration,
}

/// What came of a [`super::StoreRequest`]. Errors were logged where they happened.
#[derive(Clone, Debug)]
pub(crate) enum StoreReply {
    Heartbeat(Result<(), ()>),
    Heartbeats(Result<Vec<HeartbeatRow>, ()>),
    /// Live cells of every origin, own earlier boots included. `ver` and `held` are 0. Comes without
    /// being asked for, too: each second while the process before this one still lives.
    LoadCells(Result<Vec<(Origin, WireCell)>, ()>),
    /// After a start without the store, without being asked for: what the node itself kept of that.
    /// The store is still to be loaded.
    KeptCells(Vec<(Origin, WireCell)>),
    /// The cells that were to be written, as they were given.
    FlushCells {
        cells: Vec<(Origin, WireCell)>,
        result: Result<(), ()>,
    },
    /// The term that this node now holds for 20 s; `None`: another node holds it.
    TakeTerm {
        scope: String,
        task: String,
        result: Result<Option<u64>, ()>,
    },
    ReleaseTerm(Result<(), ()>),
    /// The last term of a task that was given to anybody.
    ReadTerm {
        scope: String,
        task: String,
        result: Result<Option<u64>, ()>,
    },
    /// Whether it was kept: not if its term had passed.
    SaveOutcome {
        task: String,
        scope: String,
        term: u64,
        result: Result<bool, ()>,
    },
    LoadOutcomes(Result<Vec<Outcome>, ()>),
    /// All changes after `after` up to that of the last of them, ordered by revision.
    EntitiesSince {
        after: u64,
        result: Result<Vec<Entity>, ()>,
    },
    /// How many windows were sealed.
    SealWindows {
        term: u64,
        result: Result<u64, ()>,
    },
}
