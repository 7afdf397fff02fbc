//! How full the limits of a request are before it is admitted, in percent.
//!
//! What counts is what admission counts: settled and held amounts against the
//! amount that holds now. Limits in shadow refuse nothing and do not count.

use std::sync::Arc;

use crate::limit::Limit;
use crate::model::ModelId;
use crate::scope::{Scope, Unit};
use crate::snapshot::Snapshot;
use crate::time::Timestamp;
use crate::virtual_key::VirtualKey;
use crate::walk;

/// The fullest limit of `unit` that the request cannot avoid: of the scopes
/// common to all choices, and of the choice whose fullest limit is emptiest.
/// Zero when there is none.
pub(super) fn fullest(
    snapshot: &Snapshot,
    key: &VirtualKey,
    user: Option<&Arc<Scope>>,
    choices: &[ModelId],
    unit: Unit,
    now: Timestamp,
) -> f64 {
    let common = of_scopes(walk::common(snapshot, key, user), unit, now);
    choices
        .iter()
        .map(|id| of_scopes(walk::of_choice(snapshot, key, *id), unit, now))
        .reduce(f64::min)
        .unwrap_or(0.0)
        .max(common)
}

fn of_scopes<'a>(scopes: impl Iterator<Item = &'a Arc<Scope>>, unit: Unit, now: Timestamp) -> f64 {
    scopes
        .flat_map(|scope| &scope.limits)
        .filter(|limit| limit.id.unit == unit && !limit.shadow)
        .map(|limit| of_limit(limit, now))
        .fold(0.0, f64::max)
}

fn of_limit(limit: &Limit, now: Timestamp) -> f64 {
    let level = limit.counter.level(now);
    percent(
        level.used.saturating_add(level.reserved),
        limit.amount_at(now),
    )
}

/// `part` of `whole` in percent, as close as a double can be; a limit of
/// nothing is full.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 100.0;
    }
    // Small numbers are exact as doubles, and then so is what comes of them.
    let common = common_divisor(part, whole);
    let hundredfold = u128::from(part / common) * 100;
    hundredfold as f64 / (whole / common) as f64
}

fn common_divisor(mut left: u64, mut right: u64) -> u64 {
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_exact() {
        for (part, whole, expected) in [
            (0, 100, 0.0),
            (9_899, 10_000, 98.99),
            (9_900, 10_000, 99.0),
            (9_901, 10_000, 99.01),
            // A million dollars in nano-dollars, and the largest limit.
            (989_900_000_000_000, 1_000_000_000_000_000, 98.99),
            (990_000_000_000_000, 1_000_000_000_000_000, 99.0),
            (u64::MAX, u64::MAX, 100.0),
            (u64::MAX / 5, u64::MAX, 20.0),
            (15, 10, 150.0),
            (0, 0, 100.0),
            (1, 3, 100.0 / 3.0),
        ] {
            assert_eq!(percent(part, whole), expected, "{part} of {whole}");
        }
        assert!(percent(989_999_999_999_999, 1_000_000_000_000_000) < 99.0);
        assert!(percent(990_000_000_000_001, 1_000_000_000_000_000) > 99.0);
    }
}
