//! From the parsed expression to the typed tree.
//!
//! Promise: every part is checked, also those that `&&`, `||` and `?:` may
//! never reach, so a rule that is accepted cannot meet a wrong type later.

mod call;
mod comprehension;

use cel::common::ast::{Expr, ListExpr, LiteralValue, SelectExpr};
use cel::parser::Expression;

use crate::rule::error::RuleError;
use crate::rule::kind::Kind;
use crate::rule::names::{self, FUNCTIONS, Table, VARIABLES, Variable};
use crate::rule::node::{Node, Value};
use crate::rule::source;

/// How deep brackets may nest in the text.
const MAX_BRACKETS: u16 = 24;
/// How deep the tree may be; evaluating takes stack in proportion.
const MAX_DEPTH: usize = 40;
/// How often texts may be joined: each can be as long as a header.
const MAX_JOINS: usize = 16;

/// What an expression needs of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) headers: bool,
    pub(super) params: bool,
}

/// A tree and what it reads.
#[derive(Clone, Debug)]
pub(super) struct Lowered {
    pub(super) node: Node,
    pub(super) needs: Needs,
}

/// A part and its type.
type Typed = Result<(Node, Kind), RuleError>;

struct Lowering<'s> {
    text: &'s str,
    needs: Needs,
    /// The variable of the loop around.
    item: Option<(&'s str, Kind)>,
    joins: usize,
    depth: usize,
}

/// Parses and checks a text that has to be true or false.
pub(super) fn lower(text: &str) -> Result<Lowered, RuleError> {
    source::check(text)?;
    let parsed = cel::parser::PrattParser::new()
        .max_recursion_depth(MAX_BRACKETS)
        .parse(text)
        .map_err(|errors| syntax(&errors))?;
    let mut lowering = Lowering {
        text,
        needs: Needs::default(),
        item: None,
        joins: 0,
        depth: 0,
    };
    match lowering.part(&parsed)? {
        (node, Kind::Bool) => Ok(Lowered {
            node,
            needs: lowering.needs,
        }),
        (_, kind) => Err(RuleError::NotBoolean {
            found: kind.to_string(),
        }),
    }
}

/// The first error of the parser.
fn syntax(errors: &cel::ParseErrors) -> RuleError {
    let Some(first) = errors.errors.first() else {
        return RuleError::Syntax {
            column: 0,
            message: "cannot be parsed".to_owned(),
        };
    };
    if first.msg.contains("recursion limit") {
        return RuleError::TooComplex {
            what: "brackets within brackets",
            most: usize::from(MAX_BRACKETS),
        };
    }
    let message = first.msg.trim_start_matches("Syntax error: ");
    RuleError::Syntax {
        // A column means little in a text of several lines.
        column: match first.pos {
            (1, column) => usize::try_from(column).unwrap_or(0),
            _ => 0,
        },
        message: message.replace("<EOF>", "end of text"),
    }
}

// === impl Lowering ===

impl<'s> Lowering<'s> {
    fn part(&mut self, expression: &'s Expression) -> Typed {
        if self.depth == MAX_DEPTH {
            return Err(RuleError::TooComplex {
                what: "operators within operators",
                most: MAX_DEPTH,
            });
        }
        self.depth += 1;
        let part = match &expression.expr {
            Expr::Literal(literal) => constant(literal),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.field(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.list(list),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Map(_) => Err(RuleError::Unsupported("a map")),
            Expr::Struct(_) => Err(RuleError::Unsupported("a message")),
            Expr::Unspecified => Err(RuleError::Unsupported("an empty part")),
        };
        self.depth -= 1;
        part
    }

    fn name(&mut self, name: &str) -> Typed {
        if let Some((item, kind)) = &self.item
            && *item == name
        {
            return Ok((Node::Item, kind.clone()));
        }
        if name == "complexity_tier" {
            return Err(RuleError::Unsupported("'complexity_tier'"));
        }
        match names::variable(name) {
            Some(Variable::Text(text)) => Ok((Node::Text(text), Kind::Text)),
            Some(Variable::Percent(unit)) => Ok((Node::Percent(unit), Kind::Double)),
            Some(Variable::Table(table)) => {
                self.needs.headers |= table == Table::Headers;
                self.needs.params |= table == Table::Params;
                Ok((Node::Entries(table), Kind::Table(table)))
            }
            None => Err(RuleError::UnknownVariable {
                name: name.to_owned(),
                column: source::column_of(self.text, name),
                nearest: names::nearest(name, VARIABLES.iter().map(|(known, _)| *known)),
            }),
        }
    }

    /// `headers.name`, or `has(headers.name)`.
    fn field(&mut self, select: &'s SelectExpr) -> Typed {
        let (_, kind) = self.part(&select.operand)?;
        let Kind::Table(table) = kind else {
            return Err(mismatch(&format!(".{}", select.field), &[&kind]));
        };
        let name = Node::Constant(Value::Text(select.field.clone().into()));
        check_name(table, &name)?;
        if select.test {
            Ok((Node::Has(table, Box::new(name)), Kind::Bool))
        } else {
            Ok((Node::Lookup(table, Box::new(name)), Kind::Text))
        }
    }

    fn list(&mut self, list: &'s ListExpr) -> Typed {
        let mut of = Kind::Any;
        let mut nodes = Vec::with_capacity(list.elements.len());
        for element in &list.elements {
            let (node, kind) = self.part(element)?;
            if matches!(kind, Kind::Table(_)) {
                return Err(mismatch("[…]", &[&kind]));
            }
            of = of
                .joined(&kind)
                .ok_or_else(|| mismatch("[…]", &[&of, &kind]))?;
            nodes.push(node);
        }
        Ok((Node::List(nodes), Kind::List(Box::new(of))))
    }
}

fn constant(literal: &LiteralValue) -> Typed {
    match literal {
        LiteralValue::Boolean(truth) => {
            Ok((Node::Constant(Value::Bool(*truth.inner())), Kind::Bool))
        }
        LiteralValue::Int(number) => Ok((Node::Constant(Value::Int(*number.inner())), Kind::Int)),
        LiteralValue::Double(number) => {
            Ok((Node::Constant(Value::Double(*number.inner())), Kind::Double))
        }
        LiteralValue::String(text) => Ok((
            Node::Constant(Value::Text(text.inner().to_owned().into())),
            Kind::Text,
        )),
        LiteralValue::UInt(_) => Err(RuleError::Unsupported("an unsigned number")),
        LiteralValue::Bytes(_) => Err(RuleError::Unsupported("a bytes literal")),
        LiteralValue::Null => Err(RuleError::Unsupported("null")),
    }
}

/// Refuses to look for a header that is not in lower case.
fn check_name(table: Table, name: &Node) -> Result<(), RuleError> {
    match name {
        Node::Constant(Value::Text(name))
            if table == Table::Headers
                && name.chars().any(|letter| letter.is_ascii_uppercase()) =>
        {
            Err(RuleError::HeaderCase(name.to_ascii_lowercase()))
        }
        _ => Ok(()),
    }
}

fn mismatch(function: &str, found: &[&Kind]) -> RuleError {
    mismatch_with(function, found, "")
}

fn mismatch_with(function: &str, found: &[&Kind], hint: &'static str) -> RuleError {
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    RuleError::Mismatch {
        function: function.to_owned(),
        found: format!("({})", found.join(", ")),
        hint,
    }
}

fn unknown_function(text: &str, name: &str) -> RuleError {
    RuleError::UnknownFunction {
        name: name.to_owned(),
        column: source::column_of(text, name),
        nearest: names::nearest(name, FUNCTIONS.into_iter()),
    }
}
