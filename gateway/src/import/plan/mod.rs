//! Our configuration as far as a source determines it; `write` makes the file
//! of it.

mod write;

use super::amount::{Use, decimal, every, is_zero};
use super::source::{At, Node, Notes};
use super::yaml::Block;

/// What is written; whatever is not here has our default.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Lines at the head of the file.
    pub(super) head: Vec<String>,
    pub(super) max_body: Option<String>,
    /// Name and reference of each.
    pub(super) admin_tokens: Vec<(String, String)>,
    /// References, the first encrypts.
    pub(super) encryption_keys: Vec<String>,
    pub(super) providers: Vec<Provider>,
    pub(super) models: Vec<Model>,
    /// Name and choices of each.
    pub(super) aliases: Vec<(String, Vec<String>)>,
    pub(super) customers: Vec<Owner>,
    pub(super) teams: Vec<Owner>,
    pub(super) keys: Vec<VirtualKey>,
    pub(super) rules: Vec<(At, Rule)>,
    pub(super) global: Limits,
    /// By bare name.
    pub(super) model_limits: Vec<(String, Limits)>,
    pub(super) cluster: Option<Block>,
}

#[derive(Debug, Default)]
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) base_url: String,
    pub(super) comment: String,
    /// Whether it may be at a private address.
    pub(super) private: bool,
    pub(super) keys: Vec<Credential>,
    pub(super) network: Network,
    pub(super) limits: Limits,
}

/// How a provider is spoken to.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    /// Until the answer begins, as a length of time and in seconds.
    pub(super) first_byte: Option<(String, u64)>,
    pub(super) idle: Option<String>,
    pub(super) retries: Option<u64>,
    /// In milliseconds.
    pub(super) backoff_min: Option<u64>,
    pub(super) backoff_max: Option<u64>,
    /// Certificates in PEM, or a reference to them.
    pub(super) ca: Option<String>,
}

#[derive(Debug)]
pub(super) struct Credential {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) weight: u64,
    /// `None` is all.
    pub(super) models: Option<Vec<String>>,
    pub(super) comment: String,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) provider: String,
    /// When it differs.
    pub(super) upstream: Option<String>,
    pub(super) price: Option<Price>,
    pub(super) max_output_tokens: Option<u64>,
    pub(super) limits: Limits,
}

/// US dollars per million tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Price {
    pub(super) input: String,
    pub(super) output: String,
    pub(super) cache_read: Option<String>,
    pub(super) cache_write: Option<String>,
}

/// A customer or a team.
#[derive(Debug, Default)]
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) comment: String,
    pub(super) customer: Option<String>,
    pub(super) limits: Limits,
}

#[derive(Debug, Default)]
pub(super) struct VirtualKey {
    pub(super) name: String,
    pub(super) comment: String,
    pub(super) value: String,
    pub(super) team: Option<String>,
    pub(super) customer: Option<String>,
    pub(super) active: bool,
    pub(super) expires_at: Option<String>,
    pub(super) grants: Vec<Grant>,
    pub(super) limits: Limits,
}

#[derive(Debug)]
pub(super) struct Grant {
    pub(super) provider: String,
    /// `None` is all.
    pub(super) models: Option<Vec<String>>,
    pub(super) weight: u64,
    pub(super) limits: Limits,
}

#[derive(Debug, Default)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) comment: String,
    pub(super) scope: &'static str,
    pub(super) subject: Option<String>,
    pub(super) priority: u64,
    pub(super) when: String,
    pub(super) targets: Vec<Target>,
    pub(super) fallbacks: Vec<String>,
    pub(super) chain: bool,
    pub(super) disabled: bool,
}

#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) provider: Option<String>,
    pub(super) model: Option<String>,
    pub(super) key: Option<String>,
    pub(super) weight: u64,
}

/// `rate_limits` and `budgets` of one entity.
#[derive(Debug, Default)]
pub(super) struct Limits(Vec<Limit>);

