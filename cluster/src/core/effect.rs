//! What the core wants done.

use std::net::SocketAddr;
use std::time::Duration;

use super::StoreReply;
use crate::data_dir::NodeKey;
use crate::entity::{Change, Entity};
use crate::message::{Frame, Outcome, WireCell};
use crate::origin::Origin;

/// One thing to do. None waits for another.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    Datagram {
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// Exchange member lists over TCP; answered by `Input::ExchangeAnswered`.
    Exchange {
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    AnswerExchange {
        exchange: u64,
        bytes: Vec<u8>,
    },
    /// Make a link; answered by `Input::LinkUp` or `Input::DialFailed`. The certificate there must
    /// carry `name`.
    Dial {
        node: NodeKey,
        name: String,
        addr: SocketAddr,
    },
    CloseLink {
        link: u64,
    },
    /// A frame that a link cannot take is followed by the link's end.
    Frame {
        link: u64,
        frame: Frame,
    },
    ProbeLink {
        node: NodeKey,
        addr: SocketAddr,
    },
    Store(StoreRequest),
    /// Entities from a peer, to offer to the entity log (`EntityLog::offer`); if it takes them, there
    /// is news.
    Offer {
        after: u64,
        entities: Vec<Entity>,
    },
    Incoming(Incoming),
    Diagnosed {
        id: u64,
        diagnosis: Diagnosis,
    },
    /// There is no more of this diagnosis.
    DiagnosisEnded {
        id: u64,
    },
}

/// What the rest of the process is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// There is news in the entity log.
    Poll,
    /// Refuse this virtual key, then say `RevocationApplied`.
    Revoked { hash: String, change: Change },
    /// What a leader's task found.
    Outcome(Outcome),
    /// This node is to run the task now and to answer with its outcome, under this term.
    Duty {
        task: String,
        /// `cluster`, or the region's name.
        scope: String,
        term: u64,
    },
}

/// One finding about one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The member's name.
    pub node: String,
    /// Measured: `udp`, `tcp` or `grpc`. Known: `gossip`, `clock`, `cells`, `protocol`,
    /// `configuration`, `entities` or `store`. `diagnosis`: it was refused.
    pub check: &'static str,
    pub ok: bool,
    pub detail: String,
    /// How long it took, where that is measured.
    pub took: Option<Duration>,
}

/// One thing to do in the store; each is answered by the `StoreReply` of its name.
#[derive(Clone, Debug)]
pub(crate) enum StoreRequest {
    /// Renew this node's row.
    Heartbeat,
    /// The last renewal, under the name [`super::GONE`]; answered as a `Heartbeat`.
    Goodbye,
    /// Rows of all nodes.
    Heartbeats,
    /// All live cells, by origin.
    LoadCells,
    /// Raise the stored cells to these: at most 2,000.
    FlushCells(Vec<(Origin, WireCell)>),
    /// Take or renew a term for 20 s.
    TakeTerm {
        scope: String,
        task: String,
    },
    ReleaseTerm {
        scope: String,
        task: String,
        term: u64,
    },
    /// Which term of a task was given last.
    ReadTerm {
        scope: String,
        task: String,
    },
    SaveOutcome(Outcome),
    LoadOutcomes,
    /// Entities changed after a revision, for peers that asked.
    EntitiesSince {
        after: u64,
    },
    /// Close the books of periods that have passed, under the term of the task `SEAL_TASK`.
    SealWindows {
        term: u64,
    },
}

// === impl StoreRequest ===

impl StoreRequest {
    /// The answer when it was not tried, or when nobody knows whether it was done.
    pub(crate) fn failed(self) -> StoreReply {
        match self {
            Self::Heartbeat | Self::Goodbye => StoreReply::Heartbeat(Err(())),
            Self::Heartbeats => StoreReply::Heartbeats(Err(())),
            Self::LoadCells => StoreReply::LoadCells(Err(())),
            Self::FlushCells(cells) => StoreReply::FlushCells {
                cells,
                result: Err(()),
            },
            Self::TakeTerm { scope, task } => StoreReply::TakeTerm {
                scope,
                task,
                result: Err(()),
            },
            Self::ReleaseTerm { .. } => StoreReply::ReleaseTerm(Err(())),
            Self::ReadTerm { scope, task } => StoreReply::ReadTerm {
                scope,
                task,
                result: Err(()),
            },
            Self::SaveOutcome(outcome) => StoreReply::SaveOutcome {
                task: outcome.task,
                scope: outcome.scope,
                term: outcome.term,
                result: Err(()),
            },
            Self::LoadOutcomes => StoreReply::LoadOutcomes(Err(())),
            Self::EntitiesSince { after } => StoreReply::EntitiesSince {
                after,
                result: Err(()),
            },
            Self::SealWindows { term } => StoreReply::SealWindows {
                term,
                result: Err(()),
            },
        }
    }
}
