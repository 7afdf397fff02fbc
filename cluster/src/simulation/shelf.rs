//! The entities of one process: what its entity log does, without the disk and without waiting.
//!
//! What peers push waits in the real [`Offers`] until nothing before it is missing; what the store
//! tells comes in order; what the process wrote itself is known at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::entity::{Entity, Offers};

/// By kind and name, deleted ones too.
pub(super) type Entities = BTreeMap<(String, String), Entity>;

/// The entities of a process.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) entities: Entities,
    /// Everything up to here is known.
    pub(super) revision: u64,
    /// Revisions after that which this process wrote itself.
    own: BTreeSet<u64>,
    offers: Offers,
    /// The store is being asked.
    pub(super) polling: bool,
    /// It is to be asked again after that.
    pub(super) again: bool,
}

// === impl Shelf ===

impl Shelf {
    /// What a process begins with.
    pub(super) fn of(entities: Entities, revision: u64) -> Self {
        Self {
            entities,
            revision,
            ..Self::default()
        }
    }

    /// This process wrote it.
    pub(super) fn wrote(&mut self, entity: Entity) {
        if entity.revision > self.revision {
            self.own.insert(entity.revision);
        }
        self.put(entity);
        self.pass_own();
    }

    /// A peer pushed all changes after a revision; whether it is worth a look.
    pub(super) fn offer(&mut self, after: u64, entities: Vec<Entity>) -> bool {
        let last = entities.last().map_or(0, |entity| entity.revision);
        last > self.revision && self.offers.put(after, entities)
    }

    /// Uses what was pushed, as far as nothing before it is missing.
    pub(super) fn take_offers(&mut self) {
        while let Some(page) = self.offers.take(self.revision) {
            self.take_over(page);
        }
    }

    /// All changes after the known revision up to that of the last of them.
    pub(super) fn take_over(&mut self, page: Vec<Entity>) {
        for entity in page {
            self.revision = self.revision.max(entity.revision);
            self.put(entity);
        }
        self.own = self.own.split_off(&(self.revision + 1));
        self.pass_own();
    }

    /// For a peer, while the store is away.
    pub(super) fn since(&self, after: u64) -> Vec<Entity> {
        let known = self.entities.values();
        let mut known: Vec<Entity> = known
            .filter(|entity| entity.revision > after)
            .cloned()
            .collect();
        if known.iter().any(|entity| entity.revision > self.revision) {
            return Vec::new();
        }
        known.sort_by_key(|entity| entity.revision);
        known
    }

    fn put(&mut self, entity: Entity) {
        let key = (entity.kind.clone(), entity.name.clone());
        let known = self.entities.get(&key).map_or(0, |known| known.revision);
        if entity.revision > known {
            self.entities.insert(key, entity);
        }
    }

    fn pass_own(&mut self) {
        while self.own.remove(&(self.revision + 1)) {
            self.revision += 1;
        }
    }
}
