//! The kinds of entities, and what each is called where.

use std::fmt;

/// A kind of entity that the admin API makes and the file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A customer.
    Customer,
    /// A team.
    Team,
    /// A provider.
    Provider,
    /// A model, named `provider/name`, or an alias.
    Model,
    /// A virtual key.
    VirtualKey,
    /// A routing rule.
    RoutingRule,
    /// A bearer token of the admin API.
    AdminToken,
    /// A role of such tokens.
    Role,
    /// An amount that replaces a limit's own, named as the limit.
    LimitOverride,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 9] = [
        Kind::Customer,
        Kind::Team,
        Kind::Provider,
        Kind::Model,
        Kind::VirtualKey,
        Kind::RoutingRule,
        Kind::AdminToken,
        Kind::Role,
        Kind::LimitOverride,
    ];

    /// The word in the path after `/api/`.
    pub fn path(self) -> &'static str {
        match self {
            Kind::Customer => "customers",
            Kind::Team => "teams",
            Kind::Provider => "providers",
            Kind::Model => "models",
            Kind::VirtualKey => "virtual-keys",
            Kind::RoutingRule => "routing-rules",
            Kind::AdminToken => "admin-tokens",
            Kind::Role => "roles",
            Kind::LimitOverride => "limit-overrides",
        }
    }

    /// Reads `path` back; `None` for what callers do not see.
    pub fn from_path(path: &str) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.path() == path)
    }

    /// The word in the store.
    pub fn store_word(self) -> &'static str {
        match self {
            Kind::Customer => "customer",
            Kind::Team => "team",
            Kind::Provider => "provider",
            Kind::Model => "model",
            Kind::VirtualKey => "virtual_key",
            Kind::RoutingRule => "routing_rule",
            Kind::AdminToken => "admin_token",
            Kind::Role => "role",
            Kind::LimitOverride => "limit_override",
        }
    }

    /// The words in messages to people.
    pub fn words(self) -> &'static str {
        match self {
            Kind::Customer => "customer",
            Kind::Team => "team",
            Kind::Provider => "provider",
            Kind::Model => "model",
            Kind::VirtualKey => "virtual key",
            Kind::RoutingRule => "routing rule",
            Kind::AdminToken => "admin token",
            Kind::Role => "role",
            Kind::LimitOverride => "limit override",
        }
    }

    /// Whether it is resolved as a whole with all others of its like, instead
    /// of one at a time.
    pub(in crate::config) fn is_base(self) -> bool {
        matches!(
            self,
            Kind::Customer
                | Kind::Team
                | Kind::Provider
                | Kind::Model
                | Kind::RoutingRule
                | Kind::AdminToken
                | Kind::Role
        )
    }

    /// Where entities of the kind stand in the file; kinds of the API alone
    /// have no such place.
    pub(in crate::config) fn section(self) -> Option<&'static [&'static str]> {
        Some(match self {
            Kind::Customer => &["customers"],
            Kind::Team => &["teams"],
            Kind::Provider => &["providers"],
            Kind::Model => &["models"],
            Kind::VirtualKey => &["virtual_keys"],
            Kind::RoutingRule => &["routing_rules"],
            Kind::AdminToken => &["admin", "tokens"],
            Kind::Role => &["admin", "roles"],
            Kind::LimitOverride => return None,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// What the store of entities holds: those of a kind, and what only this node
/// and its like read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::config) enum Class {
    /// An entity that callers see.
    Of(Kind),
    /// How often a limit was reset, named as the limit.
    LimitReset,
    /// A refused virtual key, named by its hash.
    Revocation,
}

impl Class {
    /// How many there are.
    pub(super) const COUNT: usize = Kind::ALL.len() + 2;

    /// The word in the store.
    pub(super) fn store_word(self) -> &'static str {
        match self {
            Class::Of(kind) => kind.store_word(),
            Class::LimitReset => "limit_reset",
            Class::Revocation => cluster::REVOCATION,
        }
    }

    /// Reads `store_word` back; `None` for what a newer version made.
    pub(super) fn from_store_word(word: &str) -> Option<Self> {
        let kinds = Kind::ALL.into_iter().map(Class::Of);
        let mut all = kinds.chain([Class::LimitReset, Class::Revocation]);
        all.find(|class| class.store_word() == word)
    }

    /// Whether a change of one leaves the base as it is.
    pub(super) fn is_of_keys(self) -> bool {
        matches!(self, Class::Of(Kind::VirtualKey) | Class::Revocation)
    }

    pub(super) fn index(self) -> usize {
        match self {
            Class::Of(kind) => kind as usize,
            Class::LimitReset => Kind::ALL.len(),
            Class::Revocation => Kind::ALL.len() + 1,
        }
    }
}

impl From<Kind> for Class {
    fn from(kind: Kind) -> Self {
        Class::Of(kind)
    }
}
