//! Who owns cells: one process of one node.

use std::fmt;

use crate::data_dir::NodeKey;

/// One process of one node. It alone writes its cells, and it never comes back: a restart has a
/// larger boot number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The node's 128-bit number.
    pub node: NodeKey,
    /// Unix milliseconds of the start, made larger than those of all earlier starts.
    pub boot: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.boot)
    }
}
