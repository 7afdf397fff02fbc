//! Whose cells count in which way: of a process that is gone no holds, of one that was this node
//! before all, against its own part of a strict limit too.
//!
//! A node is known by its name. One that lost its disk comes back under a new key, and what it used
//! before is still its own use: otherwise each loss would give it a fresh part.

use std::collections::BTreeSet;

use policy::Timestamp;

use super::counting::{Counting, counted};
use super::{Core, HeartbeatRow, Now};
use crate::cell::Slot;
use crate::data_dir::NodeKey;
use crate::membership::Member;
use crate::origin::Origin;

impl Counting {
    /// Whether what this process counted is an earlier part of this node's own use.
    pub(super) fn is_past(&self, origin: Origin) -> bool {
        origin.node == self.me.node || self.predecessors.contains(&origin)
    }

    /// These were this node, too.
    fn add_predecessors(&mut self, origins: impl Iterator<Item = Origin>, now: Timestamp) {
        for origin in origins {
            if origin == self.me || self.is_past(origin) {
                continue;
            }
            self.predecessors.insert(origin);
            let counts = self.holds_count(origin);
            let Some(cells) = self.store.origin(origin) else {
                continue;
            };
            for ((slot, epoch), state) in cells.iter() {
                let amount = counted(state.amounts(), counts);
                if let Some(tracked) = self.counters.at_mut(slot) {
                    tracked.change(false, epoch, amount, 0, now);
                    tracked.change(true, epoch, 0, amount, now);
                    self.stale.insert(slot);
                }
            }
        }
    }

    /// What these nodes have of a counter in the epochs that count.
    pub(super) fn of_nodes(
        &self,
        nodes: &BTreeSet<NodeKey>,
        slot: Slot,
        counts: impl Fn(i64) -> bool,
    ) -> u64 {
        let origins = self.store.origins();
        let theirs = origins.filter(|(origin, _)| nodes.contains(&origin.node));
        let amounts = theirs.flat_map(|(origin, cells)| {
            let holds = self.holds_count(origin);
            let live = cells.of(slot).filter(|(epoch, _)| counts(*epoch));
            live.map(move |(_, state)| counted(state.amounts(), holds))
        });
        amounts.fold(0, u64::saturating_add)
    }

    pub(super) fn holds_count(&self, origin: Origin) -> bool {
        self.holds && !self.gone.contains(&origin)
    }

    /// From now on the holds of a process count, or do not.
    fn switch_holds(&mut self, origin: Origin, on: bool, now: Timestamp) {
        let past = self.is_past(origin);
        let Some(cells) = self.store.origin(origin) else {
            return;
        };
        for ((slot, epoch), state) in cells.iter().filter(|(_, state)| state.held > 0) {
            let Some(tracked) = self.counters.at_mut(slot) else {
                continue;
            };
            let (with, without) = (counted(state.amounts(), true), state.used);
            let (from, to) = if on { (without, with) } else { (with, without) };
            tracked.change(past, epoch, from, to, now);
            let (from, to) = if on { (0, state.held) } else { (state.held, 0) };
            tracked.change_held(from, to);
            self.stale.insert(slot);
        }
    }

    /// Sets which processes are gone, so that their holds are over.
    pub(super) fn set_gone(&mut self, gone: BTreeSet<Origin>, now: Timestamp) {
        if gone == self.gone {
            return;
        }
        let before = std::mem::replace(&mut self.gone, gone);
        if !self.holds {
            return;
        }
        let after = self.gone.clone();
        for origin in after.difference(&before) {
            self.switch_holds(*origin, false, now);
        }
        for origin in before.difference(&after) {
            self.switch_holds(*origin, true, now);
        }
    }

    /// Sets whether holds of others count at all.
    pub(super) fn set_holds(&mut self, on: bool, me: Origin, now: Timestamp) {
        if on == self.holds {
            return;
        }
        self.holds = on;
        let others: Vec<Origin> = self
            .store
            .origins()
            .map(|(origin, _)| origin)
            .filter(|origin| *origin != me && !self.gone.contains(origin))
            .collect();
        for origin in others {
            self.switch_holds(origin, on, now);
        }
    }
}

impl Core {
    /// Looks for processes that were this node, in the list of members and in the store's.
    pub(super) fn watch_predecessors(&mut self, rows: &[HeartbeatRow], now: Now) {
        let name = &self.config.name;
        let rows = rows.iter().filter(|row| row.name == *name);
        let members = self.membership.members();
        let members = members.filter(|member| member.identity.name == *name && !member.is_live());
        let origins: BTreeSet<Origin> = rows
            .map(|row| row.origin)
            .chain(members.map(Member::origin))
            .collect();
        self.counting
            .add_predecessors(origins.into_iter(), now.wall);
    }
}
