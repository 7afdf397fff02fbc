//! Budgets and rate limits, which the source keeps apart from their owners.

use super::Import;
use crate::import::plan::{BudgetNode, Limits};
use crate::import::source::Node;

/// Whose limits are looked for.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) node: &'a Node,
    /// The field by which budgets name their owner: `team_id`.
    pub(super) field: &'static str,
    pub(super) id: &'a str,
    /// Whether its periods begin at calendar boundaries.
    pub(super) aligned: bool,
}

impl<'a> Import<'a> {
    /// All limits of one owner, wherever they stand.
    pub(super) fn limits(&mut self, owner: Owner<'a>) -> Limits {
        let mut limits = Limits::default();
        let node = owner.node;
        let mut wanted: Vec<&str> = node.texts("budget_ids").unwrap_or_default();
        wanted.extend(node.text("budget_id"));
        let budgets = self.budgets;
        for id in &wanted {
            if !budgets.iter().any(|budget| budget.peek("id") == Some(*id)) {
                self.notes
                    .at(&node.at, "names a budget that does not exist");
            }
        }
        for budget in budgets {
            let by_id = budget.peek("id").is_some_and(|id| wanted.contains(&id));
            let by_owner = budget.peek(owner.field) == Some(owner.id) && !owner.id.is_empty();
            if by_id || by_owner {
                budget.see(&["id", owner.field]);
                self.budget(&mut limits, budget, owner.aligned);
            }
        }
        for budget in node.items("budgets").iter().chain(node.field("budget")) {
            budget.see(&["id"]);
            self.budget(&mut limits, budget, owner.aligned);
        }
        if let Some(id) = node.text("rate_limit_id") {
            let limit = self
                .rate_limits
                .iter()
                .find(|limit| limit.peek("id") == Some(id));
            match limit {
                Some(limit) => {
                    limit.see(&["id"]);
                    self.rates(&mut limits, limit);
                }
                None => self
                    .notes
                    .at(&node.at, "names a rate limit that does not exist"),
            }
        }
        if let Some(limit) = node.field("rate_limit") {
            limit.see(&["id"]);
            self.rates(&mut limits, limit);
        }
        limits
    }

    fn budget(&mut self, limits: &mut Limits, node: &'a Node, aligned: bool) {
        let own = node.flag("calendar_aligned").unwrap_or(false);
        let fiscal = node.field("reset_config");
        let (Some(amount), Some(period)) = (node.field("max_limit"), node.field("reset_duration"))
        else {
            self.notes.add(
                node,
                "a budget needs an amount and a period: it was left out",
            );
            return;
        };
        let budget = BudgetNode {
            amount,
            period,
            aligned: aligned || own,
            fiscal_start: fiscal.and_then(|fiscal| fiscal.whole("quarter_start_month")),
        };
        limits.budget(self.notes, budget);
    }

    fn rates(&mut self, limits: &mut Limits, node: &'a Node) {
        let pairs = [
            ("requests", "request_max_limit", "request_reset_duration"),
            ("tokens", "token_max_limit", "token_reset_duration"),
        ];
        for (unit, amount, period) in pairs {
            match (node.field(amount), node.field(period)) {
                (Some(amount), Some(period)) => limits.rate(self.notes, unit, (amount, period)),
                (Some(amount), None) => {
                    self.notes
                        .add(amount, "a limit needs a period: it was left out");
                }
                (None, _) => {}
            }
        }
    }
}
