//! Entities that peers sent, until a poll takes them.
//!
//! Promise: nothing is taken before all that came before it, so a poll that uses an offer has seen as
//! much as one that asked the store. What is too large, out of order or has no room is dropped: the
//! store has it.

use std::collections::BTreeMap;

use crate::entity::Entity;

/// Longest body taken from a peer, in bytes.
const BODY_BYTES: usize = 1 << 20;

/// Longest kind or name taken from a peer, in bytes.
const NAME_BYTES: usize = 1_024;

/// Largest revision that a store can give.
const LARGEST: u64 = i64::MAX as u64;

/// Most entities that wait, and their bytes.
const MOST: usize = 8_192;
const MOST_BYTES: usize = 16 << 20;

/// What waits. Locked for a moment only.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    /// By the revision after which it has everything up to its last.
    waiting: BTreeMap<u64, Vec<Entity>>,
    count: usize,
    bytes: usize,
}

// === impl Offers ===

impl Offers {
    /// Keeps all changes after a revision up to that of the last of these; `false` if it cannot.
    pub(crate) fn put(&mut self, after: u64, entities: Vec<Entity>) -> bool {
        let bytes: usize = entities.iter().map(bytes_of).sum();
        let is_news = match self.waiting.get(&after) {
            Some(known) => last(known) < last(&entities),
            None => true,
        };
        if !is_news || !is_sound(after, &entities) {
            return false;
        }
        self.remove(after);
        if self.count + entities.len() > MOST || self.bytes + bytes > MOST_BYTES {
            return false;
        }
        self.count += entities.len();
        self.bytes += bytes;
        self.waiting.insert(after, entities);
        true
    }

    /// All changes after `seen` up to some revision, if they are here.
    pub(crate) fn take(&mut self, seen: u64) -> Option<Vec<Entity>> {
        loop {
            let (after, entities) = self.waiting.first_key_value()?;
            let (after, last) = (*after, last(entities));
            if after > seen {
                return None;
            }
            let mut entities = self.remove(after)?;
            if last > seen {
                entities.retain(|entity| entity.revision > seen);
                return Some(entities);
            }
        }
    }

    fn remove(&mut self, after: u64) -> Option<Vec<Entity>> {
        let entities = self.waiting.remove(&after)?;
        self.count -= entities.len();
        self.bytes -= entities.iter().map(bytes_of).sum::<usize>();
        Some(entities)
    }
}

fn last(entities: &[Entity]) -> u64 {
    entities.last().map_or(0, |entity| entity.revision)
}

/// Whether these can be changes after a revision, of a size that this node takes.
fn is_sound(after: u64, entities: &[Entity]) -> bool {
    let is_small = |entity: &Entity| {
        let body = entity.body.as_ref().map_or(0, |body| body.len());
        body <= BODY_BYTES && entity.kind.len() <= NAME_BYTES && entity.name.len() <= NAME_BYTES
    };
    entities.first().is_some_and(|first| first.revision > after)
        && entities.is_sorted_by_key(|entity| entity.revision)
        && last(entities) < LARGEST
        && entities.iter().all(is_small)
}

/// About what it takes in memory, or in a message.
pub(super) fn bytes_of(entity: &Entity) -> usize {
    let body = entity.body.as_ref().map_or(0, |body| body.len());
    64 + entity.kind.len() + entity.name.len() + body
}
