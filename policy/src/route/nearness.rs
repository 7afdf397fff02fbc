//! How near a provider is to the node.
//!
//! Promise: nearness only orders choices, it never takes one away. A node that
//! does not know its region, and providers without one, change no order.

use std::sync::Arc;

/// Where a provider is, seen from the node; the nearest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// In the node's region.
    Here,
    /// Anywhere: the provider is of no region, or the node does not know its own.
    #[default]
    Anywhere,
    /// In another region.
    Elsewhere,
}

impl Nearness {
    /// Of a provider in `of`, for a node in `node`.
    pub(crate) fn between(node: Option<&Arc<str>>, of: Option<&Arc<str>>) -> Self {
        match (node, of) {
            (Some(node), Some(of)) if node == of => Self::Here,
            (Some(_), Some(_)) => Self::Elsewhere,
            _ => Self::Anywhere,
        }
    }

    /// `here`, `anywhere` or `elsewhere`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Anywhere => "anywhere",
            Self::Elsewhere => "elsewhere",
        }
    }
}
