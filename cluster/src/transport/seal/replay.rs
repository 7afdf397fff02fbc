//! What was seen of each sender, so that nothing is taken twice.
//!
//! Promise: a message is admitted at most once, in whatever order messages come, as long as this
//! process lives and its sender is known; one that is more than [`WINDOW`] behind the newest is
//! refused unseen. At most [`MOST_SENDERS`] are known, and they have all had the secret: the one
//! that was silent for longest is forgotten for a new one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{OpenError, Opened};
use crate::data_dir::NodeKey;
use crate::transport::keys::KeyId;

/// How far messages of one sender may be out of order.
pub(super) const WINDOW: u64 = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// Most senders that are remembered.
const MOST_SENDERS: usize = 4096;

/// How long a sender counts among those that use a key.
const RECENT: Duration = Duration::from_secs(60);

/// All senders.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    known: BTreeMap<NodeKey, Seen>,
}

#[derive(Debug)]
struct Seen {
    boot: u64,
    newest: u64,
    /// One bit for each of the last [`WINDOW`] numbers, at its place modulo the window.
    seen: [u64; WORDS],
    key: KeyId,
    heard: Duration,
}

impl Senders {
    /// Whether `opened` is new. If so it is from now on not.
    pub(super) fn admit(&mut self, opened: &Opened, now: Duration) -> Result<(), OpenError> {
        let (node, boot) = (opened.sender.node, opened.sender.boot);
        if !self.known.contains_key(&node) {
            self.make_room();
        }
        let sender = self
            .known
            .entry(node)
            .or_insert_with(|| Seen::new(boot, opened.key));
        if boot < sender.boot {
            return Err(OpenError::EarlierBoot);
        }
        if boot > sender.boot {
            *sender = Seen::new(boot, opened.key);
        }
        sender.admit(opened.number)?;
        sender.key = opened.key;
        sender.heard = now;
        Ok(())
    }

    pub(super) fn keys_in_use(&self, now: Duration) -> Vec<(KeyId, usize)> {
        let mut counts = BTreeMap::new();
        let recent = |seen: &&Seen| now.saturating_sub(seen.heard) <= RECENT;
        for seen in self.known.values().filter(recent) {
            *counts.entry(seen.key).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    fn make_room(&mut self) {
        if self.known.len() < MOST_SENDERS {
            return;
        }
        let oldest = self.known.iter().min_by_key(|(_, seen)| seen.heard);
        if let Some(node) = oldest.map(|(&node, _)| node) {
            self.known.remove(&node);
        }
    }
}

impl Seen {
    fn new(boot: u64, key: KeyId) -> Self {
        Self {
            boot,
            newest: 0,
            seen: [0; WORDS],
            key,
            heard: Duration::ZERO,
        }
    }

    fn admit(&mut self, number: u64) -> Result<(), OpenError> {
        if number > self.newest {
            if number - self.newest >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                (self.newest + 1..number).for_each(|passed| self.clear(passed));
            }
            self.newest = number;
            self.set(number);
            return Ok(());
        }
        if self.newest - number >= WINDOW || self.is_set(number) {
            return Err(OpenError::Replayed);
        }
        self.set(number);
        Ok(())
    }

    fn set(&mut self, number: u64) {
        let (word, bit) = place(number);
        self.seen[word] |= bit;
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = place(number);
        self.seen[word] &= !bit;
    }

    fn is_set(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.seen[word] & bit != 0
    }
}

fn place(number: u64) -> (usize, u64) {
    let at = number % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}
