//! The limits of end users: one set of templates, a scope for each user made
//! when it is first seen.
//!
//! Owner of the scopes; their counts live in the `CounterTable`, so a user
//! that was forgotten or a new configuration finds what was used. Bounded:
//! names come from clients. Nothing here takes a lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::counter::{CounterId, CounterTable};
use crate::limit::{Enforcement, Limit, OnTight, Override};
use crate::scope::{Scope, ScopeKind, Unit};
use crate::time::Timestamp;
use crate::window::{Period, WindowKind};

/// The entity of the scope that users share when there are too many.
const OTHERS: &str = "(others)";

/// How long a user without any use stays known.
const FORGET_AFTER_MS: u64 = 60_000;

/// A limit that every user has; fields as in `CounterId` and `Limit`.
#[derive(Clone, Debug)]
pub struct LimitTemplate {
    /// What is counted.
    pub unit: Unit,
    /// The window's length; `None` for requests in flight.
    pub period: Option<Period>,
    /// How the window moves.
    pub window: WindowKind,
    /// Tells limits apart that agree in all the rest.
    pub name: Option<Arc<str>>,
    /// Requests, tokens or nano-dollars for each user.
    pub amount: u64,
    /// How much is held.
    pub enforcement: Enforcement,
    /// Counts everything and refuses nothing.
    pub shadow: bool,
    /// What happens near its end.
    pub on_tight: OnTight,
}

/// What was changed of one limit of one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amendment {
    /// The generation of its counter.
    pub generation: u32,
    /// Another amount for a while.
    pub overridden: Option<Override>,
}

/// The limits of all end users.
#[derive(Debug)]
pub struct UserLimits {
    templates: Vec<LimitTemplate>,
    /// By the counter's identity in generation 0.
    amendments: HashMap<CounterId, Amendment>,
    counters: Arc<CounterTable>,
    max_tracked: usize,
    /// Users in `tracked`, counted before they are inserted.
    count: AtomicUsize,
    tracked: papaya::HashMap<Arc<str>, Tracked>,
    others: Arc<Scope>,
}

/// A user that has been seen.
#[derive(Debug)]
struct Tracked {
    scope: Arc<Scope>,
    /// Milliseconds since 1970.
    last_seen: AtomicU64,
}

// === impl UserLimits ===

impl UserLimits {
    /// Limits for at most `max_tracked` users at a time, beside those of whom
    /// `counters` knows something already.
    #[must_use]
    pub fn new(
        templates: Vec<LimitTemplate>,
        counters: Arc<CounterTable>,
        max_tracked: usize,
    ) -> Self {
        let others = scope_of(OTHERS, &templates, &HashMap::new(), &counters);
        Self {
            templates,
            amendments: HashMap::new(),
            counters,
            max_tracked,
            count: AtomicUsize::new(0),
            tracked: papaya::HashMap::new(),
            others,
        }
    }

    /// With what was reset or overridden, by the counter's identity; its
    /// generation there does not matter.
    #[must_use]
    pub fn amended(mut self, amendments: impl IntoIterator<Item = (CounterId, Amendment)>) -> Self {
        self.amendments = amendments
            .into_iter()
            .map(|(id, amendment)| (id.without_generation(), amendment))
            .collect();
        self.others = scope_of(OTHERS, &self.templates, &self.amendments, &self.counters);
        self.tracked = papaya::HashMap::new();
        self.count = AtomicUsize::new(0);
        self
    }

    /// The limits of this user; `None` when users have none.
    ///
    /// A user who does not fit shares the scope `(others)` with all who do not
    /// fit either, unless something is counted of it already.
    #[must_use]
    pub fn scope(&self, user: &str, now: Timestamp) -> Option<Arc<Scope>> {
        if self.templates.is_empty() {
            return None;
        }
        let tracked = self.tracked.pin();
        if let Some(known) = tracked.get(user) {
            known.last_seen.fetch_max(now.0, Ordering::Relaxed);
            return Some(Arc::clone(&known.scope));
        }
        if !self.make_room(user, now) {
            return Some(Arc::clone(&self.others));
        }
        let fresh = Tracked {
            scope: scope_of(user, &self.templates, &self.amendments, &self.counters),
            last_seen: AtomicU64::new(now.0),
        };
        Some(match tracked.try_insert(user.into(), fresh) {
            Ok(mine) => Arc::clone(&mine.scope),
            Err(taken) => {
                self.count.fetch_sub(1, Ordering::AcqRel);
                Arc::clone(&taken.current.scope)
            }
        })
    }

