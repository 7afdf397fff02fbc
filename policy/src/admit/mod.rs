//! The one ordered walk over all limits of a request.
//!
//! All limits or none: whatever was taken before a refusal is given back by
//! dropping the reservation that was being built.

use std::borrow::Borrow;
use std::sync::Arc;

use crate::demand::Demand;
use crate::limit::{Enforcement, Limit};
use crate::reservation::Reservation;
use crate::scope::{Scope, Unit};
use crate::time::Timestamp;
use crate::verdict::{Rejection, RejectionKind, Verdict};

/// Judges `demand` against every limit of `scopes`, in order, and holds what
/// it may need. The first limit that refuses is reported.
///
/// A limit of tokens or money of which the request needs nothing does not
/// concern it, even when it is used up.
pub fn admit<S: Borrow<Arc<Scope>>>(
    scopes: impl IntoIterator<Item = S>,
    demand: &Demand,
    now: Timestamp,
) -> Verdict {
    let mut reservation = Reservation::empty(now);
    for scope in scopes {
        let scope = scope.borrow();
        for (index, limit) in scope.limits.iter().enumerate() {
            let amount = match hold_amount(limit, demand) {
                Ok(amount) => amount,
                Err(kind) => return Verdict::Reject(reject(limit, demand, kind, now)),
            };
            match limit.counter.reserve(amount, limit.amount, now) {
                Some(hold) => reservation.push(scope, index, hold),
                None => {
                    let kind = match limit.id.unit {
                        Unit::Usd => RejectionKind::Budget,
                        _ => RejectionKind::RateLimit,
                    };
                    return Verdict::Reject(reject(limit, demand, kind, now));
                }
            }
        }
    }
    Verdict::Admit(reservation)
}

/// What to hold on `limit`. An eventual hold is cut to the limit, so that a
/// large request passes when it is alone; a limit of zero still refuses.
fn hold_amount(limit: &Limit, demand: &Demand) -> Result<u64, RejectionKind> {
    let asked = limit.asked(demand);
    let ceiling = limit.ceiling();
    if asked <= ceiling {
        return Ok(asked);
    }
    match (limit.enforcement, limit.id.unit) {
        (Enforcement::Strict, Unit::Tokens) => Err(RejectionKind::TooLargeForLimit {
            max_tokens_that_fits: demand.answer_within_tokens(ceiling),
        }),
        (Enforcement::Strict, Unit::Usd) => Err(RejectionKind::TooLargeForLimit {
            max_tokens_that_fits: demand.answer_within_cost(ceiling),
        }),
        _ => Ok(ceiling.max(1)),
    }
}

fn reject(limit: &Limit, demand: &Demand, kind: RejectionKind, now: Timestamp) -> Rejection {
    let asked = limit.asked(demand);
    let level = limit.counter.level(now);
    let wanted = asked.min(limit.ceiling()).max(1);
    Rejection {
        kind,
        scope: limit.id.scope,
        entity: Arc::clone(&limit.id.entity),
        unit: limit.id.unit,
        period: limit.id.period,
        name: limit.id.name.clone(),
        enforcement: limit.enforcement,
        limit: limit.amount,
        used: level.used,
        reserved: level.reserved,
        asked,
        retry_after: limit.counter.retry_after(wanted, limit.amount, now),
        resets_at: level.resets_at,
    }
}

#[cfg(test)]
mod tests;
