//! A rule's expression as a typed tree, and its value for one request.
//!
//! Promise: the tree is only made by `lower`, which checked its types, so
//! evaluating never meets a type it does not know, allocates only where the
//! expression makes new texts or lists, and takes time in proportion to the
//! expression and the request's headers and parameters.

use std::borrow::Cow;
use std::cmp::Ordering;

use regex::Regex;

use crate::rule::error::RuleFailure;
use crate::rule::facts::Facts;
use crate::rule::names::{Table, Text};
use crate::scope::Unit;

/// A value of the language.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// An operator on two numbers, or on two texts for `Add`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// A test of one text for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextTest {
    Contains,
    StartsWith,
    EndsWith,
}

/// A question about the elements of a list or the names of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantifier {
    All,
    Any,
    One,
}

/// A type to convert to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conversion {
    Int,
    Double,
    Text,
}

/// What a loop goes over.
#[derive(Clone, Debug)]
pub(super) enum Over {
    Names(Table),
    Elements(Box<Node>),
}

/// A part of an expression.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Constant(Value<'static>),
    Text(Text),
    Percent(Unit),
    /// The variable of the loop around.
    Item,
    List(Vec<Node>),
    Not(Box<Node>),
    And(Box<(Node, Node)>),
    Or(Box<(Node, Node)>),
    Choose(Box<(Node, Node, Node)>),
    Compare(Relation, Box<(Node, Node)>),
    Compute(Arithmetic, Box<(Node, Node)>),
    Negate(Box<Node>),
    In(Box<(Node, Node)>),
    Has(Table, Box<Node>),
    Lookup(Table, Box<Node>),
    Element(Box<(Node, Node)>),
    Size(Box<Node>),
    Entries(Table),
    TextTest(TextTest, Box<(Node, Node)>),
    Matches(Box<Node>, Box<Regex>),
    Convert(Conversion, Box<Node>),
    Ask(Quantifier, Over, Box<Node>),
    Collect {
        over: Over,
        kept: Option<Box<Node>>,
        made: Box<Node>,
    },
}

/// What a part is evaluated against.
#[derive(Clone, Copy)]
struct Place<'a, 'i> {
    facts: &'a Facts<'a>,
    item: Option<&'i Value<'a>>,
}

type Outcome<'a> = Result<Value<'a>, RuleFailure>;

/// Whether the expression holds.
pub(super) fn holds<'a>(node: &'a Node, facts: &'a Facts<'a>) -> Result<bool, RuleFailure> {
    truth(node, Place { facts, item: None })
}

fn truth<'a>(node: &'a Node, place: Place<'a, '_>) -> Result<bool, RuleFailure> {
    match node {
        Node::Not(inner) => Ok(!truth(inner, place)?),
        Node::And(parts) => connect(parts, false, place),
        Node::Or(parts) => connect(parts, true, place),
        Node::Compare(relation, sides) => compare(*relation, sides, place),
        Node::In(sides) => is_in(sides, place),
        Node::Has(table, name) => {
            let name = text(name, place)?;
            Ok(place.facts.entry(*table, &name).is_some())
        }
        Node::TextTest(test, sides) => {
            let (whole, part) = (text(&sides.0, place)?, text(&sides.1, place)?);
            Ok(match test {
                TextTest::Contains => whole.contains(&*part),
                TextTest::StartsWith => whole.starts_with(&*part),
                TextTest::EndsWith => whole.ends_with(&*part),
            })
        }
        Node::Matches(whole, pattern) => Ok(pattern.is_match(&text(whole, place)?)),
        Node::Ask(quantifier, over, test) => ask(*quantifier, over, test, place),
        _ => match value(node, place)? {
            Value::Bool(truth) => Ok(truth),
            _ => Err(RuleFailure::Mistyped),
        },
    }
}

