//! `customers` and `teams`.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::ScopeKind;

use super::limit::{ScopePlan, scope};
use super::names::Names;
use super::{Checks, unknown};
use crate::config::file::File;
use crate::config::problem::FieldPath;

/// One team, its counters apart.
pub(super) struct TeamPlan {
    pub(super) customer: Option<Arc<str>>,
    pub(super) scope: ScopePlan,
}

pub(super) fn customers(checks: &mut Checks<'_>, file: &File) -> Vec<ScopePlan> {
    let all = FieldPath::root().key("customers");
    let mut seen = BTreeMap::new();
    let mut plans = Vec::with_capacity(file.customers.len());
    for (index, customer) in file.customers.iter().enumerate() {
        let at = all.index(index);
        checks.once(&mut seen, "customer", &customer.name, &at.key("name"));
        let limits = (customer.rate_limits.as_slice(), customer.budgets.as_slice());
        let kind = ScopeKind::Customer;
        plans.push(scope(checks, &at, kind, &customer.name, limits));
    }
    plans
}

pub(super) fn teams(checks: &mut Checks<'_>, names: &Names, file: &File) -> Vec<TeamPlan> {
    let all = FieldPath::root().key("teams");
    let mut seen = BTreeMap::new();
    let mut plans = Vec::with_capacity(file.teams.len());
    for (index, team) in file.teams.iter().enumerate() {
        let at = all.index(index);
        checks.once(&mut seen, "team", &team.name, &at.key("name"));
        known_customer(checks, names, &at.key("customer"), team.customer.as_deref());
        let limits = (team.rate_limits.as_slice(), team.budgets.as_slice());
        plans.push(TeamPlan {
            customer: team.customer.as_deref().map(Arc::from),
            scope: scope(checks, &at, ScopeKind::Team, &team.name, limits),
        });
    }
    plans
}

pub(super) fn known_customer(
    checks: &mut Checks<'_>,
    names: &Names,
    at: &FieldPath,
    name: Option<&str>,
) {
    if let Some(name) = name
        && !names.has_customer(name)
    {
        let message = unknown("customer", name, names.customer_names());
        checks.problem(at, message);
    }
}
