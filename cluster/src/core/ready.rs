//! When this node may count, and when it may serve.
//!
//! Promise: a node that has not merged what others counted serves nothing, so that a restart hands
//! out no fresh budget; nor does it while a peer serves by newer entities, so that no revoked key
//! comes back. One that can learn it from nobody serves after 10 s by what it kept itself, and says
//! so, and never if it kept nothing. Nothing is counted by a clock that was not compared with the
//! others': it would move windows on too early.

use std::time::Duration;

use super::peer::Link;
use super::{Core, Now};

/// How long a node waits for a store and peers that do not answer.
const AT_MOST: Duration = Duration::from_secs(10);

/// How long it waits for the others' clocks, and for those that are slower than the first.
const CLOCK_AT_MOST: Duration = Duration::from_secs(3);
const CLOCK_MORE: Duration = Duration::from_secs(1);

/// What this node has learnt since its start.
#[derive(Debug)]
pub(super) struct Ready {
    began: Duration,
    /// When the first clock was measured.
    measured: Option<Duration>,
    /// Cluster time is as good as it gets: from now on this node counts.
    pub(super) clock_known: bool,
    /// The stored cells.
    pub(super) loaded: bool,
    /// The store failed to give them.
    pub(super) store_away: bool,
    /// A peer's cells.
    pub(super) merged: bool,
    pub(super) caught_up: bool,
    /// It was said who the seeds are: their names were looked up.
    pub(super) seeds_known: bool,
    /// Nothing of an earlier run is there, and the store was away.
    starts_empty: bool,
}

impl Ready {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            began: now,
            measured: None,
            clock_known: false,
            loaded: false,
            store_away: false,
            merged: false,
            caught_up: false,
            seeds_known: false,
            starts_empty: false,
        }
    }

    /// Neither the store nor a peer has told what was counted before.
    pub(super) fn knows_nothing(&self) -> bool {
        !self.loaded && !self.merged
    }

    pub(super) fn runs_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.began)
    }

    /// Whether this node may serve; `alone`: nobody is there to ask, `behind`: somebody serves by
    /// newer entities.
    fn may_serve(&self, alone: bool, behind: bool, now: Duration) -> bool {
        let waited = now.saturating_sub(self.began) >= AT_MOST;
        if behind && !waited {
            return false;
        }
        match (self.loaded, self.merged) {
            (true, true) => true,
            (true, false) => alone || waited,
            (false, true) => self.store_away || waited,
            // From what the node itself kept.
            (false, false) => waited && !self.starts_empty,
        }
    }
}

impl Core {
    /// This node has nothing of its own to go by.
    pub(crate) fn start_empty(&mut self) {
        self.ready.starts_empty = true;
    }

    /// Whether this node has entities to serve by: from an earlier run, or as many as a peer has.
    fn has_entities(&self) -> bool {
        if !self.ready.starts_empty {
            return true;
        }
        let linked = self.peers.values().filter(|peer| peer.link.is_some());
        match linked.filter_map(|peer| peer.applied).max() {
            Some(theirs) => self.news.applied.unwrap_or(0) >= theirs,
            // From the store, which is back.
            None => self.ready.loaded && self.news.applied.is_some(),
        }
    }

    /// Once cluster time is known, asks for what was counted before.
    pub(super) fn watch_clock(&mut self, now: Now) {
        if self.ready.clock_known {
            return;
        }
        let is_measured = |link: &Link| link.samples.best().is_some();
        let links = self.peers.values().filter_map(|peer| peer.link.as_ref());
        let known = links.filter(|link| is_measured(link)).count() as u64;
        if known > 0 {
            self.ready.measured.get_or_insert(now.mono);
        }
        let expected = self.config.configured_nodes.saturating_sub(1);
        let of = |node| self.link(node).is_some_and(is_measured);
        let all =
            known >= expected.max(1) && self.live_peers().all(|member| of(member.identity.node));
        let since = |at: Duration| now.mono.saturating_sub(at);
        let enough = self
            .ready
            .measured
            .is_some_and(|at| since(at) >= CLOCK_MORE);
        let waited = since(self.ready.began) >= CLOCK_AT_MOST;
        if all || enough || waited || self.is_alone() {
            self.ready.clock_known = true;
            self.clock.settle();
            self.compare_with_all();
            if let Some(kept) = self.flush.kept.take() {
                self.stored_cells_came(&kept, now);
            }
        }
    }

    /// Whether nobody is there to ask.
    fn is_alone(&self) -> bool {
        let expects = self.config.seeds_expected;
        let settled = || self.ready.seeds_known && self.membership.seeds_settled();
        self.live_peers().next().is_none() && (!expects || settled())
    }

    pub(super) fn watch_ready(&mut self, now: Now) {
        if self.ready.caught_up {
            return;
        }
        let alone = self.is_alone() && self.knows_strangers(now);
        if self.ready.may_serve(alone, self.is_behind(), now.mono) && self.has_entities() {
            self.ready.caught_up = true;
            // From now on it may lead.
            self.members_changed = true;
            tracing::info!(
                loaded = self.ready.loaded,
                merged = self.ready.merged,
                "this node has caught up and may serve"
            );
        }
    }
}

impl Core {
    /// Whether it is known who has a row in the store without being in reach: with them a limit is
    /// shared.
    fn knows_strangers(&self, now: Now) -> bool {
        let mut strangers = self.strangers();
        !self.config.seeds_expected
            || self.heartbeats.were_read()
                && strangers.all(|(_, stranger)| stranger.is_missing(now.mono))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_node_may_serve() {
        let early = Duration::from_secs(4);
        let late = Duration::from_secs(10);
        // (loaded, store away, merged, alone, when, may it serve)
        let cases = [
            (true, false, true, false, early, true),
            (true, false, false, true, early, true),
            (true, false, false, false, early, false),
            (true, false, false, false, late, true),
            (false, false, true, false, early, false),
            (false, true, true, false, early, true),
            (false, true, false, true, early, false),
            (false, true, false, true, late, true),
            (false, false, false, false, early, false),
        ];
        for (loaded, store_away, merged, alone, when, expected) in cases {
            let ready = Ready {
                loaded,
                store_away,
                merged,
                ..Ready::new(Duration::ZERO)
            };
            let case = (loaded, store_away, merged, alone, when);
            assert_eq!(ready.may_serve(alone, false, when), expected, "{case:?}");
            let behind = ready.may_serve(alone, true, when);
            assert_eq!(behind, expected && when == late, "{case:?}");
        }
    }
}
