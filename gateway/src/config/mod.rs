//! The configuration: read, judged, resolved, watched.
//!
//! Promise: a document either becomes a `Live` as a whole, or every problem it
//! has is named with file and line and nothing changes. Nothing that this
//! version does not do is accepted and ignored. Owner of the running
//! configuration is `watch::Reloader`.
//!
//! In order: `tree` (YAML with lines), `validate` (by the schema), `file` (the
//! types and their defaults), `resolve` (meaning), `watch` (reload).

mod de;
pub mod file;
mod load;
mod problem;
mod reference;
mod resolve;
mod schema;
#[cfg(test)]
mod tests;
mod tree;
mod unbuilt;
mod validate;
mod watch;

pub use load::{Document, load, parse_all};
pub use problem::Problem;
pub use reference::{Environment, References};
pub use resolve::{ResolveInto, Resolved, Startup, TlsFiles, check, resolve};
pub use schema::{schema, schema_text};
pub use watch::{Looked, OnReload, Reloaded, Reloader, ReloaderParts, Started, start};

/// The document with all defaults, secrets as `***` and references as written.
pub fn redacted(document: &Document) -> serde_json::Value {
    serde_json::to_value(&document.file)
        .expect("the types hold texts, numbers and lists under text keys")
}
