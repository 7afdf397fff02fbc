//! From the model a client asks for to the upstream choices in order.
//!
//! The allow-list is judged on what was asked for before anything else, so a
//! key learns nothing of models it may not use beyond that they exist. Routing
//! rules come next; without one that matches, the model's plain order holds:
//! an alias gives its choices in order, a bare name a weighted pick with the
//! rest as fallbacks, heaviest first, `provider/name` one. What is in the node's
//! region comes before what is in none, and that before other regions. Models
//! whose price is not known are left out. Randomness is an argument. Without
//! rules nothing is spent on them.

mod credential;
mod nearness;
mod order;
mod percent;
mod ruled;
mod visible;

use std::sync::Arc;

pub use credential::credential;
pub use nearness::Nearness;
pub use visible::{VisibleModel, visible_models};

use crate::model::{Dialect, ModelId};
use crate::scope::Scope;
use crate::snapshot::Snapshot;
use crate::time::Timestamp;
use crate::virtual_key::VirtualKey;

/// Why no upstream can serve a request; a value, not a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteRefusal {
    /// No model, alias or `provider/name` of that name.
    #[error("no such model")]
    UnknownModel,
    /// It exists, but the key may not use it, or nothing of where the rules
    /// send it.
    #[error("this key may not use the model")]
    ModelNotAllowed,
    /// Every choice speaks another dialect.
    #[error("no provider of the model serves this endpoint")]
    NoCompatibleProvider,
    /// What is left may not be served, for nobody can say what it costs.
    #[error("the price of the model is not known yet")]
    PriceUnknown,
}

/// A request as far as routing sees it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The model as the client wrote it.
    pub model: &'a str,
    /// The kind of endpoint, as rules name it (`chat`, `embeddings`, …).
    pub request_type: &'a str,
    /// What the endpoint speaks.
    pub dialect: Dialect,
    /// Names in lower case; may be empty unless `RuleSet::needs_headers`.
    pub headers: &'a [(&'a str, &'a str)],
    /// Query parameters; may be empty unless `RuleSet::needs_params`.
    pub params: &'a [(&'a str, &'a str)],
    /// The end user's name.
    pub user: Option<&'a str>,
    /// The end user's limits.
    pub user_scope: Option<&'a Arc<Scope>>,
    /// Decides every weighted draw.
    pub random: u64,
    /// When limits are looked at.
    pub now: Timestamp,
}

/// One upstream to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What is asked, of whom.
    pub model: ModelId,
    /// The one credential to use, by name.
    pub credential: Option<Arc<str>>,
}

/// What became of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleOutcome {
    /// It decided, unless a later one of its chain did.
    Matched,
    /// It would have, were it not in shadow.
    Shadowed,
    /// Its condition does not hold.
    NotMatched,
    /// Its condition cannot be told; counts as not matched.
    Failed(String),
    /// It holds, but the chain is too long: the choice before it stands.
    DepthExceeded,
}

/// A rule that was asked, and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleStep {
    /// Its name.
    pub rule: Arc<str>,
    /// Its answer.
    pub outcome: RuleOutcome,
}

/// Why a choice is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// No such provider, or no such model of it.
    #[error("no such model")]
    Unknown,
    /// The key may not use it.
    #[error("this key may not use it")]
    NotGranted,
    /// It speaks another dialect than the endpoint.
    #[error("its provider does not serve this endpoint")]
    OtherDialect,
    /// The credential that the rule names does not exist or is not for this
    /// model.
    #[error("its provider has no such credential for the model")]
    NoCredential,
    /// It is to cost what the price list says, and no list has said it yet.
    #[error("its price is not known")]
    PriceUnknown,
}

/// A choice that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// `provider/model`, or what the rule says where that is less.
    pub name: String,
    /// Why.
    pub why: SkipReason,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// In the order they are tried; at least one.
    pub choices: Vec<Choice>,
    /// The rules that matched, were in shadow or failed, in the order they
    /// were asked; with a chain, a rule may come several times.
    pub trace: Vec<RuleStep>,
    /// What the deciding rule names and this request cannot use; without a
    /// rule, what would do if its price were known.
    pub skipped: Vec<Skipped>,
}

/// Where a request would go, and all that was looked at on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The choices, or the refusal.
    pub outcome: Result<Vec<Choice>, RouteRefusal>,
    /// Every rule that was asked.
    pub trace: Vec<RuleStep>,
    /// As in `Routed`.
    pub skipped: Vec<Skipped>,
}

/// The upstream choices for a request in the order they are tried.
///
/// # Errors
/// The refusal to show the client.
pub fn route(
    snapshot: &Snapshot,
    key: &VirtualKey,
    call: &Call<'_>,
) -> Result<Routed, RouteRefusal> {
    let explained = explain(snapshot, key, call, false);
    explained.outcome.map(|choices| Routed {
        choices,
        trace: explained.trace,
        skipped: explained.skipped,
    })
}

/// As `route`, but tells of every rule, also for a refused request.
#[must_use]
pub fn explain_route(snapshot: &Snapshot, key: &VirtualKey, call: &Call<'_>) -> Explained {
    explain(snapshot, key, call, true)
}

fn explain(snapshot: &Snapshot, key: &VirtualKey, call: &Call<'_>, all: bool) -> Explained {
    let refuse = |refusal| Explained {
        outcome: Err(refusal),
        trace: Vec::new(),
        skipped: Vec::new(),
    };
    let Some(asked) = order::resolve(snapshot, call.model) else {
        return refuse(RouteRefusal::UnknownModel);
    };
    let ruling = if snapshot.rules().is_empty() {
        // The plain order judges the allow-list itself.
        ruled::Ruling::default()
    } else if asked.is_allowed(snapshot, key) {
        ruled::Ruling::of(snapshot, key, call, asked, all)
    } else {
        return refuse(RouteRefusal::ModelNotAllowed);
    };
    let mut skipped = ruling.skipped;
    let outcome = ruling.outcome.unwrap_or_else(|| {
        asked
            .plain(snapshot, key, call, &mut skipped)
            .map(|ids| ids.into_iter().map(Choice::of).collect())
    });
    Explained {
        outcome,
        trace: ruling.trace,
        skipped,
    }
}

// === impl Choice ===

impl Choice {
    fn of(model: ModelId) -> Self {
        Self {
            model,
            credential: None,
        }
    }
}

// === impl Skipped ===

impl Skipped {
    fn of(snapshot: &Snapshot, model: ModelId, why: SkipReason) -> Self {
        let model = snapshot.model(model);
        let provider = &snapshot.provider(model.provider).name;
        Self {
            name: format!("{provider}/{}", model.name),
            why,
        }
    }
}

// === impl Routed ===

impl Routed {
    /// The rule that decided: the last of its chain.
    #[must_use]
    pub fn decided_by(&self) -> Option<&Arc<str>> {
        self.trace
            .iter()
            .rfind(|step| step.outcome == RuleOutcome::Matched)
            .map(|step| &step.rule)
    }
}

#[cfg(test)]
mod tests;
