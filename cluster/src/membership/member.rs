//! One other member, as this node sees it.
//!
//! Promise: its state follows from what gossip says, what its link says and how long ago, by one rule
//! ([`Member::judge`]).

use std::time::Duration;

use foca::State;

use crate::core::MemberState;
use crate::origin::Origin;

use super::evidence::Evidence;
use super::identity::Identity;

/// A live member without a link for so long is degraded.
const UNLINKED: Duration = Duration::from_secs(3);
/// A member that gossip calls dead and that has no link has so long to come back: who was wrongly
/// taken for dead returns within this.
const GRACE: Duration = Duration::from_secs(3);

/// One other member. Times are on the monotonic clock of this process.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) identity: Identity,
    pub(crate) state: MemberState,
    /// Since when it has this state.
    pub(crate) since: Duration,
    /// It said that it takes no new requests and is about to go.
    pub(crate) announced_drain: bool,
    /// It has this node in its own list.
    pub(crate) listed_us_back: bool,
    /// The link to it, while there is one.
    pub(crate) link: Option<LinkSight>,
    /// What gossip says.
    pub(super) gossip: State,
    /// Since when gossip says so.
    pub(super) gossip_since: Duration,
    /// When the last byte came over any link to this process.
    pub(super) last_link_byte: Option<Duration>,
    /// Since when there is no link.
    pub(super) unlinked_since: Duration,
    pub(super) announced_leave: bool,
    /// Signs, besides gossip, that it is gone.
    pub(super) evidence: Option<Evidence>,
}

/// A link, as membership sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkSight {
    pub(crate) since: Duration,
    pub(crate) last_heard: Duration,
}

impl Member {
    pub(super) fn new(identity: Identity, gossip: State, now: Duration) -> Self {
        Self {
            identity,
            state: MemberState::Up,
            since: now,
            announced_drain: false,
            listed_us_back: false,
            link: None,
            gossip,
            gossip_since: now,
            last_link_byte: None,
            unlinked_since: now,
            announced_leave: false,
            evidence: None,
        }
    }

    /// The process behind it.
    pub(crate) fn origin(&self) -> Origin {
        self.identity.origin()
    }

    /// Whether it counts as one of the cluster: it is neither down nor has it left.
    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.state, MemberState::Down | MemberState::Left)
    }

    /// Whether this process is gone beyond doubt, as far as this node sees.
    pub(super) fn seems_gone(&self) -> bool {
        !self.is_live()
            || self.gossip != State::Alive
            || self.link.is_none() && self.evidence.as_ref().is_some_and(Evidence::is_refused)
    }

    /// Its state now.
    pub(super) fn judge(&self, suspicion: Duration, now: Duration) -> MemberState {
        match self.gossip {
            State::Alive => {
                if self.link.is_some() || now < self.unlinked_since + UNLINKED {
                    MemberState::Up
                } else {
                    MemberState::Degraded
                }
            }
            State::Suspect => MemberState::Suspect,
            State::Down if self.announced_leave => MemberState::Left,
            State::Down if !self.is_live() => self.state,
            State::Down if self.is_doubtful(suspicion, now) => MemberState::Suspect,
            State::Down => MemberState::Down,
        }
    }

    /// Whether there is still a reason not to believe gossip that it is dead.
    fn is_doubtful(&self, suspicion: Duration, now: Duration) -> bool {
        if let Some(evidence) = &self.evidence
            && (evidence.is_confirmed() || evidence.is_unreachable())
        {
            return false;
        }
        match self.last_link_byte {
            Some(heard) if now < heard + suspicion => true,
            _ => now < self.gossip_since + GRACE,
        }
    }
}
