//! The configuration: read, judged, resolved, watched.
//!
//! Promise: a document either becomes a `Live` as a whole, or every problem it
//! has is named with file and line and nothing changes. Nothing that this
//! version does not do is accepted and ignored. The same holds for each entity
//! that the API makes. Owner of the running configuration is `running`.
//!
//! In order: `tree` (YAML with lines), `validate` (by the schema), `file` (the
//! types and their defaults), `resolve` (meaning), `watch` (reload),
//! `catalogue` (entities of file and API together).

pub mod catalogue;
mod de;
pub mod file;
mod load;
mod mark;
mod problem;
mod reference;
mod resolve;
mod running;
mod schema;
#[cfg(test)]
mod tests;
mod tree;
mod unbuilt;
mod validate;
mod watch;

pub use catalogue::{Catalogue, Entries};
pub use load::{Document, load, parse_all};
pub use problem::Problem;
pub use reference::{Environment, References};
pub use resolve::{
    ClusterSettings, ClusterTlsFiles, PostgresSettings, ResolveInto, Resolved, Startup,
    StoreSettings, TlsFiles, check, resolve, store_and_keys,
};
pub use schema::{entity_schema, schema, schema_text};
pub use watch::{Looked, OnReload, Reloaded, Reloader, ReloaderParts, Started, Told, start};

/// Whether the file at `path` makes the node part of a cluster; what is wrong
/// with the file is told by who reads all of it.
pub fn asks_for_cluster(path: &std::path::Path) -> bool {
    load(path).is_ok_and(|document| document.file.cluster.enabled)
}

/// The document with all defaults, secrets as `***` and references as written.
pub fn redacted(document: &Document) -> serde_json::Value {
    serde_json::to_value(&document.file)
        .expect("the types hold texts, numbers and lists under text keys")
}
