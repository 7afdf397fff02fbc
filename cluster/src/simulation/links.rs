//! Links between processes: ordered, reliable while they last, and gone all at once.
//!
//! What was on its way when a link breaks is lost. What cannot be delivered because the path is cut
//! or the receiver stands still waits, as in a stream's buffers.

use std::collections::VecDeque;
use std::time::Duration;

use crate::data_dir::NodeKey;
use crate::message::Frame;

/// A link that hears nothing for so long is given up: a ping each second, three seconds to answer.
pub(super) const SILENCE: Duration = Duration::from_secs(4);

/// Frames on their way in one direction, beyond which a link is given up.
pub(super) const MOST_UNDERWAY: usize = 4_096;

/// A process of a node: the number of it among the node's processes.
pub(super) type Life = u32;

/// All links, by number.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: Vec<Option<Link>>,
    /// By node, those that are up.
    of_node: Vec<Vec<u64>>,
    /// The first frames that were sent, as many as are to be kept.
    pub(super) carried: Vec<Frame>,
    pub(super) keeps: usize,
}

/// One link.
#[derive(Debug)]
pub(super) struct Link {
    /// Who dialled, and who was dialled.
    pub(super) ends: [usize; 2],
    lives: [Life; 2],
    keys: [NodeKey; 2],
    /// By the end that sends.
    lanes: [Lane; 2],
}

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    /// By arrival.
    underway: VecDeque<Underway>,
    last: Duration,
}

#[derive(Debug)]
pub(super) struct Underway {
    pub(super) sent: Duration,
    pub(super) arrives: Duration,
    pub(super) frame: Frame,
}

// === impl Links ===

impl Links {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            links: vec![None],
            of_node: vec![Vec::new(); nodes],
            ..Self::default()
        }
    }

    /// The link that two nodes have.
    pub(super) fn between(&self, one: usize, other: usize) -> Option<u64> {
        let joins = |number: &u64| {
            let link = self.link(*number);
            link.is_some_and(|link| link.ends.contains(&other))
        };
        self.of_node[one].iter().copied().find(joins)
    }

    pub(super) fn add(&mut self, ends: [usize; 2], lives: [Life; 2], keys: [NodeKey; 2]) -> u64 {
        let number = self.links.len() as u64;
        for end in ends {
            self.of_node[end].push(number);
        }
        self.links.push(Some(Link {
            ends,
            lives,
            keys,
            lanes: [Lane::default(), Lane::default()],
        }));
        number
    }

    pub(super) fn link(&self, number: u64) -> Option<&Link> {
        self.links.get(place(number))?.as_ref()
    }

    /// Ends it; what was underway is lost.
    pub(super) fn remove(&mut self, number: u64) -> Option<Link> {
        let link = self.links.get_mut(place(number))?.take()?;
        for end in link.ends {
            self.of_node[end].retain(|other| *other != number);
        }
        Some(link)
    }

    pub(super) fn of_node(&self, node: usize) -> &[u64] {
        &self.of_node[node]
    }

    /// Whether two nodes have a link.
    pub(super) fn joined(&self, one: usize, other: usize) -> bool {
        self.between(one, other).is_some()
    }

    /// Sends a frame from one end; tells when the lane is to be looked at, if it was empty. `Err`:
    /// too much is underway.
    pub(super) fn send(
        &mut self,
        number: u64,
        from: usize,
        frame: Frame,
        now: Duration,
        delay: Duration,
    ) -> Result<Option<Duration>, ()> {
        let Some(Some(link)) = self.links.get_mut(place(number)) else {
            return Ok(None);
        };
        if self.carried.len() < self.keeps {
            self.carried.push(frame.clone());
        }
        let lane = &mut link.lanes[side(link.ends, from)];
        if lane.underway.len() >= MOST_UNDERWAY {
            return Err(());
        }
        let idle = lane.underway.is_empty();
        lane.last = lane.last.max(now + delay);
        lane.underway.push_back(Underway {
            sent: now,
            arrives: lane.last,
            frame,
        });
        Ok(idle.then_some(lane.last))
    }

    /// Nothing that this end sends arrives before then.
    pub(super) fn hold_back(&mut self, number: u64, from: usize, until: Duration) {
        if let Some(Some(link)) = self.links.get_mut(place(number)) {
            let lane = &mut link.lanes[side(link.ends, from)];
            lane.last = lane.last.max(until);
            for underway in &mut lane.underway {
                underway.arrives = underway.arrives.max(until);
            }
        }
    }

    /// What has arrived of what this end sent; and when the next arrives.
    pub(super) fn arrived(
        &mut self,
        number: u64,
        from: usize,
        now: Duration,
    ) -> (Vec<Underway>, Option<Duration>) {
        let Some(Some(link)) = self.links.get_mut(place(number)) else {
            return (Vec::new(), None);
        };
        let lane = &mut link.lanes[side(link.ends, from)];
        let mut arrived = Vec::new();
        while lane
            .underway
            .front()
            .is_some_and(|front| front.arrives <= now)
        {
            arrived.extend(lane.underway.pop_front());
        }
        (arrived, lane.underway.front().map(|front| front.arrives))
    }
}

// === impl Link ===

impl Link {
    /// The end that is not this one.
    pub(super) fn other(&self, node: usize) -> usize {
        self.ends[1 - side(self.ends, node)]
    }

    /// The key that the node at this end had when the link was made.
    pub(super) fn key(&self, node: usize) -> NodeKey {
        self.keys[side(self.ends, node)]
    }

    pub(super) fn life(&self, node: usize) -> Life {
        self.lives[side(self.ends, node)]
    }
}

fn side(ends: [usize; 2], node: usize) -> usize {
    usize::from(ends[0] != node)
}

fn place(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