fn value<'a>(node: &'a Node, place: Place<'a, '_>) -> Outcome<'a> {
    match node {
        Node::Constant(constant) => Ok(constant.borrowed()),
        Node::Text(text) => Ok(Value::Text(Cow::Borrowed(place.facts.text(*text)))),
        Node::Percent(unit) => Ok(Value::Double(place.facts.percent(*unit))),
        Node::Item => place.item.cloned().ok_or(RuleFailure::Mistyped),
        Node::List(parts) => parts
            .iter()
            .map(|part| value(part, place))
            .collect::<Result<_, _>>()
            .map(Value::List),
        Node::Choose(parts) => {
            if truth(&parts.0, place)? {
                value(&parts.1, place)
            } else {
                value(&parts.2, place)
            }
        }
        Node::Compute(operator, sides) => {
            compute(*operator, value(&sides.0, place)?, value(&sides.1, place)?)
        }
        Node::Negate(inner) => match value(inner, place)? {
            Value::Int(number) => number
                .checked_neg()
                .map(Value::Int)
                .ok_or(RuleFailure::Overflow),
            Value::Double(number) => Ok(Value::Double(-number)),
            _ => Err(RuleFailure::Mistyped),
        },
        Node::Lookup(table, name) => {
            let name = text(name, place)?;
            match place.facts.entry(*table, &name) {
                Some(found) => Ok(Value::Text(Cow::Borrowed(found))),
                None => Err(absent(*table, &name)),
            }
        }
        Node::Element(sides) => element(value(&sides.0, place)?, value(&sides.1, place)?),
        Node::Size(inner) => Ok(size(match value(inner, place)? {
            Value::Text(text) => text.chars().count(),
            Value::List(list) => list.len(),
            _ => return Err(RuleFailure::Mistyped),
        })),
        Node::Entries(table) => Ok(size(place.facts.names(*table).count())),
        Node::Convert(to, inner) => convert(*to, value(inner, place)?),
        Node::Collect { over, kept, made } => collect(over, kept.as_deref(), made, place),
        _ => truth(node, place).map(Value::Bool),
    }
}

fn text<'a>(node: &'a Node, place: Place<'a, '_>) -> Result<Cow<'a, str>, RuleFailure> {
    match value(node, place)? {
        Value::Text(text) => Ok(text),
        _ => Err(RuleFailure::Mistyped),
    }
}

fn absent(table: Table, name: &str) -> RuleFailure {
    match table {
        Table::Headers => RuleFailure::NoHeader(name.to_owned()),
        Table::Params => RuleFailure::NoParameter(name.to_owned()),
    }
}

fn size(count: usize) -> Value<'static> {
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

/// `&&` (decided by false) or `||` (decided by true): a side that decides
/// outweighs a failure of the other.
fn connect<'a>(
    parts: &'a (Node, Node),
    decider: bool,
    place: Place<'a, '_>,
) -> Result<bool, RuleFailure> {
    let left = truth(&parts.0, place);
    if left == Ok(decider) {
        return left;
    }
    let right = truth(&parts.1, place)?;
    if right == decider { Ok(right) } else { left }
}

fn compare<'a>(
    relation: Relation,
    sides: &'a (Node, Node),
    place: Place<'a, '_>,
) -> Result<bool, RuleFailure> {
    let (left, right) = (value(&sides.0, place)?, value(&sides.1, place)?);
    let order = left.order(&right);
    match relation {
        Relation::Equal => return Ok(order == Some(Ordering::Equal)),
        Relation::Unequal => return Ok(order != Some(Ordering::Equal)),
        _ => {}
    }
    let order = order.ok_or(RuleFailure::NotANumber)?;
    Ok(match relation {
        Relation::Less => order.is_lt(),
        Relation::AtMost => order.is_le(),
        Relation::Greater => order.is_gt(),
        Relation::AtLeast | Relation::Equal | Relation::Unequal => order.is_ge(),
    })
}

fn is_in<'a>(sides: &'a (Node, Node), place: Place<'a, '_>) -> Result<bool, RuleFailure> {
    let wanted = value(&sides.0, place)?;
    let is_wanted = |found: &Value<'_>| found.order(&wanted) == Some(Ordering::Equal);
    if let Node::List(parts) = &sides.1 {
        // Spares the list; all parts count, since any of them may fail.
        return parts.iter().try_fold(false, |found, part| {
            Ok(is_wanted(&value(part, place)?) || found)
        });
    }
    match value(&sides.1, place)? {
        Value::List(list) => Ok(list.iter().any(is_wanted)),
        _ => Err(RuleFailure::Mistyped),
    }
}

fn compute<'a>(operator: Arithmetic, left: Value<'a>, right: Value<'a>) -> Outcome<'a> {
    use Arithmetic::{Add, Divide, Multiply, Remainder, Subtract};
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => {
            if right == 0 && matches!(operator, Divide | Remainder) {
                return Err(RuleFailure::DivisionByZero);
            }
            match operator {
                Add => left.checked_add(right),
                Subtract => left.checked_sub(right),
                Multiply => left.checked_mul(right),
                Divide => left.checked_div(right),
                Remainder => left.checked_rem(right),
            }
            .map(Value::Int)
            .ok_or(RuleFailure::Overflow)
        }
        (Value::Double(left), Value::Double(right)) => match operator {
            Add => Ok(Value::Double(left + right)),
            Subtract => Ok(Value::Double(left - right)),
            Multiply => Ok(Value::Double(left * right)),
            Divide => Ok(Value::Double(left / right)),
            Remainder => Err(RuleFailure::Mistyped),
        },
        (Value::Text(left), Value::Text(right)) if operator == Add => {
            Ok(Value::Text(Cow::Owned(format!("{left}{right}"))))
        }
        _ => Err(RuleFailure::Mistyped),
    }
}

