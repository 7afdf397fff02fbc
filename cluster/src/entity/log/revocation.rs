//! Revocations: the one write that lasts without the store.
//!
//! A revocation is kept in the last-good file first. The store gets it from whoever comes first:
//! the caller, or the thread `tyr-store` once the store is back. It gets it once, because it is
//! written only where there is none; an answer that was lost on the way is made up for by the next
//! try, which finds it there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use super::{EntityLog, lock};
use crate::entity::last_good::Line;
use crate::entity::{Change, Entity, EntityWrite, Expect, REVOCATION};
use crate::error::WriteError;

/// Revocations that may wait for the store. More than a person revokes by hand in an outage.
const MOST_WAITING: usize = 65_536;

/// Longest hash taken from a peer, in digits.
const HASH_DIGITS: usize = 128;

/// What a revocation's body says: nothing that its name does not.
const BODY: &str = "{}";

/// Whether a revocation is in the store; if not, it is in the node's last-good file and is brought
/// there later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persisted(pub bool);

/// Is told the hash of each revocation that came to the store; must not block.
pub(super) struct Brought(Box<dyn Fn(&str) + Send + Sync>);

/// Revocations of this node. Locked for a moment only, never for the disk.
#[derive(Debug)]
pub(super) struct Revocations {
    /// Not in the store yet, by key hash.
    pending: BTreeMap<String, Waiting>,
    /// Made by this node and known to it: a poll need not tell them.
    own: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Waiting {
    change: Change,
    /// Whether the last-good file has it.
    kept: bool,
}

// === impl Revocations ===

impl Revocations {
    pub(super) fn new(pending: BTreeMap<String, Change>) -> Self {
        let waiting = |change| Waiting { change, kept: true };
        Self {
            own: pending.keys().cloned().collect(),
            pending: pending
                .into_iter()
                .map(|(hash, change)| (hash, waiting(change)))
                .collect(),
        }
    }

    /// Those that the store does not have, as entities without a revision.
    pub(super) fn entities(&self) -> impl Iterator<Item = Entity> {
        self.pending.iter().map(|(hash, waiting)| Entity {
            kind: REVOCATION.to_owned(),
            name: hash.clone(),
            revision: 0,
            body: Some(BODY.into()),
            changed_at: waiting.change.at,
        })
    }

    fn is_kept(&self, hash: &str) -> bool {
        self.pending.get(hash).is_some_and(|waiting| waiting.kept)
    }

    /// Removes what this node made itself from what the store has news of.
    pub(super) fn strip_own(&mut self, page: &mut Vec<Entity>) {
        page.retain(|entity| {
            if entity.kind != REVOCATION {
                return true;
            }
            match entity.body {
                Some(_) => !self.own.contains(&entity.name),
                // Taken back by somebody: made again, it is news.
                None => {
                    self.own.remove(&entity.name);
                    true
                }
            }
        });
    }
}

// === impl Brought ===

impl fmt::Debug for Brought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Brought")
    }
}

// === impl EntityLog ===

impl EntityLog {
    /// Makes the revocation of the key with this hash (hexadecimal digits) last: in the last-good
    /// file at once, and in the store now or, if that is away, once it is back. To revoke again does
    /// nothing more. Refuse the key before this call: it waits for disk and store.
    ///
    /// With an error neither has it: it is brought to the store later if the process lives so long.
    pub fn revoke(&self, hash: &str, change: &Change) -> Result<Persisted, WriteError> {
        let kept = self.keep(hash, change);
        match self.bring(hash, change) {
            Ok(()) => Ok(Persisted(true)),
            Err(error) => {
                tracing::warn!(hash, %error, "a revocation waits for the store");
                kept.map(|()| Persisted(false)).map_err(|_| error)
            }
        }
    }

