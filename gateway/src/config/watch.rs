//! The running configuration and how it changes.
//!
//! Owner of the one `ArcSwap<Live>`: nobody else stores into it. A reload that
//! has a problem changes nothing and returns every problem. Reloads follow one
//! another; none is ever on the path of a request.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use policy::{Clock, CounterTable};
use tokio::time::Interval;

use super::load::{Document, fingerprint, load, sources};
use super::problem::{FieldPath, Problem};
use super::reference::Environment;
use super::resolve::{ResolveInto, Resolved, Startup, resolve};
use crate::state::Live;
use crate::upstream::ClientPool;

/// Told the new `Live` before it runs (`None`: refused), and the revision that
/// runs afterwards.
pub type OnReload = Box<dyn Fn(Option<&Live>, u64) + Send + Sync>;

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
    /// Called with the configuration that is about to run, or with none when
    /// it was refused, and with the number of the one that runs then.
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
    /// The only writer of `live`.
    pub reloader: Reloader,
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
    parts: ReloaderParts,
    live: Arc<ArcSwap<Live>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The number of the last configuration that worked.
    revision: u64,
    /// As the node was started.
    startup: Startup,
    /// Files that references point to, in the last document that could be typed.
    referenced: BTreeSet<PathBuf>,
    /// Fingerprint of what was read last, whether it worked or not.
    seen: [u8; 32],
    /// A newer fingerprint that has to stand for one more look.
    settling: Option<[u8; 32]>,
}

/// Reads the first configuration.
pub fn start(parts: ReloaderParts) -> Result<Started, Vec<Problem>> {
    let mut referenced = BTreeSet::new();
    let (seen, document) = parts.load(&mut referenced);
    let resolved = parts.resolve(&document?, 1, None)?;
    (parts.on_reload)(Some(&resolved.live), 1);
    let live = Arc::new(ArcSwap::from_pointee(resolved.live));
    let state = State {
        revision: 1,
        startup: resolved.startup.clone(),
        referenced,
        seen,
        settling: None,
    };
    let reloader = Reloader {
        parts,
        live: Arc::clone(&live),
        state: Mutex::new(state),
    };
    Ok(Started {
        live,
        startup: resolved.startup,
        warnings: resolved.warnings,
        reloader,
    })
}

impl Reloader {
    /// Reads everything again and lets it run, or says all that is wrong and
    /// leaves what runs. Blocks on files; one reload at a time.
    pub fn reload(&self) -> Result<Reloaded, Vec<Problem>> {
        self.read(&mut self.lock())
    }

    /// Compares the files with what was read last and reloads when they have
    /// changed and settled. Blocks on files.
    pub fn check_now(&self) -> Looked {
        let mut state = self.lock();
        let now = look(&self.parts.path, &state.referenced);
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
        let (seen, document) = self.parts.load(&mut state.referenced);
        state.seen = seen;
        state.settling = None;
        let read = document.and_then(|document| {
            let previous = self.live.load();
            let revision = state.revision + 1;
            let resolved = self.parts.resolve(&document, revision, Some(&previous))?;
            Ok((document, resolved))
        });
        match read {
            Ok((document, resolved)) => Ok(self.swap(state, &document, resolved)),
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
                (self.parts.on_reload)(None, state.revision);
                Err(problems)
            }
        }
    }

    fn swap(&self, state: &mut State, document: &Document, resolved: Resolved) -> Reloaded {
        state.revision += 1;
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
        let live = Arc::new(resolved.live);
        (self.parts.on_reload)(Some(&live), state.revision);
        self.live.store(Arc::clone(&live));
        self.parts.clients.retain(&live.upstreams);
        self.parts.counters.drop_idle(self.parts.clock.now());
        tracing::info!(revision = state.revision, "configuration loaded");
        Reloaded {
            revision: state.revision,
            warnings,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves an old fingerprint at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReloaderParts {
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

    fn resolve(
        &self,
        document: &Document,
        revision: u64,
        previous: Option<&Live>,
    ) -> Result<Resolved, Vec<Problem>> {
        let into = ResolveInto {
            counters: &self.counters,
            clients: &self.clients,
            revision,
            environment: &self.environment,
            previous,
        };
        resolve(document, &into)
    }
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
            .field("path", &self.parts.path)
            .field("state", &self.state)
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
