//! Taking the limits of a list of scopes, all or none.

use std::sync::Arc;

use crate::counter::Hold;
use crate::demand::Demand;
use crate::limit::{Enforcement, Limit};
use crate::reservation::Part;
use crate::scope::{Scope, Unit};
use crate::time::Timestamp;
use crate::verdict::{Rejection, RejectionKind};

/// Holds `demand` on every limit of `scopes`, or nothing.
///
/// A shadow limit always holds; what it would have refused goes to `shadowed`.
///
/// # Errors
/// The first limit that refused.
#[expect(
    clippy::result_large_err,
    reason = "a refusal is moved once, into the verdict"
)]
pub(crate) fn take<'a>(
    scopes: impl Iterator<Item = &'a Arc<Scope>>,
    demand: &Demand,
    now: Timestamp,
    shadowed: &mut Vec<Rejection>,
) -> Result<Part, Rejection> {
    let mut part = Part::empty(now);
    for scope in scopes {
        for (index, limit) in scope.limits.iter().enumerate() {
            match hold(limit, demand, now) {
                Ok(hold) => part.push(scope, index, hold),
                Err(kind) => {
                    let rejection = reject(limit, demand, kind, now);
                    if !limit.shadow {
                        part.release(now);
                        return Err(rejection);
                    }
                    shadowed.push(rejection);
                    let hold = limit.counter.hold_always(limit.asked(demand), now);
                    part.push(scope, index, hold);
                }
            }
        }
    }
    Ok(part)
}

fn hold(limit: &Limit, demand: &Demand, now: Timestamp) -> Result<Hold, RejectionKind> {
    let amount = hold_amount(limit, demand, now)?;
    limit
        .counter
        .reserve(amount, limit.bound(now), now)
        .ok_or_else(|| no_room(limit))
}

/// How `limit` would refuse `demand`; `None` when it would not.
pub(crate) fn refusal_kind(
    limit: &Limit,
    demand: &Demand,
    now: Timestamp,
) -> Option<RejectionKind> {
    match hold_amount(limit, demand, now) {
        Err(kind) => Some(kind),
        Ok(amount) => {
            let fits = limit.counter.fits(amount, limit.bound(now), now);
            (!fits).then(|| no_room(limit))
        }
    }
}

/// What to hold on `limit`. An eventual hold is cut to the limit, so that a
/// large request passes when it is alone; a limit of zero still refuses.
fn hold_amount(limit: &Limit, demand: &Demand, now: Timestamp) -> Result<u64, RejectionKind> {
    let asked = limit.asked(demand);
    let ceiling = limit.ceiling(now);
    if asked <= ceiling {
        return Ok(asked);
    }
    if limit.enforcement == Enforcement::Strict && limit.id.unit.is_estimated() {
        return Err(RejectionKind::TooLargeForLimit {
            max_tokens_that_fits: answer_within(limit, demand, ceiling),
        });
    }
    Ok(ceiling.max(1))
}

/// The kind of a refusal for want of room.
fn no_room(limit: &Limit) -> RejectionKind {
    match limit.id.unit {
        Unit::Usd => RejectionKind::Budget,
        _ => RejectionKind::RateLimit,
    }
}

/// The largest answer with which `demand` takes at most `amount` of `limit`;
/// `None` where answers do not decide that.
fn answer_within(limit: &Limit, demand: &Demand, amount: u64) -> Option<u64> {
    match limit.id.unit {
        Unit::Tokens => demand.answer_within_tokens(amount),
        Unit::Usd => demand.answer_within_cost(amount),
        Unit::Requests | Unit::Concurrent => None,
    }
}

/// The refusal of `demand` by `limit`, as it stands.
pub(super) fn reject(
    limit: &Limit,
    demand: &Demand,
    kind: RejectionKind,
    now: Timestamp,
) -> Rejection {
    let mut rejection = refusal(limit, limit.asked(demand), kind, now);
    if limit.enforcement == Enforcement::Strict {
        let left = limit.left(&limit.counter.level(now), now);
        rejection.max_tokens_left = answer_within(limit, demand, left);
    }
    rejection
}

/// The refusal to raise a hold on `limit` to `total`, as it stands.
pub(crate) fn no_room_for(limit: &Limit, total: u64, now: Timestamp) -> Rejection {
    refusal(limit, total, no_room(limit), now)
}

fn refusal(limit: &Limit, asked: u64, kind: RejectionKind, now: Timestamp) -> Rejection {
    let level = limit.counter.level(now);
    let wanted = asked.min(limit.ceiling(now)).max(1);
    Rejection {
        kind,
        scope: limit.id.scope,
        entity: Arc::clone(&limit.id.entity),
        unit: limit.id.unit,
        period: limit.id.period,
        window: limit.id.window,
        name: limit.id.name.clone(),
        enforcement: limit.enforcement,
        on_tight: limit.on_tight,
        max_tokens_left: None,
        limit: limit.amount_at(now),
        used: level.used,
        reserved: level.reserved,
        asked,
        retry_after: limit.counter.retry_after(wanted, limit.bound(now), now),
        resets_at: level.resets_at,
    }
}
