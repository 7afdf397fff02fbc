//! From a typed document to what the node runs with.
//!
//! Promise: references between entities, secrets and meaning are all judged
//! before anything is built, and every problem is reported at once. Nothing
//! outside is changed by a document that has a problem: counters and clients
//! are touched only after the last check.

mod access;
mod build;
mod cluster;
mod limit;
mod model;
mod provider;
mod server;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use policy::CounterTable;

use super::file::text::is_reference;
use super::load::Document;
use super::problem::{FieldPath, Problem};
use super::reference::{Environment, Found, References};
use crate::state::{AdminToken, Live, RequestBounds};
use crate::upstream::{ClientPool, Secret};

/// What a document is resolved with and into.
#[derive(Clone, Copy, Debug)]
pub struct ResolveInto<'a> {
    /// Where the counts of limits live; those of unchanged limits are found again.
    pub counters: &'a CounterTable,
    /// Where connections to providers live; those of unchanged providers are kept.
    pub clients: &'a ClientPool,
    /// The number of the new configuration.
    pub revision: u64,
    /// Where references are read from.
    pub environment: &'a Environment,
    /// What runs now; models keep what was learnt about them.
    pub previous: Option<&'a Live>,
}

/// A document turned into what runs.
#[derive(Debug)]
pub struct Resolved {
    /// For the request path.
    pub live: Live,
    /// What is read at the start only.
    pub startup: Startup,
    /// What an operator should know, though it works.
    pub warnings: Vec<Problem>,
}

/// What is read at the start only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup {
    /// Where clients connect; at least one.
    pub listen: Vec<SocketAddr>,
    /// Where health, metrics and the admin API are served.
    pub admin_listen: SocketAddr,
    /// Certificate of the data plane.
    pub tls: Option<TlsFiles>,
    /// How long requests in flight may go on after a stop.
    pub drain_grace: Duration,
    /// Folder of the usage file and the node's lock.
    pub data_dir: PathBuf,
    /// Unix socket over which a new process takes over.
    pub upgrade_socket: Option<PathBuf>,
    /// Database file.
    pub store_path: PathBuf,
    /// Threads of the data plane; `None`: one per core.
    pub threads: Option<usize>,
    /// A request's head must be complete within this time.
    pub header_timeout: Duration,
    /// A kept connection without a request is closed after this time.
    pub idle_timeout: Duration,
    /// Connections at the same time.
    pub max_connections: usize,
    /// Connections at the same time from one IP address.
    pub max_connections_per_address: usize,
}

impl Startup {
    /// The fields in which `other` differs, by their names in the file.
    pub(super) fn changed(&self, other: &Startup) -> Vec<&'static str> {
        let fields = [
            ("server.listen", self.listen != other.listen),
            (
                "server.admin_listen",
                self.admin_listen != other.admin_listen,
            ),
            ("server.tls", self.tls != other.tls),
            ("server.drain_grace", self.drain_grace != other.drain_grace),
            ("server.data_dir", self.data_dir != other.data_dir),
            (
                "server.upgrade_socket",
                self.upgrade_socket != other.upgrade_socket,
            ),
            ("store.path", self.store_path != other.store_path),
            ("server.threads", self.threads != other.threads),
            (
                "server.header_timeout",
                self.header_timeout != other.header_timeout,
            ),
            (
                "server.idle_timeout",
                self.idle_timeout != other.idle_timeout,
            ),
            (
                "server.max_connections",
                self.max_connections != other.max_connections,
            ),
            (
                "server.max_connections_per_address",
                self.max_connections_per_address != other.max_connections_per_address,
            ),
        ];
        fields
            .iter()
            .filter(|(_, changed)| *changed)
            .map(|(name, _)| *name)
            .collect()
    }
}

/// A certificate and its key as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Judges a document without building anything. `Ok` holds the warnings.
pub fn check(
    document: &Document,
    references: References<'_>,
) -> Result<Vec<Problem>, Vec<Problem>> {
    plan(document, references).map(|(_, warnings)| warnings)
}

/// Resolves a document, or says all that is wrong with it.
pub fn resolve(document: &Document, into: &ResolveInto<'_>) -> Result<Resolved, Vec<Problem>> {
    let (plan, warnings) = plan(document, References::Resolve(into.environment))?;
    let startup = plan.startup.clone();
    let live = build::live(document, plan, into)?;
    Ok(Resolved {
        live,
        startup,
        warnings,
    })
}

