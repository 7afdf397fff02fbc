//! Virtual keys that were revoked: a set that only grows.
//!
//! Promise: whoever a link is up with has every revocation that this node knows and the store does
//! not have yet, and the newest of the others: the store may be away for it. A node says that it
//! received one when it is in force there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt;

use super::{Core, Effect, Incoming};
use crate::data_dir::NodeKey;
use crate::entity::Change;
use crate::message::{Frame, MessageId, Revocation};
use crate::view::AppliedOn;

/// Most revocations that are known besides the store's. Beyond it the oldest are left to the store.
const MOST: usize = 65_536;

/// Most that are shown with the number of nodes they are in force on: who revokes one looks there.
const SHOWN: usize = 4_096;

/// How many of the newest are told to whoever comes, though the store has them.
const NEWEST: usize = 500;

/// Most of one frame.
const PER_FRAME: usize = 500;

/// Most messages whose answers are awaited.
const AWAITED: usize = 4_096;

/// Most messages of peers that wait for an answer; the oldest ones get none, and are told again over
/// the next link.
const OWED: usize = 4_096;

/// All revocations that are on their way.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    by_hash: BTreeMap<String, Entry>,
    /// Hashes by age.
    order: VecDeque<String>,
    /// Which hashes a message had, until it is answered.
    sent: BTreeMap<MessageId, (NodeKey, Vec<String>)>,
    sent_order: VecDeque<MessageId>,
    /// What nodes that came are still to be told. A link has no room for all at once.
    untold: BTreeMap<NodeKey, Vec<String>>,
    /// Messages of peers to be answered once all of these are in force here.
    owed: Vec<(NodeKey, MessageId, BTreeSet<String>)>,
}

#[derive(Debug)]
struct Entry {
    change: Change,
    in_force: bool,
    persisted: bool,
    on: BTreeSet<NodeKey>,
}

// === impl Revocations ===

impl Revocations {
    /// Whether it is news.
    fn add(&mut self, hash: &str, change: &Change, in_force: bool) -> bool {
        if let Some(entry) = self.by_hash.get_mut(hash) {
            entry.in_force |= in_force;
            return false;
        }
        if self.order.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_hash.remove(&oldest);
        }
        self.order.push_back(hash.to_owned());
        let entry = Entry {
            change: change.clone(),
            in_force,
            persisted: false,
            on: BTreeSet::new(),
        };
        self.by_hash.insert(hash.to_owned(), entry);
        true
    }

    fn is_in_force(&self, hash: &str) -> bool {
        self.by_hash.get(hash).is_none_or(|entry| entry.in_force)
    }

    /// Answers of this node will not come.
    pub(super) fn unlinked(&mut self, node: NodeKey) {
        self.untold.remove(&node);
        self.owed.retain(|(to, ..)| *to != node);
        self.sent.retain(|_, (to, _)| *to != node);
        let sent = &self.sent;
        self.sent_order.retain(|id| sent.contains_key(id));
    }

    /// On how many of the live nodes each of the newest is in force.
    pub(super) fn shown(&self, live: &BTreeSet<NodeKey>) -> BTreeMap<String, AppliedOn> {
        let newest = self.order.iter().rev().take(SHOWN);
        newest
            .filter_map(|hash| {
                let entry = self.by_hash.get(hash)?;
                let on = entry.on.intersection(live).count() + usize::from(entry.in_force);
                let of = live.len() + 1;
                Some((hash.clone(), AppliedOn { on, of }))
            })
            .collect()
    }
}

// === impl Core ===

impl Core {
    /// A key was revoked here.
    pub(super) fn revoke(&mut self, hash: &str, change: &Change) {
        if self.revocations.add(hash, change, true) {
            self.spread(vec![hash.to_owned()], None);
        } else {
            self.revocation_applied(hash);
        }
    }

    /// A revocation of a peer is in force here.
    pub(super) fn revocation_applied(&mut self, hash: &str) {
        if let Some(entry) = self.revocations.by_hash.get_mut(hash) {
            entry.in_force = true;
        }
        for (_, _, open) in &mut self.revocations.owed {
            open.remove(hash);
        }
        self.answer_owed();
    }