    /// Makes a revocation last that a peer told of: in the last-good file, and by [`EntityLog`] in the
    /// store, unless it is there. Refuse the key before this call. `false` if a restart would forget
    /// it. Waits for the disk and never for the store.
    pub fn adopt_revocation(&self, hash: &str, change: &Change) -> bool {
        if hash.is_empty() || hash.len() > HASH_DIGITS {
            return false;
        }
        let is_brought = {
            let revocations = lock(&self.shared.revocations);
            revocations.own.contains(hash) && !revocations.pending.contains_key(hash)
        };
        is_brought || self.keep(hash, change).is_ok()
    }

    /// The revocations that the store does not have yet: key hashes, and who made them.
    pub fn pending_revocations(&self) -> Vec<(String, Change)> {
        let revocations = lock(&self.shared.revocations);
        let pending = revocations.pending.iter();
        pending
            .map(|(hash, waiting)| (hash.clone(), waiting.change.clone()))
            .collect()
    }

    /// Has `tell` called with the hash of each revocation of this node that comes to the store. Only
    /// the first call counts; `tell` must not block.
    pub fn on_brought(&self, tell: impl Fn(&str) + Send + Sync + 'static) {
        // A second listener is a mistake of the caller that harms nobody.
        let _ = self.shared.brought.set(Brought(Box::new(tell)));
    }

    /// How many revocations the store does not have yet.
    pub fn waiting_revocations(&self) -> usize {
        lock(&self.shared.revocations).pending.len()
    }

    /// Brings waiting revocations to the store; stops at the first that it does not take. They stay.
    pub(crate) fn bring_revocations(&self) -> Result<(), WriteError> {
        let pending = lock(&self.shared.revocations).pending.clone();
        for (hash, waiting) in pending {
            self.bring(&hash, &waiting.change)?;
            tracing::info!(hash, "a revocation that waited is in the store");
        }
        Ok(())
    }

    /// Writes the revocation down on this node.
    fn keep(&self, hash: &str, change: &Change) -> io::Result<()> {
        {
            let mut revocations = lock(&self.shared.revocations);
            if revocations.is_kept(hash) {
                return Ok(());
            }
            if revocations.pending.len() >= MOST_WAITING {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            let change = change.clone();
            let waiting = Waiting {
                change,
                kept: false,
            };
            revocations.pending.insert(hash.to_owned(), waiting);
            revocations.own.insert(hash.to_owned());
        }
        let line = Line::Pending(hash.to_owned(), change.clone());
        match self.shared.last_good.append(&[line]) {
            Ok(()) => {
                if let Some(waiting) = lock(&self.shared.revocations).pending.get_mut(hash) {
                    waiting.kept = true;
                }
                Ok(())
            }
            Err(error) => {
                tracing::error!(hash, %error, "cannot keep a revocation in the last-good file");
                Err(error)
            }
        }
    }

    /// Writes the revocation to the store, unless it is there.
    fn bring(&self, hash: &str, change: &Change) -> Result<(), WriteError> {
        let write = EntityWrite {
            kind: REVOCATION.to_owned(),
            name: hash.to_owned(),
            expect: Expect::Absent,
            body: Some(BODY.to_owned()),
        };
        let written = match self.commit(&[write], change) {
            Ok(written) => written.entities,
            // By an earlier try whose answer was lost, or by another node. The file must have it all
            // the same when it no longer waits there: no poll may come before the next start.
            Err(WriteError::Stale { found }) => vec![Entity {
                kind: REVOCATION.to_owned(),
                name: hash.to_owned(),
                revision: found.unwrap_or(0),
                body: Some(BODY.into()),
                changed_at: change.at,
            }],
            Err(error) => return Err(error),
        };
        if lock(&self.shared.revocations)
            .pending
            .remove(hash)
            .is_some()
        {
            let entities = written.into_iter().map(Line::Entity);
            let lines: Vec<Line> = entities.chain([Line::Brought(hash.to_owned())]).collect();
            if let Err(error) = self.shared.last_good.append(&lines) {
                // It stays in the file as waiting; the next start finds it in the store.
                tracing::warn!(hash, %error, "cannot add to the last-good file");
            }
        }
        if let Some(Brought(tell)) = self.shared.brought.get() {
            tell(hash);
        }
        Ok(())
    }
}
