//! The links that are up. Which of two of one node stays is the core's to say.

use std::collections::{BTreeMap, BTreeSet};

use crate::data_dir::NodeKey;
use crate::message::Frame;
use crate::transport::grpc::{LinkOut, Up};
use crate::transport::traffic::Traffic;

/// Links by their number, and nodes that are being dialled.
#[derive(Debug)]
pub(super) struct OpenLinks {
    links: BTreeMap<u64, Link>,
    dialling: BTreeSet<NodeKey>,
    traffic: Traffic,
}

#[derive(Debug)]
struct Link {
    node: NodeKey,
    out: LinkOut,
}

/// A link that is no longer up.
pub(super) type Closed = (u64, NodeKey);

impl OpenLinks {
    pub(super) fn new(traffic: Traffic) -> Self {
        Self {
            links: BTreeMap::new(),
            dialling: BTreeSet::new(),
            traffic,
        }
    }

    /// Whether `node` is to be dialled: not if it is already.
    pub(super) fn begin_dial(&mut self, node: NodeKey) -> bool {
        self.dialling.insert(node)
    }

    pub(super) fn dial_ended(&mut self, node: NodeKey) {
        self.dialling.remove(&node);
    }

    /// Keeps a link.
    pub(super) fn open(&mut self, up: Up) {
        let node = up.hello.origin.node;
        self.dialling.remove(&node);
        let out = up.out;
        self.links.insert(up.link, Link { node, out });
    }

    pub(super) fn is_open(&self, link: u64) -> bool {
        self.links.contains_key(&link)
    }

    /// Ends a link, if it is up.
    pub(super) fn close(&mut self, link: u64) -> Option<Closed> {
        let Link { node, .. } = self.links.remove(&link)?;
        Some((link, node))
    }

    /// Sends a frame. A link that cannot take it ends: the next one begins with what it missed.
    pub(super) fn send(&mut self, link: u64, frame: Frame) -> Option<Closed> {
        let open = self.links.get_mut(&link)?;
        if open.out.send(frame).is_ok() {
            return None;
        }
        self.traffic.frame_dropped();
        tracing::warn!(link, node = %open.node, "a link is too slow or broken, and ends");
        self.close(link)
    }
}
