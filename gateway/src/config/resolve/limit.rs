//! `rate_limits` and `budgets` of one entity.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::{CounterId, Enforcement, NanoUsd, OnTight, Period, ScopeKind, Unit, WindowKind};

use super::Checks;
use crate::config::file::{self, Budget, EveryUnit, RateLimit, Window};
use crate::config::problem::FieldPath;

/// A limit without its counter.
pub(super) struct LimitPlan {
    pub(super) id: CounterId,
    pub(super) amount: u64,
    pub(super) enforcement: Enforcement,
    pub(super) on_tight: OnTight,
    pub(super) shadow: bool,
}

/// The limits of one entity and who it is.
pub(super) struct ScopePlan {
    pub(super) kind: ScopeKind,
    pub(super) entity: Arc<str>,
    pub(super) limits: Vec<LimitPlan>,
}

/// Rate limits first, then budgets, each in the order written.
pub(super) fn scope(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    kind: ScopeKind,
    entity: &str,
    (rate_limits, budgets): (&[RateLimit], &[Budget]),
) -> ScopePlan {
    let entity: Arc<str> = entity.into();
    let mut scope = ScopePlan {
        kind,
        entity,
        limits: Vec::with_capacity(rate_limits.len() + budgets.len()),
    };
    let mut seen = BTreeMap::new();
    for (index, limit) in rate_limits.iter().enumerate() {
        let at = at.key("rate_limits").index(index);
        if let Some(plan) = rate_limit(checks, &at, &scope, limit) {
            add(checks, &mut seen, &mut scope, plan, at);
        }
    }
    for (index, limit) in budgets.iter().enumerate() {
        let at = at.key("budgets").index(index);
        if let Some(plan) = budget(checks, &at, &scope, limit) {
            add(checks, &mut seen, &mut scope, plan, at);
        }
    }
    scope
}

fn add(
    checks: &mut Checks<'_>,
    seen: &mut BTreeMap<CounterId, FieldPath>,
    scope: &mut ScopePlan,
    plan: LimitPlan,
    at: FieldPath,
) {
    if let Some(first) = seen.get(&plan.id) {
        let place = checks.place(first);
        let message = format!(
            "counts the same as the limit at {place}: give one of them a `name` to count apart"
        );
        checks.problem(&at, message);
        return;
    }
    seen.insert(plan.id.clone(), at);
    scope.limits.push(plan);
}

fn rate_limit(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    scope: &ScopePlan,
    limit: &RateLimit,
) -> Option<LimitPlan> {
    let (unit, amount) = match (limit.requests, limit.tokens, limit.concurrent) {
        (Some(amount), None, None) => (Unit::Requests, amount),
        (None, Some(amount), None) => (Unit::Tokens, amount),
        (None, None, Some(amount)) => (Unit::Concurrent, amount),
        _ => {
            checks.problem(
                at,
                "needs exactly one of `requests`, `tokens`, `concurrent`",
            );
            return None;
        }
    };
    let (period, window) = match unit {
        Unit::Concurrent => no_window(checks, at, limit)?,
        _ => window(checks, at, limit)?,
    };
    Some(LimitPlan {
        id: id(scope, unit, period, window, limit.name.as_ref()),
        amount,
        enforcement: enforcement(limit.enforcement),
        on_tight: on_tight(checks, at, unit, limit.enforcement, limit.on_tight),
        shadow: limit.shadow,
    })
}

/// Concurrency is counted at a moment, not over time.
fn no_window(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    limit: &RateLimit,
) -> Option<(Option<Period>, WindowKind)> {
    let given = [
        ("every", limit.every.is_some()),
        ("window", limit.window.is_some()),
    ];
    let wrong: Vec<_> = given.iter().filter(|(_, given)| *given).collect();
    for (name, _) in &wrong {
        checks.problem(&at.key(name), "has no meaning with `concurrent`");
    }
    wrong.is_empty().then_some((None, WindowKind::Fixed))
}

fn window(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    limit: &RateLimit,
) -> Option<(Option<Period>, WindowKind)> {
    let Some(every) = &limit.every else {
        checks.problem(at, "`every` is missing");
        return None;
    };
    let Some(length) = every.length() else {
        let message = format!("`{every}` is for budgets: a rate limit counts s, m, h, d or w");
        checks.problem(&at.key("every"), message);
        return None;
    };
    let period = match (every.count, every.unit) {
        (1, EveryUnit::Day) => Period::Day,
        (1, EveryUnit::Week) => Period::Week,
        _ => Period::Fixed(length),
    };
    if length.as_secs() > LONGEST_SECONDS {
        checks.problem(&at.key("every"), "must be a year or less");
        return None;
    }
    let window = match limit.window {
        None | Some(Window::Sliding) => WindowKind::Sliding,
        Some(Window::Smooth) => WindowKind::Smooth,
        Some(Window::Fixed) => WindowKind::Fixed,
    };
    Some((Some(period), window))
}

