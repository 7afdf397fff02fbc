//! The running configuration: what its two writers share.
//!
//! Owner of the one `ArcSwap<Live>`. Reloads of the file and writes of the API
//! follow one another under one lock, which no request and no read ever takes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use policy::KeyHash;
use tokio::sync::Notify;

use super::catalogue::{Effect, Fleet, Gone, Ledger};
use super::load::Document;
use super::resolve::{ResolveInto, Startup};
use super::watch::{ReloaderParts, Told};
use crate::state::Live;
use crate::vault::KeyRing;

/// Shared by `Reloader` and `Catalogue`.
pub(super) struct Running {
    pub(super) parts: ReloaderParts,
    pub(super) live: Arc<ArcSwap<Live>>,
    /// Where entities of the API are kept; none before the node has a store.
    /// Set once, so that who needs it waits for nobody.
    pub(super) ledger: OnceLock<Arc<dyn Ledger>>,
    /// The other nodes; none where the node stands alone.
    pub(super) fleet: OnceLock<Arc<dyn Fleet>>,
    /// Rung when something of other processes is to be taken over now.
    pub(super) news: Arc<Notify>,
    /// Polls that may have read what does not run yet.
    polls: AtomicUsize,
    state: Mutex<State>,
    /// Refused by calls that wait for `state`: whatever comes to run meanwhile
    /// refuses them too. Held for the moment of a swap, never while anything
    /// waits.
    refused: Mutex<Vec<KeyHash>>,
}

/// What the present configuration was made of.
#[derive(Debug)]
pub(super) struct State {
    /// The number of the last configuration that worked.
    pub(super) revision: u64,
    /// As the node was started.
    pub(super) startup: Startup,
    /// The file that runs.
    pub(super) document: Document,
    /// Its keys for secrets at rest.
    pub(super) ring: KeyRing,
    /// Entities that were taken away lately: what comes late does not bring
    /// them back.
    pub(super) gone: Gone,
    /// Files that references point to, in the last document that could be typed.
    pub(super) referenced: BTreeSet<PathBuf>,
    /// Fingerprint of what was read last, whether it worked or not.
    pub(super) seen: [u8; 32],
    /// A newer fingerprint that has to stand for one more look.
    pub(super) settling: Option<[u8; 32]>,
}

impl Running {
    pub(super) fn new(parts: ReloaderParts, live: Live, state: State) -> Self {
        Running {
            parts,
            live: Arc::new(ArcSwap::from_pointee(live)),
            ledger: OnceLock::new(),
            fleet: OnceLock::new(),
            news: Arc::default(),
            polls: AtomicUsize::new(0),
            state: Mutex::new(state),
            refused: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves an old fingerprint at worst: `live`
        // is swapped as a whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads entities that others wrote, and lets them run.
    pub(super) fn polling<T>(&self, read: impl FnOnce() -> T) -> T {
        self.polls.fetch_add(1, Ordering::SeqCst);
        let done = read();
        self.polls.fetch_sub(1, Ordering::SeqCst);
        done
    }

    /// Tells the others up to where entities run here, unless some do not fit
    /// or a poll, which says it at its end, has not got so far. Whoever calls
    /// holds the lock.
    pub(super) fn tell_applied(&self) {
        let (Some(fleet), Some(ledger)) = (self.fleet.get(), self.ledger.get()) else {
            return;
        };
        // First: what a poll reads from now on is not in it.
        let revision = ledger.revision();
        if self.polls.load(Ordering::SeqCst) == 0 && self.live.load().misfit.is_none() {
            fleet.applied(revision);
        }
    }

    /// What the next configuration is resolved with.
    pub(super) fn resolve_with<'a>(
        &'a self,
        state: &State,
        previous: Option<&'a Live>,
    ) -> ResolveInto<'a> {
        self.parts.resolve_with(state.revision + 1, previous)
    }

    /// Lets a configuration run. Whoever calls holds the lock.
    pub(super) fn swap(&self, state: &mut State, live: Live) {
        state.revision = live.policy.revision();
        (self.parts.on_reload)(Told::Reloaded(&live));
        self.run(live);
    }

    /// Lets a configuration run that the API changed, with what follows from
    /// the kinds that changed. Whoever calls holds the lock.
    pub(super) fn swap_written(&self, state: &mut State, live: Live, effects: &[Effect]) {
        state.revision = live.policy.revision();
        if effects.contains(&Effect::Labels) {
            (self.parts.on_reload)(Told::Written(&live));
        }
        let upstreams = Arc::clone(&live.upstreams);
        self.run(live);
        if effects.contains(&Effect::Connections) {
            self.parts.clients.retain(&upstreams);
        }
    }

    fn run(&self, mut live: Live) {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if !refused.is_empty() {
            live = live.refusing(live.policy.revision(), &refused);
        }
        self.live.store(Arc::new(live));
    }

    /// Refuses these from now on, and does not wait for who holds the lock:
    /// what that one lets run refuses them too. Until `refused_for_good`.
    pub(super) fn refuse(&self, hashes: &[KeyHash]) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live.load_full();
        let news = |hash: &&KeyHash| !refused.contains(hash) && !live.is_refusing(hash);
        let news: Vec<KeyHash> = hashes.iter().filter(news).copied().collect();
        if news.is_empty() {
            return;
        }
        refused.extend_from_slice(&news);
        let revision = live.policy.revision();
        self.live.store(Arc::new(live.refusing(revision, &news)));
    }

    /// Those that only calls to `refuse` refuse so far.
    pub(super) fn refused(&self) -> Vec<KeyHash> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.clone()
    }

    /// What runs refuses these by itself. Whoever calls holds the lock.
    pub(super) fn refused_for_good(&self, hashes: &[KeyHash]) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|hash| !hashes.contains(hash));
    }
}
