//! Sources of bad messages, so that a flood costs less than its decryption.
//!
//! Promise: a source that sent [`MOST_BAD`] bad messages within one second is refused for the rest
//! of it without a look. The table is bounded; sources beyond it share one allowance, save those
//! that are known to be members: whoever invents sources takes nothing from them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Bad messages of one source within a second.
pub(super) const MOST_BAD: u32 = 200;

/// Sources that are counted each for itself.
pub(super) const MOST_SOURCES: usize = 1024;

/// Sources that an authentic message came from, as many as there may be members.
const MOST_MEMBERS: usize = 4096;

/// How long a source that is silent is known.
const KNOWN_FOR: Duration = Duration::from_secs(120);

/// Counts of the present second.
#[derive(Debug, Default)]
pub(crate) struct BadSources {
    second: u64,
    bad: BTreeMap<IpAddr, u32>,
    others: u32,
    members: BTreeMap<IpAddr, Duration>,
}

impl BadSources {
    pub(crate) fn allows(&mut self, source: IpAddr, now: Duration) -> bool {
        self.turn(now);
        let bad = match self.bad.get(&source) {
            Some(&bad) => bad,
            None if self.counts_by_itself(source) => 0,
            None => self.others,
        };
        bad < MOST_BAD
    }

    pub(crate) fn note_bad(&mut self, source: IpAddr, now: Duration) {
        self.turn(now);
        let by_itself = self.counts_by_itself(source);
        let bad = match self.bad.get_mut(&source) {
            Some(bad) => bad,
            None if by_itself => self.bad.entry(source).or_default(),
            None => &mut self.others,
        };
        *bad = bad.saturating_add(1);
    }

    /// An authentic message came from there.
    pub(crate) fn note_good(&mut self, source: IpAddr, now: Duration) {
        if self.members.len() >= MOST_MEMBERS && !self.members.contains_key(&source) {
            self.members
                .retain(|_, heard| now.saturating_sub(*heard) < KNOWN_FOR);
            if self.members.len() >= MOST_MEMBERS {
                return;
            }
        }
        self.members.insert(source, now);
    }

    fn counts_by_itself(&self, source: IpAddr) -> bool {
        self.bad.len() < MOST_SOURCES || self.members.contains_key(&source)
    }

    fn turn(&mut self, now: Duration) {
        if now.as_secs() != self.second {
            self.second = now.as_secs();
            self.bad.clear();
            self.others = 0;
        }
    }
}
