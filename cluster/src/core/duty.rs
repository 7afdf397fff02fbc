//! Leaders and what they do.
//!
//! Promise: only who holds a task's term does it, and whatever comes of it carries the term; what
//! comes of a smaller one than known is dropped. Being first by name only gives the right to ask.

use std::time::Duration;

use super::outcomes::{Kept, Outcomes};
use super::{Core, Effect, Incoming, MemberState, Now, StoreRequest};
use crate::config::{Task, TaskScope};
use crate::leader::{Candidate, leaders};
use crate::message::{Frame, OUTCOME_BYTES, Outcome};

/// How long a term lasts, by the store's time.
const LEASE: Duration = Duration::from_secs(20);

/// How much sooner its holder stops to trust it.
const MARGIN: Duration = Duration::from_secs(2);

/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(7);

/// After which time without the store a harmless task is done without a term.
const WITHOUT_STORE: Duration = Duration::from_secs(60);

/// A duty that was not answered by then is given again.
const UNANSWERED: Duration = Duration::from_secs(300);

/// How long a failed duty waits.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Scope of tasks that are done once for all.
const CLUSTER: &str = "cluster";

/// Closing the books of past periods: this crate's own task.
const SEAL: &str = "seal";
const SEAL_EVERY: Duration = Duration::from_secs(60);

/// One task, as this node would do it.
#[derive(Debug)]
pub(super) struct Duty {
    task: Task,
    scope: String,
    next_ask: Duration,
    asked: Option<Duration>,
    /// Until when it is trusted, and its number.
    held: Option<(u64, Duration)>,
    /// Since when the store has not answered.
    store_away: Option<Duration>,
    next_run: Duration,
    running: Option<(u64, Duration)>,
}

/// All tasks, and what came of them anywhere.
#[derive(Debug)]
pub(super) struct Duties {
    list: Vec<Duty>,
    /// This node has not reached the store for longer than a term lasts.
    pub(super) store_away: bool,
    pub(super) outcomes: Outcomes,
}

// === impl Duties ===

impl Duties {
    pub(super) fn new(tasks: &[Task], region: &str) -> Self {
        let seal = Task {
            name: SEAL.to_owned(),
            every: SEAL_EVERY,
            scope: TaskScope::Cluster,
            idempotent: false,
        };
        let list = tasks
            .iter()
            .chain([&seal])
            .map(|task| Duty::new(task.clone(), region))
            .collect();
        Self {
            list,
            store_away: false,
            outcomes: Outcomes::default(),
        }
    }

    fn find(&mut self, task: &str, scope: &str) -> Option<&mut Duty> {
        self.list
            .iter_mut()
            .find(|duty| duty.task.name == task && duty.scope == scope)
    }

    /// Terms that are held now: task, scope, number.
    pub(super) fn held(&self, now: Duration) -> impl Iterator<Item = (&str, &str, u64)> {
        self.list.iter().filter_map(move |duty| {
            Some((
                duty.task.name.as_str(),
                duty.scope.as_str(),
                duty.term(now)?,
            ))
        })
    }
}

// === impl Duty ===

impl Duty {
    fn new(task: Task, region: &str) -> Self {
        let scope = match task.scope {
            TaskScope::Cluster => CLUSTER.to_owned(),
            TaskScope::Region => region.to_owned(),
        };
        Self {
            task,
            scope,
            next_ask: Duration::ZERO,
            asked: None,
            held: None,
            store_away: None,
            next_run: Duration::ZERO,
            running: None,
        }
    }

    fn term(&self, now: Duration) -> Option<u64> {
        self.held
            .filter(|(_, until)| now < *until)
            .map(|(term, _)| term)
    }

    fn runs(&self, now: Duration) -> bool {
        self.running
            .is_some_and(|(_, since)| now.saturating_sub(since) < UNANSWERED)
    }
}

// === impl Core ===

