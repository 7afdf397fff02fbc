//! All rules of a snapshot, by whose requests they are for.

use std::collections::HashMap;
use std::sync::Arc;

use crate::rule::{Rule, RuleScope};

/// The enabled rules, each list in the order it is asked. The default has
/// none.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// Everything that was given, disabled rules included.
    rules: Vec<Arc<Rule>>,
    global: Vec<Arc<Rule>>,
    /// Never holds `RuleScope::Global`.
    scoped: HashMap<RuleScope, Vec<Arc<Rule>>>,
    needs_headers: bool,
    needs_params: bool,
}

// === impl RuleSet ===

impl RuleSet {
    /// Sorts the rules; names are unique, which is for the caller to see to.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut rules: Vec<Arc<Rule>> = rules.into_iter().map(Arc::new).collect();
        rules.sort_by(|left, right| {
            let (left, right) = (left.spec(), right.spec());
            (left.priority, &left.name).cmp(&(right.priority, &right.name))
        });
        let mut set = Self::default();
        for rule in rules.iter().filter(|rule| rule.spec().enabled) {
            set.needs_headers |= rule.needs_headers();
            set.needs_params |= rule.needs_params();
            match &rule.spec().scope {
                RuleScope::Global => set.global.push(Arc::clone(rule)),
                scope => set
                    .scoped
                    .entry(scope.clone())
                    .or_default()
                    .push(Arc::clone(rule)),
            }
        }
        Self { rules, ..set }
    }

    /// Whether no rule is ever asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.global.is_empty() && self.scoped.is_empty()
    }

    /// Whether any enabled rule reads headers.
    #[must_use]
    pub fn needs_headers(&self) -> bool {
        self.needs_headers
    }

    /// Whether any enabled rule reads query parameters.
    #[must_use]
    pub fn needs_params(&self) -> bool {
        self.needs_params
    }

    /// All rules by priority and name, disabled ones included.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|rule| &**rule)
    }

    /// The rules for these owners in the order they are asked: virtual key,
    /// user, team, customer, global.
    pub(crate) fn asked(
        &self,
        key: &Arc<str>,
        user: Option<&str>,
        team: Option<&Arc<str>>,
        customer: Option<&Arc<str>>,
    ) -> impl Iterator<Item = &Rule> {
        let scopes = if self.scoped.is_empty() {
            [const { None }; 4]
        } else {
            [
                Some(RuleScope::VirtualKey(Arc::clone(key))),
                user.map(|user| RuleScope::User(user.into())),
                team.map(|team| RuleScope::Team(Arc::clone(team))),
                customer.map(|customer| RuleScope::Customer(Arc::clone(customer))),
            ]
        };
        scopes
            .into_iter()
            .flatten()
            .filter_map(|scope| self.scoped.get(&scope))
            .chain([&self.global])
            .flatten()
            .map(|rule| &**rule)
    }
}
