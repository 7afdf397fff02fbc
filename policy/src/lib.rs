//! The decisions of the Tyr gateway as plain data and arithmetic: who may call
//! what, at which price, within which limits and budgets.
//!
//! Promise: nothing here does I/O, reads a clock, draws a random number, takes
//! a lock on the request path or awaits. Time and randomness are arguments.
//!
//! Read in this order: `snapshot` (what the configuration became), `route`
//! (model name to upstream choices), `admit` (the one walk over all limits),
//! `reservation` (what a request holds until it settles), `counter` (the
//! lock-free counts underneath).

mod admit;
mod calendar;
mod counter;
mod demand;
mod limit;
mod model;
mod money;
mod price;
mod reservation;
mod route;
mod scope;
mod snapshot;
mod standing;
mod time;
mod token_ratio;
mod verdict;
mod virtual_key;
mod window;

pub use admit::admit;
pub use counter::{Cell, Charge, Counter, CounterId, CounterIdError, CounterTable};
pub use demand::{Actual, Demand};
pub use limit::{Enforcement, Limit};
pub use model::{CredentialRef, Dialect, Model, ModelId, Provider, ProviderId};
pub use money::{MoneyError, NanoUsd, Tokens};
pub use price::{PerMillion, Price, Usage};
pub use reservation::{Reservation, Tightest};
pub use route::{RouteRefusal, VisibleModel, choices, credential, visible_models};
pub use scope::{Scope, ScopeKind, Unit};
pub use snapshot::{Snapshot, SnapshotParts};
pub use standing::Standing;
pub use time::{Clock, ManualClock, Timestamp};
pub use token_ratio::TokenRatio;
pub use verdict::{Rejection, RejectionKind, Verdict};
pub use virtual_key::{AllowList, AllowListError, Grant, KeyHash, VirtualKey};
pub use window::{Period, PeriodError, WindowKind};
