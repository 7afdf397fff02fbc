//! Who is missing: members that this node cannot hear and that may go on serving.
//!
//! A member that said that it goes, that left, or that is gone beyond doubt is not missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Core, Now};
use crate::data_dir::NodeKey;
use crate::membership::Member;
use crate::origin::Origin;

/// How long a known member may be without a link before it is missing.
const UNLINKED: Duration = Duration::from_secs(1);

/// How long a new member may be without its first link.
const FIRST_LINK: Duration = Duration::from_secs(3);

/// How long a member with a link may be silent; pings come more often.
const SILENT: Duration = Duration::from_secs(3);

/// After how many sync intervals of silence a member is taken to go on alone; something is said in
/// every second one.
const QUIET_INTERVALS: u32 = 5;

/// But not sooner, and as soon without a link.
const QUIET: Duration = Duration::from_millis(500);

/// Who of the members can be heard.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// All nodes of when nobody was apart, this one among them.
    pub(super) full: BTreeSet<NodeKey>,
    /// Names of those missing.
    pub(super) missing: BTreeMap<NodeKey, String>,
    /// Those that may go on alone: the missing, and the silent that soon may be missing. Until they
    /// are heard, limits give shares.
    pub(super) apart: BTreeSet<NodeKey>,
    /// Processes whose heartbeat the store says is old.
    pub(super) stale: BTreeSet<Origin>,
    /// Those whose heartbeat is not; `None`: it was never asked.
    pub(super) fresh: Option<BTreeSet<Origin>>,
    /// When the most silent live member was heard last.
    pub(super) heard: Duration,
    /// How long it took to notice that members are apart.
    pub(super) gap: Duration,
}

// === impl Split ===

impl Split {
    /// Whether nobody is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }

    /// How many of the members can be heard, and how many there were.
    pub(super) fn parts(&self) -> (u64, u64) {
        let outside = self.apart.difference(&self.full).count();
        let visible = self.full.difference(&self.apart).count();
        (visible as u64, (self.full.len() + outside) as u64)
    }
}

// === impl Core ===

impl Core {
    /// Looks at all members again.
    pub(super) fn watch_split(&mut self, now: Now) {
        let mut missing = BTreeMap::new();
        let mut apart = BTreeSet::new();
        let mut gone = BTreeSet::new();
        let mut heard = now.mono;
        for member in self.membership.members() {
            let node = member.identity.node;
            if self.is_forgotten(member, now.mono) {
                gone.insert(member.origin());
            } else if self.is_missing(member, now.mono) {
                missing.insert(node, member.identity.name.clone());
                apart.insert(node);
            } else if self.is_quiet(member, now.mono) {
                apart.insert(node);
            }
            if member.is_live()
                && let Some(at) = self.peers.get(&node).and_then(|peer| peer.heard)
            {
                heard = heard.min(at);
            }
        }
        let me = self.config.me;
        let live = self.live_peers().map(|member| member.identity.node);
        let live: BTreeSet<NodeKey> = live.chain([me.node]).collect();
        let back: Vec<Origin> = self.live_peers().map(Member::origin).collect();
        // One that came back may go again while the store is away.
        self.split.stale.retain(|origin| !back.contains(origin));
        let over = |origin: &Origin| self.is_over(*origin);
        let origins = self.counting.store.origins().map(|(origin, _)| origin);
        gone.extend(origins.filter(over));
        self.counting.set_gone(gone, now.wall);
        self.note_missing(missing);
        self.note_apart(apart, heard, live, now);
    }

    fn note_missing(&mut self, missing: BTreeMap<NodeKey, String>) {
        let split = &mut self.split;
        if split.missing.keys().ne(missing.keys()) {
            if missing.is_empty() {
                tracing::info!("no member is missing any more");
            } else {
                let names: Vec<&str> = missing.values().map(String::as_str).collect();
                tracing::warn!(missing = ?names, "members are missing: limits give this side's share");
            }
        }
        split.missing = missing;
    }

