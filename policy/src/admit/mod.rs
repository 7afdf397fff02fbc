//! The one ordered walk over all limits of a request.
//!
//! All limits or none: whatever was taken before a refusal is given back.
//! The scopes that do not depend on the upstream choice are taken first, then
//! those of the first choice that has room.

mod foresee;
mod take;

use std::sync::Arc;

use crate::demand::Demand;
use crate::limit::Enforcement;
use crate::model::ModelId;
use crate::reservation::{Part, Reservation};
use crate::scope::Scope;
use crate::snapshot::Snapshot;
use crate::standing::Standing;
use crate::time::Timestamp;
use crate::verdict::{Admitted, Rejection, Verdict};
use crate::virtual_key::VirtualKey;
use crate::walk;
pub use foresee::{Foreseen, foresee};
use take::refusal_kind;
pub(crate) use take::{no_room_for, take};

/// An upstream choice and what the request would use there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it goes.
    pub model: ModelId,
    /// What it would use.
    pub demand: Demand,
}

/// One limit of a request's walk, as it stands before the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The limit.
    pub standing: Standing,
    /// What the request asks of it, in its unit; 0 = it is not concerned.
    pub asked: u64,
    /// Whether that would be admitted.
    pub fits: bool,
    /// Whether the limit only counts.
    pub shadow: bool,
}

/// Judges a request against every limit of its walk, in order, and holds what
/// it may need.
///
/// Scopes common to all candidates are judged by the largest demand of any of
/// them, field by field. Then the first candidate whose own scopes have room
/// is chosen. The first limit that refuses is reported; when every candidate
/// is full, that of the first one. Without candidates only the common scopes
/// are judged, against a demand of nothing but the request itself.
///
/// A limit of tokens or money of which the request needs nothing does not
/// concern it, even when it is used up.
pub fn admit(
    snapshot: &Snapshot,
    key: &VirtualKey,
    user: Option<&Arc<Scope>>,
    candidates: &[Candidate],
    now: Timestamp,
) -> Verdict {
    let largest = largest(candidates);
    let mut shadowed = Vec::new();
    let scopes = walk::common(snapshot, key, user);
    let common = match take(scopes, &largest, now, &mut shadowed) {
        Ok(part) => part,
        Err(rejection) => return Verdict::Reject(rejection),
    };
    let mut first_refusal: Option<Rejection> = None;
    for (chosen, candidate) in candidates.iter().enumerate() {
        // What a choice without room would have refused in shadow is not told:
        // the request does not go there.
        let mut choice_shadowed = Vec::new();
        let scopes = walk::of_choice(snapshot, key, candidate.model);
        match take(scopes, &candidate.demand, now, &mut choice_shadowed) {
            Ok(choice) => {
                shadowed.append(&mut choice_shadowed);
                return Verdict::Admit(Admitted {
                    reservation: Reservation::new(common, choice, now),
                    chosen,
                    shadowed,
                });
            }
            Err(rejection) => {
                first_refusal.get_or_insert(rejection);
            }
        }
    }
    match first_refusal {
        Some(rejection) => {
            common.release(now);
            Verdict::Reject(rejection)
        }
        None => Verdict::Admit(Admitted {
            reservation: Reservation::new(common, Part::empty(now), now),
            chosen: 0,
            shadowed,
        }),
    }
}

/// Every limit of the walk of one candidate, in order, as it stands. Takes
/// nothing.
#[must_use]
pub fn judge(
    snapshot: &Snapshot,
    key: &VirtualKey,
    user: Option<&Arc<Scope>>,
    candidate: &Candidate,
    now: Timestamp,
) -> Vec<Judged> {
    let common = walk::common(snapshot, key, user);
    let choice = walk::of_choice(snapshot, key, candidate.model);
    common
        .chain(choice)
        .flat_map(|scope| &scope.limits)
        .map(|limit| Judged {
            standing: limit.standing(now),
            asked: limit.asked(&candidate.demand),
            fits: refusal_kind(limit, &candidate.demand, now).is_none(),
            shadow: limit.shadow,
        })
        .collect()
}

/// Whether some strict limit of tokens or money on any candidate's walk has
/// less than twice left of what is asked, so that a better estimate pays.
#[must_use]
pub fn is_tight(
    snapshot: &Snapshot,
    key: &VirtualKey,
    user: Option<&Arc<Scope>>,
    candidates: &[Candidate],
    now: Timestamp,
) -> bool {
    let tight = |scope: &Arc<Scope>, demand: &Demand| {
        scope.limits.iter().any(|limit| {
            limit.id.unit.is_estimated()
                && limit.enforcement == Enforcement::Strict
                && !limit.shadow
                && limit.standing(now).remaining < limit.asked(demand).saturating_mul(2)
        })
    };
    let largest = largest(candidates);
    walk::common(snapshot, key, user).any(|scope| tight(scope, &largest))
        || candidates.iter().any(|candidate| {
            walk::of_choice(snapshot, key, candidate.model)
                .any(|scope| tight(scope, &candidate.demand))
        })
}

fn largest(candidates: &[Candidate]) -> Demand {
    candidates
        .iter()
        .map(|candidate| candidate.demand)
        .reduce(|left, right| left.largest(&right))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
