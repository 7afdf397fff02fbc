//! The kinds of entities: one row for each says all that the catalogue knows
//! of it.
//!
//! A new kind is a new row. What it is called, how its bodies are read, what a
//! change of one resolves anew and what follows from that are all looked up
//! here, for writes of this node, for those of others and for those that a
//! peer pushes.

use std::fmt;

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admin::rights::Resource;
use crate::config::file;

/// What a change of an entity resolves anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Applied {
    /// The base as a whole.
    Base,
    /// The virtual key of its name.
    Key,
    /// The virtual key whose limit it names, else the base.
    Limit,
    /// Nothing: a key's hash is refused.
    Refusal,
}

/// What follows once a change runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Effect {
    /// Names that are labels of metrics may be new.
    Labels,
    /// Connections may be to a provider that is not there any more.
    Connections,
}

/// How one class of entities is kept and applied.
#[derive(Debug)]
pub(in crate::config) struct Row {
    /// The word in the store.
    pub(super) store_word: &'static str,
    pub(super) applied: Applied,
    pub(in crate::config) effects: &'static [Effect],
}

/// What callers see of a kind.
#[derive(Debug)]
struct Face {
    row: Row,
    /// The word in the path after `/api/`.
    path: &'static str,
    /// The words in messages to people.
    words: &'static str,
    /// Where entities of the kind stand in the file; kinds of the API alone
    /// have no such place.
    section: Option<&'static [&'static str]>,
    /// What rights call the kind.
    resource: Resource,
    form: Form,
}

/// How bodies of a kind are read.
#[derive(Clone, Copy, Debug)]
struct Form {
    judge: fn(&Value) -> Result<(), serde_json::Error>,
    complete: fn(&str) -> Option<Value>,
    schema: fn(SchemaGenerator) -> Schema,
}

impl Form {
    const fn of<T: DeserializeOwned + Serialize + JsonSchema>() -> Self {
        Form {
            judge: |body| T::deserialize(body).map(|_| ()),
            complete: |text| serde_json::to_value(serde_json::from_str::<T>(text).ok()?).ok(),
            schema: |generator| generator.into_root_schema_for::<T>(),
        }
    }
}

macro_rules! kinds {
    ($($(#[$says:meta])* $kind:ident: $type:ty {
        $store_word:literal, $path:literal, $words:literal, $section:expr,
        $resource:ident, $applied:ident, $effects:expr $(,)?
    })*) => {
        /// A kind of entity that the admin API makes and the file may hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$says])* $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: [Kind; FACES.len()] = [$(Kind::$kind,)*];
        }

        /// By position in [`Kind::ALL`].
        static FACES: [Face; [$($store_word,)*].len()] = [$(
            Face {
                row: Row {
                    store_word: $store_word,
                    applied: Applied::$applied,
                    effects: $effects,
                },
                path: $path,
                words: $words,
                section: $section,
                resource: Resource::$resource,
                form: Form::of::<$type>(),
            },
        )*];
    };
}

const LABELS: &[Effect] = &[Effect::Labels];
const LABELS_AND_CONNECTIONS: &[Effect] = &[Effect::Labels, Effect::Connections];

// kind: type { store, path, words, section of the file, resource, applied, effects }
kinds! {
    /// A customer.
    Customer: file::Customer { "customer", "customers", "customer", Some(&["customers"]), Customers, Base, &[] }
    /// A team.
    Team: file::Team { "team", "teams", "team", Some(&["teams"]), Teams, Base, &[] }
    /// A provider.
    Provider: file::Provider {
        "provider", "providers", "provider", Some(&["providers"]), Providers, Base, LABELS_AND_CONNECTIONS,
    }
    /// A model, named `provider/name`, or an alias.
    Model: file::ModelEntry { "model", "models", "model", Some(&["models"]), Models, Base, LABELS }
    /// A virtual key.
    VirtualKey: file::VirtualKey {
        "virtual_key", "virtual-keys", "virtual key", Some(&["virtual_keys"]), VirtualKeys, Key, &[],
    }
    /// A routing rule.
    RoutingRule: file::RoutingRule {
        "routing_rule", "routing-rules", "routing rule", Some(&["routing_rules"]), RoutingRules, Base, LABELS,
    }
    /// A bearer token of the admin API.
    AdminToken: file::AdminTokenEntry {
        "admin_token", "admin-tokens", "admin token", Some(&["admin", "tokens"]), AdminTokens, Base, &[],
    }
    /// A role of such tokens.
    Role: file::RoleEntry { "role", "roles", "role", Some(&["admin", "roles"]), Roles, Base, &[] }
    /// An amount that replaces a limit's own, named as the limit.
    LimitOverride: file::LimitOverride {
        "limit_override", "limit-overrides", "limit override", None, LimitOverrides, Limit, &[],
    }
}

