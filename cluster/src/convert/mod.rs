//! Frames as they go over the wire, and back.
//!
//! Promise: what one node makes of a frame another reads as the same frame; bytes that no node
//! makes are an error, never a panic; a frame that a newer node invented is skipped. An
//! [`Outbound`] and an [`Inbound`] belong to one link: texts of counters are sent once over it.
//! After an error the two no longer agree, so the link has to end.

mod cells;
mod values;

use std::time::Duration;

use bytes::Bytes;
use policy::Timestamp;
use proto::Message;
use proto::v1 as wire;
use proto::v1::frame::Body;

use self::cells::{Read, Texts};
use self::values::{fixed, nanos, origin_from, origin_to, seen_from, seen_to};
use crate::message::{
    CellBatch, ConfigurationMark, EntityBatch, Frame, Hello, MessageId, OUTCOME_BYTES, Outcome,
};

/// Largest frame in bytes: an outcome of full size and what is around it.
pub(crate) const FRAME_BYTES: usize = OUTCOME_BYTES + (64 << 10);

/// Most parts of a configuration that are compared one by one.
const MOST_PARTS: usize = 64;

/// Longest name in bytes: they are shown and logged wherever a peer is.
const NAME_BYTES: usize = 256;

/// Most entities of one frame, and most origins: far more than a sender puts into it.
const MOST_ITEMS: usize = 65_536;

/// Most revocations of one frame.
const MOST_REVOCATIONS: usize = 4_096;

/// About how much memory an entity, a revocation, an origin or a cell takes besides its texts.
const ITEM_BYTES: usize = 160;