    pub(super) fn revocation_persisted(&mut self, hash: &str) {
        if let Some(entry) = self.revocations.by_hash.get_mut(hash) {
            entry.persisted = true;
        }
    }

    pub(super) fn revocations_came(
        &mut self,
        from: NodeKey,
        id: MessageId,
        revocations: Vec<Revocation>,
    ) {
        self.figures.revocations_received += revocations.len() as u64;
        let mut news = Vec::new();
        let mut open = BTreeSet::new();
        for Revocation { hash, change } in revocations {
            if self.revocations.add(&hash, &change, false) {
                news.push(hash.clone());
            }
            if let Some(entry) = self.revocations.by_hash.get_mut(&hash) {
                // Who tells it has it.
                entry.on.insert(from);
            }
            if !self.revocations.is_in_force(&hash) {
                // Also again: there may have been no room for it the first time.
                self.effects.push(Effect::Incoming(Incoming::Revoked {
                    hash: hash.clone(),
                    change,
                }));
                open.insert(hash);
            }
        }
        let owed = &mut self.revocations.owed;
        if owed.len() >= OWED {
            owed.remove(0);
        }
        owed.push((from, id, open));
        self.answer_owed();
        if !news.is_empty() {
            // The sender may not reach everybody that this node reaches.
            self.spread(news, Some(from));
        }
    }

    pub(super) fn received(&mut self, node: NodeKey, id: MessageId) {
        self.send_untold(node);
        let Some((_, hashes)) = self.revocations.sent.remove(&id) else {
            return;
        };
        for hash in hashes {
            if let Some(entry) = self.revocations.by_hash.get_mut(&hash) {
                entry.on.insert(node);
            }
        }
    }

    /// Everything the store does not have, and the newest, to a node that has just come; a part with
    /// each answer.
    pub(super) fn send_revocations(&mut self, node: NodeKey) {
        let set = &self.revocations;
        let newest: BTreeSet<&String> = set.order.iter().rev().take(NEWEST).collect();
        let open: Vec<String> = set
            .by_hash
            .iter()
            .filter(|(hash, entry)| !entry.persisted || newest.contains(hash))
            .map(|(hash, _)| hash.clone())
            .collect();
        self.revocations.untold.insert(node, open);
        self.send_untold(node);
    }

    fn send_untold(&mut self, node: NodeKey) {
        let Some(untold) = self.revocations.untold.get_mut(&node) else {
            return;
        };
        let some = untold.split_off(untold.len().saturating_sub(PER_FRAME));
        if untold.is_empty() {
            self.revocations.untold.remove(&node);
        }
        if !some.is_empty() {
            self.send_some(node, some);
        }
    }

    fn spread(&mut self, hashes: Vec<String>, except: Option<NodeKey>) {
        let linked: Vec<NodeKey> = self
            .peers
            .iter()
            .filter(|(node, peer)| peer.link.is_some() && Some(**node) != except)
            .map(|(node, _)| *node)
            .collect();
        for node in linked {
            for some in hashes.chunks(PER_FRAME) {
                self.send_some(node, some.to_vec());
            }
        }
    }

    fn send_some(&mut self, node: NodeKey, hashes: Vec<String>) {
        let id = MessageId(self.rng.random());
        let set = &mut self.revocations;
        let revocations = hashes
            .iter()
            .filter_map(|hash| {
                let change = set.by_hash.get(hash)?.change.clone();
                let hash = hash.clone();
                Some(Revocation { hash, change })
            })
            .collect();
        if set.sent_order.len() >= AWAITED
            && let Some(oldest) = set.sent_order.pop_front()
        {
            set.sent.remove(&oldest);
        }
        set.sent_order.push_back(id);
        set.sent.insert(id, (node, hashes));
        self.send(node, Frame::Revocations { id, revocations });
    }

    fn answer_owed(&mut self) {
        let owed = std::mem::take(&mut self.revocations.owed);
        for (node, id, open) in owed {
            if open.is_empty() {
                self.send(node, Frame::Received(id));
            } else {
                self.revocations.owed.push((node, id, open));
            }
        }
    }
}
