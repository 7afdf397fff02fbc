//! Who is chosen for a name: the same on every node that sees the same members.

use crate::data_dir::NodeKey;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// A node's weight for a name; the largest is chosen. Part of what nodes of different versions agree
/// on.
pub(crate) fn weight(name: &str, node: NodeKey) -> u64 {
    let bytes = node.0.to_be_bytes();
    let hash = name.bytes().chain(bytes).fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    // The low bits of the last bytes have moved too little.
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

/// The node that is chosen among several.
pub(crate) fn chosen(name: &str, nodes: impl Iterator<Item = NodeKey>) -> Option<NodeKey> {
    nodes.max_by_key(|node| (weight(name, *node), *node))
}