/// What callers never see, by position after the kinds.
static HIDDEN: [Row; 2] = [
    Row {
        store_word: "limit_reset",
        applied: Applied::Limit,
        effects: &[],
    },
    Row {
        store_word: cluster::REVOCATION,
        applied: Applied::Refusal,
        effects: &[],
    },
];

impl Kind {
    fn face(self) -> &'static Face {
        &FACES[self as usize]
    }

    /// The word in the path after `/api/`.
    pub fn path(self) -> &'static str {
        self.face().path
    }

    /// Reads `path` back; `None` for what callers do not see.
    pub fn from_path(path: &str) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.path() == path)
    }

    /// The word in the store.
    pub fn store_word(self) -> &'static str {
        self.face().row.store_word
    }

    /// The words in messages to people.
    pub fn words(self) -> &'static str {
        self.face().words
    }

    /// What rights call the kind.
    pub fn resource(self) -> Resource {
        self.face().resource
    }

    /// Whether it is resolved as a whole with all others of its like, instead
    /// of one at a time.
    pub(in crate::config) fn is_base(self) -> bool {
        self.face().row.applied == Applied::Base
    }

    /// Where entities of the kind stand in the file; kinds of the API alone
    /// have no such place.
    pub(in crate::config) fn section(self) -> Option<&'static [&'static str]> {
        self.face().section
    }

    /// Whether the kind's type reads this body.
    pub(super) fn judge(self, body: &Value) -> Result<(), serde_json::Error> {
        (self.face().form.judge)(body)
    }

    /// A stored body with all defaults; `None` when the type does not read it.
    pub(super) fn complete(self, body: &str) -> Option<Value> {
        (self.face().form.complete)(body)
    }

    /// The schema of the kind's type.
    pub(in crate::config) fn schema(self, generator: SchemaGenerator) -> Schema {
        (self.face().form.schema)(generator)
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
    pub(super) const COUNT: usize = Kind::ALL.len() + HIDDEN.len();

    /// All of them.
    pub(in crate::config) fn all() -> impl Iterator<Item = Class> {
        let kinds = Kind::ALL.into_iter().map(Class::Of);
        kinds.chain([Class::LimitReset, Class::Revocation])
    }

    /// How it is kept and applied.
    pub(in crate::config) fn row(self) -> &'static Row {
        match self {
            Class::Of(kind) => &kind.face().row,
            Class::LimitReset => &HIDDEN[0],
            Class::Revocation => &HIDDEN[1],
        }
    }

    /// The word in the store.
    pub(in crate::config) fn store_word(self) -> &'static str {
        self.row().store_word
    }

    /// Reads `store_word` back; `None` for what a newer version made.
    pub(super) fn from_store_word(word: &str) -> Option<Self> {
        Class::all().find(|class| class.store_word() == word)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_class_has_a_word_and_a_place_of_its_own() {
        let words: BTreeSet<&str> = Class::all().map(Class::store_word).collect();
        assert_eq!(words.len(), Class::COUNT);
        for (index, class) in Class::all().enumerate() {
            assert_eq!(class.index(), index);
            assert_eq!(Class::from_store_word(class.store_word()), Some(class));
        }
        for kind in Kind::ALL {
            assert_eq!(Kind::from_path(kind.path()), Some(kind));
        }
    }
}
