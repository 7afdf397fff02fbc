//! The configuration file and how its changes come to run.
//!
//! A reload that has a problem changes nothing and returns every problem; what
//! the API made is judged together with the new file. Reloads follow one
//! another; none is ever on the path of a request.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use policy::{Clock, CounterTable, Price};
use tokio::time::Interval;

use super::catalogue::{Catalogue, Effect, Gone, audit_key};
use super::load::{Document, fingerprint, load, sources};
use super::problem::{FieldPath, Problem};
use super::reference::Environment;
use super::resolve::{ResolveInto, Resolved, Startup, base, resolve};
use super::running::{Running, State};
use crate::prices::PriceList;
use crate::state::Live;
use crate::upstream::ClientPool;
use crate::vault::KeyRing;

/// What happened to the configuration; told before it runs.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// The file was read, and this runs from now on.
    Reloaded(&'a Live),
    /// The API changed something, and this runs from now on.
    Written(&'a Live),
    /// The file was refused; what ran before runs on.
    Refused,
}

/// Told what happens.
pub type OnReload = Box<dyn Fn(Told<'_>) + Send + Sync>;

/// What a `Reloader` works with.
pub struct ReloaderParts {
    /// The file, or the folder of `*.yaml`.
    pub path: PathBuf,
    /// Where references are read from.
    pub environment: Environment,
    /// The counts of limits, shared by all revisions.
    pub counters: Arc<CounterTable>,
    /// The connections to providers, shared by all revisions.
    pub clients: Arc<ClientPool>,
    /// For dropping counters whose window has ended.
    pub clock: Arc<dyn Clock>,
    /// Called before a configuration runs, and when one was refused.
    pub on_reload: OnReload,
}

/// The first configuration, running.
#[derive(Debug)]
pub struct Started {
    /// What requests load, once each.
    pub live: Arc<ArcSwap<Live>>,
    /// What is read at the start only.
    pub startup: Startup,
    /// What an operator should know, though it works.
    pub warnings: Vec<Problem>,
    /// The keys for secrets at rest, as the file gives them at the start.
    pub ring: KeyRing,
    /// Writes `live` when the file changes.
    pub reloader: Reloader,
    /// Writes `live` when the API changes something; empty until it is opened.
    pub catalogue: Arc<Catalogue>,
}

/// A reload that worked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The number of the configuration that runs now.
    pub revision: u64,
    /// What an operator should know, changes that need a restart among it.
    pub warnings: Vec<Problem>,
}

/// What a look at the files led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// Nothing is new.
    Unchanged,
    /// Something is new; it is read once it stays the same for one more look,
    /// so that a file half written is not taken for the whole.
    Settling,
    /// The new configuration runs.
    Reloaded(Reloaded),
    /// The new files have problems; what ran before runs on.
    Refused(Vec<Problem>),
}

/// Reads the configuration again when it is told to or the files change.
pub struct Reloader {
    running: Arc<Running>,
}

/// Reads the first configuration, without anything that the API made: that is
/// added by `Catalogue::open`, once the node has a store.
pub fn start(parts: ReloaderParts) -> Result<Started, Vec<Problem>> {
    let mut referenced = BTreeSet::new();
    let (seen, document) = parts.load(&mut referenced);
    let document = document?;
    let resolved = resolve(&document, &parts.resolve_with(1, None))?;
    (parts.on_reload)(Told::Reloaded(&resolved.live));
    let state = State {
        revision: 1,
        startup: resolved.startup.clone(),
        document,
        ring: resolved.ring.clone(),
        gone: Gone::default(),
        referenced,
        seen,
        settling: None,
    };
    let running = Arc::new(Running::new(parts, resolved.live, state));
    Ok(Started {
        live: Arc::clone(&running.live),
        startup: resolved.startup,
        warnings: resolved.warnings,
        ring: resolved.ring,
        catalogue: Arc::new(Catalogue::new(Arc::clone(&running))),
        reloader: Reloader { running },
    })
}

impl Reloader {
    /// Reads everything again and lets it run, or says all that is wrong and
    /// leaves what runs. Blocks on files; one reload at a time.
    pub fn reload(&self) -> Result<Reloaded, Vec<Problem>> {
        self.read(&mut self.running.lock())
    }

    /// Compares the files with what was read last and reloads when they have
    /// changed and settled. Blocks on files.
    pub fn check_now(&self) -> Looked {
        let mut state = self.running.lock();
        let now = look(&self.running.parts.path, &state.referenced);
        if now == state.seen {
            state.settling = None;
            return Looked::Unchanged;
        }
        if state.settling != Some(now) {
            state.settling = Some(now);
            return Looked::Settling;
        }
        match self.read(&mut state) {
            Ok(reloaded) => Looked::Reloaded(reloaded),
            Err(problems) => Looked::Refused(problems),
        }
    }

