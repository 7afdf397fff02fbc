//! What a rule may know of a request.

use std::cell::Cell;

use crate::rule::names::{Table, Text};
use crate::scope::Unit;

/// The variables of one request; percentages are asked for when a rule first
/// needs them.
pub(crate) struct Facts<'a> {
    pub(crate) model: &'a str,
    pub(crate) provider: &'a str,
    pub(crate) request_type: &'a str,
    pub(crate) virtual_key: &'a str,
    pub(crate) team: &'a str,
    pub(crate) customer: &'a str,
    pub(crate) user: &'a str,
    /// Lower-case names; of a repeated one the first counts.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// Of a repeated name the first counts.
    pub(crate) params: &'a [(&'a str, &'a str)],
    pub(crate) percents: Percents<'a>,
}

/// Percentages of tokens, requests and money, each asked for once at most.
pub(crate) struct Percents<'a> {
    ask: &'a dyn Fn(Unit) -> f64,
    known: [Cell<Option<f64>>; 3],
}

// === impl Facts ===

impl<'a> Facts<'a> {
    pub(super) fn text(&self, text: Text) -> &'a str {
        match text {
            Text::Model => self.model,
            Text::Provider => self.provider,
            Text::RequestType => self.request_type,
            Text::VirtualKey => self.virtual_key,
            Text::Team => self.team,
            Text::Customer => self.customer,
            Text::User => self.user,
        }
    }

    pub(super) fn percent(&self, unit: Unit) -> f64 {
        self.percents.of(unit)
    }

    pub(super) fn entry(&self, table: Table, name: &str) -> Option<&'a str> {
        self.table(table)
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }

    /// Each name once.
    pub(super) fn names(&self, table: Table) -> impl Iterator<Item = &'a str> {
        let entries = self.table(table);
        entries
            .iter()
            .enumerate()
            .filter(|(index, (name, _))| !entries[..*index].iter().any(|(other, _)| other == name))
            .map(|(_, (name, _))| *name)
    }

    fn table(&self, table: Table) -> &'a [(&'a str, &'a str)] {
        match table {
            Table::Headers => self.headers,
            Table::Params => self.params,
        }
    }
}

// === impl Percents ===

impl<'a> Percents<'a> {
    pub(crate) fn new(ask: &'a dyn Fn(Unit) -> f64) -> Self {
        Self {
            ask,
            known: [const { Cell::new(None) }; 3],
        }
    }

    fn of(&self, unit: Unit) -> f64 {
        let known = match unit {
            Unit::Tokens => &self.known[0],
            Unit::Requests => &self.known[1],
            // No variable counts requests in flight.
            Unit::Usd | Unit::Concurrent => &self.known[2],
        };
        known.get().unwrap_or_else(|| {
            let percent = (self.ask)(unit);
            known.set(Some(percent));
            percent
        })
    }
}
