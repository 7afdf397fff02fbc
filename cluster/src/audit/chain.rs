//! How rows are made: the exact bytes that are hashed, and the link to the row before.
//!
//! The bytes are part of the format: a change to them breaks every log that was ever written. Each
//! field is preceded by its length, so that no two rows have the same bytes.

use policy::Timestamp;

use super::{AuditHead, AuditKey, AuditRow};
use crate::entity::Change;
use crate::error::StoreError;

/// So that no hash of a row can be taken for that of a head, nor for anything else made with the key.
const ROW: &[u8] = b"tyr audit row 1";
const HEAD: &[u8] = b"tyr audit head 1";

/// The largest number that every store keeps.
const LARGEST: u64 = i64::MAX as u64;

/// The row and the head that follow `head`, for the store to write in the transaction in which it
/// read `head`. `revision` is that of the entities after the change.
///
/// A log that was begun with a key is not continued without one: whoever lacks the key could then
/// write rows of their own.
pub(crate) fn next(
    head: Option<&AuditHead>,
    change: &Change,
    revision: u64,
    key: &AuditKey,
) -> Result<(AuditRow, AuditHead), StoreError> {
    if let (Some(known), None) = (head.and_then(|head| head.key_id.as_ref()), key.id()) {
        return Err(StoreError::AuditKeyMissing {
            known: known.clone(),
        });
    }
    let mut change = change.clone();
    change.at = Timestamp(change.at.0.min(LARGEST));
    let mut row = AuditRow {
        seq: head.map_or(0, |head| head.seq) + 1,
        change,
        revision,
        key_id: key.id().map(str::to_owned),
        previous: head.map_or([0; 32], |head| head.hash),
        hash: [0; 32],
    };
    row.hash = key.digest(&row.bytes());
    let mut head = AuditHead {
        seq: row.seq,
        hash: row.hash,
        key_id: row.key_id.clone(),
        mac: [0; 32],
    };
    head.mac = key.digest(&head.bytes());
    Ok((row, head))
}

/// Refuses to go on with a log that does not end as its head says: a new head over it would hide
/// that rows were cut off. `last` are the first two rows from that of the head on, or from the first
/// on without a head.
pub(crate) fn attest(
    head: Option<&AuditHead>,
    last: &[AuditRow],
    key: &AuditKey,
) -> Result<(), StoreError> {
    let whole = match (head, last) {
        (None, []) => true,
        (Some(head), [row]) => {
            let same = row.seq == head.seq && row.hash == head.hash && row.key_id == head.key_id;
            // One whose key is not known can only be compared.
            let genuine = key.of(head.key_id.as_deref()).is_none_or(|key| {
                key.agrees(&head.bytes(), &head.mac) && key.agrees(&row.bytes(), &row.hash)
            });
            same && genuine
        }
        _ => false,
    };
    match whole {
        true => Ok(()),
        false => Err(StoreError::AuditBroken {
            seq: head.map_or(0, |head| head.seq),
        }),
    }
}

impl AuditRow {
    /// What its hash is made over.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let change = &self.change;
        let mut bytes = Vec::with_capacity(256);
        field(&mut bytes, ROW);
        field(&mut bytes, &self.previous);
        for number in [self.seq, self.revision, change.at.0] {
            field(&mut bytes, &number.to_be_bytes());
        }
        optional(&mut bytes, self.key_id.as_deref());
        for text in [
            &change.actor,
            &change.peer,
            &change.action,
            &change.kind,
            &change.name,
        ] {
            field(&mut bytes, text.as_bytes());
        }
        optional(&mut bytes, change.before.as_deref());
        optional(&mut bytes, change.after.as_deref());
        bytes
    }
}

impl AuditHead {
    /// What its MAC is made over.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        field(&mut bytes, HEAD);
        field(&mut bytes, &self.seq.to_be_bytes());
        field(&mut bytes, &self.hash);
        optional(&mut bytes, self.key_id.as_deref());
        bytes
    }
}

fn field(to: &mut Vec<u8>, value: &[u8]) {
    to.extend_from_slice(&(value.len() as u64).to_be_bytes());
    to.extend_from_slice(value);
}

fn optional(to: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => {
            to.push(1);
            field(to, value.as_bytes());
        }
        None => to.push(0),
    }
}
