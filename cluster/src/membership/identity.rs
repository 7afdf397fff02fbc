//! Who a member is, as gossip carries it.
//!
//! Promise: of two identities at one address all nodes keep the same one. Failure: an identity with
//! texts that are too long is refused where it is read, so that a packet always holds three.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::data_dir::NodeKey;
use crate::origin::Origin;

/// Longest name in bytes: what a DNS label's chain in a pod's name needs.
pub(crate) const NAME_BYTES: usize = 128;
/// Longest region and zone in bytes.
pub(crate) const PLACE_BYTES: usize = 64;

/// A member's identity. It changes while its process lives only by `bump`, which its member raises
/// when it was taken for dead, or when what it can do changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Where it gossips.
    pub(crate) addr: SocketAddr,
    pub(crate) bump: u64,
    #[serde(with = "node_key")]
    pub(crate) node: NodeKey,
    pub(crate) boot: u64,
    pub(crate) name: String,
    /// Links are dialled at this port of `addr`.
    pub(crate) grpc_port: u16,
    pub(crate) proto_min: u8,
    pub(crate) proto_max: u8,
    pub(crate) caps: u64,
    /// Empty if there is none.
    pub(crate) region: String,
    /// Empty if there is none.
    pub(crate) zone: String,
}

impl Identity {
    /// Stands for whoever is at `addr`, where nothing else is known yet.
    pub(crate) fn unknown_at(addr: SocketAddr) -> Self {
        Self {
            addr,
            bump: 0,
            node: NodeKey(0),
            boot: 0,
            name: String::new(),
            grpc_port: 0,
            proto_min: 0,
            proto_max: 0,
            caps: 0,
            region: String::new(),
            zone: String::new(),
        }
    }

    /// The process that this identity is of.
    pub(crate) fn origin(&self) -> Origin {
        Origin {
            node: self.node,
            boot: self.boot,
        }
    }

    /// Where its links come in.
    pub(crate) fn link_addr(&self) -> SocketAddr {
        SocketAddr::new(self.addr.ip(), self.grpc_port)
    }

    /// Whether its texts have the lengths that packets are made for.
    pub(crate) fn fits(&self) -> bool {
        self.name.len() <= NAME_BYTES
            && self.region.len() <= PLACE_BYTES
            && self.zone.len() <= PLACE_BYTES
    }

    /// Whether it is somebody, and not only an address.
    pub(crate) fn is_known(&self) -> bool {
        self.node != NodeKey(0)
    }
}

impl foca::Identity for Identity {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        Some(Self {
            bump: self.bump.checked_add(1)?,
            ..self.clone()
        })
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The later process, then its later identity. The rest only makes the order total.
    fn win_addr_conflict(&self, other: &Self) -> bool {
        (self.boot, self.bump, self.node)
            .cmp(&(other.boot, other.bump, other.node))
            .then_with(|| self.cmp(other))
            .is_gt()
    }
}

/// A node key as its number.
mod node_key {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::data_dir::NodeKey;

    pub(super) fn serialize<S: Serializer>(key: &NodeKey, to: S) -> Result<S::Ok, S::Error> {
        key.0.to_be_bytes().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NodeKey, D::Error> {
        <[u8; 16]>::deserialize(from).map(|bytes| NodeKey(u128::from_be_bytes(bytes)))
    }
}
