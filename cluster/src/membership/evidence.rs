//! Fast evidence: what a closed link says about its peer.
//!
//! Promise: a member whose link closed and whose port refuses, or that is silent and suspected too, is
//! gone as soon as two other members say so; with fewer to ask they suffice, with none 2 s must pass.
//! Any packet from it refutes all that, and so does its port when somebody answers there; right after
//! the link's end it only starts anew. Failure: who does not answer has not confirmed; gossip decides
//! then.

use std::collections::BTreeMap;
use std::time::Duration;

use foca::State;

use crate::core::ProbeOutcome;
use crate::data_dir::NodeKey;

/// How often the port is tried and the others are asked.
const ROUND: Duration = Duration::from_secs(1);
/// A try that was not answered for so long counts as silent.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How long evidence must stand where nobody can be asked.
const ALONE: Duration = Duration::from_secs(2);
/// How long an answer of another member counts.
const FRESH: Duration = Duration::from_secs(3);
/// Packets that come this soon after the link's end were on their way.
const ON_THE_WAY: Duration = Duration::from_millis(200);
/// And this soon they may have waited here, on a busy machine: all is looked into again.
const WAITED: Duration = Duration::from_secs(2);
/// A process that is being killed still takes connections for a moment: how soon its port is tried
/// again.
const DYING: Duration = Duration::from_millis(200);
/// Members whose answers are kept.
const VOTES: usize = 64;

/// Signs, besides gossip, that a member is gone. It exists from the end of its link until a new one,
/// or a packet from it.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    closed_at: Duration,
    asked_at: Option<Duration>,
    next_round: Duration,
    probe: Option<ProbeOutcome>,
    /// Since when the signs suffice to ask others.
    grave_since: Option<Duration>,
    votes: BTreeMap<NodeKey, (Duration, bool)>,
    /// It is settled: the member is gone.
    confirmed: bool,
}

/// What is to be done about one piece of evidence now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) probe: bool,
    pub(super) ask: bool,
    /// The member is gone.
    pub(super) gone: bool,
}

impl Evidence {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            closed_at: now,
            asked_at: None,
            next_round: now,
            probe: None,
            grave_since: None,
            votes: BTreeMap::new(),
            confirmed: false,
        }
    }

    /// What came of a try to connect.
    pub(super) fn probed(&mut self, outcome: ProbeOutcome, now: Duration) {
        if self.probe != Some(outcome) {
            // The others are asked at once.
            self.next_round = now;
        }
        self.probe = Some(outcome);
        self.asked_at = None;
    }

    /// What another member sees.
    pub(super) fn vote(&mut self, by: NodeKey, gone: bool, now: Duration) {
        if self.votes.len() < VOTES || self.votes.contains_key(&by) {
            self.votes.insert(by, (now, gone));
        }
    }

    /// What a packet that came now leaves of it.
    pub(super) fn after_packet(self, now: Duration) -> Option<Self> {
        if now <= self.closed_at + ON_THE_WAY {
            return Some(self);
        }
        self.anew(now, ROUND)
    }

    /// What a port that answers leaves of it.
    pub(super) fn after_open(self, now: Duration) -> Option<Self> {
        self.anew(now, DYING)
    }

    fn anew(self, now: Duration, wait: Duration) -> Option<Self> {
        let anew = Self {
            closed_at: self.closed_at,
            next_round: now + wait,
            ..Self::new(now)
        };
        (now <= self.closed_at + WAITED).then_some(anew)
    }

    pub(super) fn is_refused(&self) -> bool {
        self.probe == Some(ProbeOutcome::Refused)
    }

    /// Whether its port did not answer, or refused.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(
            self.probe,
            Some(ProbeOutcome::Refused | ProbeOutcome::Silent)
        )
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    pub(super) fn due(&self) -> Duration {
        self.next_round
    }

    /// Weighs the evidence. `others` can be asked: live members with a link.
    pub(super) fn weigh(&mut self, gossip: State, others: usize, now: Duration) -> Steps {
        let mut steps = Steps::default();
        if self.confirmed {
            return steps;
        }
        if self.asked_at.is_some_and(|asked| now >= asked + PATIENCE) {
            self.probed(ProbeOutcome::Silent, now);
        }
        let grave = match self.probe {
            Some(ProbeOutcome::Refused) => true,
            Some(ProbeOutcome::Silent) => gossip != State::Alive,
            Some(ProbeOutcome::Open) | None => false,
        };
        if grave && self.grave_since.is_none() {
            self.grave_since = Some(now);
            self.next_round = now;
        }
        if !grave {
            self.grave_since = None;
        }
        if now >= self.next_round {
            self.next_round = now + ROUND;
            steps.ask = grave && others > 0;
            if self.asked_at.is_none() {
                self.asked_at = Some(now);
                steps.probe = true;
            }
        }
        steps.gone = self.suffices(others, now);
        self.confirmed = steps.gone;
        steps
    }

    fn suffices(&self, others: usize, now: Duration) -> bool {
        let Some(since) = self.grave_since else {
            return false;
        };
        if others == 0 {
            return now >= since + ALONE;
        }
        let confirmed = self
            .votes
            .values()
            .filter(|(at, gone)| *gone && now < *at + FRESH)
            .count();
        confirmed >= others.min(2)
    }
}
