//! Entities as they are read and written, of the file and of the API.
//!
//! Promise: immutable; a change of one entity of the API makes a new `Entries`
//! that shares everything else, at a cost of O(log n). Owner: the `Live` that
//! it is part of. Bodies of the API are kept as they are stored: sealed and
//! hashed, never in the clear.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;
use serde_json::Value;

use super::kind::{Class, Kind};
use crate::config::load::Document;
use crate::config::problem::FieldPath;
use crate::config::resolve::Names;

type Map = RedBlackTreeMapSync<Arc<str>, Arc<Stored>>;

/// An entity of the API.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct Stored {
    /// Of its last change, in the store.
    pub(in crate::config) revision: u64,
    /// JSON as it is stored.
    pub(in crate::config) body: Box<str>,
}

impl Stored {
    /// The body; `Null` for a text that is no JSON, which nothing writes.
    pub(in crate::config) fn value(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

/// Hashes and sealed secrets are not shown.
impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// An entity of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Owned {
    /// `file:line`.
    pub(in crate::config) place: String,
    /// Position in its section.
    pub(in crate::config) index: usize,
}

/// Entities of the file by kind and name.
#[derive(Debug, Default)]
struct OfFile {
    kinds: [BTreeMap<Arc<str>, Owned>; Kind::ALL.len()],
}

/// All entities.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    file: Arc<OfFile>,
    api: [Map; Class::COUNT],
    /// What they may refer to, by the base that runs.
    names: Arc<Names>,
}

impl Entries {
    /// The names that virtual keys may refer to.
    pub(in crate::config) fn names(&self) -> &Arc<Names> {
        &self.names
    }

    pub(in crate::config) fn set_names(&mut self, names: Arc<Names>) {
        self.names = names;
    }

    /// The same entities of the API beside those of another file.
    pub(in crate::config) fn with_file(&self, document: &Document) -> Self {
        Entries {
            file: Arc::new(OfFile::of(document)),
            api: self.api.clone(),
            names: Arc::clone(&self.names),
        }
    }

    /// With this entity of the API, in the place of one of its name.
    pub(in crate::config) fn put(&mut self, class: impl Into<Class>, name: &str, stored: Stored) {
        self.api[class.into().index()].insert_mut(name.into(), Arc::new(stored));
    }

    /// Without this entity of the API.
    pub(in crate::config) fn remove(&mut self, class: impl Into<Class>, name: &str) {
        self.api[class.into().index()].remove_mut(name);
    }

    /// An entity of the API.
    pub(in crate::config) fn stored(
        &self,
        class: impl Into<Class>,
        name: &str,
    ) -> Option<&Arc<Stored>> {
        self.api[class.into().index()].get(name)
    }

    /// An entity of the file.
    pub(in crate::config) fn owned(&self, kind: Kind, name: &str) -> Option<&Owned> {
        self.file.kinds[kind as usize].get(name)
    }

    /// All entities of a kind that the API made, by name.
    pub(in crate::config) fn all_stored(
        &self,
        class: impl Into<Class>,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<Stored>)> {
        self.api[class.into().index()].iter()
    }

    /// All entities of a kind that the file has, by name.
    pub(in crate::config) fn all_owned(
        &self,
        kind: Kind,
    ) -> impl Iterator<Item = (&Arc<str>, &Owned)> {
        self.file.kinds[kind as usize].iter()
    }

    /// Whether the API made any of this kind.
    pub(in crate::config) fn has_stored(&self, class: impl Into<Class>) -> bool {
        !self.api[class.into().index()].is_empty()
    }

    /// Names after `after`, `limit` of them at most, of both sources.
    pub(in crate::config) fn names_after(
        &self,
        kind: Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<Arc<str>> {
        let from = match after {
            Some(name) => Bound::Excluded(Arc::<str>::from(name)),
            None => Bound::Unbounded,
        };
        let range = (from, Bound::Unbounded);
        let file = self.file.kinds[kind as usize].range(range.clone());
        let api = self.api[Class::Of(kind).index()].range(range);
        let mut names: Vec<Arc<str>> = file
            .take(limit)
            .map(|(name, _)| Arc::clone(name))
            .chain(api.take(limit).map(|(name, _)| Arc::clone(name)))
            .collect();
        names.sort();
        names.truncate(limit);
        names
    }
}

impl OfFile {
    fn of(document: &Document) -> Self {
        let mut all = OfFile::default();
        let file = &document.file;
        all.add(
            document,
            Kind::Customer,
            file.customers.iter().map(|e| e.name.clone()),
        );
        all.add(
            document,
            Kind::Team,
            file.teams.iter().map(|e| e.name.clone()),
        );
        all.add(
            document,
            Kind::Provider,
            file.providers.iter().map(|e| e.name.clone()),
        );
        all.add(
            document,
            Kind::Model,
            file.models.iter().map(|e| e.full_name()),
        );
        all.add(
            document,
            Kind::VirtualKey,
            file.virtual_keys.iter().map(|e| e.name.clone()),
        );
        all.add(
            document,
            Kind::RoutingRule,
            file.routing_rules.iter().map(|e| e.name.clone()),
        );
        all.add(
            document,
            Kind::AdminToken,
            file.admin.tokens.iter().map(|e| e.name.clone()),
        );
        all.add(
            document,
            Kind::Role,
            file.admin.roles.iter().map(|e| e.name.clone()),
        );
        all
    }

    fn add(&mut self, document: &Document, kind: Kind, names: impl Iterator<Item = String>) {
        let section = kind.section().into_iter().flatten();
        let at = section.fold(FieldPath::root(), |at, name| at.key(name));
        for (index, name) in names.enumerate() {
            let place = document.place(&at.index(index));
            let owned = Owned { place, index };
            self.kinds[kind as usize].insert(name.into(), owned);
        }
    }
}
