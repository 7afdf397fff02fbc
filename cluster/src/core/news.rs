//! Entities and configuration: what was written here is pushed to all, and who is behind asks.
//!
//! The store stays the authority; this only makes it fast, and works while the store is away.

use std::time::Duration;

use rand::RngExt;

use super::{Core, Effect, Incoming, Now, StoreRequest};
use crate::data_dir::NodeKey;
use crate::entity::Entity;
use crate::message::{ConfigurationMark, EntityBatch, Frame, MessageId};

/// How long a peer may be ahead before it is asked: the store is usually faster.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often a peer is asked.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// About how many bytes of entities go in one frame.
const FRAME_BYTES: usize = 1 << 20;

/// A revision larger than this is not pushed: a link takes no such frame.
const MOST_BYTES: usize = 3 << 20;

/// What this node serves by.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The revision of entities.
    pub(super) applied: Option<u64>,
    pub(super) mark: Option<ConfigurationMark>,
    /// Up to where the entity log has told them: not all need fit here.
    read: u64,
    /// Up to where peers have sent them.
    brought: Option<u64>,
    next_ask: Duration,
    /// The store was asked for what peers want.
    asking: bool,
}

// === impl News ===

impl News {
    /// After which revision something is missing here.
    fn known(&self) -> u64 {
        self.read.max(self.applied.unwrap_or(0))
    }
}

// === impl Core ===

impl Core {
    /// Entities that were just written here.
    pub(super) fn announce(&mut self, entities: Vec<Entity>) {
        let Some(first) = entities.first() else {
            return;
        };
        let after = first.revision.saturating_sub(1);
        for batch in self.batches(after, entities) {
            self.send_all(&Frame::Entities(batch), None);
        }
    }

    /// All changes after a revision, in parts that follow one another.
    fn batches(&mut self, mut after: u64, entities: Vec<Entity>) -> Vec<EntityBatch> {
        let mut batches = Vec::new();
        let (frames, too_large) = in_frames(entities);
        if let Some(revision) = too_large {
            self.figures.revisions_too_large += 1;
            tracing::error!(
                revision,
                "a change of entities is too large for a link: others have it, and what follows it, \
                 from the store alone"
            );
        }
        for entities in frames {
            let last = entities.last().map_or(after, |entity| entity.revision);
            let id = MessageId(self.rng.random());
            batches.push(EntityBatch {
                id,
                after,
                entities,
            });
            after = last;
        }
        batches
    }

    pub(super) fn entities_came(&mut self, from: NodeKey, batch: EntityBatch) {
        self.figures.entities_received += batch.entities.len() as u64;
        self.send(from, Frame::Received(batch.id));
        if let Some(last) = batch.entities.last() {
            self.news.brought = self.news.brought.max(Some(last.revision));
            self.effects.push(Effect::Offer {
                after: batch.after,
                entities: batch.entities,
            });
            self.effects.push(Effect::Incoming(Incoming::Poll));
        }
    }