    fn note_apart(
        &mut self,
        apart: BTreeSet<NodeKey>,
        heard: Duration,
        live: BTreeSet<NodeKey>,
        now: Now,
    ) {
        let split = &mut self.split;
        if split.apart != apart {
            if !apart.is_empty() {
                split.gap = split.gap.max(now.mono.saturating_sub(split.heard));
            }
            self.judge_all = true;
        }
        split.apart = apart;
        if split.apart.is_empty() {
            split.full = live;
            split.heard = heard;
            split.gap = Duration::ZERO;
        }
    }

    /// Whether a process can be no member any more: a later one of its node has taken its place, or
    /// nobody lists it and its heartbeat is old.
    fn is_over(&self, origin: Origin) -> bool {
        let me = self.config.me;
        let listed = self.membership.by_node(origin.node);
        let known = match origin.node == me.node {
            true => Some(me.boot),
            false => listed.map(|member| member.identity.boot),
        };
        let fresh = self.split.fresh.as_ref();
        match known {
            Some(boot) => boot > origin.boot,
            None => fresh.is_some_and(|fresh| !fresh.contains(&origin)),
        }
    }

    /// Whether a member that cannot be heard is no part of the cluster any more.
    pub(super) fn is_forgotten(&self, member: &Member, now: Duration) -> bool {
        use crate::core::MemberState::{Down, Left};
        let down_for = now.saturating_sub(member.since);
        match member.state {
            Left => true,
            Down => {
                member.announced_drain
                    || self.split.stale.contains(&member.origin())
                    || down_for >= self.config.forget_after
                    || self.is_replaced(member)
            }
            _ => false,
        }
    }

    /// Whether a later process under its name has taken its place.
    fn is_replaced(&self, member: &Member) -> bool {
        let identity = &member.identity;
        let me = (self.config.name == identity.name).then_some(self.config.me.boot);
        let same = self
            .membership
            .members()
            .filter(|other| other.is_live() && other.identity.name == identity.name)
            .map(|other| other.identity.boot);
        same.chain(me).any(|boot| boot > identity.boot)
    }

    fn is_missing(&self, member: &Member, now: Duration) -> bool {
        if !member.is_live() {
            return true;
        }
        if member.announced_drain {
            return false;
        }
        let node = member.identity.node;
        let peer = self.peers.get(&node);
        match peer.and_then(|peer| peer.link.as_ref()) {
            Some(link) => {
                link.silent_for(now) >= SILENT
                    // One that comes back is missing until its cells are merged.
                    || self.split.missing.contains_key(&node) && !link.caught_up
            }
            None if self.split.full.contains(&node) || self.split.missing.contains_key(&node) => {
                let heard = peer.and_then(|peer| peer.heard).unwrap_or(member.since);
                now.saturating_sub(heard) >= UNLINKED
            }
            None => now.saturating_sub(member.since) >= FIRST_LINK,
        }
    }

    /// Whether a live member may be going on alone, though it is too soon to say that it is missing.
    fn is_quiet(&self, member: &Member, now: Duration) -> bool {
        if member.announced_drain {
            return false;
        }
        let node = member.identity.node;
        let was_apart = self.split.apart.contains(&node);
        let peer = self.peers.get(&node);
        match peer.and_then(|peer| peer.link.as_ref()) {
            Some(link) => {
                link.is_quiet(now)
                    // What it did meanwhile may still be on its way.
                    || was_apart && !link.is_steady()
            }
            None if was_apart || self.split.full.contains(&node) => {
                let heard = peer.and_then(|peer| peer.heard).unwrap_or(member.since);
                now.saturating_sub(heard) >= QUIET
            }
            None => false,
        }
    }
}

/// How long a member with a link may be silent before it is taken to go on alone.
pub(super) fn patience(interval: Duration) -> Duration {
    QUIET.max(interval * QUIET_INTERVALS)
}
