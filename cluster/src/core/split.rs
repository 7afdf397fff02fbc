//! Who is missing: members that this node cannot hear and that may go on serving, and processes
//! that are no members though their row in the store is young.
//!
//! A member that said that it goes, that left, or that is gone beyond doubt is not missing. Nor is
//! one whose row is old: it crashed, or can reach neither the others nor the store. Which of the
//! two nobody can tell, so both sides keep to one rule. Its part may be taken by a side that has at
//! least half of all, and a side that has no more than half stops before that when it cannot renew
//! its rows ([`Split::stopped`]). A side with more than half goes on with its part, also without the
//! store: nobody else may take it. So a store that is away for all stops nobody who hears most of
//! the others, and nobody at all while no one is missing.
//! After `forget_after` without a word by any way a member is given up, whoever it is.
//! Who was given up stays so until it is heard or its row is young again: the next to go, of a side
//! that took its part, would otherwise bring it back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Core, Now};
use crate::config::Partition;
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
    /// The others may take this side's part, or have: it takes nothing more.
    pub(super) stopped: bool,
    /// Whom this node does not hear and has given up.
    pub(super) over: BTreeSet<Origin>,
    /// How often it was others who were apart.
    pub(super) changes: u64,
    /// How often somebody was given up who may have gone on for a while.
    pub(super) given_up: u64,
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

    /// How many nodes can be heard while those `apart` cannot, and how many there are. Where there
    /// are more than were ever heard together, the configuration may name more still.
    pub(super) fn parts(&self, apart: &BTreeSet<NodeKey>, configured: u64) -> (u64, u64) {
        let outside = apart.difference(&self.full).count();
        let visible = self.full.difference(apart).count() as u64;
        let known = (self.full.len() + outside) as u64;
        match outside {
            0 => (visible, known),
            // This node itself can be heard, if nobody else ever was.
            _ => (visible.max(1), known.max(configured).max(2)),
        }
    }
}

/// Whom this node does not hear.
#[derive(Debug, Default)]
struct Unheard {
    /// Gone beyond doubt.
    gone: BTreeSet<Origin>,
    /// Neither, and silent for so long.
    lost: Vec<(Origin, String, Duration)>,
    /// Live members without a link.
    unlinked: BTreeMap<NodeKey, String>,
    quiet: BTreeSet<NodeKey>,
    /// When the most silent live member was heard last.
    heard: Duration,
    /// How long one that was never heard may have been there.
    unnoticed: Duration,
}

// === impl Unheard ===

impl Unheard {
    fn nodes(&self) -> BTreeSet<NodeKey> {
        let lost = self.lost.iter().map(|(origin, ..)| origin.node);
        let live = self.unlinked.keys().chain(&self.quiet).copied();
        lost.chain(live).collect()
    }
}

// === impl Core ===

impl Core {
    /// Looks at all members again.
    pub(super) fn watch_split(&mut self, now: Now) {
        let live: BTreeSet<Origin> = self.live_peers().map(Member::origin).collect();
        self.heartbeats.heard(&live);
        self.watch_strangers(now);
        let mut unheard = self.unheard(now);
        let configured = self.config.configured_nodes;
        let (visible, members) = self.split.parts(&unheard.nodes(), configured);
        let may_take = visible * 2 >= members;
        let lost = std::mem::take(&mut unheard.lost);
        let (over, lost) = lost
            .into_iter()
            .partition(|(origin, _, silent)| self.is_given_up(*origin, *silent, may_take, now));
        unheard.lost = lost;
        self.note_given_up(&over);
        let mut gone = std::mem::take(&mut unheard.gone);
        gone.extend(&self.split.over);
        let over = |origin: &Origin| self.is_over(*origin);
        let origins = self.counting.store.origins().map(|(origin, _)| origin);
        gone.extend(origins.filter(over));
        self.counting.set_gone(gone, now.wall);
        let live = live.into_iter().map(|origin| origin.node);
        let live = live.chain([self.config.me.node]).collect();
        self.note_apart(&unheard, live, now);
        let mut missing = unheard.unlinked;
        let lost = unheard.lost.into_iter();
        missing.extend(lost.map(|(origin, name, _)| (origin.node, name)));
        self.note_missing(missing);
    }

    /// Everybody whom this node does not hear.
    fn unheard(&self, now: Now) -> Unheard {
        let mut unheard = Unheard {
            heard: now.mono,
            ..Unheard::default()
        };
        for member in self.membership.members() {
            let (node, name) = (member.identity.node, &member.identity.name);
            if self.is_gone(member) {
                unheard.gone.insert(member.origin());
            } else if !member.is_live() {
                let silent = now.mono.saturating_sub(member.since);
                unheard.lost.push((member.origin(), name.clone(), silent));
            } else if self.is_unlinked(member, now.mono) {
                unheard.unlinked.insert(node, name.clone());
            } else if self.is_quiet(member, now.mono) {
                unheard.quiet.insert(node);
            }
            if member.is_live()
                && let Some(at) = self.peers.get(&node).and_then(|peer| peer.heard)
            {
                unheard.heard = unheard.heard.min(at);
            }
        }
        for (node, stranger) in self.strangers() {
            // One that starts anew while its node is apart is no news.
            if stranger.is_missing(now.mono) || self.split.apart.contains(&node) {
                let (origin, silent) = (stranger.origin(node), stranger.silent_for(now.mono));
                unheard.lost.push((origin, stranger.name.clone(), silent));
                if !self.split.apart.contains(&node) {
                    let unnoticed = stranger.unnoticed_for(now.mono);
                    unheard.unnoticed = unheard.unnoticed.max(unnoticed);
                }
            }
        }
        unheard
    }

