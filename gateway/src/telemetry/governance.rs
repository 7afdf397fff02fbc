//! What limits and routing rules did, as metrics.
//!
//! Promise: a label is a word of the code or the name of a configured rule,
//! and at most [`MAX_RULES`] names have series of their own, so neither a
//! client nor a caller of the admin API can make series without bound. A
//! request takes no lock. State: the families, and when each rule's failure
//! was last logged.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use policy::{ScopeKind, Timestamp, Unit};
use prometheus::{IntCounter, IntCounterVec};

use super::metrics::{Maker, OTHER};

/// Most rules with series of their own over the life of the process; those
/// that come later are counted as `other`.
const MAX_RULES: usize = 1_000;

/// A rule's failures are logged at most this often, in milliseconds.
const LOG_EVERY_MS: u64 = 60_000;

/// Counters of limits, rules and what follows from them.
pub struct Governance {
    limit_refusals: IntCounterVec,
    shadow_refusals: IntCounterVec,
    rule_matches: IntCounterVec,
    rule_errors: IntCounterVec,
    prompt_counts: IntCounterVec,
    clamped: IntCounter,
    rules: ArcSwap<HashMap<Arc<str>, Arc<RuleSeries>>>,
}

/// The counters of one rule.
#[derive(Debug)]
struct RuleSeries {
    matched: IntCounter,
    shadowed: IntCounter,
    errors: IntCounter,
    /// When a failure was last logged, in Unix milliseconds; 0 = never.
    logged_at: AtomicU64,
}

impl Governance {
    #[rustfmt::skip] // one metric a line: this is the table of names
    pub(super) fn new(make: &Maker) -> Self {
        let new = Governance {
            limit_refusals: make.counters("tyr_limit_refusals_total", "Requests refused by a limit.", &["scope", "unit"]),
            shadow_refusals: make.counters("tyr_shadow_refusals_total", "Requests that a shadow limit would have refused.", &["scope", "unit"]),
            rule_matches: make.counters("tyr_rule_matches_total", "Requests that a routing rule matched.", &["rule", "outcome"]),
            rule_errors: make.counters("tyr_rule_errors_total", "Evaluations of a routing rule that failed and counted as no match.", &["rule"]),
            prompt_counts: make.counters("tyr_prompt_counts_total", "Prompts counted near the end of a strict limit.", &["outcome"]),
            clamped: make.counter("tyr_clamped_requests_total", "Requests whose answer was bounded so that it fits a limit."),
            rules: ArcSwap::default(),
        };
        new.configure_rules([OTHER]);
        new
    }

    /// Makes the rules of a configuration known as labels. Call it before
    /// they go live. Names are never removed, so no counter falls.
    pub fn configure_rules<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let names: Vec<&str> = names.into_iter().collect();
        self.rules.rcu(|known| {
            let mut known = HashMap::clone(known);
            for name in &names {
                if known.len() <= MAX_RULES && !known.contains_key(*name) {
                    known.insert(Arc::from(*name), Arc::new(self.series(name)));
                }
            }
            known
        });
    }

    fn series(&self, rule: &str) -> RuleSeries {
        let matches = |outcome| self.rule_matches.with_label_values(&[rule, outcome]);
        RuleSeries {
            matched: matches("matched"),
            shadowed: matches("shadowed"),
            errors: self.rule_errors.with_label_values(&[rule]),
            logged_at: AtomicU64::new(0),
        }
    }

    /// Counts one request that a limit refused.
    pub fn limit_refused(&self, scope: ScopeKind, unit: Unit) {
        let labels = [scope.as_str(), unit.as_str()];
        self.limit_refusals.with_label_values(&labels).inc();
    }

    /// Counts one request that a shadow limit would have refused.
    pub fn shadow_refused(&self, scope: ScopeKind, unit: Unit) {
        let labels = [scope.as_str(), unit.as_str()];
        self.shadow_refusals.with_label_values(&labels).inc();
    }

    /// Counts one match of a rule; a rule in shadow only says that it would.
    pub fn rule_matched(&self, rule: &str, shadow: bool) {
        self.of_rule(rule, |series| match shadow {
            true => series.shadowed.inc(),
            false => series.matched.inc(),
        });
    }

    /// Counts one failed evaluation of a rule; whether it should be logged.
    pub fn rule_failed(&self, rule: &str, now: Timestamp) -> bool {
        let mut log = false;
        self.of_rule(rule, |series| {
            series.errors.inc();
            let last = series.logged_at.load(Ordering::Relaxed);
            if last != 0 && now.0 < last.saturating_add(LOG_EVERY_MS) {
                return;
            }
            // Of several at once one logs.
            let (at, relaxed) = (now.0.max(1), Ordering::Relaxed);
            let taken = series
                .logged_at
                .compare_exchange(last, at, relaxed, relaxed);
            log = taken.is_ok();
        });
        log
    }

    /// Counts one attempt to count a prompt: `exact`, or why it was not.
    pub fn prompt_counted(&self, outcome: &'static str) {
        self.prompt_counts.with_label_values(&[outcome]).inc();
    }

    /// Counts one request whose answer was bounded.
    pub fn clamped(&self) {
        self.clamped.inc();
    }

    fn of_rule(&self, rule: &str, count: impl FnOnce(&RuleSeries)) {
        let rules = self.rules.load();
        if let Some(series) = rules.get(rule).or_else(|| rules.get(OTHER)) {
            count(series);
        }
    }
}

impl fmt::Debug for Governance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Governance").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    #[test]
    fn a_rule_that_fails_logs_once_a_minute_and_counts_each_time() {
        let governance = Governance::new(&Maker::new(Registry::new()));
        governance.configure_rules(["a", "b"]);
        let failed = |rule, at| governance.rule_failed(rule, Timestamp(at));
        assert!(failed("a", 0));
        assert!(!failed("a", 59_999));
        assert!(failed("b", 59_999), "each rule on its own");
        assert!(failed("a", 60_001));
        let counted = |rule: &str| governance.rule_errors.with_label_values(&[rule]).get();
        assert_eq!((counted("a"), counted("b")), (3, 1));
        governance.configure_rules(["a"]);
        assert_eq!(counted("a"), 3, "a reload changes nothing");
        governance.rule_failed("unheard-of", Timestamp(1));
        assert_eq!(counted(OTHER), 1);
    }

    #[test]
    fn names_of_rules_stay_bounded() {
        let governance = Governance::new(&Maker::new(Registry::new()));
        let names: Vec<String> = (0..2 * MAX_RULES).map(|n| format!("r{n}")).collect();
        governance.configure_rules(names.iter().map(String::as_str));
        assert_eq!(governance.rules.load().len(), MAX_RULES + 1);
        governance.rule_matched("r1999", true);
        let other = governance
            .rule_matches
            .with_label_values(&[OTHER, "shadowed"]);
        assert_eq!(other.get(), 1);
    }
}
