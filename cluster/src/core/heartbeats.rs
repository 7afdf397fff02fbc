//! What the store says of who lives: the rows that every node renews there.
//!
//! Promise: a process whose row is younger than [`STALE`] may be serving, whether anybody can hear
//! of it or not; one of a node whose row has a larger boot is gone. A row ages by the database's
//! time for whoever reads it. Its owner counts from when it *asked* for the last renewal, which is
//! never later, and stops [`MARGIN`] sooner.
//! Owner of the rows as last read, and of those that are of no member.
//! Failure: while the store is away nothing is learnt, so who was there stays there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Core, HeartbeatRow, Now, StoreRequest};
use crate::data_dir::NodeKey;
use crate::origin::Origin;

/// How often the own row is renewed, and those of the others are read.
const EVERY: Duration = Duration::from_secs(5);

/// A row that old is of a process that is gone, or must have stopped.
pub(super) const STALE: Duration = Duration::from_secs(15);

/// The name in the row of a process that said goodbye: no node has none.
pub(crate) const GONE: &str = "";

/// How much sooner the process itself takes its row for old.
const MARGIN: Duration = Duration::from_secs(2);

/// How long a process with a row may be no member: it may be about to join.
const JOINS_WITHIN: Duration = Duration::from_secs(3);

/// Most processes of no member that are kept.
const MOST: usize = 1_024;

/// Rows of other nodes, and this node's own.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    next: Duration,
    /// When the renewal was asked for that has no answer yet.
    asked: Option<Duration>,
    /// Whether the rows are being read.
    reading: bool,
    /// When the renewal that was answered last was asked for.
    pub(super) renewed: Option<Duration>,
    /// As they were read last; `None`: never.
    rows: Option<BTreeMap<NodeKey, Row>>,
    /// Processes whose row was old when it was read, and that were not heard since.
    stale: BTreeSet<Origin>,
    strangers: BTreeMap<NodeKey, Stranger>,
}

/// One row.
#[derive(Clone, Copy, Debug)]
struct Row {
    boot: u64,
    /// How old it was, and when that was told.
    age: Duration,
    told: Duration,
}

/// A process with a row that is young, or was when the store was last heard, and which is no member.
#[derive(Debug)]
pub(super) struct Stranger {
    boot: u64,
    pub(super) name: String,
    /// Since when it is there and no member.
    since: Option<Duration>,
    /// When its row was last known to be young.
    young: Duration,
}

// === impl Heartbeats ===

impl Heartbeats {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            next: now,
            ..Self::default()
        }
    }

    /// The own row was renewed, or was not.
    pub(super) fn answered(&mut self, ok: bool) {
        let asked = self.asked.take();
        if ok {
            self.renewed = asked.or(self.renewed);
        }
    }

    /// The rows were read, or could not be.
    pub(super) fn looked(&mut self) {
        self.reading = false;
    }

    /// Takes in the rows of all nodes but `me`.
    pub(super) fn read(&mut self, me: NodeKey, rows: &[HeartbeatRow], now: Duration) {
        let age = |row: &HeartbeatRow| match row.name == GONE {
            true => STALE.max(row.stale_for),
            false => row.stale_for,
        };
        let others = || rows.iter().filter(|row| row.origin.node != me);
        let kept = others().map(|row| {
            let boot = row.origin.boot;
            let (age, told) = (age(row), now);
            (row.origin.node, Row { boot, age, told })
        });
        self.rows = Some(kept.collect());
        let old = others().filter(|row| age(row) >= STALE);
        self.stale = old.map(|row| row.origin).collect();
        let mut before = std::mem::take(&mut self.strangers);
        for row in others() {
            let origin = row.origin;
            let before = before.remove(&origin.node);
            let same = |stranger: &Stranger| stranger.boot == origin.boot && row.name != GONE;
            let before = before.filter(same);
            let young = age(row) < STALE;
            if (young || before.is_some()) && self.strangers.len() < MOST {
                let stranger = Stranger {
                    boot: origin.boot,
                    name: row.name.clone(),
                    since: before.as_ref().and_then(|stranger| stranger.since),
                    young: match before {
                        Some(before) if !young => before.young,
                        _ => now,
                    },
                };
                self.strangers.insert(origin.node, stranger);
            }
        }
    }

    /// Whether rows were read at all.
    pub(super) fn were_read(&self) -> bool {
        self.rows.is_some()
    }

    /// Who is heard is not gone, whatever its row says; it may go again while the store is away.
    pub(super) fn heard(&mut self, live: &BTreeSet<Origin>) {
        self.stale.retain(|origin| !live.contains(origin));
    }

    pub(super) fn is_stale(&self, origin: Origin) -> bool {
        self.stale.contains(&origin)
    }

    /// Whether the row of this process is young now.
    pub(super) fn is_fresh(&self, origin: Origin, now: Duration) -> bool {
        self.row(origin.node).is_some_and(|row| {
            row.boot == origin.boot && row.age + now.saturating_sub(row.told) < STALE
        })
    }

    /// Whether a later process of its node has a row.
    pub(super) fn is_replaced(&self, origin: Origin) -> bool {
        self.row(origin.node)
            .is_some_and(|row| row.boot > origin.boot)
    }

    /// Whether a process had no young row when rows were last read.
    pub(super) fn was_old(&self, origin: Origin) -> bool {
        let fresh = |row: &Row| row.boot == origin.boot && row.age < STALE;
        self.were_read() && !self.row(origin.node).is_some_and(fresh)
    }

    /// Whether the others may already take this process's row for old.
    pub(super) fn is_late(&self, now: Duration) -> bool {
        self.renewed
            .is_none_or(|at| now.saturating_sub(at) >= STALE - MARGIN)
    }

    fn row(&self, node: NodeKey) -> Option<&Row> {
        self.rows.as_ref()?.get(&node)
    }
}

