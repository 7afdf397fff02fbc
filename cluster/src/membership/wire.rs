//! Bytes of membership: foca's packets, and what goes over TCP.
//!
//! Promise: whatever is read holds identities that fit their bounds; no bytes make it fail otherwise
//! than with a refusal. Lists are bounded at both ends.

use std::net::SocketAddr;

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Message, PostcardCodec};
use serde::{Deserialize, Serialize};

use super::MembershipError;
use super::identity::Identity;
use super::notice::Notice;

/// Members in one list at most.
const LISTED: usize = 2_048;
/// Datagrams in one exchange at most.
pub(super) const WRAPPED: usize = 64;
/// Notices in one list at most.
const NOTICES: usize = 512;

/// foca's own format, with bounds on what identities may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct WireCodec;

impl Codec<Identity> for WireCodec {
    type Error = postcard::Error;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        buf: impl BufMut,
    ) -> Result<(), Self::Error> {
        PostcardCodec.encode_header(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, Self::Error> {
        let header: Header<Identity> = PostcardCodec.decode_header(buf)?;
        let third_is_somebody = match &header.message {
            Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => {
                is_somebody(target)
            }
            Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => {
                is_somebody(origin)
            }
            _ => true,
        };
        // The receiver may be known by its address alone.
        let accepted = third_is_somebody && is_somebody(&header.src) && header.dst.fits();
        if accepted {
            Ok(header)
        } else {
            Err(postcard::Error::DeserializeBadEncoding)
        }
    }

    fn encode_member(
        &mut self,
        member: &foca::Member<Identity>,
        buf: impl BufMut,
    ) -> Result<(), Self::Error> {
        PostcardCodec.encode_member(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<foca::Member<Identity>, Self::Error> {
        let member: foca::Member<Identity> = PostcardCodec.decode_member(buf)?;
        if is_somebody(member.id()) {
            Ok(member)
        } else {
            Err(postcard::Error::DeserializeBadEncoding)
        }
    }
}

/// Whether packets can be sent to it.
fn is_somebody(identity: &Identity) -> bool {
    identity.fits()
        && identity.is_known()
        && identity.addr.port() != 0
        && !identity.addr.ip().is_unspecified()
}

/// What goes over TCP, in both directions.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Exchange {
    /// All that the sender knows; answered by the same.
    Lists(Lists),
    /// Datagrams that UDP does not carry; answered by those that they gave rise to.
    Wrapped {
        /// Where the sender gossips.
        from: SocketAddr,
        packets: Vec<Vec<u8>>,
    },
}

/// A member list with its owner.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Lists {
    pub(super) cluster: String,
    pub(super) from: Identity,
    pub(super) members: Vec<foca::Member<Identity>>,
    pub(super) notices: Vec<Notice>,
}

impl Exchange {
    pub(super) fn encode(mut self) -> Vec<u8> {
        match &mut self {
            Self::Lists(lists) => {
                lists.members.truncate(LISTED);
                lists.notices.truncate(NOTICES);
            }
            Self::Wrapped { packets, .. } => packets.truncate(WRAPPED),
        }
        postcard::to_stdvec(&self).expect("these types encode into memory without fail")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        let (exchange, rest): (Self, _) =
            postcard::take_from_bytes(bytes).map_err(|_| MembershipError::Malformed)?;
        let accepted = rest.is_empty()
            && match &exchange {
                Self::Lists(lists) => {
                    is_somebody(&lists.from)
                        && lists.members.len() <= LISTED
                        && lists.notices.len() <= NOTICES
                        && lists.members.iter().all(|member| is_somebody(member.id()))
                }
                Self::Wrapped { packets, .. } => packets.len() <= WRAPPED,
            };
        if accepted {
            Ok(exchange)
        } else {
            Err(MembershipError::Malformed)
        }
    }
}