fn element<'a>(list: Value<'a>, index: Value<'a>) -> Outcome<'a> {
    let (Value::List(mut list), Value::Int(index)) = (list, index) else {
        return Err(RuleFailure::Mistyped);
    };
    match usize::try_from(index) {
        Ok(place) if place < list.len() => Ok(list.swap_remove(place)),
        _ => Err(RuleFailure::Index(index)),
    }
}

fn convert(to: Conversion, from: Value<'_>) -> Outcome<'_> {
    let refuse = |text: String, wanted| Err(RuleFailure::Conversion { text, wanted });
    match (to, from) {
        (Conversion::Int, Value::Double(number)) => {
            // The bounds are exact as doubles; neither is a possible result.
            if number > i64::MIN as f64 && number < i64::MAX as f64 {
                Ok(Value::Int(number as i64))
            } else {
                Err(RuleFailure::Overflow)
            }
        }
        (Conversion::Int, Value::Text(text)) => match text.parse() {
            Ok(number) => Ok(Value::Int(number)),
            Err(_) => refuse(text.into_owned(), "int"),
        },
        (Conversion::Double, Value::Int(number)) => Ok(Value::Double(number as f64)),
        (Conversion::Double, Value::Text(text)) => match text.parse() {
            Ok(number) => Ok(Value::Double(number)),
            Err(_) => refuse(text.into_owned(), "double"),
        },
        (Conversion::Text, Value::Bool(truth)) => Ok(Value::Text(truth.to_string().into())),
        (Conversion::Text, Value::Int(number)) => Ok(Value::Text(number.to_string().into())),
        (Conversion::Text, Value::Double(number)) => Ok(Value::Text(number.to_string().into())),
        (_, same) => Ok(same),
    }
}

/// Asks all items until one decides; a failure counts only when none does.
fn ask<'a>(
    quantifier: Quantifier,
    over: &'a Over,
    test: &'a Node,
    place: Place<'a, '_>,
) -> Result<bool, RuleFailure> {
    let mut failure = None;
    let mut holding = 0_usize;
    for item in items(over, place)? {
        let item = Place {
            item: Some(&item),
            ..place
        };
        match (quantifier, truth(test, item)) {
            (Quantifier::All, Ok(false)) => return Ok(false),
            (Quantifier::Any, Ok(true)) => return Ok(true),
            (_, Err(found)) => failure = Some(found),
            (_, Ok(truth)) => holding += usize::from(truth),
        }
    }
    match (failure, quantifier) {
        (Some(failure), _) => Err(failure),
        (None, Quantifier::All) => Ok(true),
        (None, Quantifier::Any) => Ok(false),
        (None, Quantifier::One) => Ok(holding == 1),
    }
}

fn collect<'a>(
    over: &'a Over,
    kept: Option<&'a Node>,
    made: &'a Node,
    place: Place<'a, '_>,
) -> Outcome<'a> {
    let mut list = Vec::new();
    for item in items(over, place)? {
        let item = Place {
            item: Some(&item),
            ..place
        };
        if kept.map_or(Ok(true), |kept| truth(kept, item))? {
            list.push(value(made, item)?);
        }
    }
    Ok(Value::List(list))
}

fn items<'a>(over: &'a Over, place: Place<'a, '_>) -> Result<Vec<Value<'a>>, RuleFailure> {
    match over {
        Over::Names(table) => Ok(place
            .facts
            .names(*table)
            .map(|name| Value::Text(Cow::Borrowed(name)))
            .collect()),
        Over::Elements(list) => match value(list, place)? {
            Value::List(list) => Ok(list),
            _ => Err(RuleFailure::Mistyped),
        },
    }
}

// === impl Value ===

impl<'a> Value<'a> {
    /// The same value without copying its text.
    fn borrowed(&'a self) -> Self {
        match self {
            Self::Text(text) => Self::Text(Cow::Borrowed(text)),
            other => other.clone(),
        }
    }

    /// How two values of one type, or two numbers, compare; `None` when they
    /// do not.
    fn order(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
            (Value::Text(left), Value::Text(right)) => Some(left.as_ref().cmp(right.as_ref())),
            (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
            (Value::Int(left), Value::Double(right)) => (*left as f64).partial_cmp(right),
            (Value::Double(left), Value::Int(right)) => left.partial_cmp(&(*right as f64)),
            _ => None,
        }
    }
}
