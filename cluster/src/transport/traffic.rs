//! How much went over which way, counted where it passes. Never reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::view::Figures;

/// Counts of one node; clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    gossip_bytes_sent: AtomicU64,
    gossip_bytes_received: AtomicU64,
    gossip_packets_sent: AtomicU64,
    gossip_packets_received: AtomicU64,
    gossip_packets_refused: AtomicU64,
    link_bytes_sent: AtomicU64,
    link_bytes_received: AtomicU64,
    link_frames_dropped: AtomicU64,
}

impl Traffic {
    /// A datagram, or one side of an exchange.
    pub(crate) fn gossip_sent(&self, bytes: usize) {
        add(&self.counts.gossip_packets_sent, 1);
        add(&self.counts.gossip_bytes_sent, bytes);
    }

    pub(crate) fn gossip_received(&self, bytes: usize) {
        add(&self.counts.gossip_packets_received, 1);
        add(&self.counts.gossip_bytes_received, bytes);
    }

    /// It was received, and not believed.
    pub(crate) fn gossip_refused(&self) {
        add(&self.counts.gossip_packets_refused, 1);
    }

    /// On the wire, encryption included.
    pub(crate) fn link_sent(&self, bytes: usize) {
        add(&self.counts.link_bytes_sent, bytes);
    }

    pub(crate) fn link_received(&self, bytes: usize) {
        add(&self.counts.link_bytes_received, bytes);
    }

    /// A frame for a link that could not take it.
    pub(crate) fn frame_dropped(&self) {
        add(&self.counts.link_frames_dropped, 1);
    }

    /// Writes the counts into `figures`.
    pub(crate) fn fill(&self, figures: &mut Figures) {
        let counts = &*self.counts;
        figures.gossip_bytes_sent = read(&counts.gossip_bytes_sent);
        figures.gossip_bytes_received = read(&counts.gossip_bytes_received);
        figures.gossip_packets_sent = read(&counts.gossip_packets_sent);
        figures.gossip_packets_received = read(&counts.gossip_packets_received);
        figures.gossip_packets_refused = read(&counts.gossip_packets_refused);
        figures.link_bytes_sent = read(&counts.link_bytes_sent);
        figures.link_bytes_received = read(&counts.link_bytes_received);
        figures.link_frames_dropped = read(&counts.link_frames_dropped);
    }
}

fn add(count: &AtomicU64, amount: usize) {
    count.fetch_add(amount as u64, Ordering::Relaxed);
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
