//! Entities that were taken away lately.
//!
//! What others write comes in order from the store, and a peer may push it
//! once more, late. A body that is older than its own deletion must not bring
//! the entity back. Bounded: what is older than [`MOST`] deletions came in
//! order long ago.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::kind::Class;

/// Deletions that are remembered.
const MOST: usize = 4_096;

/// The revisions of the last deletions.
#[derive(Debug, Default)]
pub(in crate::config) struct Gone {
    revisions: BTreeMap<(Class, Arc<str>), u64>,
    order: VecDeque<(Class, Arc<str>)>,
}

impl Gone {
    /// Notes a deletion.
    pub(super) fn note(&mut self, class: Class, name: &str, revision: u64) {
        let key = (class, Arc::<str>::from(name));
        let known = self.revisions.insert(key.clone(), revision);
        if known.is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.revisions.remove(&oldest);
        }
    }

    /// Whether it was deleted after `revision`, or in it.
    pub(super) fn is_after(&self, class: Class, name: &str, revision: u64) -> bool {
        let key = (class, Arc::<str>::from(name));
        let gone = self.revisions.get(&key);
        gone.is_some_and(|gone| *gone >= revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletions_are_remembered_and_bounded() {
        let mut gone = Gone::default();
        for revision in 1..=2 * MOST as u64 {
            gone.note(Class::LimitReset, &format!("n{revision}"), revision);
        }
        assert_eq!(gone.revisions.len(), MOST);
        let newest = 2 * MOST as u64;
        let name = format!("n{newest}");
        assert!(gone.is_after(Class::LimitReset, &name, newest));
        assert!(!gone.is_after(Class::LimitReset, &name, newest + 1));
        assert!(!gone.is_after(Class::Revocation, &name, 1));
        assert!(!gone.is_after(Class::LimitReset, "n1", 1), "long ago");
    }
}