/// Why a frame cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} has a wrong length")]
    Length(&'static str),
    #[error("{0} is out of range")]
    Range(&'static str),
    #[error("too many of {0}")]
    Many(&'static str),
    #[error("a counter is named by a number that has no text")]
    UnknownText,
}

/// The sending half of a link.
#[derive(Debug)]
pub(crate) struct Outbound {
    protocol: u8,
    texts: Texts,
}

/// The receiving half of a link.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    texts: Read,
}

/// About how much memory a frame takes, in bytes, also where it is small on the wire.
pub(crate) fn weight(frame: &wire::Frame) -> usize {
    let items = match &frame.body {
        Some(Body::Digest(wire::Digest { seen }) | Body::Ack(wire::Ack { seen })) => seen.len(),
        Some(Body::Cells(batch)) => batch.cells.len(),
        Some(Body::Entities(batch)) => batch.entities.len(),
        Some(Body::Revocations(batch)) => 2 * batch.revocations.len(),
        _ => 0,
    };
    frame.encoded_len() + items * ITEM_BYTES
}

/// Refuses more than `most` of something.
fn few<T>(list: Vec<T>, most: usize, what: &'static str) -> Result<Vec<T>, FrameError> {
    match list.len() > most {
        true => Err(FrameError::Many(what)),
        false => Ok(list),
    }
}

// === impl Outbound ===

impl Outbound {
    /// For a peer with which `protocol` is spoken.
    pub(crate) fn new(protocol: u8) -> Self {
        Self {
            protocol,
            texts: Texts::default(),
        }
    }

    /// The frames of the wire that say what `frame` says: more than one for a large batch of cells.
    pub(crate) fn write(&mut self, frame: Frame) -> Vec<wire::Frame> {
        let frame_of = |body| wire::Frame { body: Some(body) };
        match body_of(frame) {
            Ok(body) => vec![frame_of(body)],
            Err(batch) => {
                let parts = self.texts.write(batch, self.protocol);
                parts.into_iter().map(Body::Cells).map(frame_of).collect()
            }
        }
    }
}

/// The frame's body, or the cells that only a link can write.
fn body_of(frame: Frame) -> Result<Body, CellBatch> {
    let body = match frame {
        Frame::Cells(batch) => return Err(batch),
        Frame::Hello(hello) => Body::Hello(hello_to(hello)),
        Frame::Digest(seen) => Body::Digest(wire::Digest {
            seen: seen_to(seen),
        }),
        Frame::CaughtUp => Body::CaughtUp(wire::CaughtUp {}),
        Frame::Ack(seen) => Body::Ack(wire::Ack {
            seen: seen_to(seen),
        }),
        Frame::Entities(batch) => Body::Entities(wire::EntityBatch {
            id: id_to(batch.id),
            after: batch.after,
            entities: batch.entities.into_iter().map(values::entity_to).collect(),
        }),
        Frame::EntitiesWanted { after } => Body::EntitiesWanted(wire::EntitiesWanted { after }),
        Frame::Revocations { id, revocations } => Body::Revocations(wire::Revocations {
            id: id_to(id),
            revocations: revocations.into_iter().map(values::revocation_to).collect(),
        }),
        Frame::Received(id) => Body::Received(wire::Received { id: id_to(id) }),
        Frame::Applied { revision } => Body::Applied(wire::Applied { revision }),
        Frame::Outcome(outcome) => Body::Outcome(outcome_to(outcome)),
        Frame::Ping { number, sent } => Body::Ping(wire::Ping {
            number,
            sent: nanos(sent),
        }),
        Frame::Pong {
            number,
            echoed,
            wall,
        } => Body::Pong(wire::Pong {
            number,
            echoed: nanos(echoed),
            wall: wall.0,
        }),
        Frame::Suspect { about } => Body::Suspect(wire::Suspect {
            about: Some(origin_to(about)),
        }),
        Frame::Verdict { about, gone } => Body::Verdict(wire::Verdict {
            about: Some(origin_to(about)),
            gone,
        }),
        Frame::Drain => Body::Drain(wire::Drain {}),
        Frame::StoreAway { away } => Body::StoreAway(wire::StoreAway { away }),
        Frame::Configuration(mark) => Body::Configuration(mark_to(mark)),
    };
    Ok(body)
}

fn hello_to(hello: Hello) -> wire::Hello {
    wire::Hello {
        origin: Some(origin_to(hello.origin)),
        name: hello.name,
        cluster: hello.cluster,
        region: hello.region,
        zone: hello.zone,
        build: hello.build,
        proto_min: hello.proto_min.into(),
        proto_max: hello.proto_max.into(),
        caps: hello.caps,
        grpc_port: hello.grpc_port.into(),
    }
}

fn outcome_to(outcome: Outcome) -> wire::Outcome {
    wire::Outcome {
        task: outcome.task,
        scope: outcome.scope,
        term: outcome.term,
        hash: outcome.hash.to_vec(),
        at: outcome.at.0,
        body: Bytes::from_owner(outcome.body),
    }
}

fn mark_to(mark: ConfigurationMark) -> wire::Configuration {
    let part = |(name, hash): (String, [u8; 32])| wire::ConfigurationPart {
        name,
        hash: hash.to_vec(),
    };
    wire::Configuration {
        hash: mark.hash.to_vec(),
        revision: mark.revision,
        parts: mark.parts.into_iter().map(part).collect(),
    }
}

fn id_to(MessageId(id): MessageId) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

// === impl Inbound ===

impl Inbound {
    /// The frame; `None` for one that this build does not know.
    pub(crate) fn read(&mut self, frame: wire::Frame) -> Result<Option<Frame>, FrameError> {
        let Some(body) = frame.body else {
            return Ok(None);
        };
        let frame = match body {
            Body::Hello(hello) => Frame::Hello(hello_from(hello)?),
            Body::Digest(wire::Digest { seen }) => Frame::Digest(seen_from(seen)?),
            Body::CaughtUp(wire::CaughtUp {}) => Frame::CaughtUp,
            Body::Cells(batch) => Frame::Cells(self.texts.read(batch)?),
            Body::Ack(wire::Ack { seen }) => Frame::Ack(seen_from(seen)?),
            Body::Entities(batch) => Frame::Entities(EntityBatch {
                id: id_from(&batch.id)?,
                after: batch.after,
                entities: few(batch.entities, MOST_ITEMS, "entities")?
                    .into_iter()
                    .map(values::entity_from)
                    .collect(),
            }),
            Body::EntitiesWanted(wire::EntitiesWanted { after }) => Frame::EntitiesWanted { after },
            Body::Revocations(wire::Revocations { id, revocations }) => Frame::Revocations {
                id: id_from(&id)?,
                revocations: few(revocations, MOST_REVOCATIONS, "revocations")?
                    .into_iter()
                    .map(values::revocation_from)
                    .collect::<Result<_, _>>()?,
            },
            Body::Received(wire::Received { id }) => Frame::Received(id_from(&id)?),
            Body::Applied(wire::Applied { revision }) => Frame::Applied { revision },
            Body::Outcome(outcome) => Frame::Outcome(outcome_from(outcome)?),
            Body::Ping(wire::Ping { number, sent }) => Frame::Ping {
                number,
                sent: Duration::from_nanos(sent),
            },
            Body::Pong(wire::Pong {
                number,
                echoed,
                wall,
            }) => Frame::Pong {
                number,
                echoed: Duration::from_nanos(echoed),
                wall: Timestamp(wall),
            },
            Body::Suspect(wire::Suspect { about }) => Frame::Suspect {
                about: origin_from(about)?,
            },
            Body::Verdict(wire::Verdict { about, gone }) => Frame::Verdict {
                about: origin_from(about)?,
                gone,
            },
            Body::Drain(wire::Drain {}) => Frame::Drain,
            Body::StoreAway(wire::StoreAway { away }) => Frame::StoreAway { away },
            Body::Configuration(mark) => Frame::Configuration(mark_from(mark)?),
        };
        Ok(Some(frame))
    }
}

fn hello_from(hello: wire::Hello) -> Result<Hello, FrameError> {
    let texts = [
        &hello.name,
        &hello.cluster,
        &hello.region,
        &hello.zone,
        &hello.build,
    ];
    if texts.iter().any(|text| text.len() > NAME_BYTES) {
        return Err(FrameError::Length("name"));
    }
    let small = |value: u32| u8::try_from(value).map_err(|_| FrameError::Range("protocol"));
    Ok(Hello {
        origin: origin_from(hello.origin)?,
        name: hello.name,
        cluster: hello.cluster,
        region: hello.region,
        zone: hello.zone,
        build: hello.build,
        proto_min: small(hello.proto_min)?,
        proto_max: small(hello.proto_max)?,
        caps: hello.caps,
        grpc_port: u16::try_from(hello.grpc_port).map_err(|_| FrameError::Range("port"))?,
    })
}

fn outcome_from(outcome: wire::Outcome) -> Result<Outcome, FrameError> {
    if outcome.body.len() > OUTCOME_BYTES {
        return Err(FrameError::Length("outcome"));
    }
    Ok(Outcome {
        task: outcome.task,
        scope: outcome.scope,
        term: outcome.term,
        hash: fixed(&outcome.hash, "hash")?,
        at: Timestamp(outcome.at),
        body: outcome.body.as_ref().into(),
    })
}

fn mark_from(mark: wire::Configuration) -> Result<ConfigurationMark, FrameError> {
    if mark.parts.len() > MOST_PARTS {
        return Err(FrameError::Many("parts of a configuration"));
    }
    if mark.parts.iter().any(|part| part.name.len() > NAME_BYTES) {
        return Err(FrameError::Length("name"));
    }
    let part = |part: wire::ConfigurationPart| Ok((part.name, fixed(&part.hash, "hash")?));
    Ok(ConfigurationMark {
        hash: fixed(&mark.hash, "hash")?,
        revision: mark.revision,
        parts: mark.parts.into_iter().map(part).collect::<Result<_, _>>()?,
    })
}

fn id_from(bytes: &[u8]) -> Result<MessageId, FrameError> {
    Ok(MessageId(u128::from_be_bytes(fixed(bytes, "id")?)))
}

#[cfg(test)]
mod tests;
