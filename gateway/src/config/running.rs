//! The running configuration: what its two writers share.
//!
//! Owner of the one `ArcSwap<Live>`. Reloads of the file and writes of the API
//! follow one another under one lock, which no request and no read ever takes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use policy::KeyHash;

use super::catalogue::Ledger;
use super::load::Document;
use super::resolve::{ResolveInto, Startup};
use super::watch::{ReloaderParts, Told};
use crate::state::Live;
use crate::vault::KeyRing;

/// Shared by `Reloader` and `Catalogue`.
pub(super) struct Running {
    pub(super) parts: ReloaderParts,
    pub(super) live: Arc<ArcSwap<Live>>,
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
    /// Where entities of the API are kept; `None` before the node has a store.
    pub(super) ledger: Option<Arc<dyn Ledger>>,
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
            state: Mutex::new(state),
            refused: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves an old fingerprint at worst: `live`
        // is swapped as a whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Lets a configuration run that the API changed; `base`: also in what is
    /// no virtual key.
    pub(super) fn swap_written(&self, state: &mut State, live: Live, base: bool) {
        state.revision = live.policy.revision();
        if base {
            (self.parts.on_reload)(Told::Written(&live));
        }
        let upstreams = Arc::clone(&live.upstreams);
        self.run(live);
        if base {
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
        refused.extend_from_slice(hashes);
        let live = self.live.load_full();
        let revision = live.policy.revision();
        self.live.store(Arc::new(live.refusing(revision, hashes)));
    }

    /// What runs refuses these by itself. Whoever calls holds the lock.
    pub(super) fn refused_for_good(&self, hashes: &[KeyHash]) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|hash| !hashes.contains(hash));
    }
}
