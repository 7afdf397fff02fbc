//! A file with the entities of the API in its lists, but without virtual keys.
//!
//! Entities of the API stand in the tree as items of line 0 whose file is
//! their place, so that every problem names them as it names a line.

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::Document;
use crate::config::catalogue::{Entries, Kind};
use crate::config::file::File;
use crate::config::problem::{FieldPath, Problem, api_place};
use crate::config::tree::{Entry, Node, Value};

/// Sections that the base is resolved from again and again: keys are not.
const LEFT_OUT: &str = "virtual_keys";

/// The document to resolve the base from. Fails on stored bodies that this
/// version cannot type.
pub(super) fn merge(document: &Document, api: &Entries) -> Result<Document, Vec<Problem>> {
    let mut merge = Merge {
        tree: without_keys(&document.tree),
        api,
        problems: Vec::new(),
    };
    let from = &document.file;
    let mut file = File {
        version: from.version,
        revision: from.revision.clone(),
        server: from.server.clone(),
        admin: from.admin.clone(),
        store: from.store.clone(),
        encryption: from.encryption.clone(),
        providers: from.providers.clone(),
        models: from.models.clone(),
        customers: from.customers.clone(),
        teams: from.teams.clone(),
        virtual_keys: Vec::new(),
        routing_rules: from.routing_rules.clone(),
        governance: from.governance.clone(),
        cluster: from.cluster.clone(),
        catalogue: from.catalogue.clone(),
    };
    merge.add(Kind::Provider, &mut file.providers);
    merge.add(Kind::Model, &mut file.models);
    merge.add(Kind::Customer, &mut file.customers);
    merge.add(Kind::Team, &mut file.teams);
    merge.add(Kind::RoutingRule, &mut file.routing_rules);
    merge.add(Kind::AdminToken, &mut file.admin.tokens);
    merge.add(Kind::Role, &mut file.admin.roles);
    if !merge.problems.is_empty() {
        return Err(merge.problems);
    }
    Ok(Document {
        file,
        tree: merge.tree,
        pending: Vec::new(),
    })
}

struct Merge<'a> {
    tree: Node,
    api: &'a Entries,
    problems: Vec<Problem>,
}

impl Merge<'_> {
    /// Adds the entities of a kind to their list, in the types and in the tree.
    fn add<T: DeserializeOwned>(&mut self, kind: Kind, list: &mut Vec<T>) {
        for (name, stored) in self.api.all_stored(kind) {
            let file = api_place(kind.path(), name);
            match serde_json::from_str(&stored.body) {
                Ok(entity) => {
                    list.push(entity);
                    let section = kind.section().unwrap_or_default();
                    append(&mut self.tree, section, placeholder(&file));
                }
                Err(error) => self.problems.push(Problem {
                    file,
                    line: 0,
                    path: String::new(),
                    message: format!("this version cannot read it: {error}"),
                }),
            }
        }
    }
}

/// Stands for an entity of the API.
fn placeholder(place: &Path) -> Node {
    Node {
        file: Arc::from(place),
        line: 0,
        value: Value::Map(Vec::new()),
    }
}

fn without_keys(tree: &Node) -> Node {
    let value = match &tree.value {
        Value::Map(entries) => {
            let kept = entries.iter().filter(|entry| entry.key != LEFT_OUT);
            Value::Map(kept.cloned().collect())
        }
        other => other.clone(),
    };
    Node {
        file: Arc::clone(&tree.file),
        line: tree.line,
        value,
    }
}

/// Appends to the list at `section`, which is made where there is none.
fn append(tree: &mut Node, section: &[&str], item: Node) {
    let (file, line) = tree.place(&FieldPath::root());
    let mut node = tree;
    for (depth, name) in section.iter().enumerate() {
        if !matches!(node.value, Value::Map(_)) {
            node.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut node.value else {
            return;
        };
        let at = entries.iter().position(|entry| entry.key == *name);
        let at = at.unwrap_or_else(|| {
            let value = match depth + 1 == section.len() {
                true => Value::List(Vec::new()),
                false => Value::Map(Vec::new()),
            };
            entries.push(Entry {
                key: (*name).to_owned(),
                line,
                node: Node {
                    file: Arc::clone(&file),
                    line,
                    value,
                },
            });
            entries.len() - 1
        });
        node = &mut entries[at].node;
    }
    if let Value::List(items) = &mut node.value {
        items.push(item);
    }
}