/// Everything a `Live` is made of, less what is shared between revisions.
struct Plan {
    startup: Startup,
    bounds: RequestBounds,
    admin_tokens: Vec<AdminToken>,
    providers: Vec<provider::ProviderPlan>,
    models: Vec<policy::Model>,
    aliases: Vec<(Arc<str>, Vec<policy::ModelId>)>,
    access: access::AccessPlan,
}

fn plan(
    document: &Document,
    references: References<'_>,
) -> Result<(Plan, Vec<Problem>), Vec<Problem>> {
    let mut checks = Checks {
        document,
        references,
        problems: document.pending.clone(),
        warnings: Vec::new(),
    };
    let names = model::names(&mut checks);
    let plan = Plan {
        startup: server::startup(&mut checks),
        bounds: server::bounds(&mut checks),
        admin_tokens: server::admin_tokens(&mut checks),
        providers: provider::providers(&mut checks, &names),
        models: model::models(&mut checks, &names),
        aliases: model::aliases(&mut checks, &names),
        access: access::access(&mut checks, &names),
    };
    server::encryption(&mut checks);
    cluster::cluster(&mut checks);
    if checks.problems.is_empty() {
        return Ok((plan, in_order(checks.warnings)));
    }
    Err(in_order(checks.problems))
}

/// By file and line, as an operator goes through them.
fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|a, b| (&a.file, a.line, &a.path).cmp(&(&b.file, b.line, &b.path)));
    problems.dedup();
    problems
}

/// The checks so far.
struct Checks<'a> {
    document: &'a Document,
    references: References<'a>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Checks<'_> {
    fn problem(&mut self, path: &FieldPath, message: impl Into<String>) {
        let problem = self.document.problem(path, message);
        self.problems.push(problem);
    }

    fn warning(&mut self, path: &FieldPath, message: impl Into<String>) {
        let warning = self.document.problem(path, message);
        self.warnings.push(warning);
    }

    /// What a text that may be a reference stands for; `None` when it was not
    /// read or could not be, the latter being reported.
    fn read(&mut self, path: &FieldPath, text: &str) -> Option<String> {
        match self.references.read(text) {
            Ok(Found::Text(text)) => Some(text),
            Ok(Found::Unread) => None,
            Err(message) => {
                self.problem(path, message);
                None
            }
        }
    }

    /// A secret of at least `least` printable characters. One that was not
    /// read or is wrong is stood in for by its reference, for comparisons.
    fn secret(&mut self, path: &FieldPath, text: &str, least: usize) -> Secret {
        let Some(secret) = self.read(path, text) else {
            return Secret::new(text.to_owned());
        };
        let whence = match is_reference(text) {
            true => format!("the value of `{text}`"),
            false => "the value".to_owned(),
        };
        let printable = |c: char| c.is_ascii_graphic() || c == ' ';
        if !secret.chars().all(printable) {
            self.problem(path, format!("{whence} must be printable ASCII characters"));
        } else if secret.starts_with(' ') || secret.ends_with(' ') {
            self.problem(path, format!("{whence} must not begin or end with a space"));
        } else if secret.len() < least {
            let message = format!("{whence} must have {least} or more characters");
            self.problem(path, message);
        }
        Secret::new(secret)
    }

    /// A length of time that must not be zero.
    fn positive(&mut self, path: &FieldPath, length: &super::file::Length) -> Duration {
        if length.get().is_zero() {
            self.problem(path, "must be more than zero");
        }
        length.get()
    }

    /// Reports a name that stands twice, naming the other place.
    fn once<'n>(
        &mut self,
        seen: &mut BTreeMap<&'n str, FieldPath>,
        what: &str,
        name: &'n str,
        path: &FieldPath,
    ) -> bool {
        match seen.get(name) {
            None => {
                seen.insert(name, path.clone());
                true
            }
            Some(first) => {
                let place = self.document.place(first);
                let message = format!("{what} '{name}' is already defined at {place}");
                self.problem(path, message);
                false
            }
        }
    }
}

/// `message`, and the known name that was most likely meant.
fn unknown(what: &str, name: &str, known: impl Iterator<Item = impl AsRef<str>>) -> String {
    let known: Vec<String> = known.map(|name| name.as_ref().to_owned()).collect();
    match super::validate::nearest(name, &known) {
        Some(close) => format!("there is no {what} '{name}', did you mean '{close}'?"),
        None => format!("there is no {what} '{name}'"),
    }
}
