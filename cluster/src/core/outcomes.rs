//! What leaders' tasks found, and whether the terms that they are told under were ever given.
//!
//! Promise: of two outcomes of a task the one with the larger term counts, and only the store gives
//! terms: one that is told under a term larger than any known is asked for there first. While the
//! store is away it is believed until the store is back; then it is forgotten if it was a lie, and
//! what the store has counts. So no member stops a task, for others or for itself.
//! Owner of the newest outcome of each task and scope. Bounded, whatever is told.
//! Failure: one that cannot be checked now comes again with the next link.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Core, Effect, Incoming, Now, StoreRequest};
use crate::data_dir::NodeKey;
use crate::message::{Frame, OUTCOME_BYTES, Outcome};

/// Most outcomes that are kept, one for each task and scope, and the longest name of either.
const MOST_OUTCOMES: usize = 256;
const NAME_BYTES: usize = 128;

/// Most outcomes that wait for the store's word, one of each teller, task and scope.
const MOST_WAITING: usize = 64;

/// How often the store is asked about one task when nothing newer was told.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Task and scope.
type Key = (String, String);

/// Outcomes, and what is known of terms.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    newest: BTreeMap<Key, Outcome>,
    /// The term of the store's row, as last heard.
    rows: BTreeMap<Key, u64>,
    /// Told, when, and not to be believed before the store was asked.
    waiting: BTreeMap<(Key, NodeKey), (Outcome, Duration)>,
    /// Believed although the store could not be asked.
    unsure: BTreeSet<Key>,
    /// When the store was asked; whether it has answered.
    asked: BTreeMap<Key, (Duration, bool)>,
}

/// What became of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    News,
    Known,
    /// Of a term that has passed.
    Stale,
}

// === impl Outcomes ===

impl Outcomes {
    pub(super) fn newest(&self, task: &str, scope: &str) -> Option<&Outcome> {
        self.newest.get(&(task.to_owned(), scope.to_owned()))
    }

    /// Keeps an outcome unless a newer one is known; tells whether it did.
    pub(super) fn keep(&mut self, outcome: &Outcome) -> Kept {
        let key = key_of(outcome);
        match self.newest.get(&key) {
            Some(known) if known.term > outcome.term => Kept::Stale,
            Some(known) if (known.term, known.at) >= (outcome.term, outcome.at) => Kept::Known,
            None if self.newest.len() >= MOST_OUTCOMES => {
                tracing::warn!(term = outcome.term, "an outcome of no task that is known");
                Kept::Stale
            }
            _ => {
                self.newest.insert(key, outcome.clone());
                Kept::News
            }
        }
    }

    /// Whether its term is one that the store is known to have given.
    fn is_given(&self, outcome: &Outcome) -> bool {
        // Without a term only what is harmless is done.
        let row = self.rows.get(&key_of(outcome)).copied().unwrap_or(0);
        outcome.term <= row
    }

    /// Whether less is told than what is known, which then may be the lie.
    fn is_less(&self, outcome: &Outcome) -> bool {
        let known = self.newest.get(&key_of(outcome));
        known.is_some_and(|known| known.term > outcome.term)
    }

    fn may_ask(&self, key: &Key, now: Duration) -> bool {
        let asked = self.asked.get(key);
        asked.is_none_or(|(at, answered)| *answered && now.saturating_sub(*at) >= ASK_EVERY)
    }

    /// Those that wait for an answer about `key`, and whether they came before it was asked for.
    fn taken(&mut self, key: &Key) -> Vec<(NodeKey, Outcome, bool)> {
        let asked = self.asked.get_mut(key).map(|(at, answered)| {
            *answered = true;
            *at
        });
        let of = |(other, _): &(Key, NodeKey), _: &mut (Outcome, Duration)| other == key;
        let taken = self.waiting.extract_if(.., of);
        taken
            .map(|((_, from), (outcome, at))| (from, outcome, Some(at) <= asked))
            .collect()
    }
}

// === impl Core ===

impl Core {
    /// An outcome came from a peer.
    pub(super) fn outcome_told(&mut self, from: NodeKey, outcome: Outcome, now: Now) {
        self.figures.outcomes_received += 1;
        if !is_whole(&outcome) {
            self.outcome_refused(&outcome, "it is not what its hash says, or too large");
            return;
        }
        let outcomes = &mut self.duties.outcomes;
        let less = outcomes.is_less(&outcome);
        self.figures.outcomes_stale += u64::from(less);
        if !less && outcomes.is_given(&outcome) {
            self.believe(&outcome);
            return;
        }
        let key = key_of(&outcome);
        let place = (key.clone(), from);
        let has_room = outcomes.waiting.len() < MOST_WAITING;
        if has_room || outcomes.waiting.contains_key(&place) {
            outcomes.waiting.insert(place, (outcome, now.mono));
        }
        let answered = |(_, answered): &(Duration, bool)| *answered;
        if !less && outcomes.asked.get(&key).is_none_or(answered)
            || outcomes.may_ask(&key, now.mono)
        {
            self.ask_for_term(key, now);
        }
    }

