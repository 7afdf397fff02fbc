//! What a bearer may do on the admin API.
//!
//! A right is a pair of a resource and an operation; [`Rights`] is a set of
//! them. Promise: a token made by another never has more than its maker had:
//! its rights are those of its role, cut at use by the ceiling that was stored
//! when it was made.

#[cfg(test)]
mod tests;

use std::fmt;

/// What a call is about: the path's first part under `/api/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Customers.
    Customers,
    /// Teams.
    Teams,
    /// Providers.
    Providers,
    /// Models and aliases.
    Models,
    /// Virtual keys.
    VirtualKeys,
    /// Routing rules.
    RoutingRules,
    /// Bearer tokens of this API.
    AdminTokens,
    /// Roles of such tokens.
    Roles,
    /// Amounts that stand in for a limit's own.
    LimitOverrides,
    /// The configuration in use, and this API's description.
    Config,
    /// Usage records.
    Usage,
    /// Where limits stand, and their reset.
    Limits,
    /// Who changed what.
    Audit,
    /// Taking the node out of service.
    Drain,
    /// Reading the configuration again.
    Reload,
    /// Why a request would be answered as it would.
    Explain,
    /// The other nodes.
    Cluster,
}

/// What a call does to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Look.
    Read,
    /// Make one that was not there.
    Create,
    /// Change one.
    Update,
    /// Take one away.
    Delete,
    /// Start what the resource does.
    Run,
}

/// A set of pairs of a resource and an operation. Default: none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Rights(u128);

/// A text that names no right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a right: expected resource:operation such as virtual-keys:read, \
     with * for every resource or operation"
)]
pub struct RightError(String);

// === impl Resource ===

impl Resource {
    /// All of them.
    pub const ALL: [Resource; 17] = [
        Resource::Customers,
        Resource::Teams,
        Resource::Providers,
        Resource::Models,
        Resource::VirtualKeys,
        Resource::RoutingRules,
        Resource::AdminTokens,
        Resource::Roles,
        Resource::LimitOverrides,
        Resource::Config,
        Resource::Usage,
        Resource::Limits,
        Resource::Audit,
        Resource::Drain,
        Resource::Reload,
        Resource::Explain,
        Resource::Cluster,
    ];

    /// The word in paths and rights.
    pub fn as_str(self) -> &'static str {
        match self {
            Resource::Customers => "customers",
            Resource::Teams => "teams",
            Resource::Providers => "providers",
            Resource::Models => "models",
            Resource::VirtualKeys => "virtual-keys",
            Resource::RoutingRules => "routing-rules",
            Resource::AdminTokens => "admin-tokens",
            Resource::Roles => "roles",
            Resource::LimitOverrides => "limit-overrides",
            Resource::Config => "config",
            Resource::Usage => "usage",
            Resource::Limits => "limits",
            Resource::Audit => "audit",
            Resource::Drain => "drain",
            Resource::Reload => "reload",
            Resource::Explain => "explain",
            Resource::Cluster => "cluster",
        }
    }
}

// === impl Operation ===

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 5] = [
        Operation::Read,
        Operation::Create,
        Operation::Update,
        Operation::Delete,
        Operation::Run,
    ];

    /// The word in rights.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
            Operation::Run => "run",
        }
    }
}

// === impl Rights ===

impl Rights {
    /// Nothing.
    pub const NONE: Rights = Rights(0);
    /// Everything: the role `admin`.
    pub const ALL: Rights = Rights(u128::MAX >> (128 - Resource::ALL.len() * Operation::ALL.len()));

    /// The rights of a role that every node knows: `admin`, `operator` or
    /// `viewer`.
    pub fn built_in(role: &str) -> Option<Self> {
        match role {
            "admin" => Some(Self::ALL),
            "operator" => Some(Self::operator()),
            "viewer" => Some(Self::viewer()),
            _ => None,
        }
    }

    /// Every read, and the question what would happen to a request.
    fn viewer() -> Self {
        let reads = Resource::ALL.map(|resource| Self::one(resource, Operation::Read));
        reads
            .into_iter()
            .fold(Self::NONE, Self::union)
            .union(Self::one(Resource::Explain, Operation::Run))
    }

    /// Everything but what decides who may do what (tokens, roles) and where
    /// our credentials are sent (providers).
    fn operator() -> Self {
        let kept = [Resource::AdminTokens, Resource::Roles, Resource::Providers];
        let all = Resource::ALL
            .into_iter()
            .flat_map(|resource| Operation::ALL.map(|operation| (resource, operation)));
        all.filter(|(resource, _)| !kept.contains(resource))
            .fold(Self::viewer(), |rights, (resource, operation)| {
                rights.union(Self::one(resource, operation))
            })
    }

    /// One right alone.
    pub fn one(resource: Resource, operation: Operation) -> Self {
        Rights(1 << (resource as usize * Operation::ALL.len() + operation as usize))
    }

    /// Reads `virtual-keys:read`, `models:*`, `*:read` or `*:*`.
    pub fn parse(text: &str) -> Result<Self, RightError> {
        let wrong = || RightError(text.chars().take(80).collect());
        let (resource, operation) = text.split_once(':').ok_or_else(wrong)?;
        let is = |pattern: &str, word: &str| pattern == "*" || pattern == word;
        let mut rights = Self::NONE;
        for one in Resource::ALL
            .into_iter()
            .filter(|one| is(resource, one.as_str()))
        {
            for two in Operation::ALL
                .into_iter()
                .filter(|two| is(operation, two.as_str()))
            {
                rights = rights.union(Self::one(one, two));
            }
        }
        match rights {
            Self::NONE => Err(wrong()),
            rights => Ok(rights),
        }
    }

    /// The rights that several texts name together.
    pub fn parse_all<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, RightError> {
        texts
            .into_iter()
            .try_fold(Self::NONE, |all, text| Ok(all.union(Self::parse(text)?)))
    }

    /// Whether this right is in the set.
    pub fn contains(self, resource: Resource, operation: Operation) -> bool {
        Self::one(resource, operation).is_within(self)
    }

    /// Whether `other` has all of these.
    pub fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Those in both.
    pub fn intersection(self, other: Self) -> Self {
        Rights(self.0 & other.0)
    }

    /// Those in either.
    pub fn union(self, other: Self) -> Self {
        Rights(self.0 | other.0)
    }

    /// Those that `other` has not.
    pub fn beyond(self, other: Self) -> Self {
        Rights(self.0 & !other.0)
    }

    /// The fewest texts that `parse_all` reads back, in the order of resources.
    pub fn short_texts(self) -> Vec<String> {
        if self == Self::ALL {
            return vec!["*:*".to_owned()];
        }
        let of = |resource: Resource| {
            let has = |operation: &Operation| self.contains(resource, *operation);
            let operations: Vec<_> = Operation::ALL.into_iter().filter(has).collect();
            match operations.len() == Operation::ALL.len() {
                true => vec![format!("{}:*", resource.as_str())],
                false => operations
                    .into_iter()
                    .map(|operation| format!("{}:{}", resource.as_str(), operation.as_str()))
                    .collect(),
            }
        };
        Resource::ALL.into_iter().flat_map(of).collect()
    }

    /// Each right as `parse` reads it, without `*`, in the order of resources.
    pub fn texts(self) -> Vec<String> {
        let all = Resource::ALL
            .into_iter()
            .flat_map(|resource| Operation::ALL.map(|operation| (resource, operation)));
        all.filter(|(resource, operation)| self.contains(*resource, *operation))
            .map(|(resource, operation)| format!("{}:{}", resource.as_str(), operation.as_str()))
            .collect()
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.texts()).finish()
    }
}
