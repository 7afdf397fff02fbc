//! The small values that frames are made of.

use std::time::Duration;

use policy::Timestamp;
use proto::v1 as wire;

use super::{FrameError, MOST_ITEMS, few};
use crate::data_dir::NodeKey;
use crate::entity::{Change, Entity};
use crate::message::Revocation;
use crate::origin::Origin;

pub(super) fn fixed<const N: usize>(
    bytes: &[u8],
    what: &'static str,
) -> Result<[u8; N], FrameError> {
    bytes.try_into().map_err(|_| FrameError::Length(what))
}

/// Up to 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn origin_to(origin: Origin) -> wire::Origin {
    wire::Origin {
        node: origin.node.0.to_be_bytes().to_vec(),
        boot: origin.boot,
    }
}

pub(super) fn origin_from(origin: Option<wire::Origin>) -> Result<Origin, FrameError> {
    let origin = origin.ok_or(FrameError::Missing("origin"))?;
    let node = u128::from_be_bytes(fixed(&origin.node, "node")?);
    Ok(Origin {
        node: NodeKey(node),
        boot: origin.boot,
    })
}

pub(super) fn seen_to(seen: Vec<(Origin, u64)>) -> Vec<wire::Seen> {
    let one = |(origin, ver)| wire::Seen {
        origin: Some(origin_to(origin)),
        ver,
    };
    seen.into_iter().map(one).collect()
}

pub(super) fn seen_from(seen: Vec<wire::Seen>) -> Result<Vec<(Origin, u64)>, FrameError> {
    let one = |seen: wire::Seen| Ok((origin_from(seen.origin)?, seen.ver));
    let seen = few(seen, MOST_ITEMS, "origins")?;
    seen.into_iter().map(one).collect()
}

pub(super) fn entity_to(entity: Entity) -> wire::Entity {
    wire::Entity {
        kind: entity.kind,
        name: entity.name,
        revision: entity.revision,
        body: entity.body.map(String::from),
        changed_at: entity.changed_at.0,
    }
}

pub(super) fn entity_from(entity: wire::Entity) -> Entity {
    Entity {
        kind: entity.kind,
        name: entity.name,
        revision: entity.revision,
        body: entity.body.map(Box::from),
        changed_at: Timestamp(entity.changed_at),
    }
}

pub(super) fn revocation_to(revocation: Revocation) -> wire::Revocation {
    let change = revocation.change;
    wire::Revocation {
        hash: revocation.hash,
        change: Some(wire::Change {
            at: change.at.0,
            actor: change.actor,
            peer: change.peer,
            action: change.action,
            kind: change.kind,
            name: change.name,
            before: change.before,
            after: change.after,
        }),
    }
}

/// Longest hash of a key, in digits.
const HASH_DIGITS: usize = 128;

/// Most bytes of what a revocation says of who made it: each is kept until the store has it.
pub(super) const CHANGE_BYTES: usize = 4 << 10;

pub(super) fn revocation_from(revocation: wire::Revocation) -> Result<Revocation, FrameError> {
    let change = revocation.change.ok_or(FrameError::Missing("change"))?;
    if revocation.hash.len() > HASH_DIGITS {
        return Err(FrameError::Length("hash"));
    }
    let texts = [
        &change.actor,
        &change.peer,
        &change.action,
        &change.kind,
        &change.name,
    ];
    let bodies = [&change.before, &change.after].into_iter().flatten();
    let bytes: usize = texts.into_iter().chain(bodies).map(String::len).sum();
    if bytes > CHANGE_BYTES {
        return Err(FrameError::Length("change"));
    }
    Ok(Revocation {
        hash: revocation.hash,
        change: Change {
            at: Timestamp(change.at),
            actor: change.actor,
            peer: change.peer,
            action: change.action,
            kind: change.kind,
            name: change.name,
            before: change.before,
            after: change.after,
        },
    })
}