#[derive(Debug)]
struct Limit {
    unit: &'static str,
    amount: String,
    every: Option<String>,
    strict: bool,
    /// First month of the year.
    fiscal_start: Option<u64>,
    comment: &'static str,
}

/// A budget as it stands in a source.
#[derive(Clone, Copy, Debug)]
pub(super) struct BudgetNode<'a> {
    pub(super) amount: &'a Node,
    pub(super) period: &'a Node,
    /// Whether its periods begin at calendar boundaries.
    pub(super) aligned: bool,
    pub(super) fiscal_start: Option<u64>,
}

const REFUSES_ALL: &str = "0 in the source: refuses every request";

impl Limits {
    /// A budget in US dollars; what cannot be one is noted.
    pub(super) fn budget(&mut self, notes: &mut Notes, budget: BudgetNode<'_>) {
        let (amount, period) = (budget.amount, budget.period);
        let (Some(number), Some(written)) = (amount.as_number(), period.as_text()) else {
            notes.add(
                amount,
                "a budget needs an amount and a period: it was left out",
            );
            period.see_all();
            return;
        };
        let Some(dollars) = decimal(number) else {
            notes.add(amount, "not an amount: the budget was left out");
            return;
        };
        let Some(every) = every(written, Use::Budget(budget.aligned)) else {
            notes.add(
                period,
                "no period of ours, or longer than a year: the budget was left out",
            );
            return;
        };
        if let Some(note) = every.note {
            notes.at(&period.at, note);
        }
        let zero = is_zero(number);
        self.0.push(Limit {
            unit: "limit_usd",
            amount: if zero {
                "0.000000001".to_owned()
            } else {
                dollars
            },
            every: Some(every.text),
            strict: zero,
            fiscal_start: budget
                .fiscal_start
                .filter(|_| matches!(written, "1Q" | "1Y")),
            comment: if zero { REFUSES_ALL } else { "" },
        });
    }

    /// A rate limit in `requests` or `tokens`; what cannot be one is noted.
    pub(super) fn rate(
        &mut self,
        notes: &mut Notes,
        unit: &'static str,
        (amount, period): (&Node, &Node),
    ) {
        let whole = amount
            .as_number()
            .and_then(|number| number.parse::<u64>().ok());
        let (Some(most), Some(written)) = (whole, period.as_text()) else {
            notes.add(
                amount,
                "a limit needs a whole number and a period: it was left out",
            );
            period.see_all();
            return;
        };
        let Some(every) = every(written, Use::RateLimit) else {
            notes.add(
                period,
                "no period of ours, or longer than a year: the limit was left out",
            );
            return;
        };
        if let Some(note) = every.note {
            notes.at(&period.at, note);
        }
        self.rate_of(unit, most, Some(every.text));
    }

    /// A rate limit of a known amount; without period it is `concurrent`.
    pub(super) fn rate_of(&mut self, unit: &'static str, most: u64, every: Option<String>) {
        let zero = most == 0;
        self.0.push(Limit {
            // One token, strictly, is less than any request asks for.
            unit: if zero { "tokens" } else { unit },
            amount: most.max(1).to_string(),
            every: if zero {
                every.or_else(|| Some("1m".to_owned()))
            } else {
                every
            },
            strict: zero,
            fiscal_start: None,
            comment: if zero { REFUSES_ALL } else { "" },
        });
    }

    /// Adds to the limit of that unit and period, or makes it.
    pub(super) fn add_rate(&mut self, unit: &'static str, more: u64, every: Option<&str>) {
        let same = |limit: &&mut Limit| {
            limit.unit == unit && limit.every.as_deref() == every && !limit.strict
        };
        match self.0.iter_mut().find(same) {
            Some(limit) => {
                let sum = limit
                    .amount
                    .parse::<u64>()
                    .unwrap_or(0)
                    .saturating_add(more);
                limit.amount = sum.to_string();
            }
            None => self.rate_of(unit, more, every.map(str::to_owned)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn append(&mut self, mut other: Limits) {
        self.0.append(&mut other.0);
    }
}
