//! The way to the entities: what a node and its admin API do with them.
//!
//! The store is asked first, always; the last-good file is written after it, so that it never says
//! more than the store does, except for revocations, which must last when the store is away. What
//! peers send of the store's entities is used when nothing before it is missing.
//! Failure: a write that the store refused changed nothing; a last-good file that cannot be written
//! is logged and counted against nobody, for it is only what the next start falls back to.

mod offers;
mod revocation;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub(crate) use self::offers::Offers;
pub use self::revocation::Persisted;
use self::revocation::{Brought, Revocations};
use super::last_good::{LastGood, Line};
use super::{Change, Entity, EntityWrite, keep_newest};
use crate::audit::{self, AuditKey, AuditRow, Verified, VerifyError};
use crate::error::{StartError, StoreError, WriteError};
use crate::store::{Store, Written};

/// Entities read from the store at once.
const PAGE: u32 = 4_096;

/// Entities told to a peer at once, and about how many bytes; a revision is never cut in two.
const PEER_PAGE: u32 = 512;
const PEER_BYTES: usize = 2 << 20;

/// The node's entities. Cheap to clone. Calls block for disk and store: not for threads that serve
/// requests.
#[derive(Clone, Debug)]
pub struct EntityLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    last_good: LastGood,
    key: Mutex<AuditKey>,
    loaded: Mutex<Vec<Entity>>,
    /// Held while the store is written, or read by revision, so that no poll sees a write of this
    /// node before it is known as such.
    seen: Mutex<Seen>,
    /// As in `seen`, for who must not wait.
    revision: AtomicU64,
    /// From peers; never locked for long, as is what follows.
    offers: Mutex<Offers>,
    revocations: Mutex<Revocations>,
    /// Told of each revocation that came to the store.
    brought: OnceLock<Brought>,
}

/// How far this node has read.
#[derive(Debug, Default)]
struct Seen {
    revision: u64,
    /// Revisions after `revision` that this node wrote itself.
    own: BTreeSet<u64>,
    /// The last-good file lacks something, so it must not say that it has everything up to here.
    gap: bool,
}