/// Longest length of a limit, 366 days.
const LONGEST_SECONDS: u64 = 366 * 86_400;

fn budget(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    scope: &ScopePlan,
    budget: &Budget,
) -> Option<LimitPlan> {
    let amount = amount(checks, &at.key("limit_usd"), &budget.limit_usd);
    let (period, window) = budget_period(checks, at, budget)?;
    Some(LimitPlan {
        id: id(scope, Unit::Usd, Some(period), window, budget.name.as_ref()),
        amount: amount?.0,
        enforcement: enforcement(budget.enforcement),
        on_tight: on_tight(checks, at, Unit::Usd, budget.enforcement, budget.on_tight),
        shadow: budget.shadow,
    })
}

pub(super) fn amount(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    money: &file::Money,
) -> Option<NanoUsd> {
    match NanoUsd::from_decimal(&money.0) {
        Ok(NanoUsd::ZERO) => {
            checks.problem(at, "must be more than zero");
            None
        }
        Ok(amount) => Some(amount),
        Err(error) => {
            checks.problem(at, format!("`{}`: {error}", money.0.escape_debug()));
            None
        }
    }
}

fn budget_period(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    budget: &Budget,
) -> Option<(Period, WindowKind)> {
    let every = &budget.every;
    let fiscal_start = budget.fiscal_start.unwrap_or(1);
    let calendar = match every.unit {
        EveryUnit::Second | EveryUnit::Minute | EveryUnit::Hour => None,
        EveryUnit::Day => Some(Period::Day),
        EveryUnit::Week => Some(Period::Week),
        EveryUnit::Month => Some(Period::Month),
        EveryUnit::Quarter => Some(Period::Quarter { fiscal_start }),
        EveryUnit::Year => Some(Period::Year { fiscal_start }),
    };
    let fiscal = matches!(every.unit, EveryUnit::Quarter | EveryUnit::Year);
    if budget.fiscal_start.is_some() && !fiscal {
        let message = format!("has a meaning with `1Q` and `1Y` only, not with `{every}`");
        checks.problem(&at.key("fiscal_start"), message);
    }
    match (calendar, every.count, every.length()) {
        (Some(period), 1, _) => Some((period, WindowKind::Calendar)),
        (Some(_), _, _) => {
            let message = format!(
                "`{every}`: calendar periods have no multiples, only 1d, 1w, 1M, 1Q and 1Y"
            );
            checks.problem(&at.key("every"), message);
            None
        }
        (None, _, Some(length)) if length.as_secs() <= LONGEST_SECONDS => {
            Some((Period::Fixed(length), WindowKind::Fixed))
        }
        (None, _, _) => {
            checks.problem(&at.key("every"), "must be a year or less");
            None
        }
    }
}

fn id(
    scope: &ScopePlan,
    unit: Unit,
    period: Option<Period>,
    window: WindowKind,
    name: Option<&String>,
) -> CounterId {
    CounterId {
        scope: scope.kind,
        entity: Arc::clone(&scope.entity),
        unit,
        period,
        window,
        name: name.map(|name| name.as_str().into()),
        generation: 0,
    }
}

fn enforcement(enforcement: file::Enforcement) -> Enforcement {
    match enforcement {
        file::Enforcement::Eventual => Enforcement::Eventual,
        file::Enforcement::Strict => Enforcement::Strict,
    }
}

/// What a strict limit does near its end; others have no such moment.
fn on_tight(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    unit: Unit,
    enforcement: file::Enforcement,
    wanted: Option<file::OnTight>,
) -> OnTight {
    let strict = enforcement == file::Enforcement::Strict;
    if wanted.is_some() && !(strict && matches!(unit, Unit::Tokens | Unit::Usd)) {
        let message = "has a meaning with `enforcement: strict` of tokens or money only";
        checks.problem(&at.key("on_tight"), message);
    }
    match wanted {
        None | Some(file::OnTight::Refuse) => OnTight::Refuse,
        Some(file::OnTight::Clamp) => OnTight::Clamp,
    }
}
