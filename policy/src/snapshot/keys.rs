//! The virtual keys of a snapshot in persistent maps: by hash for requests,
//! by name for the admin API.
//!
//! Promise: a hash leads to one key at most, and only to a key that carries
//! it. Changing one key among n costs O(log n) and copies nothing else; one
//! that keeps its value leaves the names as they are.

use std::hash::RandomState;
use std::ops::Bound;
use std::sync::Arc;

use rpds::{HashTrieMapSync, HashTrieSetSync, RedBlackTreeMapSync};

use crate::time::Timestamp;
use crate::virtual_key::{KeyHash, VirtualKey};

/// All keys, and the hashes that no key may use any more.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    by_hash: HashTrieMapSync<KeyHash, Arc<VirtualKey>>,
    /// The value of each key, in order of names.
    values: RedBlackTreeMapSync<Arc<str>, KeyHash>,
    /// Keys whose value another key has taken over; hardly ever any.
    displaced: RedBlackTreeMapSync<Arc<str>, Arc<VirtualKey>>,
    revoked: HashTrieSetSync<KeyHash>,
}

/// Children of a node of the map by hash. A change copies the nodes on its
/// way and touches all their children, a look-up only goes through them.
const DEGREE: u8 = 8;

/// Why a presented value gives no access; a value, not a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// No key has it, or it was replaced and its time of grace is over.
    #[error("no such key")]
    Unknown,
    /// It, or the value that replaced it, was revoked.
    #[error("this key was revoked")]
    Revoked,
    /// Its key is switched off.
    #[error("this key is not active")]
    Inactive,
    /// Its key holds only later.
    #[error("this key is not valid before {from}")]
    NotYetValid {
        /// The first instant at which it holds.
        from: Timestamp,
    },
    /// Its key no longer holds.
    #[error("this key expired at {at}")]
    Expired {
        /// The first instant at which it no longer held.
        at: Timestamp,
    },
}

// === impl Keys ===

impl Default for Keys {
    fn default() -> Self {
        let hasher = RandomState::new();
        Self {
            by_hash: HashTrieMapSync::new_with_hasher_and_degree_and_ptr_kind(hasher, DEGREE),
            values: RedBlackTreeMapSync::default(),
            displaced: RedBlackTreeMapSync::default(),
            revoked: HashTrieSetSync::default(),
        }
    }
}

impl Keys {
    /// Puts a key in the place of the one of its name.
    pub(super) fn put(&mut self, mut key: VirtualKey) {
        key.retiring.shrink_to_fit();
        key.grants.shrink_to_fit();
        let key = Arc::new(key);
        let old = self.present(&key).cloned();
        if let Some(old) = &old {
            self.displaced.remove_mut(&key.name);
            for hash in hashes(old).filter(|hash| hashes(&key).all(|kept| kept != *hash)) {
                self.forget(hash, old);
            }
        }
        for hash in hashes(&key) {
            self.displace(hash, &key.name);
            self.by_hash.insert_mut(*hash, Arc::clone(&key));
        }
        if old.is_none_or(|old| old.hash != key.hash) {
            self.values.insert_mut(Arc::clone(&key.name), key.hash);
        }
    }

    /// The key of the same name; found by its value if that has not changed,
    /// which is the shorter way.
    fn present(&self, key: &VirtualKey) -> Option<&Arc<VirtualKey>> {
        self.by_hash(&key.hash)
            .filter(|old| old.name == key.name && old.hash == key.hash)
            .or_else(|| self.named(&key.name))
    }

    pub(super) fn remove(&mut self, name: &str) {
        let Some(old) = self.named(name).cloned() else {
            return;
        };
        self.values.remove_mut(name);
        self.displaced.remove_mut(name);
        for hash in hashes(&old) {
            self.forget(hash, &old);
        }
    }

    /// Takes a hash from `old`, unless another key has it now.
    fn forget(&mut self, hash: &KeyHash, old: &Arc<VirtualKey>) {
        if self.by_hash(hash).is_some_and(|key| Arc::ptr_eq(key, old)) {
            self.by_hash.remove_mut(hash);
        }
    }

    /// Keeps a key that loses its value to the key `name` within reach.
    fn displace(&mut self, hash: &KeyHash, name: &Arc<str>) {
        let loser = self.by_hash(hash);
        let loser = loser.filter(|loser| loser.hash == *hash && loser.name != *name);
        if let Some(loser) = loser.cloned() {
            self.displaced.insert_mut(Arc::clone(&loser.name), loser);
        }
    }

    pub(super) fn revoke(&mut self, hash: KeyHash) {
        self.revoked.insert_mut(hash);
    }

    pub(super) fn pardon(&mut self, hash: &KeyHash) {
        self.revoked.remove_mut(hash);
    }

    pub(super) fn authenticate(
        &self,
        hash: &KeyHash,
        now: Timestamp,
    ) -> Result<&Arc<VirtualKey>, KeyRefusal> {
        // Also without a key: a revoked value stays so when its key is gone.
        if self.is_revoked(hash) {
            return Err(KeyRefusal::Revoked);
        }
        let key = self.by_hash(hash).ok_or(KeyRefusal::Unknown)?;
        if *hash != key.hash {
            // Revoking a key means its earlier values too.
            if self.is_revoked(&key.hash) {
                return Err(KeyRefusal::Revoked);
            }
            let until = key.retiring.iter().filter(|(old, _)| old == hash);
            if until
                .map(|(_, until)| *until)
                .max()
                .is_none_or(|until| until <= now)
            {
                return Err(KeyRefusal::Unknown);
            }
        }
        match (key.active, key.not_before, key.expires_at) {
            (_, _, Some(at)) if at <= now => Err(KeyRefusal::Expired { at }),
            (false, _, _) => Err(KeyRefusal::Inactive),
            (_, Some(from), _) if now < from => Err(KeyRefusal::NotYetValid { from }),
            _ => Ok(key),
        }
    }

    pub(super) fn by_hash(&self, hash: &KeyHash) -> Option<&Arc<VirtualKey>> {
        self.by_hash.get(hash)
    }

    pub(super) fn named(&self, name: &str) -> Option<&Arc<VirtualKey>> {
        let (name, value) = self.values.get_key_value(name)?;
        self.of(name, value)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<VirtualKey>> {
        self.after(None)
    }

    pub(super) fn after(&self, name: Option<&str>) -> impl Iterator<Item = &Arc<VirtualKey>> {
        let from = match name {
            Some(name) => Bound::Excluded(Arc::<str>::from(name)),
            None => Bound::Unbounded,
        };
        self.values
            .range((from, Bound::Unbounded))
            .filter_map(|(name, value)| self.of(name, value))
    }

    pub(super) fn len(&self) -> usize {
        self.values.size()
    }

    fn of(&self, name: &Arc<str>, value: &KeyHash) -> Option<&Arc<VirtualKey>> {
        self.by_hash(value)
            .filter(|key| key.name == *name)
            .or_else(|| self.displaced.get(name))
    }

    pub(super) fn is_revoked(&self, hash: &KeyHash) -> bool {
        self.revoked.contains(hash)
    }
}

/// Every hash that a key carries; the retiring ones may have had their time.
fn hashes(key: &VirtualKey) -> impl Iterator<Item = &KeyHash> {
    std::iter::once(&key.hash).chain(key.retiring.iter().map(|(hash, _)| hash))
}
