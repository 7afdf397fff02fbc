//! Who leads: the smallest name among those that may, in the cluster and in each region. Pure.
//!
//! Promise: nodes that see the same members name the same leaders, and a change must be seen twice,
//! [`CONFIRM`] apart, before it counts. Being named gives the right to ask for a term, no more.
//! Failure: without an eligible member there is no leader.

use std::collections::BTreeMap;
use std::time::Duration;

/// How often leaders are evaluated when nothing happens.
pub(crate) const EVALUATE: Duration = Duration::from_secs(30);
/// How far apart two equal evaluations must be before a change counts.
pub(crate) const CONFIRM: Duration = Duration::from_secs(2);

/// A member that might lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate<'a> {
    pub(crate) name: &'a str,
    /// Empty if there is none: such a member leads no region.
    pub(crate) region: &'a str,
    /// It is up, not draining, and can do what leaders do.
    pub(crate) eligible: bool,
}

/// Names of those that lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaders {
    pub(crate) cluster: Option<String>,
    pub(crate) by_region: BTreeMap<String, String>,
}

/// The rule itself.
pub(crate) fn leaders<'a>(members: impl Iterator<Item = Candidate<'a>>) -> Leaders {
    let mut leaders = Leaders::default();
    for candidate in members.filter(|candidate| candidate.eligible) {
        if leaders
            .cluster
            .as_deref()
            .is_none_or(|name| candidate.name < name)
        {
            leaders.cluster = Some(candidate.name.to_owned());
        }
        if candidate.region.is_empty() {
            continue;
        }
        match leaders.by_region.get_mut(candidate.region) {
            Some(name) if candidate.name < name.as_str() => candidate.name.clone_into(name),
            Some(_) => {}
            None => {
                leaders
                    .by_region
                    .insert(candidate.region.to_owned(), candidate.name.to_owned());
            }
        }
    }
    leaders
}

/// Leaders over time.
#[derive(Debug, Default)]
pub(crate) struct LeaderWatch {
    current: Leaders,
    /// What was seen once, and when.
    proposed: Option<(Leaders, Duration)>,
    due: Duration,
    changes: u64,
}

impl LeaderWatch {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Leaders that count now.
    pub(crate) fn current(&self) -> &Leaders {
        &self.current
    }

    /// How often they changed, the first time included.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// When [`Self::evaluate`] is due without a change of members.
    pub(crate) fn due(&self) -> Duration {
        self.due
    }

    /// Evaluates `seen`; to be called at once when a member changed, and when [`Self::due`]. Answers
    /// whether the leaders that count changed.
    pub(crate) fn evaluate(&mut self, seen: Leaders, now: Duration) -> bool {
        if seen == self.current {
            self.proposed = None;
            self.due = now + EVALUATE;
            return false;
        }
        match &self.proposed {
            Some((proposed, at)) if *proposed == seen => {
                if now < *at + CONFIRM {
                    self.due = *at + CONFIRM;
                    return false;
                }
                self.current = seen;
                self.proposed = None;
                self.changes += 1;
                self.due = now + EVALUATE;
                true
            }
            _ => {
                self.proposed = Some((seen, now));
                self.due = now + CONFIRM;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn candidate<'a>(name: &'a str, region: &'a str, eligible: bool) -> Candidate<'a> {
        Candidate {
            name,
            region,
            eligible,
        }
    }

    fn only(name: &str) -> Leaders {
        leaders([candidate(name, "", true)].into_iter())
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_smallest_name_leads_the_cluster_and_each_region() {
        let members = [
            candidate("n-3", "east", true),
            candidate("n-1", "east", false),
            candidate("n-2", "west", true),
            candidate("n-4", "east", true),
            candidate("n-0", "", false),
            candidate("n-5", "", true),
            candidate("n-6", "north", false),
        ];
        let found = leaders(members.into_iter());
        assert_eq!(found.cluster.as_deref(), Some("n-2"));
        let regions: Vec<_> = found.by_region.into_iter().collect();
        let expected = [("east", "n-3"), ("west", "n-2")];
        assert_eq!(
            regions,
            expected.map(|(region, name)| (region.into(), name.into()))
        );
        assert_eq!(
            leaders(members.into_iter().rev()),
            leaders(members.into_iter())
        );
        assert_eq!(leaders(std::iter::empty()), Leaders::default());
    }

    #[test]
    fn a_change_counts_when_it_was_seen_twice() {
        let mut watch = LeaderWatch::new();
        assert!(!watch.evaluate(only("b"), secs(1)));
        assert_eq!(watch.current(), &Leaders::default());
        assert_eq!(watch.due(), secs(3));
        assert!(!watch.evaluate(only("b"), secs(2)), "too soon");
        assert_eq!(watch.due(), secs(3));
        assert!(watch.evaluate(only("b"), secs(3)));
        assert_eq!(watch.current(), &only("b"));
        assert_eq!(watch.due(), secs(33));
        assert_eq!(watch.changes(), 1);
    }

    #[test]
    fn a_leader_that_is_gone_for_a_moment_stays() {
        let mut watch = LeaderWatch::new();
        watch.evaluate(only("a"), secs(0));
        watch.evaluate(only("a"), secs(2));
        assert!(!watch.evaluate(only("b"), secs(10)));
        assert!(!watch.evaluate(only("a"), secs(11)), "it is back");
        assert!(!watch.evaluate(only("b"), secs(12)), "counted anew");
        assert!(!watch.evaluate(only("c"), secs(14)), "yet another");
        assert!(!watch.evaluate(only("b"), secs(15)));
        assert_eq!(watch.current(), &only("a"));
        assert!(watch.evaluate(only("b"), secs(17)));
        assert_eq!(watch.changes(), 2);
    }
}