    /// The same limits for who asks about a user: nobody becomes known by that,
    /// so asking takes no place from users that come.
    #[must_use]
    pub fn peek(&self, user: &str, now: Timestamp) -> Option<Arc<Scope>> {
        if self.templates.is_empty() {
            return None;
        }
        if let Some(known) = self.tracked.pin().get(user) {
            return Some(Arc::clone(&known.scope));
        }
        if self.tracked() >= self.max_tracked && !self.is_counted(user, now) {
            return Some(Arc::clone(&self.others));
        }
        let (templates, amendments) = (&self.templates, &self.amendments);
        Some(scope_of(user, templates, amendments, &self.counters))
    }

    /// Forgets users without any use that were not seen for a minute. Not for
    /// the request path: visits every user.
    pub fn sweep(&self, now: Timestamp) {
        let tracked = self.tracked.pin();
        for (user, known) in &tracked {
            if !is_idle(known, now) {
                continue;
            }
            // Whoever takes the scope in between shares its counters with the
            // scope that the user gets next: the table keeps them by identity.
            let gone = tracked.remove_if(user, |_, known| is_idle(known, now));
            if let Ok(Some(_)) = gone {
                self.count.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// How many users are known.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Counts one more user in; `false` when there are too many.
    fn make_room(&self, user: &str, now: Timestamp) -> bool {
        let free = self
            .count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count < self.max_tracked).then_some(count + 1)
            });
        if free.is_ok() {
            return true;
        }
        let counted = self.is_counted(user, now);
        if counted {
            self.count.fetch_add(1, Ordering::AcqRel);
        }
        counted
    }

    /// Whether something is counted of this user, restored from the store for
    /// instance.
    fn is_counted(&self, user: &str, now: Timestamp) -> bool {
        let user: Arc<str> = user.into();
        self.templates.iter().any(|template| {
            let (id, _) = amended_id(&user, template, &self.amendments);
            self.counters.is_counting(&id, now)
        })
    }
}

fn is_idle(known: &Tracked, now: Timestamp) -> bool {
    let seen = known.last_seen.load(Ordering::Relaxed);
    now.0.saturating_sub(seen) >= FORGET_AFTER_MS
        && Arc::strong_count(&known.scope) == 1
        && known
            .scope
            .limits
            .iter()
            .all(|limit| limit.counter.is_idle(now))
}

fn scope_of(
    user: &str,
    templates: &[LimitTemplate],
    amendments: &HashMap<CounterId, Amendment>,
    counters: &CounterTable,
) -> Arc<Scope> {
    let entity: Arc<str> = user.into();
    let limits = templates
        .iter()
        .map(|template| {
            let (id, overridden) = amended_id(&entity, template, amendments);
            Limit {
                amount: template.amount,
                enforcement: template.enforcement,
                counter: counters.counter(&id),
                id,
                shadow: template.shadow,
                on_tight: template.on_tight,
                overridden,
            }
        })
        .collect();
    Arc::new(Scope {
        kind: ScopeKind::User,
        entity,
        limits,
    })
}

fn amended_id(
    user: &Arc<str>,
    template: &LimitTemplate,
    amendments: &HashMap<CounterId, Amendment>,
) -> (CounterId, Option<Override>) {
    let mut id = CounterId {
        scope: ScopeKind::User,
        entity: Arc::clone(user),
        unit: template.unit,
        period: template.period,
        window: template.window,
        name: template.name.clone(),
        generation: 0,
    };
    let amendment = amendments.get(&id).copied().unwrap_or_default();
    id.generation = amendment.generation;
    (id, amendment.overridden)
}

#[cfg(test)]
mod tests;