impl Core {
    /// Sees who leads, keeps terms, and gives duties that are due.
    pub(super) fn tend_duties(&mut self, now: Now) {
        self.watch_store(now);
        let changed = std::mem::take(&mut self.members_changed);
        if changed || now.mono >= self.leaders.due() {
            self.evaluate_leaders(now);
        }
        for at in 0..self.duties.list.len() {
            let leads = self.leads(&self.duties.list[at]) && self.ready.caught_up;
            if leads {
                self.keep_term(at, now);
                self.give_duty(at, now);
            } else {
                self.give_up_term(at);
            }
        }
    }

    /// Tells the others when this node cannot keep a term, and when it can again.
    fn watch_store(&mut self, now: Now) {
        let away = self.has_lost_store(now.mono);
        if std::mem::replace(&mut self.duties.store_away, away) != away {
            self.members_changed = true;
            self.send_all(&Frame::StoreAway { away }, None);
        }
    }

    /// Whether the row that shows that this node lives was not renewed for longer than a term lasts.
    fn has_lost_store(&self, now: Duration) -> bool {
        let passed = match self.heartbeats.renewed {
            Some(at) => now.saturating_sub(at),
            None => self.ready.runs_for(now),
        };
        passed >= LEASE
    }

    fn evaluate_leaders(&mut self, now: Now) {
        let me = Candidate {
            name: &self.config.name,
            region: &self.config.region,
            eligible: !self.draining
                && self.ready.caught_up
                && self.name_taken.is_none()
                && self.membership.twin().is_none_or(|twin| !twin.is_first),
        };
        let others = self.live_peers().map(|member| {
            let peer = self.peers.get(&member.identity.node);
            let candidate = Candidate {
                name: &member.identity.name,
                region: &member.identity.region,
                eligible: member.state == MemberState::Up && !member.announced_drain,
            };
            (candidate, peer.is_some_and(|peer| peer.store_away))
        });
        let mut all: Vec<_> = others.chain([(me, self.duties.store_away)]).collect();
        // While it is away for all, those lead who do what needs no term.
        if all.iter().any(|(one, away)| one.eligible && !away) {
            for (one, away) in &mut all {
                one.eligible &= !*away;
            }
        }
        let seen = leaders(all.into_iter().map(|(one, _)| one));
        if self.leaders.evaluate(seen, now.mono) {
            let leaders = self.leaders.current();
            tracing::info!(cluster = ?leaders.cluster, "leaders changed");
        }
    }

    fn leads(&self, duty: &Duty) -> bool {
        let leaders = self.leaders.current();
        let leader = match duty.task.scope {
            TaskScope::Cluster => leaders.cluster.as_ref(),
            TaskScope::Region => leaders.by_region.get(&duty.scope),
        };
        leader == Some(&self.config.name)
    }

    fn keep_term(&mut self, at: usize, now: Now) {
        let duty = &mut self.duties.list[at];
        if now.mono >= duty.next_ask && duty.asked.is_none() {
            duty.asked = Some(now.mono);
            duty.next_ask = now.mono + RENEW;
            let (scope, task) = (duty.scope.clone(), duty.task.name.clone());
            self.ask(StoreRequest::TakeTerm { scope, task });
        }
    }

    fn give_up_term(&mut self, at: usize) {
        let duty = &mut self.duties.list[at];
        duty.store_away = None;
        duty.running = None;
        if let Some((term, _)) = duty.held.take() {
            let (scope, task) = (duty.scope.clone(), duty.task.name.clone());
            self.ask(StoreRequest::ReleaseTerm { scope, task, term });
        }
    }

    pub(super) fn term_answered(
        &mut self,
        scope: &str,
        task: &str,
        result: Result<Option<u64>, ()>,
        now: Now,
    ) {
        let Some(at) = self
            .duties
            .list
            .iter()
            .position(|duty| duty.task.name == task && duty.scope == scope)
        else {
            return;
        };
        let leads = self.leads(&self.duties.list[at]);
        let duty = &mut self.duties.list[at];
        // The lease began between the question and the answer.
        let asked = duty.asked.take().unwrap_or(now.mono);
        match result {
            Ok(Some(term)) => {
                duty.held = Some((term, asked + (LEASE - MARGIN)));
                duty.store_away = None;
                self.row_is(&(task.to_owned(), scope.to_owned()), term);
            }
            Ok(None) => {
                duty.held = None;
                duty.store_away = None;
            }
            Err(()) => {
                duty.store_away.get_or_insert(now.mono);
                duty.next_ask = now.mono + Duration::from_secs(1);
            }
        }
        if !leads {
            self.give_up_term(at);
        }
    }