impl EntityLog {
    /// Reads what the store has, and puts it into the last-good file in `data_dir`. Revocations that
    /// wait there stay.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        key: AuditKey,
        data_dir: &Path,
    ) -> Result<Self, StartError> {
        let last_good = LastGood::new(data_dir);
        let pending = last_good.pending().map_err(unreadable(data_dir))?;
        let mut seen = Seen::default();
        let mut loaded = Vec::new();
        loop {
            let page = store.entities_since(seen.revision, PAGE);
            let page = page.map_err(StartError::Store)?;
            let Some(last) = page.last() else { break };
            seen.revision = last.revision;
            loaded.extend(page);
        }
        keep_newest(&mut loaded);
        if let Err(error) = last_good.replace(&loaded, seen.revision) {
            tracing::warn!(%error, "cannot write the last-good file of the entities");
            seen.gap = true;
        }
        let revocations = Revocations::new(pending);
        Ok(Self::new(store, last_good, key, loaded, seen, revocations))
    }

    /// Takes what the last-good file in `data_dir` has, for when the store is away. Once it is back,
    /// [`EntityLog::poll`] tells what was changed meanwhile.
    pub(crate) fn open_last_good(
        store: Arc<dyn Store>,
        key: AuditKey,
        data_dir: &Path,
    ) -> Result<Self, StartError> {
        let last_good = LastGood::new(data_dir);
        let contents = last_good.read().map_err(unreadable(data_dir))?;
        let seen = Seen {
            revision: contents.seen,
            ..Seen::default()
        };
        let loaded = contents.entities.into_values().collect();
        let revocations = Revocations::new(contents.pending);
        Ok(Self::new(store, last_good, key, loaded, seen, revocations))
    }

    fn new(
        store: Arc<dyn Store>,
        last_good: LastGood,
        key: AuditKey,
        mut loaded: Vec<Entity>,
        seen: Seen,
        revocations: Revocations,
    ) -> Self {
        loaded.retain(|entity| entity.body.is_some());
        loaded.extend(revocations.entities());
        Self {
            shared: Arc::new(Shared {
                store,
                last_good,
                key: Mutex::new(key),
                loaded: Mutex::new(loaded),
                revision: AtomicU64::new(seen.revision),
                seen: Mutex::new(seen),
                offers: Mutex::default(),
                revocations: Mutex::new(revocations),
                brought: OnceLock::new(),
            }),
        }
    }

    /// The entities as they were at start, without deleted ones; a revocation that the store does
    /// not have yet stands with revision 0. Given once: they may be many.
    pub fn loaded(&self) -> Vec<Entity> {
        std::mem::take(&mut *lock(&self.shared.loaded))
    }

    /// Writes all of them and the change's audit row, or nothing. Returns them in their order, all
    /// with the same new revision; [`EntityLog::poll`] does not repeat them. After an error of the
    /// store it is unknown whether they were written: if they were, `poll` tells them.
    pub fn write(
        &self,
        writes: &[EntityWrite],
        change: &Change,
    ) -> Result<Vec<Entity>, WriteError> {
        let mut seen = lock(&self.shared.seen);
        let written = self.commit(writes, change)?;
        let before = seen.revision;
        if let Some(entity) = written.entities.first() {
            seen.own.insert(entity.revision);
            seen.pass_own();
            self.publish(&seen);
        }
        // While the store is away peers are told no more than the file has everything of.
        let up_to = (seen.revision != before).then_some(seen.revision);
        self.note(&mut seen, &written.entities, up_to);
        Ok(written.entities)
    }

    /// Keeps the audit row of a change that wrote no entities.
    pub fn record(&self, change: &Change) -> Result<(), StoreError> {
        let key = self.key();
        announce(&self.shared.store.record_change(change, &key)?);
        Ok(())
    }

    /// What others wrote since the last call, or since the start, tombstones too: each once, about
    /// 4,096 at most. Call it again until there is nothing. What peers sent comes first and needs no
    /// store; whether there is more, the store says.
    pub fn poll(&self) -> Result<Vec<Entity>, StoreError> {
        let mut seen = lock(&self.shared.seen);
        loop {
            let offered = lock(&self.shared.offers).take(seen.revision);
            let mut page = match offered {
                Some(page) => page,
                None => self.shared.store.entities_since(seen.revision, PAGE)?,
            };
            let Some(last) = page.last() else {
                return Ok(page);
            };
            seen.revision = last.revision;
            page.retain(|entity| !seen.own.contains(&entity.revision));
            let after = seen.revision + 1;
            seen.own = seen.own.split_off(&after);
            seen.pass_own();
            self.publish(&seen);
            // Those of this node are in the file already.
            let revision = seen.revision;
            self.note(&mut seen, &page, Some(revision));
            lock(&self.shared.revocations).strip_own(&mut page);
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }

    /// Takes from a peer all changes after the revision `after` up to that of the last of them; only
    /// whole revisions, in their order. The next poll uses them if it has seen everything up to
    /// `after`. `true` if a poll is worth it. Waits for nothing.
    pub fn offer(&self, after: u64, entities: Vec<Entity>) -> bool {
        let last = entities.last().map_or(0, |entity| entity.revision);
        last > self.revision() && lock(&self.shared.offers).put(after, entities)
    }

    /// Entities changed after a revision, for a peer: from the store or, while that is away, what
    /// this node knows of it. About 512 or 2 MiB, the next ones after the last's revision; a revision
    /// is never cut in two.
    pub fn since(&self, after: u64) -> Result<Vec<Entity>, StoreError> {
        let mut page = match self.shared.store.entities_since(after, PEER_PAGE) {
            Ok(page) => page,
            Err(error) => self.known_since(after).map_err(|_| error)?,
        };
        let mut bytes = 0;
        let cut = page.windows(2).position(|pair| {
            bytes += offers::bytes_of(&pair[0]);
            bytes > PEER_BYTES && pair[0].revision != pair[1].revision
        });
        if let Some(cut) = cut {
            page.truncate(cut + 1);
        }
        Ok(page)
    }

    /// The revision up to which this node has told everything, by [`EntityLog::poll`] or because it
    /// wrote it itself. Waits for nothing.
    pub fn revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// From the last-good file: no more than it has everything of.
    fn known_since(&self, after: u64) -> io::Result<Vec<Entity>> {
        let contents = self.shared.last_good.read()?;
        let seen = contents.seen;
        let mut known: Vec<Entity> = contents.entities.into_values().collect();
        known.retain(|entity| entity.revision > after && entity.revision <= seen);
        known.sort_by_key(|entity| entity.revision);
        if let Some(last) = known.get(PEER_PAGE as usize - 1) {
            let last = last.revision;
            known.retain(|entity| entity.revision <= last);
        }
        Ok(known)
    }

    fn publish(&self, seen: &Seen) {
        self.shared.revision.store(seen.revision, Ordering::Release);
    }

    /// The next `most` rows of the audit log after a number (0: from the first), in their order.
    pub fn audit(&self, after_seq: u64, most: u32) -> Result<Vec<AuditRow>, StoreError> {
        self.shared.store.audit_rows(after_seq, most)
    }

    /// Walks the whole audit log. `keys` are all that it was ever written with.
    pub fn verify_audit(&self, keys: &[AuditKey]) -> Result<Verified, VerifyError> {
        audit::verify_store(&*self.shared.store, keys)
    }

    /// The key for rows from now on, for when the configuration's keys have changed.
    pub fn use_audit_key(&self, key: AuditKey) {
        *lock(&self.shared.key) = key;
    }

    fn commit(&self, writes: &[EntityWrite], change: &Change) -> Result<Written, WriteError> {
        let key = self.key();
        let written = self.shared.store.write_entities(writes, change, &key)?;
        announce(&written.row);
        Ok(written)
    }

    /// Brings the last-good file up to what the store was seen to have.
    fn note(&self, seen: &mut Seen, entities: &[Entity], up_to: Option<u64>) {
        let entities = entities.iter().cloned().map(Line::Entity);
        let up_to = up_to.filter(|_| !seen.gap).map(Line::Seen);
        let lines: Vec<Line> = entities.chain(up_to).collect();
        if let Err(error) = self.shared.last_good.append(&lines) {
            tracing::warn!(%error, "cannot add to the last-good file of the entities");
            seen.gap = true;
        }
    }

    fn key(&self) -> AuditKey {
        lock(&self.shared.key).clone()
    }
}

// === impl Seen ===

impl Seen {
    /// Goes on over what this node wrote itself.
    fn pass_own(&mut self) {
        while self.own.remove(&(self.revision + 1)) {
            self.revision += 1;
        }
    }
}

/// Leaves a trace of the row outside of the database.
pub(crate) fn announce(row: &AuditRow) {
    tracing::info!(
        target: "tyr::audit",
        seq = row.seq,
        hash = hex::encode(row.hash),
        revision = row.revision,
        actor = row.change.actor,
        peer = row.change.peer,
        action = row.change.action,
        kind = row.change.kind,
        name = row.change.name,
        "audit row written"
    );
}

fn unreadable(data_dir: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = LastGood::file(data_dir);
    move |source| StartError::DataDir {
        action: "read",
        path,
        source,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic inside leaves whole values: each change is one assignment, insertion or removal.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
