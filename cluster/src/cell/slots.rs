//! Counter texts as small numbers, with what is kept for each.
//!
//! Owner of the values. A slot is used again only after [`Slots::free`], so whoever keeps a slot must
//! give it up before.

use std::collections::HashMap;
use std::sync::Arc;

/// A counter's number in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u32);

impl Slot {
    pub(crate) const FIRST: Self = Self(0);
    pub(crate) const LAST: Self = Self(u32::MAX);
}

/// Values by counter text.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    /// Only looked up, never walked: its order is not the same twice.
    by_text: HashMap<Arc<str>, Slot>,
    entries: Vec<Option<(Arc<str>, T)>>,
    free: Vec<Slot>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self {
            by_text: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn find(&self, text: &str) -> Option<Slot> {
        self.by_text.get(text).copied()
    }

    /// The slot of a text, made if there is none.
    pub(crate) fn find_or_insert(&mut self, text: &Arc<str>, make: impl FnOnce() -> T) -> Slot {
        if let Some(slot) = self.find(text) {
            return slot;
        }
        let entry = Some((Arc::clone(text), make()));
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot.0 as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                // Cells are bounded far below 2^32.
                Slot(u32::try_from(self.entries.len() - 1).expect("fewer slots than cells"))
            }
        };
        self.by_text.insert(Arc::clone(text), slot);
        slot
    }

    pub(crate) fn at(&self, slot: Slot) -> Option<&T> {
        self.entries
            .get(slot.0 as usize)?
            .as_ref()
            .map(|(_, value)| value)
    }

    pub(crate) fn at_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.entries
            .get_mut(slot.0 as usize)?
            .as_mut()
            .map(|(_, value)| value)
    }

    pub(crate) fn text(&self, slot: Slot) -> Option<&Arc<str>> {
        self.entries
            .get(slot.0 as usize)?
            .as_ref()
            .map(|(text, _)| text)
    }

    pub(crate) fn free(&mut self, slot: Slot) -> Option<T> {
        let (text, value) = self.entries.get_mut(slot.0 as usize)?.take()?;
        self.by_text.remove(&text);
        self.free.push(slot);
        Some(value)
    }

    /// At most `most` taken slots from `from` on, and where to go on; `None`: at the end.
    pub(crate) fn some_from(&self, from: Slot, most: usize) -> (Vec<Slot>, Option<Slot>) {
        let start = from.0 as usize;
        let end = (start + most).min(self.entries.len());
        let taken = (start..end)
            .filter(|at| self.entries[*at].is_some())
            .map(|at| Slot(at as u32))
            .collect();
        let next = (end < self.entries.len()).then_some(Slot(end as u32));
        (taken, next)
    }
}
