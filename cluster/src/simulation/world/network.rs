//! Links between processes: how they are made, what comes through them, and how they end.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::links::{Life, Link, SILENCE};
use super::super::node::at_address;
use super::super::scenario::Sabotage;
use super::{Event, World};
use crate::core::{Input, ProbeOutcome};
use crate::data_dir::NodeKey;
use crate::message::Frame;

/// A dial that nobody answers is given up after this.
const DIAL_TIME: Duration = Duration::from_secs(10);

/// So is a probe.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// How often a stream tries again to get what it has to the other end.
const RETRY: Duration = Duration::from_millis(50);

impl World {
    pub(super) fn dial(&mut self, node: usize, key: NodeKey, name: String, addr: SocketAddr) {
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let life = process.life;
        let target = at_address(addr).filter(|target| *target < self.nodes.len());
        let reached = target.filter(|target| {
            self.paths.pair_cut_since(node, *target).is_none() && !self.nodes[*target].host_gone
        });
        let Some(target) = reached else {
            let input = Input::DialFailed {
                node: key,
                refused: false,
            };
            return self
                .agenda
                .after(DIAL_TIME, Event::Tell { node, life, input });
        };
        let way = self.paths.stretch(node, target, &mut self.chance);
        let other = &self.nodes[target];
        let Some(listening) = &other.process else {
            let input = Input::DialFailed {
                node: key,
                refused: true,
            };
            return self
                .agenda
                .after(way * 2, Event::Tell { node, life, input });
        };
        // Another node may have come to the address; its certificate does not have the name.
        if other.name != name || listening.paused.is_some() {
            let input = Input::DialFailed {
                node: key,
                refused: false,
            };
            let after = if listening.paused.is_some() {
                DIAL_TIME
            } else {
                way * 4
            };
            return self.agenda.after(after, Event::Tell { node, life, input });
        }
        // TCP, TLS and the hello take two ways there and back.
        self.agenda.after(
            way * 4,
            Event::Dialled {
                from: node,
                life,
                node: target,
                name,
            },
        );
    }

    pub(super) fn dialled(&mut self, from: usize, life: Life, node: usize, name: &str) {
        let whole = self.paths.pair_cut_since(from, node).is_none();
        let Some(there) = self.nodes[node].process.as_ref() else {
            return self.dial_broke(from, life, node, whole);
        };
        if !whole || there.paused.is_some() || self.nodes[node].name != name {
            return self.dial_broke(from, life, node, whole);
        }
        let (hello, other_life) = (there.core.hello(), there.life);
        let Some(dialler) = self.nodes[from].living(life) else {
            return;
        };
        let greeting = dialler.core.hello();
        let keys = [dialler.origin.node, self.nodes[node].key];
        let link = self.links.add([from, node], [life, other_life], keys);
        let way = self.paths.stretch(node, from, &mut self.chance);
        // Frames must not come before the hello.
        self.links.hold_back(link, node, self.agenda.now() + way);
        let input = Input::LinkUp { link, hello };
        self.agenda.after(
            way,
            Event::Tell {
                node: from,
                life,
                input,
            },
        );
        let up = Input::LinkUp {
            link,
            hello: greeting,
        };
        self.happen(Event::Tell {
            node,
            life: other_life,
            input: up,
        });
    }

    fn dial_broke(&mut self, from: usize, life: Life, node: usize, whole: bool) {
        let input = Input::DialFailed {
            node: self.nodes[node].key,
            refused: whole && self.nodes[node].process.is_none() && !self.nodes[node].host_gone,
        };
        let after = if whole {
            Duration::from_millis(50)
        } else {
            DIAL_TIME
        };
        self.agenda.after(
            after,
            Event::Tell {
                node: from,
                life,
                input,
            },
        );
    }

    pub(super) fn probe(&mut self, node: usize, key: NodeKey, addr: SocketAddr) {
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let life = process.life;
        let target = at_address(addr).filter(|target| *target < self.nodes.len());
        let (outcome, after) = match target {
            Some(target)
                if self.paths.pair_cut_since(node, target).is_none()
                    && !self.nodes[target].host_gone =>
            {
                let way = self.paths.stretch(node, target, &mut self.chance);
                match self.nodes[target].process {
                    Some(_) => (ProbeOutcome::Open, way * 2),
                    None => (ProbeOutcome::Refused, way * 2),
                }
            }
            _ => (ProbeOutcome::Silent, PROBE_TIME),
        };
        let input = Input::Probed { node: key, outcome };
        self.agenda.after(after, Event::Tell { node, life, input });
    }

