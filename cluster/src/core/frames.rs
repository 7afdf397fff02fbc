//! What comes over links.

use std::time::Duration;

use policy::Timestamp;

use super::peer::Peer;
use super::split::patience;
use super::{Core, Now};
use crate::data_dir::NodeKey;
use crate::message::Frame;

impl Core {
    pub(super) fn frame_came(&mut self, id: u64, node: NodeKey, frame: Frame, now: Now) {
        let patience = patience(self.config.sync_interval);
        let Some(link) = self.link_mut(node).filter(|link| link.id == id) else {
            // Of a link that was closed meanwhile.
            return;
        };
        link.note_heard(patience, now.mono);
        let origin = link.hello.origin;
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.heard = Some(now.mono);
        }
        self.membership.link_heard(origin, now.mono);
        match frame {
            Frame::Hello(_) => {}
            Frame::Digest(has) => {
                let peer = self.peers.get_mut(&node);
                if let Some(link) = peer.and_then(|peer| peer.link.as_mut()) {
                    link.sync.digest(&has, &self.counting.store);
                }
            }
            Frame::CaughtUp => {
                if let Some(link) = self.link_mut(node) {
                    link.caught_up = true;
                }
                self.ready.merged = true;
            }
            Frame::Cells(batch) => self.cells_came(node, &batch, now),
            Frame::Ack(acks) => {
                self.figures.acks_received += 1;
                let me = self.config.me;
                let head = self.counting.store.seen(me);
                if let Some(link) = self.link_mut(node) {
                    for (origin, ver) in acks {
                        // Nobody can have more of this process than there is.
                        let ver = if origin == me { ver.min(head) } else { ver };
                        link.sync.acked(origin, ver, now.mono);
                    }
                }
            }
            Frame::Ping { number, sent } => self.send(
                node,
                Frame::Pong {
                    number,
                    echoed: sent,
                    wall: self.clock.raw(now),
                },
            ),
            Frame::Pong {
                number,
                echoed,
                wall,
            } => {
                self.pong_came(node, echoed, wall, now);
                self.link_answered(node, number, now);
            }
            Frame::Suspect { about } => {
                let gone = self.membership.asked_about(about);
                self.send(node, Frame::Verdict { about, gone });
            }
            Frame::Verdict { about, gone } => {
                self.membership.confirmed(about, node, gone, now.mono);
            }
            other => self.news_came(node, other, now),
        }
    }

    fn pong_came(&mut self, node: NodeKey, echoed: Duration, wall: Timestamp, now: Now) {
        let raw = self.clock.raw(now);
        let rtt = now.mono.saturating_sub(echoed);
        if let Some(link) = self.link_mut(node) {
            link.note_echo(echoed);
            link.samples.add(rtt, wall, raw);
        }
        self.aim_clock();
    }

    fn news_came(&mut self, node: NodeKey, frame: Frame, now: Now) {
        match frame {
            Frame::Entities(batch) => self.entities_came(node, batch),
            Frame::EntitiesWanted { after } => self.entities_wanted(node, after),
            Frame::Revocations { id, revocations } => {
                self.revocations_came(node, id, revocations);
            }
            Frame::Received(id) => self.received(node, id),
            Frame::Applied { revision } => self.applied_there(node, revision, now),
            Frame::Outcome(outcome) => self.outcome_told(node, outcome, now),
            Frame::StoreAway { away } => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.store_away = away;
                }
                self.members_changed = true;
            }
            Frame::Drain => {
                self.drain_told(node, now);
                self.members_changed = true;
            }
            Frame::Configuration(mark) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    let peer: &mut Peer = peer;
                    peer.mark = Some(mark);
                }
            }
            _ => {}
        }
    }

    /// The node at the other end of its link is about to go. Gossip says so, too, and may be lost.
    fn drain_told(&mut self, node: NodeKey, now: Now) {
        if let Some(origin) = self.link(node).map(|link| link.hello.origin) {
            self.membership.note_drain(origin, now.mono);
        }
    }

    fn aim_clock(&mut self) {
        let offsets = self.other_clocks().collect();
        self.clock.aim(offsets);
    }

    fn other_clocks(&self) -> impl Iterator<Item = i64> {
        let links = self.peers.values().filter_map(|peer| peer.link.as_ref());
        let samples = links.filter_map(|link| link.samples.best());
        samples.map(|sample| sample.offset_ms)
    }

    /// A node without others has its own clock alone to go by.
    pub(super) fn go_by_own_clock(&mut self) {
        if self.live_peers().next().is_none() && self.other_clocks().next().is_none() {
            self.clock.believe_steps();
        }
    }
}
