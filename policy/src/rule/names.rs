//! The variables and functions a rule may use.

use crate::scope::Unit;

/// A variable that is a text; empty when the request has none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Model,
    Provider,
    RequestType,
    VirtualKey,
    Team,
    Customer,
    User,
}

/// A variable that maps names to texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Headers,
    Params,
}

/// What a declared name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    Text(Text),
    Table(Table),
    /// Percent of the fullest limit of this unit, a double.
    Percent(Unit),
}

/// Every variable. An entity has one name here, so its id and its name are
/// the same text.
pub(super) const VARIABLES: [(&str, Variable); 15] = [
    ("model", Variable::Text(Text::Model)),
    ("provider", Variable::Text(Text::Provider)),
    ("request_type", Variable::Text(Text::RequestType)),
    ("headers", Variable::Table(Table::Headers)),
    ("params", Variable::Table(Table::Params)),
    ("virtual_key_id", Variable::Text(Text::VirtualKey)),
    ("virtual_key_name", Variable::Text(Text::VirtualKey)),
    ("team_id", Variable::Text(Text::Team)),
    ("team_name", Variable::Text(Text::Team)),
    ("customer_id", Variable::Text(Text::Customer)),
    ("customer_name", Variable::Text(Text::Customer)),
    ("user_id", Variable::Text(Text::User)),
    ("tokens_used", Variable::Percent(Unit::Tokens)),
    ("request", Variable::Percent(Unit::Requests)),
    ("budget_used", Variable::Percent(Unit::Usd)),
];

/// Every function but the operators.
pub(super) const FUNCTIONS: [&str; 14] = [
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "size",
    "int",
    "double",
    "string",
    "has",
    "all",
    "exists",
    "exists_one",
    "map",
    "filter",
];

pub(super) fn variable(name: &str) -> Option<Variable> {
    VARIABLES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, variable)| *variable)
}

/// The known name that takes the fewest edits to reach, if it is near.
pub(super) fn nearest(
    name: &str,
    known: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    known
        .map(|known| (edits(name, known), known))
        .min()
        .filter(|(edits, known)| *edits <= known.len() / 3 + 1)
        .map(|(_, known)| known)
}

/// Insertions, deletions and substitutions between two names.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (place, to) in right.iter().enumerate() {
            let above = row[place + 1];
            let changed = diagonal + usize::from(!from.eq_ignore_ascii_case(to));
            row[place + 1] = changed.min(above + 1).min(row[place] + 1);
            diagonal = above;
        }
    }
    row[right.len()]
}