    /// Outcomes came from the store, which keeps none of a term that it has not given.
    pub(super) fn outcomes_loaded(&mut self, outcomes: Vec<Outcome>) {
        for outcome in outcomes.iter().filter(|outcome| is_whole(outcome)) {
            self.figures.outcomes_received += 1;
            let row = self
                .duties
                .outcomes
                .rows
                .entry(key_of(outcome))
                .or_default();
            *row = outcome.term.max(*row);
            self.believe(outcome);
        }
    }

    /// Asks again about what was believed while the store was away.
    pub(super) fn tend_outcomes(&mut self, now: Now) {
        let outcomes = &self.duties.outcomes;
        let due = outcomes.unsure.iter();
        let due: Vec<Key> = due
            .filter(|key| outcomes.may_ask(key, now.mono))
            .cloned()
            .collect();
        for key in due {
            self.ask_for_term(key, now);
        }
    }

    fn ask_for_term(&mut self, key: Key, now: Now) {
        let (task, scope) = key.clone();
        let asked = &mut self.duties.outcomes.asked;
        if asked.len() >= MOST_OUTCOMES * 2 {
            asked.retain(|_, (at, _)| now.mono.saturating_sub(*at) < ASK_EVERY);
        }
        asked.insert(key, (now.mono, false));
        self.ask(StoreRequest::ReadTerm { scope, task });
    }

    /// The store said which term of a task is the last that it gave.
    pub(super) fn term_read(
        &mut self,
        scope: String,
        task: String,
        result: Result<Option<u64>, ()>,
        now: Now,
    ) {
        let key = (task, scope);
        let told = self.duties.outcomes.taken(&key);
        if let Ok(row) = result {
            self.row_is(&key, row.unwrap_or(0));
        }
        for (from, outcome, before) in told {
            if result.is_err() {
                if self.believe(&outcome) {
                    self.duties.outcomes.unsure.insert(key.clone());
                }
            } else if self.duties.outcomes.is_given(&outcome) {
                self.believe(&outcome);
            } else if before {
                self.outcome_refused(&outcome, "the store never gave its term");
            } else {
                // Its term may have been given since.
                let waiting = &mut self.duties.outcomes.waiting;
                waiting.insert((key.clone(), from), (outcome, now.mono));
                self.ask_for_term(key.clone(), now);
            }
        }
    }

    /// The last term given is known: what was told under a larger one was a lie.
    pub(super) fn row_is(&mut self, key: &Key, row: u64) {
        let outcomes = &mut self.duties.outcomes;
        outcomes.unsure.remove(key);
        if outcomes.rows.len() < MOST_OUTCOMES || outcomes.rows.contains_key(key) {
            outcomes.rows.insert(key.clone(), row);
        }
        let known = outcomes.newest.get(key);
        if known.is_some_and(|known| known.term > row)
            && let Some(lie) = outcomes.newest.remove(key)
        {
            self.outcome_refused(&lie, "the store never gave its term");
            self.ask(StoreRequest::LoadOutcomes);
        }
    }

    /// Takes an outcome over if it is the newest, and tells; whether it did.
    fn believe(&mut self, outcome: &Outcome) -> bool {
        let news = self.duties.outcomes.keep(outcome) == Kept::News;
        if news {
            self.effects
                .push(Effect::Incoming(Incoming::Outcome(outcome.clone())));
        }
        news
    }

    fn outcome_refused(&mut self, outcome: &Outcome, why: &'static str) {
        self.figures.outcomes_refused += 1;
        let task: String = outcome.task.chars().take(NAME_BYTES).collect();
        tracing::warn!(task, term = outcome.term, why, "an outcome is refused");
    }

    pub(super) fn send_outcomes(&mut self, node: NodeKey) {
        let outcomes: Vec<Outcome> = self.duties.outcomes.newest.values().cloned().collect();
        for outcome in outcomes {
            self.send(node, Frame::Outcome(outcome));
        }
    }
}

fn key_of(outcome: &Outcome) -> Key {
    (outcome.task.clone(), outcome.scope.clone())
}

fn is_whole(outcome: &Outcome) -> bool {
    let names = outcome.task.len() <= NAME_BYTES && outcome.scope.len() <= NAME_BYTES;
    names && outcome.body.len() <= OUTCOME_BYTES && outcome.hash == Outcome::hash_of(&outcome.body)
}
