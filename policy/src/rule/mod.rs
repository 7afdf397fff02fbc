//! Routing rules: when a request goes elsewhere than its model's plain order.
//!
//! Promise: a rule that was accepted cannot panic, meet a wrong type, or take
//! more than time in proportion to its text and the request's headers. What it
//! needs and a request lacks (a header) makes it not match, said as a failure.
//! State: none. The language is CEL without maps, messages, timestamps and
//! loops within loops; `cel` parses it, the tree it is judged by is our own,
//! since that crate's interpreter checks no types ahead and compiles patterns
//! at every call.

mod error;
mod facts;
mod kind;
mod lower;
mod names;
mod node;
mod set;
mod source;

use std::sync::Arc;

pub use error::{RuleError, RuleFailure};
pub use set::RuleSet;

pub(crate) use facts::{Facts, Percents};
use lower::Lowered;

/// Whose requests a rule is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum RuleScope {
    /// All.
    #[default]
    Global,
    /// Those of a customer, by name.
    Customer(Arc<str>),
    /// Those of a team, by name.
    Team(Arc<str>),
    /// Those of a virtual key, by name.
    VirtualKey(Arc<str>),
    /// Those of an end user.
    User(Arc<str>),
}

/// Where a rule sends a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// A provider; `None` = those that have the model.
    pub provider: Option<Arc<str>>,
    /// A model or alias; `None` = the one that was asked for.
    pub model: Option<Arc<str>>,
    /// The one credential to use, by name; needs `provider`.
    pub credential: Option<Arc<str>>,
    /// Share of the requests among the rule's targets.
    pub weight: u32,
}

/// A rule as its author wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSpec {
    /// Unique.
    pub name: Arc<str>,
    /// Whose requests it is for.
    pub scope: RuleScope,
    /// Lower goes first within a scope; equals go by name.
    pub priority: u32,
    /// The condition.
    pub when: String,
    /// One is drawn by weight, the others follow as fallbacks.
    pub targets: Vec<Target>,
    /// Further choices after the targets, as `provider/model`.
    pub fallbacks: Vec<Arc<str>>,
    /// Whether the rules are asked again with the new provider and model.
    pub chain: bool,
    /// Whether a match is only reported.
    pub shadow: bool,
    /// Whether it is asked at all.
    pub enabled: bool,
}

/// A rule that was checked.
#[derive(Clone, Debug)]
pub struct Rule {
    spec: RuleSpec,
    condition: Lowered,
}

// === impl Rule ===

impl Rule {
    /// Checks the condition and the form of the targets. Whether providers,
    /// models and credentials exist is not judged here.
    ///
    /// # Errors
    /// What its author has to correct, the first of several.
    pub fn compile(spec: RuleSpec) -> Result<Self, RuleError> {
        let condition = lower::lower(&spec.when)?;
        if spec.targets.is_empty() {
            return Err(RuleError::Targets("a rule needs a target"));
        }
        let pins = |target: &Target| target.credential.is_some() && target.provider.is_none();
        if spec.targets.iter().any(pins) {
            return Err(RuleError::Targets(
                "a target with a credential needs its provider",
            ));
        }
        let whole = |name: &Arc<str>| {
            name.split_once('/')
                .is_some_and(|(provider, model)| !provider.is_empty() && !model.is_empty())
        };
        if !spec.fallbacks.iter().all(whole) {
            return Err(RuleError::Targets("a fallback is written provider/model"));
        }
        Ok(Self { spec, condition })
    }

    /// The rule as it was written.
    #[must_use]
    pub fn spec(&self) -> &RuleSpec {
        &self.spec
    }

    /// Whether it reads headers.
    #[must_use]
    pub fn needs_headers(&self) -> bool {
        self.condition.needs.headers
    }

    /// Whether it reads query parameters.
    #[must_use]
    pub fn needs_params(&self) -> bool {
        self.condition.needs.params
    }

    /// Whether its condition holds for a request.
    ///
    /// # Errors
    /// Why that cannot be told; counts as no match.
    pub(crate) fn holds(&self, facts: &Facts<'_>) -> Result<bool, RuleFailure> {
        node::holds(&self.condition.node, facts)
    }
}

#[cfg(test)]
mod tests;
