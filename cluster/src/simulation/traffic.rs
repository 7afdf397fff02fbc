//! What nodes send, in bytes as `tyr_cluster_bytes_total` counts them: sealed or encrypted, without the
//! heads of IP, UDP and TCP.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::Message as _;

use crate::convert::Outbound;
use crate::message::{Frame, PROTOCOL_MAX};

/// Around a sealed datagram's payload: version, key number, nonce, tag, and the sender with its
/// sequence.
const DATAGRAM_AROUND: usize = 1 + 4 + 24 + 16 + 32;

/// Around one side of an exchange: a challenge, and a sealed frame's head.
const EXCHANGE_AROUND: usize = 32 + 4 + 1 + 4 + 24 + 16 + 32;

/// In front of each frame of a link: gRPC's prefix.
const FRAME_PREFIX: usize = 5;

/// Around what a link sends at one moment: a TLS record, and the head of an HTTP/2 frame.
const WRITE_AROUND: usize = 22 + 9;

/// HTTP/2's own ping or its answer, once a second from each end of a link.
pub(super) const PING: usize = WRITE_AROUND + 8;

/// Bytes and packets, by node.
#[derive(Debug)]
pub(super) struct Traffic {
    nodes: Vec<Sent>,
    /// What each end of a link has named on it; none while frames are not encoded: that takes time.
    outbound: Option<BTreeMap<(u64, usize), End>>,
}

/// What one end of a link writes.
#[derive(Debug)]
struct End {
    outbound: Outbound,
    /// When it last did: what is sent at the same moment goes together.
    wrote: Option<Duration>,
}

/// What one node sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) datagrams: u64,
    pub(super) gossip_bytes: u64,
    pub(super) exchanges: u64,
    pub(super) exchange_bytes: u64,
    pub(super) frames: u64,
    pub(super) frame_bytes: u64,
    pub(super) cells: u64,
}

// === impl Traffic ===

impl Traffic {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            nodes: vec![Sent::default(); nodes],
            outbound: None,
        }
    }

    /// From now on the bytes of frames are counted: call it before the first one is sent.
    pub(super) fn encode_frames(&mut self) {
        self.outbound = Some(BTreeMap::new());
    }

    /// Of all nodes together.
    pub(super) fn total(&self) -> Sent {
        let mut total = Sent::default();
        for sent in &self.nodes {
            total.datagrams += sent.datagrams;
            total.gossip_bytes += sent.gossip_bytes;
            total.exchanges += sent.exchanges;
            total.exchange_bytes += sent.exchange_bytes;
            total.frames += sent.frames;
            total.frame_bytes += sent.frame_bytes;
            total.cells += sent.cells;
        }
        total
    }

    pub(super) fn datagram(&mut self, node: usize, payload: usize) {
        let sent = &mut self.nodes[node];
        sent.datagrams += 1;
        sent.gossip_bytes += (payload + DATAGRAM_AROUND) as u64;
    }

    pub(super) fn exchange(&mut self, node: usize, payload: usize) {
        let sent = &mut self.nodes[node];
        sent.exchanges += 1;
        sent.exchange_bytes += (payload + EXCHANGE_AROUND) as u64;
    }

    pub(super) fn frame(&mut self, link: u64, node: usize, frame: &Frame, now: Duration) {
        let sent = &mut self.nodes[node];
        sent.frames += 1;
        if let Frame::Cells(batch) = frame {
            sent.cells += batch.cells.len() as u64;
        }
        if let Some(outbound) = &mut self.outbound {
            let end = outbound.entry((link, node)).or_insert_with(|| End {
                outbound: Outbound::new(PROTOCOL_MAX),
                wrote: None,
            });
            let written = end.outbound.write(frame.clone());
            let bytes = written
                .iter()
                .map(|frame| frame.encoded_len() + FRAME_PREFIX);
            sent.frame_bytes += bytes.sum::<usize>() as u64;
            if end.wrote.replace(now) != Some(now) {
                sent.frame_bytes += WRITE_AROUND as u64;
            }
        }
    }
}

// === impl Sent ===

impl Sent {
    /// What was sent since `before`.
    pub(super) fn less(&self, before: &Self) -> Self {
        Self {
            datagrams: self.datagrams - before.datagrams,
            gossip_bytes: self.gossip_bytes - before.gossip_bytes,
            exchanges: self.exchanges - before.exchanges,
            exchange_bytes: self.exchange_bytes - before.exchange_bytes,
            frames: self.frames - before.frames,
            frame_bytes: self.frame_bytes - before.frame_bytes,
            cells: self.cells - before.cells,
        }
    }
}
