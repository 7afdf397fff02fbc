//! What nodes send, in bytes as they are on the wire.

use crate::message::Frame;

/// Around a sealed datagram's payload: IP and UDP headers, version, key number, nonce, tag, and
/// the sender with its sequence.
const DATAGRAM_AROUND: usize = 28 + 1 + 4 + 24 + 16 + 32;

/// Around one side of an exchange: a TCP handshake's and end's packets, a challenge, and a sealed
/// frame's head.
const EXCHANGE_AROUND: usize = 5 * 40 + 32 + 4 + 1 + 4 + 24 + 16 + 32;

/// Around one frame of a link: TCP and IP headers, a TLS record, an HTTP/2 frame, gRPC's prefix.
const FRAME_AROUND: usize = 40 + 22 + 9 + 5;

/// Bytes and packets, by node.
#[derive(Debug)]
pub(super) struct Traffic {
    nodes: Vec<Sent>,
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
        }
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

    pub(super) fn frame(&mut self, node: usize, frame: &Frame) {
        let sent = &mut self.nodes[node];
        sent.frames += 1;
        sent.frame_bytes += (encoded(frame) + FRAME_AROUND) as u64;
        if let Frame::Cells(batch) = frame {
            sent.cells += batch.cells.len() as u64;
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

/// How long a frame is on a link that has named its counters before.
fn encoded(frame: &Frame) -> usize {
    match frame {
        Frame::Cells(batch) => {
            let cells = batch.cells.iter().map(|cell| {
                2 + 2
                    + varint(cell.epoch.unsigned_abs())
                    + 1
                    + varint(cell.ver)
                    + 1
                    + varint(cell.used)
                    + 1
                    + varint(cell.held)
                    + 1
                    + varint(cell.expires_at.0)
            });
            40 + cells.sum::<usize>()
        }
        Frame::Digest(seen) | Frame::Ack(seen) => 4 + seen.len() * 36,
        Frame::Ping { .. } => 14,
        Frame::Pong { .. } => 22,
        Frame::Entities(batch) => {
            let bodies = batch.entities.iter().map(|entity| {
                entity.name.len() + entity.body.as_ref().map_or(0, |body| body.len()) + 40
            });
            24 + bodies.sum::<usize>()
        }
        Frame::Revocations { revocations, .. } => 24 + revocations.len() * 200,
        Frame::Outcome(outcome) => 90 + outcome.body.len(),
        _ => 40,
    }
}

fn varint(value: u64) -> usize {
    (64 - value.leading_zeros() as usize).div_ceil(7).max(1)
}