    /// Whether one that is silent for so long is taken for dead though it did not say goodbye.
    fn is_given_up(&self, origin: Origin, silent: Duration, may_take: bool, now: Now) -> bool {
        let beats = &self.heartbeats;
        beats.is_stale(origin) && (may_take || self.split.over.contains(&origin))
            || silent >= self.config.forget_after && !beats.is_fresh(origin, now.mono)
    }

    /// What they may have taken meanwhile becomes part of the bounds.
    fn note_given_up(&mut self, over: &[(Origin, String, Duration)]) {
        let apart = &self.split.apart;
        if over.iter().any(|(origin, ..)| apart.contains(&origin.node)) {
            self.split.given_up += 1;
            self.judge_all = true;
        }
        self.split.over = over.iter().map(|(origin, ..)| *origin).collect();
    }

    fn note_missing(&mut self, missing: BTreeMap<NodeKey, String>) {
        let split = &mut self.split;
        if split.missing.keys().ne(missing.keys()) {
            if missing.is_empty() {
                tracing::info!("no member is missing any more");
            } else {
                let names: Vec<&str> = missing.values().map(String::as_str).collect();
                let limits = match self.config.partition {
                    Partition::Share => "limits give this side's share",
                    Partition::Available => "each side has the whole of its limits",
                };
                tracing::warn!(missing = ?names, limits, "members are missing");
            }
        }
        split.missing = missing;
    }

    fn note_apart(&mut self, unheard: &Unheard, live: BTreeSet<NodeKey>, now: Now) {
        let apart = unheard.nodes();
        let stopped = self.must_stop(&apart, now.mono);
        // Of those who are newly apart; the others were noticed before.
        let new = apart.difference(&self.split.apart);
        let heard = new.map(|node| match self.split.apart.is_empty() {
            true => self.split.heard,
            false => {
                let heard = self.peers.get(node).and_then(|peer| peer.heard);
                heard.unwrap_or(self.split.heard)
            }
        });
        let silence = heard.map(|at| now.mono.saturating_sub(at)).max();
        let silence = silence.unwrap_or_default();
        let split = &mut self.split;
        if split.apart != apart {
            split.changes += 1;
            split.gap = split.gap.max(silence).max(unheard.unnoticed);
            self.judge_all = true;
        }
        if split.stopped != stopped {
            self.judge_all = true;
            if stopped {
                tracing::warn!(
                    "the others may take this side's part of limits: it takes nothing more"
                );
            }
        }
        split.stopped = stopped;
        split.apart = apart;
        if split.apart.is_empty() {
            split.full = live;
            split.heard = unheard.heard;
            split.gap = Duration::ZERO;
        }
    }

    /// Whether the others may take, or have taken, the part of this side while those are `apart`. No
    /// side has a part where each has the whole.
    fn must_stop(&self, apart: &BTreeSet<NodeKey>, now: Duration) -> bool {
        if self.config.partition == Partition::Available {
            return false;
        }
        if apart.is_empty() {
            return self.knows_of_nobody(now);
        }
        let (visible, members) = self.split.parts(apart, self.config.configured_nodes);
        visible * 2 <= members && self.heartbeats.is_late(now)
    }

    /// Whether others are expected, and since its start neither one of them nor the store has told
    /// this node whether they are there.
    pub(super) fn knows_of_nobody(&self, now: Duration) -> bool {
        self.config.seeds_expected
            && self.ready.caught_up
            && !self.heartbeats.were_read()
            && !self.ready.merged
            && self.live_peers().next().is_none()
            && self.ready.runs_for(now) < self.config.forget_after
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
        self.heartbeats.is_replaced(origin)
            || match known {
                Some(boot) => boot > origin.boot,
                None => self.heartbeats.was_old(origin),
            }
    }

    /// Whether a member that cannot be heard is no part of the cluster any more, beyond doubt.
    fn is_gone(&self, member: &Member) -> bool {
        use crate::core::MemberState::{Down, Left};
        let identity = &member.identity;
        match member.state {
            Left => true,
            Down => {
                member.announced_drain
                    || self.heartbeats.is_replaced(member.origin())
                    || self.is_named_later(&identity.name, identity.boot)
            }
            _ => false,
        }
    }

    /// Whether a later live process has this name.
    pub(super) fn is_named_later(&self, name: &str, boot: u64) -> bool {
        let me = (self.config.name == name).then_some(self.config.me.boot);
        let same = self
            .membership
            .members()
            .filter(|other| other.is_live() && other.identity.name == name)
            .map(|other| other.identity.boot);
        same.chain(me).any(|later| later > boot)
    }

    /// Whether there has been no word over a link for too long.
    fn is_unlinked(&self, member: &Member, now: Duration) -> bool {
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