    fn give_duty(&mut self, at: usize, now: Now) {
        let duty = &self.duties.list[at];
        if now.mono < duty.next_run || duty.runs(now.mono) {
            return;
        }
        let key = (duty.task.name.clone(), duty.scope.clone());
        let known = self.duties.outcomes.newest(&key.0, &key.1);
        // It may have been done shortly before by the leader before.
        let every = u64::try_from(duty.task.every.as_millis()).unwrap_or(u64::MAX);
        // One that is said to come of a later time than that came of a wrong clock.
        if known.is_some_and(|known| now.wall.0.abs_diff(known.at.0) < every) {
            return;
        }
        let without_store = duty.task.idempotent
            && duty
                .store_away
                .is_some_and(|since| now.mono.saturating_sub(since) >= WITHOUT_STORE);
        let term = match duty.term(now.mono) {
            Some(term) => term,
            None if without_store => known.map_or(0, |known| known.term),
            None => return,
        };
        let duty = &mut self.duties.list[at];
        duty.running = Some((term, now.mono));
        let (task, scope) = key;
        if task == SEAL {
            self.ask(StoreRequest::SealWindows { term });
        } else {
            self.effects
                .push(Effect::Incoming(Incoming::Duty { task, scope, term }));
        }
    }

    pub(super) fn windows_sealed(&mut self, term: u64, ok: bool, now: Now) {
        if let Some(duty) = self.duties.find(SEAL, CLUSTER)
            && duty.running.is_some_and(|(running, _)| running == term)
        {
            duty.running = None;
            duty.next_run = now.mono + if ok { SEAL_EVERY } else { RENEW };
        }
    }

    /// A duty of this node was done.
    pub(super) fn task_done(&mut self, outcome: Outcome, now: Now) {
        let Some(duty) = self.duties.find(&outcome.task, &outcome.scope) else {
            return;
        };
        if duty.running.is_none_or(|(term, _)| term != outcome.term) {
            tracing::warn!(
                task = outcome.task,
                term = outcome.term,
                "an outcome came too late"
            );
            return;
        }
        duty.running = None;
        duty.next_run = now.mono + duty.task.every;
        let holds = duty.term(now.mono) == Some(outcome.term);
        if outcome.body.len() > OUTCOME_BYTES {
            tracing::error!(
                task = outcome.task,
                bytes = outcome.body.len(),
                "an outcome is too large"
            );
            return;
        }
        if !holds && !duty.task.idempotent {
            tracing::warn!(
                task = outcome.task,
                term = outcome.term,
                "the term ran out meanwhile"
            );
            return;
        }
        if self.duties.outcomes.keep(&outcome) == Kept::News {
            self.send_all(&Frame::Outcome(outcome.clone()), None);
        }
        self.ask(StoreRequest::SaveOutcome(outcome));
    }

    pub(super) fn task_failed(&mut self, task: &str, term: u64, now: Now) {
        let failed = |duty: &&mut Duty| {
            duty.task.name == task && duty.running.is_some_and(|(running, _)| running == term)
        };
        if let Some(duty) = self.duties.list.iter_mut().find(failed) {
            duty.running = None;
            duty.next_run = now.mono + AFTER_FAILURE.min(duty.task.every);
        }
    }

    pub(super) fn outcome_saved(
        &mut self,
        task: &str,
        scope: &str,
        term: u64,
        result: Result<bool, ()>,
    ) {
        if result == Ok(false)
            && let Some(duty) = self.duties.find(task, scope)
        {
            tracing::warn!(task, term, "the term is another node's now");
            duty.held = None;
        }
    }

    /// Gives all terms back: this node is about to go.
    pub(super) fn give_up_terms(&mut self) {
        for at in 0..self.duties.list.len() {
            self.give_up_term(at);
        }
    }
}