    pub(super) fn entities_wanted(&mut self, node: NodeKey, after: u64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.wants = Some(after);
        }
        self.ask_for_peers();
    }

    /// One question at a time, for all who ask the same: after an outage many do, and the store has
    /// other things to do.
    fn ask_for_peers(&mut self) {
        let linked = self.peers.values().filter(|peer| peer.link.is_some());
        let Some(after) = linked.filter_map(|peer| peer.wants).min() else {
            return;
        };
        if !std::mem::replace(&mut self.news.asking, true) {
            self.ask(StoreRequest::EntitiesSince { after });
        }
    }

    /// The answer for peers that asked; those that get none ask again.
    pub(super) fn entities_found(&mut self, after: u64, found: Result<Vec<Entity>, ()>) {
        self.news.asking = false;
        let asked = self.peers.iter_mut();
        let asked: Vec<NodeKey> = asked
            .filter_map(|(node, peer)| peer.wants.take_if(|wants| *wants == after).map(|_| *node))
            .collect();
        for batch in self.batches(after, found.unwrap_or_default()) {
            for node in &asked {
                self.send(*node, Frame::Entities(batch.clone()));
            }
        }
        self.ask_for_peers();
    }

    /// This node serves by the entities up to `revision`.
    pub(super) fn applied_here(&mut self, revision: u64) {
        self.entities_read(revision);
        if self.news.applied != Some(revision) {
            self.news.applied = Some(revision);
            self.send_all(&Frame::Applied { revision }, None);
        }
    }

    /// The entity log has told all up to `revision`. When that is all that peers have sent, who is
    /// still ahead is asked for more at once.
    pub(super) fn entities_read(&mut self, revision: u64) {
        let news = &mut self.news;
        news.read = news.read.max(revision);
        if news.brought.take_if(|last| *last <= revision).is_some() {
            news.next_ask = Duration::ZERO;
        }
    }

    /// Whether a linked peer serves by newer entities than this node.
    pub(super) fn is_behind(&self) -> bool {
        let linked = self.peers.values().filter(|peer| peer.link.is_some());
        linked
            .filter_map(|peer| peer.applied)
            .any(|theirs| theirs > self.news.applied.unwrap_or(0))
    }

    pub(super) fn applied_there(&mut self, node: NodeKey, revision: u64, now: Now) {
        let mine = self.news.known();
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.applied = Some(revision);
        if revision > mine && peer.ahead_since.is_none() {
            peer.ahead_since = Some(now.mono);
            self.effects.push(Effect::Incoming(Incoming::Poll));
        }
    }

    /// Asks a peer that has been ahead for too long.
    pub(super) fn ask_for_entities(&mut self, now: Now) {
        let mine = self.news.known();
        let mut ahead = None;
        for (node, peer) in &mut self.peers {
            if peer.applied.is_none_or(|theirs| theirs <= mine) || peer.link.is_none() {
                peer.ahead_since = None;
            } else if peer
                .ahead_since
                .is_some_and(|since| now.mono.saturating_sub(since) >= PATIENCE)
            {
                ahead = ahead.max(Some((peer.applied, *node)));
            }
        }
        if let Some((_, node)) = ahead
            && now.mono >= self.news.next_ask
        {
            self.news.next_ask = now.mono + ASK_EVERY;
            self.send(node, Frame::EntitiesWanted { after: mine });
        }
    }

    pub(super) fn set_configuration(&mut self, mark: ConfigurationMark) {
        self.send_all(&Frame::Configuration(mark.clone()), None);
        self.news.mark = Some(mark);
    }
}

/// Cuts a list between revisions, so that each part fits a frame. A revision that fits none, which is
/// returned too, ends the list: what follows must not come without it.
fn in_frames(entities: Vec<Entity>) -> (Vec<Vec<Entity>>, Option<u64>) {
    let mut too_large = None;
    let (mut frames, mut frame, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut entities = entities.into_iter().peekable();
    while let Some(first) = entities.next() {
        let revision = first.revision;
        let mut same = vec![first];
        while let Some(next) = entities.next_if(|next| next.revision == revision) {
            same.push(next);
        }
        let size: usize = same.iter().map(weight).sum();
        if size > MOST_BYTES {
            too_large = Some(revision);
            break;
        }
        if bytes + size > FRAME_BYTES && !frame.is_empty() {
            frames.push(std::mem::take(&mut frame));
            bytes = 0;
        }
        bytes += size;
        frame.append(&mut same);
    }
    if !frame.is_empty() {
        frames.push(frame);
    }
    (frames, too_large)
}

fn weight(entity: &Entity) -> usize {
    let body = entity.body.as_ref().map_or(0, |body| body.len());
    entity.kind.len() + entity.name.len() + body + 64
}

#[cfg(test)]
mod tests {
    use policy::Timestamp;

    use super::*;

    fn entity(revision: u64, bytes: usize) -> Entity {
        Entity {
            kind: "team".to_owned(),
            name: "a".to_owned(),
            revision,
            body: Some("x".repeat(bytes).into()),
            changed_at: Timestamp(0),
        }
    }

    #[test]
    fn a_revision_is_never_cut_in_two() {
        let half = FRAME_BYTES * 2 / 3;
        let list = vec![
            entity(1, half),
            entity(2, half),
            entity(2, half),
            entity(3, 1),
        ];
        let (frames, too_large) = in_frames(list);
        assert_eq!(too_large, None);
        let revisions: Vec<Vec<u64>> = frames
            .iter()
            .map(|frame| frame.iter().map(|entity| entity.revision).collect())
            .collect();
        assert_eq!(revisions, [vec![1], vec![2, 2], vec![3]]);
    }

    #[test]
    fn nothing_comes_after_a_revision_that_fits_no_frame() {
        let list = vec![entity(1, 10), entity(2, MOST_BYTES), entity(3, 10)];
        let (frames, too_large) = in_frames(list);
        assert_eq!((frames.len(), too_large), (1, Some(2)));
        assert_eq!(frames[0][0].revision, 1);
    }
}
