//! What a member says about its end, as gossip carries it.
//!
//! Promise: a notice goes on once, whoever it came from. Failure: gossip may lose one; the next
//! exchange of member lists brings it. Notices are far smaller than what a packet has room for,
//! since larger ones would never be sent and nobody would be told.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use foca::{BroadcastHandler, Invalidates};
use serde::{Deserialize, Serialize};

use crate::data_dir::NodeKey;
use crate::origin::Origin;

use super::identity::Identity;

/// Notices that are remembered in order not to pass them on again.
const REMEMBERED: usize = 512;

/// What a member says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Intent {
    /// It takes no new requests and is about to go.
    Drain,
    /// It goes now.
    Leave,
}

/// One intent of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Notice {
    // First, so that the oldest process is forgotten first.
    boot: u64,
    node: u128,
    pub(super) intent: Intent,
}

impl Notice {
    pub(super) fn new(origin: Origin, intent: Intent) -> Self {
        Self {
            boot: origin.boot,
            node: origin.node.0,
            intent,
        }
    }

    pub(super) fn origin(self) -> Origin {
        Origin {
            node: NodeKey(self.node),
            boot: self.boot,
        }
    }

    pub(super) fn encode(self) -> Vec<u8> {
        postcard::to_stdvec(&self).expect("two numbers and a word encode without fail")
    }
}

impl Invalidates for Notice {
    fn invalidates(&self, other: &Self) -> bool {
        self == other
    }
}

/// Takes notices out of gossip.
#[derive(Debug)]
pub(super) struct NoticeBoard {
    known: BTreeSet<Notice>,
    news: SyncSender<Notice>,
}

impl NoticeBoard {
    /// With the end where news come out.
    pub(super) fn new() -> (Self, Receiver<Notice>) {
        let (news, inbox) = sync_channel(REMEMBERED);
        let board = Self {
            known: BTreeSet::new(),
            news,
        };
        (board, inbox)
    }
}

impl BroadcastHandler<Identity> for NoticeBoard {
    type Key = Notice;
    type Error = postcard::Error;

    fn receive_item(
        &mut self,
        data: &[u8],
        _sender: Option<&Identity>,
    ) -> Result<Option<Notice>, postcard::Error> {
        let notice: Notice = postcard::from_bytes(data)?;
        if self.known.contains(&notice) {
            return Ok(None);
        }
        match self.news.try_send(notice) {
            // Not remembered, so that it is news again when it comes next.
            Err(TrySendError::Full(_)) => return Ok(None),
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        }
        self.known.insert(notice);
        while self.known.len() > REMEMBERED {
            self.known.pop_first();
        }
        Ok(Some(notice))
    }
}