    /// One end closes a link.
    pub(super) fn close(&mut self, link: u64, node: usize) {
        let Some(ended) = self.links.remove(link) else {
            return;
        };
        let other = ended.other(node);
        let way = self.paths.stretch(node, other, &mut self.chance);
        self.link_down(link, &ended, other, way);
        self.link_down(link, &ended, node, Duration::ZERO);
    }

    /// A link breaks in the middle.
    pub(super) fn break_link(&mut self, link: u64, after: Duration) {
        let Some(ended) = self.links.remove(link) else {
            return;
        };
        for node in ended.ends {
            self.link_down(link, &ended, node, after);
        }
    }

    /// Tells one end.
    fn link_down(&mut self, number: u64, link: &Link, node: usize, after: Duration) {
        let (life, key) = (link.life(node), link.key(link.other(node)));
        let input = Input::LinkDown {
            link: number,
            node: key,
        };
        self.agenda.after(after, Event::Tell { node, life, input });
    }

    /// A process is gone: its kernel ends its links, or nobody does.
    pub(super) fn end_links(&mut self, node: usize, with_host: bool) {
        for link in self.links.of_node(node).to_vec() {
            let Some(ended) = self.links.remove(link) else {
                continue;
            };
            let other = ended.other(node);
            let cut = self.paths.pair_cut_since(node, other).is_some();
            let after = if with_host || cut {
                SILENCE
            } else {
                self.paths.stretch(node, other, &mut self.chance)
            };
            self.link_down(link, &ended, other, after);
        }
    }

    /// Looks at every link of a node soon, because something may keep it silent from now on.
    pub(super) fn doubt_links(&mut self, node: usize) {
        for link in self.links.of_node(node).to_vec() {
            self.agenda.after(SILENCE, Event::Silence { link });
        }
    }

    pub(super) fn fall_silent(&mut self, link: u64) {
        let Some(ends) = self.links.link(link).map(|link| link.ends) else {
            return;
        };
        let cut = self.paths.pair_cut_since(ends[0], ends[1]);
        let stopped = ends.map(|node| self.stopped_since(node));
        let since = [cut, stopped[0], stopped[1]].into_iter().flatten().min();
        match since {
            Some(since) if self.now() >= since + SILENCE => self.break_link(link, Duration::ZERO),
            Some(since) => self.agenda.at(since + SILENCE, Event::Silence { link }),
            None => {}
        }
    }

    fn stopped_since(&self, node: usize) -> Option<Duration> {
        self.nodes[node].process.as_ref()?.paused
    }

    /// Hands over what has arrived, unless the way is cut or the receiver stands still.
    pub(super) fn deliver(&mut self, link: u64, from: usize) {
        let Some(found) = self.links.link(link) else {
            return;
        };
        let node = found.other(from);
        let (life, key) = (found.life(node), found.key(from));
        if self.paths.is_cut(from, node) || self.stopped_since(node).is_some() {
            return self.agenda.after(RETRY, Event::Lane { link, from });
        }
        let (arrived, next) = self.links.arrived(link, from, self.agenda.now());
        if let Some(next) = next {
            self.agenda.at(next, Event::Lane { link, from });
        }
        for underway in arrived {
            let lost = match underway.frame {
                Frame::Cells(_) => self.scenario.sabotage == Some(Sabotage::LoseCells),
                Frame::Revocations { .. } => {
                    self.scenario.sabotage == Some(Sabotage::LoseRevocations)
                }
                _ => false,
            };
            if lost {
                continue;
            }
            if matches!(underway.frame, Frame::Cells(_)) {
                self.told(from, node, underway.sent);
            }
            self.heard(from, node, underway.sent);
            if self.links.link(link).is_none() {
                // The frame before made the receiver close it.
                return;
            }
            let input = Input::Frame {
                link,
                node: key,
                frame: underway.frame,
            };
            self.happen(Event::Tell { node, life, input });
        }
    }

    /// Somebody has what this node had counted when it sent this.
    fn told(&mut self, from: usize, _to: usize, sent: Duration) {
        if let Some(process) = self.nodes[from].process.as_mut() {
            process.told_at = process.told_at.max(sent);
        }
    }

    fn heard(&mut self, from: usize, to: usize, sent: Duration) {
        if let Some(process) = self.nodes[to].process.as_mut() {
            process.heard[from] = process.heard[from].max(sent);
        }
    }
}
