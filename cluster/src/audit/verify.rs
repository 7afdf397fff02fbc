//! Walking the chain: the first row that is not what was written, and why.

use std::collections::HashSet;

use super::{AuditHead, AuditKey, AuditRow};
use crate::error::StoreError;
use crate::store::Store;

/// How far a row that was moved is looked for, in places.
const MOVED_AT_MOST: u64 = 1_000;

/// Rows read from a store at once.
const PAGE: u32 = 512;

/// A log that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many rows there are.
    pub rows: u64,
    /// How many of the first rows were written without a key: whoever could write the database
    /// could have written them.
    pub keyless: u64,
    /// The hash of the last row; zeros when there is none. To be compared with the last one logged.
    pub head: [u8; 32],
}

/// The first place at which a log is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("audit row {seq}: {why}")]
pub struct Broken {
    pub seq: u64,
    pub why: Breach,
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// Its hash is not that of its fields.
    #[error("it was altered")]
    Altered,
    /// Its hash is right for another place in the log.
    #[error("it was written as row {from}")]
    Moved { from: u64 },
    /// No row has this number, although later ones are there.
    #[error("it was removed")]
    Removed,
    /// It is sound by itself, but does not follow the row before it.
    #[error("it does not follow the row before it")]
    Unlinked,
    /// No row verifies with the key that was given under this id.
    #[error("the key '{key_id}' is not the one that it was written with, or it was altered")]
    WrongKey { key_id: String },
    /// No key was given under this id.
    #[error("it was written with the key '{key_id}', which was not given")]
    UnknownKey { key_id: String },
    /// It was written without a key after rows with one.
    #[error("it was written without a key, although rows before it have one")]
    Unkeyed,
    /// The head says that there was such a row.
    #[error("it and all up to row {last} were cut off")]
    CutOff { last: u64 },
    /// The head is not there.
    #[error("the head that belongs to it was removed")]
    HeadRemoved,
    /// The head is of an earlier row, or another one's.
    #[error("the head does not belong to it")]
    HeadMismatch,
    /// The head's own MAC is wrong.
    #[error("the head was altered")]
    HeadAltered,
}

/// A log was not found whole.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not whole. The operator looks into it.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// It could not be read to the end, which says nothing about it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes rows in the order of their numbers.
#[derive(Debug)]
pub struct Verifier<'a> {
    keys: &'a [AuditKey],
    /// Ids of keys that something has verified with.
    proven: HashSet<&'a str>,
    seq: u64,
    last: [u8; 32],
    last_key: Option<String>,
    keyless: u64,
}

/// Verifies a log that is at hand as a whole. `keys` are all that it was ever written with.
pub fn verify<'r>(
    rows: impl IntoIterator<Item = &'r AuditRow>,
    head: Option<&AuditHead>,
    keys: &[AuditKey],
) -> Result<Verified, Broken> {
    let mut verifier = Verifier::new(keys, head);
    for row in rows {
        verifier.take(row)?;
    }
    verifier.finish(head)
}

/// Verifies the log of a store, to which others may append meanwhile.
pub(crate) fn verify_store(store: &dyn Store, keys: &[AuditKey]) -> Result<Verified, VerifyError> {
    let mut verifier = Verifier::new(keys, store.audit_head()?.as_ref());
    loop {
        // Read before the rows: as long as there are more of them, this is an old one.
        let head = store.audit_head()?;
        let page = store.audit_rows(verifier.seq(), PAGE)?;
        if page.is_empty() {
            return Ok(verifier.finish(head.as_ref())?);
        }
        for row in &page {
            verifier.take(row)?;
        }
    }
}

impl<'a> Verifier<'a> {
    /// `head` only tells a wrong key from an altered row; any recent one does.
    pub fn new(keys: &'a [AuditKey], head: Option<&AuditHead>) -> Self {
        let mut verifier = Self {
            keys,
            proven: HashSet::new(),
            seq: 0,
            last: [0; 32],
            last_key: None,
            keyless: 0,
        };
        if let Some(head) = head {
            let id = head.key_id.as_deref();
            if let Some(key) = keys.iter().find(|key| id.is_some() && key.id() == id)
                && key.agrees(&head.bytes(), &head.mac)
            {
                verifier.proven.extend(key.id());
            }
        }
        verifier
    }

    /// The number of the last row taken; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The next row.
    pub fn take(&mut self, row: &AuditRow) -> Result<(), Broken> {
        let broken = |seq, why| Err(Broken { seq, why });
        let place = self.seq + 1;
        if row.seq > place {
            return broken(place, Breach::Removed);
        }
        let key = match self.key(row.key_id.as_deref()) {
            Ok(key) => key,
            Err(why) => return broken(row.seq, why),
        };
        if !key.agrees(&row.bytes(), &row.hash) {
            return broken(row.seq, self.mismatch(row, &key));
        }
        if row.seq < place || row.previous != self.last {
            return broken(row.seq, Breach::Unlinked);
        }
        match self
            .keys
            .iter()
            .find_map(|known| known.id().filter(|id| key.id() == Some(id)))
        {
            Some(id) => {
                self.proven.insert(id);
            }
            None if self.keyless < self.seq => return broken(row.seq, Breach::Unkeyed),
            None => self.keyless += 1,
        }
        self.seq = row.seq;
        self.last = row.hash;
        self.last_key.clone_from(&row.key_id);
        Ok(())
    }

    /// Compares the last row with the head.
    pub fn finish(self, head: Option<&AuditHead>) -> Result<Verified, Broken> {
        let broken = |seq, why| Err(Broken { seq, why });
        match head {
            None if self.seq == 0 => {}
            None => return broken(self.seq, Breach::HeadRemoved),
            Some(head) => {
                let key = match self.key(head.key_id.as_deref()) {
                    Ok(key) => key,
                    Err(why) => return broken(head.seq, why),
                };
                if !key.agrees(&head.bytes(), &head.mac) {
                    return broken(head.seq, Breach::HeadAltered);
                }
                if head.seq > self.seq {
                    return broken(self.seq + 1, Breach::CutOff { last: head.seq });
                }
                // Also one without a key, which anybody could make for what is left.
                if head.seq < self.seq || head.hash != self.last || head.key_id != self.last_key {
                    return broken(self.seq, Breach::HeadMismatch);
                }
            }
        }
        Ok(Verified {
            rows: self.seq,
            keyless: self.keyless,
            head: self.last,
        })
    }

    fn key(&self, id: Option<&str>) -> Result<AuditKey, Breach> {
        let Some(id) = id else {
            return Ok(AuditKey::keyless());
        };
        let known = self.keys.iter().find(|key| key.id() == Some(id));
        known.cloned().ok_or_else(|| Breach::UnknownKey {
            key_id: id.to_owned(),
        })
    }

    /// Why a hash is not that of its row.
    fn mismatch(&self, row: &AuditRow, key: &AuditKey) -> Breach {
        if let Some(id) = key.id()
            && !self.proven.contains(id)
        {
            return Breach::WrongKey {
                key_id: id.to_owned(),
            };
        }
        let mut moved = row.clone();
        let from = row.seq.saturating_sub(MOVED_AT_MOST);
        for seq in from..=row.seq.saturating_add(MOVED_AT_MOST) {
            moved.seq = seq;
            if key.agrees(&moved.bytes(), &row.hash) {
                return Breach::Moved { from: seq };
            }
        }
        Breach::Altered
    }
}
