//! The decisions of the Tyr gateway as plain data and arithmetic: who may call
//! what, at which price, within which limits and budgets.
//!
//! Promise: nothing here does I/O, reads a clock, draws a random number, takes
//! a lock on the request path or awaits. Time and randomness are arguments.
//!
//! Read in this order: `snapshot` (what the configuration became), `route`
//! (model name to upstream choices), `walk` (which scopes judge a request, in
//! order), `admit` (the one walk over all their limits), `reservation` (what a
//! request holds until it settles), `counter` (the lock-free counts
//! underneath).

mod admit;
mod calendar;
mod counter;
mod demand;
mod limit;
mod model;
mod money;
mod predictor;
mod price;
mod reservation;
mod route;
mod rule;
mod scope;
mod snapshot;
mod standing;
#[cfg(test)]
mod testing;
mod time;
mod token_ratio;
mod user_limits;
mod verdict;
mod virtual_key;
mod walk;
mod window;

pub use admit::{Candidate, Foreseen, Judged, admit, foresee, is_tight, judge};
pub use counter::{
    Cell, Charge, Counter, CounterId, CounterIdError, CounterTable, Fleet, Mode, OwnCell,
};
pub use demand::{Actual, Demand};
pub use limit::{Enforcement, Limit, OnTight, Override};
pub use model::{CredentialRef, Dialect, Model, ModelId, Provider, ProviderId};
pub use money::{MoneyError, NanoUsd, Tokens};
pub use predictor::Predictor;
pub use price::{PerMillion, Price, Usage};
pub use reservation::{Reservation, Tightest};
pub use route::{
    Call, Choice, Explained, Nearness, RouteRefusal, Routed, RuleOutcome, RuleStep, SkipReason,
    Skipped, VisibleModel, credential, explain_route, route, visible_models,
};
pub use rule::{Rule, RuleError, RuleFailure, RuleScope, RuleSet, RuleSpec, Target};
pub use scope::{Customer, Scope, ScopeKind, Team, Unit};
pub use snapshot::{BaseParts, KeyRefusal, Snapshot};
pub use standing::Standing;
pub use time::{Clock, ManualClock, Timestamp};
pub use token_ratio::TokenRatio;
pub use user_limits::{Amendment, LimitTemplate, UserLimits};
pub use verdict::{Admitted, Rejection, RejectionKind, Verdict};
pub use virtual_key::{AllowList, AllowListError, Grant, KeyHash, VirtualKey};
pub use window::{Period, PeriodError, WindowKind};
