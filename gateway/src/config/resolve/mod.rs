//! From typed entities to what the node runs with.
//!
//! Promise: references between entities, secrets and meaning are all judged
//! before anything is built, and every problem is reported at once. Nothing
//! outside is changed by a document that has a problem: counters and clients
//! are touched only after the last check.
//!
//! A file stands by itself: its entities name no entity of the API, so that
//! `tyr check` says what the node will say. Entities of the API may name those
//! of the file. All but virtual keys is the base and is resolved as a whole;
//! virtual keys are resolved one at a time, by the names of the base.

mod access;
mod adjust;
mod admin;
mod build;
mod cluster;
mod dangling;
mod governance;
mod key;
mod limit;
mod merge;
mod model;
mod names;
mod prices;
mod provider;
mod rule;
mod server;
mod store;
mod whole;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use policy::CounterTable;

use super::catalogue::Entries;
use super::file::File;
use super::file::text::is_reference;
use super::load::Document;
use super::problem::{FieldPath, Problem};
use super::reference::{Environment, Found, References};
use crate::state::{AdminAccess, Live, RequestBounds};
use crate::upstream::{ClientPool, Secret};
use crate::vault::{KeyRing, Place, is_sealed};

pub(super) use adjust::is_of_key;
pub use cluster::{ClusterSettings, ClusterTlsFiles};
pub(super) use key::KeyPlan;
pub(super) use names::Names;
pub use store::{PostgresSettings, StoreSettings};
pub use whole::{Resolved, resolve};
pub(super) use whole::{base, build_key, key_of_file, one_key};

/// What a document is resolved with and into.
#[derive(Clone, Copy, Debug)]
pub struct ResolveInto<'a> {
    /// Where the counts of limits live; those of unchanged limits are found again.
    pub counters: &'a Arc<CounterTable>,
    /// Where connections to providers live; those of unchanged providers are kept.
    pub clients: &'a ClientPool,
    /// The number of the new configuration.
    pub revision: u64,
    /// Where references are read from.
    pub environment: &'a Environment,
    /// What runs now; models keep what was learnt about them, and virtual keys
    /// of the API are taken over.
    pub previous: Option<&'a Live>,
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
    /// The node's name: `cluster.node_id`, else the host's.
    pub node_id: String,
    /// Folder of the usage file and the node's lock.
    pub data_dir: PathBuf,
    /// Unix socket over which a new process takes over.
    pub upgrade_socket: Option<PathBuf>,
    /// Where the node keeps what has to last.
    pub store: StoreSettings,
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
    /// How the node takes part in a cluster; `None`: it stands alone. Its
    /// secrets may change while the node runs.
    pub cluster: Option<ClusterSettings>,
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
            ("cluster.node_id", self.node_id != other.node_id),
            ("server.data_dir", self.data_dir != other.data_dir),
            (
                "server.upgrade_socket",
                self.upgrade_socket != other.upgrade_socket,
            ),
            ("store", self.store != other.store),
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
            (
                "cluster",
                match (&self.cluster, &other.cluster) {
                    (Some(mine), Some(theirs)) => !mine.is_fixed_as(theirs),
                    (mine, theirs) => mine.is_some() != theirs.is_some(),
                },
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

/// The store and the keys for secrets at rest, and nothing else of a file: a
/// command needs no references that only a node needs.
pub fn store_and_keys(
    document: &Document,
    environment: &Environment,
) -> Result<(StoreSettings, KeyRing), Vec<Problem>> {
    let nothing = KeyRing::default();
    let references = References::Resolve(environment);
    let mut checks = Checks::new(Source::Document(document), references, &nothing);
    checks.problems.clone_from(&document.pending);
    let store = store::store(&mut checks, &document.file);
    let ring = store::encryption(&mut checks, &document.file);
    checks.verdict().map(|_| (store, ring))
}

/// All that a file is made of, less what is shared between revisions.
struct Plan {
    startup: Startup,
    ring: KeyRing,
    base: BasePlan,
    keys: Vec<KeyPlan>,
}

/// All but virtual keys.
struct BasePlan {
    names: Names,
    bounds: RequestBounds,
    admin: AdminAccess,
    providers: Vec<provider::ProviderPlan>,
    models: Vec<model::ModelPlan>,
    aliases: Vec<(Arc<str>, Vec<policy::ModelId>)>,
    customers: Vec<limit::ScopePlan>,
    teams: Vec<access::TeamPlan>,
    governance: governance::GovernancePlan,
    rules: Vec<policy::Rule>,
    prices: Option<prices::SourcePlan>,
}

/// Judges a file by itself.
fn plan(
    document: &Document,
    references: References<'_>,
) -> Result<(Plan, Vec<Problem>), Vec<Problem>> {
    let nothing = KeyRing::default();
    let mut checks = Checks::new(Source::Document(document), references, &nothing);
    checks.problems.clone_from(&document.pending);
    let file = &document.file;
    let mut startup = server::startup(&mut checks, file);
    let ring = store::encryption(&mut checks, file);
    let base = base_plan(&mut checks, file, None);
    let keys = key::keys(&mut checks, &base.names, file);
    startup.cluster = cluster::cluster(&mut checks, document, &startup.node_id);
    let plan = Plan {
        startup,
        ring,
        base,
        keys,
    };
    checks.verdict().map(|warnings| (plan, warnings))
}

/// `file` may be a file alone or with the entities of the API in it, which are
/// `api` then.
fn base_plan(checks: &mut Checks<'_>, file: &File, api: Option<&Entries>) -> BasePlan {
    let names = names::names(checks, file);
    BasePlan {
        bounds: server::bounds(checks, file),
        admin: admin::admin(checks, file),
        providers: provider::providers(checks, &names, file),
        models: model::models(checks, &names, file),
        aliases: model::aliases(checks, &names, file),
        customers: access::customers(checks, file),
        teams: access::teams(checks, &names, file),
        governance: governance::governance(checks, &names, file),
        rules: rule::rules(checks, &names, file, api),
        prices: prices::source(checks, file),
        names,
    }
}

/// By file and line, as an operator goes through them.
fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|a, b| (&a.file, a.line, &a.path).cmp(&(&b.file, b.line, &b.path)));
    problems.dedup();
    problems
}

