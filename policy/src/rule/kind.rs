//! The types of the language.

use std::fmt;

use crate::rule::names::Table;

/// The type of a part of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Double,
    Text,
    /// Headers or parameters as a whole.
    Table(Table),
    List(Box<Kind>),
    /// What an empty list holds.
    Any,
}

// === impl Kind ===

impl Kind {
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Double)
    }

    /// The type of a place that holds both.
    pub(super) fn joined(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, kind) | (kind, Self::Any) => Some(kind.clone()),
            (Self::List(left), Self::List(right)) => {
                left.joined(right).map(|kind| Self::List(Box::new(kind)))
            }
            (left, right) => (left == right).then(|| left.clone()),
        }
    }

    /// Whether `==` compares them.
    pub(super) fn equates(&self, other: &Self) -> bool {
        let plain = |kind: &Self| !matches!(kind, Self::List(_) | Self::Table(_));
        plain(self) && plain(other) && (self.joined(other).is_some() || self.compares(other))
    }

    /// Whether `<` compares them.
    pub(super) fn compares(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, kind) | (kind, Self::Any) => {
                kind.is_number() || matches!(kind, Self::Text | Self::Any)
            }
            (Self::Text, Self::Text) => true,
            (left, right) => left.is_number() && right.is_number(),
        }
    }
}

/// The word of the language.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Double => "double",
            Self::Text => "string",
            Self::Table(_) => "map",
            Self::List(_) => "list",
            Self::Any => "dyn",
        })
    }
}
