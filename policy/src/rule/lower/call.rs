//! Operators and functions.

use cel::common::ast::{CallExpr, operators};
use cel::parser::Expression;
use regex::RegexBuilder;

use super::{Lowering, MAX_JOINS, Typed, check_name, mismatch, mismatch_with, unknown_function};
use crate::rule::error::RuleError;
use crate::rule::kind::Kind;
use crate::rule::names::FUNCTIONS;
use crate::rule::node::{Arithmetic, Conversion, Node, Relation, TextTest, Value};

/// The most memory a compiled pattern may take, in bytes.
const MAX_PATTERN: usize = 256 * 1024;

// === impl Lowering ===

impl<'s> Lowering<'s> {
    pub(super) fn call(&mut self, call: &'s CallExpr) -> Typed {
        let arguments: Vec<&Expression> = call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .collect();
        let name = call.func_name.as_str();
        match (name, arguments.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [left, right]) => {
                let sides = Box::new((self.truth(name, left)?, self.truth(name, right)?));
                Ok(match name {
                    operators::LOGICAL_AND => (Node::And(sides), Kind::Bool),
                    _ => (Node::Or(sides), Kind::Bool),
                })
            }
            (operators::LOGICAL_NOT, [inner]) => {
                Ok((Node::Not(Box::new(self.truth(name, inner)?)), Kind::Bool))
            }
            (operators::CONDITIONAL, [test, yes, no]) => self.choose(test, yes, no),
            (operators::NEGATE, [inner]) => match self.part(inner)? {
                (node, kind) if kind.is_number() => Ok((Node::Negate(Box::new(node)), kind)),
                (_, kind) => Err(mismatch("-", &[&kind])),
            },
            (operators::INDEX, [whole, index]) => self.index(whole, index),
            (operators::IN, [item, whole]) => self.within(item, whole),
            (_, [left, right]) if relation(name).is_some() => self.compare(name, left, right),
            (_, [left, right]) if arithmetic(name).is_some() => self.compute(name, left, right),
            _ => self.function(call, &arguments),
        }
    }

    fn truth(&mut self, operator: &str, part: &'s Expression) -> Result<Node, RuleError> {
        match self.part(part)? {
            (node, Kind::Bool) => Ok(node),
            (_, kind) => Err(mismatch(written(operator), &[&kind])),
        }
    }

    fn choose(&mut self, test: &'s Expression, yes: &'s Expression, no: &'s Expression) -> Typed {
        let test = self.truth(operators::CONDITIONAL, test)?;
        let (yes, yes_kind) = self.part(yes)?;
        let (no, no_kind) = self.part(no)?;
        let refused = || mismatch("?:", &[&yes_kind, &no_kind]);
        let kind = yes_kind.joined(&no_kind).ok_or_else(refused)?;
        match kind {
            Kind::Table(_) => Err(refused()),
            kind => Ok((Node::Choose(Box::new((test, yes, no))), kind)),
        }
    }

    fn index(&mut self, whole: &'s Expression, index: &'s Expression) -> Typed {
        let (whole, whole_kind) = self.part(whole)?;
        let (index, index_kind) = self.part(index)?;
        match (whole_kind, index_kind) {
            (Kind::Table(table), Kind::Text) => {
                check_name(table, &index)?;
                Ok((Node::Lookup(table, Box::new(index)), Kind::Text))
            }
            (Kind::List(of), Kind::Int) => Ok((Node::Element(Box::new((whole, index))), *of)),
            (whole, index) => Err(mismatch("[]", &[&whole, &index])),
        }
    }

    fn within(&mut self, item: &'s Expression, whole: &'s Expression) -> Typed {
        let (item, item_kind) = self.part(item)?;
        let (whole, whole_kind) = self.part(whole)?;
        match (item_kind, whole_kind) {
            (Kind::Text, Kind::Table(table)) => {
                check_name(table, &item)?;
                Ok((Node::Has(table, Box::new(item)), Kind::Bool))
            }
            (kind, Kind::List(of)) if kind.equates(&of) => {
                Ok((Node::In(Box::new((item, whole))), Kind::Bool))
            }
            (item, whole) => Err(mismatch("in", &[&item, &whole])),
        }
    }

    fn compare(&mut self, name: &str, left: &'s Expression, right: &'s Expression) -> Typed {
        let (left, left_kind) = self.part(left)?;
        let (right, right_kind) = self.part(right)?;
        let relation = relation(name).unwrap_or(Relation::Equal);
        let fits = match relation {
            Relation::Equal | Relation::Unequal => left_kind.equates(&right_kind),
            _ => left_kind.compares(&right_kind),
        };
        if !fits {
            return Err(mismatch(written(name), &[&left_kind, &right_kind]));
        }
        Ok((Node::Compare(relation, Box::new((left, right))), Kind::Bool))
    }

    fn compute(&mut self, name: &str, left: &'s Expression, right: &'s Expression) -> Typed {
        let (left, left_kind) = self.part(left)?;
        let (right, right_kind) = self.part(right)?;
        let operator = arithmetic(name).unwrap_or(Arithmetic::Add);
        let kind = match (&left_kind, &right_kind) {
            (Kind::Int, Kind::Int) => Kind::Int,
            (Kind::Double, Kind::Double) if operator != Arithmetic::Remainder => Kind::Double,
            (Kind::Text, Kind::Text) if operator == Arithmetic::Add => {
                self.joins += 1;
                Kind::Text
            }
            _ => {
                let mixed = left_kind.is_number() && right_kind.is_number();
                let hint = if mixed && left_kind != right_kind {
                    "; write whole numbers as 5.0, or use double()"
                } else {
                    ""
                };
                return Err(mismatch_with(
                    written(name),
                    &[&left_kind, &right_kind],
                    hint,
                ));
            }
        };
        if self.joins > MAX_JOINS {
            return Err(RuleError::TooComplex {
                what: "joined strings",
                most: MAX_JOINS,
            });
        }
        Ok((Node::Compute(operator, Box::new((left, right))), kind))
    }

    fn function(&mut self, call: &'s CallExpr, arguments: &[&'s Expression]) -> Typed {
        let name = call.func_name.as_str();
        if !FUNCTIONS.contains(&name) {
            return Err(unknown_function(self.text, name));
        }
        // `matches(text, pattern)` is `text.matches(pattern)`.
        let is_member = call.target.is_some();
        match (name, arguments) {
            ("contains", [whole, part]) if is_member => {
                self.text_test(TextTest::Contains, name, whole, part)
            }
            ("startsWith", [whole, part]) if is_member => {
                self.text_test(TextTest::StartsWith, name, whole, part)
            }
            ("endsWith", [whole, part]) if is_member => {
                self.text_test(TextTest::EndsWith, name, whole, part)
            }
            ("matches", [whole, pattern]) => self.matches(whole, pattern),
            ("size", [inner]) => self.size(inner),
            ("int", [inner]) if !is_member => self.convert(Conversion::Int, name, inner),
            ("double", [inner]) if !is_member => self.convert(Conversion::Double, name, inner),
            ("string", [inner]) if !is_member => self.convert(Conversion::Text, name, inner),
            _ => {
                let mut kinds = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    kinds.push(self.part(argument)?.1);
                }
                Err(mismatch(name, &kinds.iter().collect::<Vec<_>>()))
            }
        }
    }

    fn text_test(
        &mut self,
        test: TextTest,
        name: &str,
        whole: &'s Expression,
        part: &'s Expression,
    ) -> Typed {
        let (whole, whole_kind) = self.part(whole)?;
        let (part, part_kind) = self.part(part)?;
        match (&whole_kind, &part_kind) {
            (Kind::Text, Kind::Text) => {
                Ok((Node::TextTest(test, Box::new((whole, part))), Kind::Bool))
            }
            _ => Err(mismatch(name, &[&whole_kind, &part_kind])),
        }
    }

    fn matches(&mut self, whole: &'s Expression, pattern: &'s Expression) -> Typed {
        let (whole, whole_kind) = self.part(whole)?;
        let (pattern, pattern_kind) = self.part(pattern)?;
        if (&whole_kind, &pattern_kind) != (&Kind::Text, &Kind::Text) {
            return Err(mismatch("matches", &[&whole_kind, &pattern_kind]));
        }
        let Node::Constant(Value::Text(pattern)) = pattern else {
            return Err(RuleError::Unsupported("a pattern that is not written out"));
        };
        let compiled = RegexBuilder::new(&pattern)
            .size_limit(MAX_PATTERN)
            .dfa_size_limit(MAX_PATTERN)
            .build()
            .map_err(|error| RuleError::Pattern {
                pattern: pattern.to_string(),
                message: reason(&error),
            })?;
        Ok((
            Node::Matches(Box::new(whole), Box::new(compiled)),
            Kind::Bool,
        ))
    }

    fn size(&mut self, inner: &'s Expression) -> Typed {
        match self.part(inner)? {
            (node, Kind::Table(_)) => Ok((node, Kind::Int)),
            (node, Kind::Text | Kind::List(_)) => Ok((Node::Size(Box::new(node)), Kind::Int)),
            (_, kind) => Err(mismatch("size", &[&kind])),
        }
    }

    fn convert(&mut self, to: Conversion, name: &str, inner: &'s Expression) -> Typed {
        let (node, kind) = self.part(inner)?;
        let result = match (to, &kind) {
            (Conversion::Int, Kind::Int | Kind::Double | Kind::Text) => Kind::Int,
            (Conversion::Double, Kind::Int | Kind::Double | Kind::Text) => Kind::Double,
            (Conversion::Text, Kind::Bool | Kind::Int | Kind::Double | Kind::Text) => Kind::Text,
            _ => return Err(mismatch(name, &[&kind])),
        };
        Ok((Node::Convert(to, Box::new(node)), result))
    }
}

/// An operator as people write it.
fn written(operator: &str) -> &str {
    match operator {
        operators::CONDITIONAL => "?:",
        operators::IN => "in",
        other => other.trim_matches('_'),
    }
}

fn relation(name: &str) -> Option<Relation> {
    match name {
        operators::EQUALS => Some(Relation::Equal),
        operators::NOT_EQUALS => Some(Relation::Unequal),
        operators::LESS => Some(Relation::Less),
        operators::LESS_EQUALS => Some(Relation::AtMost),
        operators::GREATER => Some(Relation::Greater),
        operators::GREATER_EQUALS => Some(Relation::AtLeast),
        _ => None,
    }
}

fn arithmetic(name: &str) -> Option<Arithmetic> {
    match name {
        operators::ADD => Some(Arithmetic::Add),
        operators::SUBSTRACT => Some(Arithmetic::Subtract),
        operators::MULTIPLY => Some(Arithmetic::Multiply),
        operators::DIVIDE => Some(Arithmetic::Divide),
        operators::MODULO => Some(Arithmetic::Remainder),
        _ => None,
    }
}

/// The last line of the library's message, which says why.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    last.trim_start_matches("error: ")
        .trim_end_matches('.')
        .to_lowercase()
}
