//! What a limit belongs to, and what it counts.

use std::fmt;
use std::sync::Arc;

use crate::limit::Limit;

/// The kind of entity a limit belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScopeKind {
    /// A provider.
    Provider,
    /// A model: of one provider (`provider/name`), or by its bare name across
    /// providers.
    Model,
    /// A virtual key.
    VirtualKey,
    /// One provider as used by one virtual key.
    VirtualKeyProvider,
    /// A team.
    Team,
    /// A customer.
    Customer,
    /// An end user.
    User,
    /// The whole gateway.
    Global,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Requests per window.
    Requests,
    /// Tokens per window.
    Tokens,
    /// Requests in flight.
    Concurrent,
    /// Nano-dollars per window.
    Usd,
}

/// An entity and its limits, in the order they are judged.
#[derive(Debug)]
pub struct Scope {
    /// The kind of entity.
    pub kind: ScopeKind,
    /// Its name.
    pub entity: Arc<str>,
    /// Its limits, in walk order.
    pub limits: Vec<Limit>,
}

/// A group of keys with limits of its own.
#[derive(Clone, Debug)]
pub struct Team {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// The customer whose limits its keys share.
    pub customer: Option<Arc<str>>,
    /// Its limits.
    pub scope: Option<Arc<Scope>>,
}

/// Whoever pays for teams and keys.
#[derive(Clone, Debug)]
pub struct Customer {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// Its limits.
    pub scope: Option<Arc<Scope>>,
}

// === impl ScopeKind ===

impl ScopeKind {
    const ALL: [Self; 8] = [
        Self::Provider,
        Self::Model,
        Self::VirtualKey,
        Self::VirtualKeyProvider,
        Self::Team,
        Self::Customer,
        Self::User,
        Self::Global,
    ];

    /// The word used in counter names, headers and the admin API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Model => "model",
            Self::VirtualKey => "virtual_key",
            Self::VirtualKeyProvider => "virtual_key_provider",
            Self::Team => "team",
            Self::Customer => "customer",
            Self::User => "user",
            Self::Global => "global",
        }
    }

    /// Reads `as_str` back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The words used in messages to people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::VirtualKey => "virtual key",
            Self::VirtualKeyProvider => "virtual key and provider",
            other => other.as_str(),
        }
    }
}

impl fmt::Display for ScopeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Unit ===

impl Unit {
    const ALL: [Self; 4] = [Self::Requests, Self::Tokens, Self::Concurrent, Self::Usd];

    /// The word used in counter names, headers and the admin API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Concurrent => "concurrent",
            Self::Usd => "usd",
        }
    }

    /// Whether a request's amount is known only when it has ended.
    pub(crate) fn is_estimated(self) -> bool {
        matches!(self, Self::Tokens | Self::Usd)
    }

    /// Reads `as_str` back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.as_str() == text)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