/// The checks so far.
struct Checks<'a> {
    source: Source<'a>,
    references: References<'a>,
    /// Opens the secrets of entities of the API.
    ring: &'a KeyRing,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// What is judged, for the places in messages.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// A file, perhaps with entities of the API in its lists.
    Document(&'a Document),
    /// One entity of the API.
    Api(&'a Path),
}

impl<'a> Checks<'a> {
    fn new(source: Source<'a>, references: References<'a>, ring: &'a KeyRing) -> Self {
        Checks {
            source,
            references,
            ring,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// What is wrong, or the warnings.
    fn verdict(self) -> Result<Vec<Problem>, Vec<Problem>> {
        match self.problems.is_empty() {
            true => Ok(in_order(self.warnings)),
            false => Err(in_order(self.problems)),
        }
    }

    fn found(&self, path: &FieldPath, message: String) -> Problem {
        match self.source {
            Source::Document(document) => document.problem(path, message),
            Source::Api(place) => Problem {
                file: place.to_path_buf(),
                line: 0,
                path: path.pointer(),
                message,
            },
        }
    }

    fn problem(&mut self, path: &FieldPath, message: impl Into<String>) {
        let problem = self.found(path, message.into());
        self.problems.push(problem);
    }

    fn warning(&mut self, path: &FieldPath, message: impl Into<String>) {
        let warning = self.found(path, message.into());
        self.warnings.push(warning);
    }

    /// Where the field at `path` stands, in words.
    fn place(&self, path: &FieldPath) -> String {
        match self.source {
            Source::Document(document) => document.place(path),
            Source::Api(place) => format!("{}: {}", place.display(), path.pointer()),
        }
    }

    /// Whether the field at `path` is of an entity that the API made.
    fn is_of_api(&self, path: &FieldPath) -> bool {
        match self.source {
            Source::Document(document) => document.is_of_api(path),
            Source::Api(_) => true,
        }
    }

    /// A provider's credential, opened if the API stored it.
    fn credential(&mut self, path: &FieldPath, text: &str, place: &Place<'_>) -> Secret {
        if !self.is_of_api(path) || !is_sealed(text) {
            return self.secret(path, text, 1);
        }
        self.ring.open(text, place).unwrap_or_else(|error| {
            self.problem(path, error.to_string());
            Secret::new(String::new())
        })
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
                let place = self.place(first);
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