    /// Lets the configuration run with another price list: a new one with its
    /// own number if a price in use differs, which is told then. Blocks.
    pub fn use_prices(&self, list: Arc<PriceList>) -> Result<Option<u64>, Vec<Problem>> {
        let mut state = self.running.lock();
        let live = self.running.live.load_full();
        let mut with_list = Live::clone(&live);
        with_list.pricing.list = list;
        let next = {
            let into = self.running.resolve_with(&state, Some(&with_list));
            let (entries, ring) = (&with_list.entries, &state.ring);
            base(&state.document, &with_list, entries, ring, &into)
        };
        match next {
            Ok(next) if !are_priced_alike(&live, &next) => {
                let revision = next.policy.revision();
                let effects = [Effect::Labels];
                self.running.swap_written(&mut state, next, &effects);
                Ok(Some(revision))
            }
            // The list stays for whatever is resolved next.
            Ok(_) => {
                self.running.swap_written(&mut state, with_list, &[]);
                Ok(None)
            }
            Err(problems) => {
                self.running.swap_written(&mut state, with_list, &[]);
                Err(problems)
            }
        }
    }

    /// Calls `check_now` at every tick, for ever; dropped to stop it.
    pub async fn watch(self: Arc<Self>, mut interval: Interval) {
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let reloader = Arc::clone(&self);
            // Files may be on a slow disk: not on a thread that serves others.
            let looked = tokio::task::spawn_blocking(move || reloader.check_now()).await;
            if let Err(error) = looked {
                tracing::error!(%error, "looking at the configuration files failed");
            }
        }
    }

    /// Reads, judges and swaps.
    fn read(&self, state: &mut State) -> Result<Reloaded, Vec<Problem>> {
        let parts = &self.running.parts;
        let (seen, document) = parts.load(&mut state.referenced);
        state.seen = seen;
        state.settling = None;
        let read = document.and_then(|document| {
            let previous = self.running.live.load();
            let resolved = resolve(
                &document,
                &self.running.resolve_with(state, Some(&previous)),
            )?;
            Ok((document, resolved))
        });
        match read {
            Ok((document, resolved)) => Ok(self.swap(state, document, resolved)),
            Err(problems) => {
                for problem in &problems {
                    tracing::error!(
                        file = %problem.file.display(),
                        line = problem.line,
                        path = %problem.path,
                        problem = %problem.message,
                        "configuration refused, the previous one runs on",
                    );
                }
                (parts.on_reload)(Told::Refused);
                Err(problems)
            }
        }
    }

    fn swap(&self, state: &mut State, document: Document, resolved: Resolved) -> Reloaded {
        let parts = &self.running.parts;
        let mut warnings = resolved.warnings;
        for field in state.startup.changed(&resolved.startup) {
            let at = field
                .split('.')
                .fold(FieldPath::root(), |at, name| at.key(name));
            let message = "has changed, which takes a restart: the old value runs on";
            warnings.push(document.problem(&at, message));
        }
        for warning in &warnings {
            tracing::warn!(problem = %warning, "configuration");
        }
        state.document = document;
        state.ring = resolved.ring;
        if let Some(ledger) = self.running.ledger.get() {
            ledger.use_audit_key(audit_key(&state.ring));
        }
        self.running.swap(state, resolved.live);
        if let Some(fleet) = self.running.fleet.get() {
            let cluster = resolved.startup.cluster.as_ref();
            if let Some(cluster) = cluster {
                fleet.set_secrets(&cluster.secrets);
            }
            fleet.set_configuration(self.running.mark(state));
        }
        parts.clients.retain(&self.running.live.load().upstreams);
        parts.counters.drop_idle(parts.clock.now());
        tracing::info!(revision = state.revision, "configuration loaded");
        Reloaded {
            revision: state.revision,
            warnings,
        }
    }
}

impl ReloaderParts {
    /// What configuration number `revision` is resolved with.
    pub(super) fn resolve_with<'a>(
        &'a self,
        revision: u64,
        previous: Option<&'a Live>,
    ) -> ResolveInto<'a> {
        ResolveInto {
            counters: &self.counters,
            clients: &self.clients,
            revision,
            environment: &self.environment,
            previous,
        }
    }

    /// Reads the document and learns which files it refers to; these are
    /// remembered even if the rest fails, as the cure may be in one of them.
    /// The fingerprint is older than what was read, so a change during the
    /// reading is found by the next look.
    fn load(
        &self,
        referenced: &mut BTreeSet<PathBuf>,
    ) -> ([u8; 32], Result<Document, Vec<Problem>>) {
        let mut seen = look(&self.path, referenced);
        let mut document = load(&self.path);
        if let Ok(first) = &document {
            let now = first.referenced(&self.environment);
            if now != *referenced {
                *referenced = now;
                seen = look(&self.path, referenced);
                document = load(&self.path);
            }
        }
        (seen, document)
    }
}

/// Whether no model costs anything else, or answers longer.
fn are_priced_alike(one: &Live, other: &Live) -> bool {
    let priced = |live: &Live| -> Vec<(Price, Option<u64>)> {
        let models = live.policy.models().iter();
        models
            .map(|model| (model.price, model.max_output_tokens))
            .collect()
    };
    priced(one) == priced(other)
}

/// Fingerprint of the configuration's files and those referred to.
fn look(path: &Path, referenced: &BTreeSet<PathBuf>) -> [u8; 32] {
    // A folder that cannot be read counts as its own name.
    let files = sources(path).unwrap_or_else(|_| vec![path.to_path_buf()]);
    let all = files.iter().chain(referenced);
    fingerprint(all.map(PathBuf::as_path))
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader")
            .field("path", &self.running.parts.path)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ReloaderParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloaderParts")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
