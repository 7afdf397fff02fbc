//! The walk of a request without taking anything.

use std::sync::Arc;

use super::take::{refusal_kind, reject};
use super::{Candidate, Judged, largest};
use crate::demand::Demand;
use crate::scope::Scope;
use crate::snapshot::Snapshot;
use crate::time::Timestamp;
use crate::verdict::Rejection;
use crate::virtual_key::VirtualKey;
use crate::walk;

/// What `admit` would answer, and every limit that it would look at.
#[derive(Clone, Debug)]
pub struct Foreseen {
    /// The limits common to all candidates, against the largest demand.
    pub common: Vec<Judged>,
    /// The further limits of each candidate, in the order of the candidates.
    pub choices: Vec<Vec<Judged>>,
    /// The position of the candidate that would be chosen, 0 without any, or
    /// the refusal.
    pub outcome: Result<usize, Box<Rejection>>,
}

/// Judges a request as `admit` does at this moment, and takes nothing.
#[must_use]
pub fn foresee(
    snapshot: &Snapshot,
    key: &VirtualKey,
    user: Option<&Arc<Scope>>,
    candidates: &[Candidate],
    now: Timestamp,
) -> Foreseen {
    let (common, refused) = judged(walk::common(snapshot, key, user), &largest(candidates), now);
    let mut choices = Vec::with_capacity(candidates.len());
    let mut first_with_room = candidates.is_empty().then_some(0);
    let mut first_refusal = None;
    for (position, candidate) in candidates.iter().enumerate() {
        let scopes = walk::of_choice(snapshot, key, candidate.model);
        let (limits, refused) = judged(scopes, &candidate.demand, now);
        choices.push(limits);
        match refused {
            None => first_with_room = first_with_room.or(Some(position)),
            Some(rejection) => first_refusal = first_refusal.or(Some(rejection)),
        }
    }
    let outcome = match (refused, first_with_room, first_refusal) {
        (Some(rejection), _, _) => Err(rejection),
        (None, Some(position), _) => Ok(position),
        (None, None, Some(rejection)) => Err(rejection),
        (None, None, None) => Ok(0),
    };
    Foreseen {
        common,
        choices,
        outcome,
    }
}

/// Every limit of `scopes`, and the first refusal.
fn judged<'a>(
    scopes: impl Iterator<Item = &'a Arc<Scope>>,
    demand: &Demand,
    now: Timestamp,
) -> (Vec<Judged>, Option<Box<Rejection>>) {
    let mut all = Vec::new();
    let mut refused = None;
    for limit in scopes.flat_map(|scope| &scope.limits) {
        let kind = refusal_kind(limit, demand, now);
        all.push(Judged {
            standing: limit.standing(now),
            asked: limit.asked(demand),
            fits: kind.is_none(),
            shadow: limit.shadow,
        });
        if let (Some(kind), false, None) = (kind, limit.shadow, &refused) {
            refused = Some(Box::new(reject(limit, demand, kind, now)));
        }
    }
    (all, refused)
}