// === impl Stranger ===

impl Stranger {
    pub(super) fn origin(&self, node: NodeKey) -> Origin {
        Origin {
            node,
            boot: self.boot,
        }
    }

    /// Whether it had the time to join and did not.
    pub(super) fn is_missing(&self, now: Duration) -> bool {
        self.since
            .is_some_and(|since| now.saturating_sub(since) >= JOINS_WITHIN)
    }

    /// For how long it may have been there without being noticed.
    pub(super) fn unnoticed_for(&self, now: Duration) -> Duration {
        let noticed = |since| now.saturating_sub(since) + EVERY;
        self.since.map_or(Duration::ZERO, noticed)
    }

    /// For how long nothing was learnt of it.
    pub(super) fn silent_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.young)
    }
}

// === impl Core ===

impl Core {
    /// Renews the own row and reads the others'. They are read although everybody is heard: nodes
    /// that know nothing of each other, as by seed lists without a common node, show there alone.
    pub(super) fn beat(&mut self, now: Duration) {
        let beats = &mut self.heartbeats;
        if now < beats.next {
            return;
        }
        if beats.asked.is_some() || beats.reading {
            return;
        }
        beats.next = now + EVERY;
        beats.asked = Some(now);
        beats.reading = true;
        self.ask(StoreRequest::Heartbeat);
        self.ask(StoreRequest::Heartbeats);
    }

    /// Notes which of those with a row are no members.
    pub(super) fn watch_strangers(&mut self, now: Now) {
        let mut strangers = std::mem::take(&mut self.heartbeats.strangers);
        for (node, stranger) in &mut strangers {
            let known = self.is_known(*node, stranger);
            stranger.since = match known {
                true => None,
                false => stranger.since.or(Some(now.mono)),
            };
        }
        self.heartbeats.strangers = strangers;
    }

    /// Those that are no members.
    pub(super) fn strangers(&self) -> impl Iterator<Item = (NodeKey, &Stranger)> {
        let strangers = self.heartbeats.strangers.iter();
        strangers
            .filter(|(_, stranger)| stranger.since.is_some())
            .map(|(node, stranger)| (*node, stranger))
    }

    /// Whether membership says how this process is, or a later one has its node or its name.
    fn is_known(&self, node: NodeKey, stranger: &Stranger) -> bool {
        let member = self.membership.by_node(node);
        member.is_some_and(|member| member.is_live() || member.identity.boot >= stranger.boot)
            || self.is_named_later(&stranger.name, stranger.boot)
    }
}
