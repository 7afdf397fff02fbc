//! Loops over lists and the names of headers and parameters: `all`, `exists`,
//! `exists_one`, `map` and `filter`, told apart by what the parser makes of
//! them.

use cel::common::ast::{ComprehensionExpr, Expr, LiteralValue, operators};
use cel::parser::Expression;

use super::{Lowering, Typed, mismatch};
use crate::rule::error::RuleError;
use crate::rule::kind::Kind;
use crate::rule::names;
use crate::rule::node::{Node, Over, Quantifier};

/// What a loop does with each item.
enum Loop<'s> {
    Ask(Quantifier, &'s Expression),
    Collect {
        kept: Option<&'s Expression>,
        made: &'s Expression,
    },
}

// === impl Lowering ===

impl<'s> Lowering<'s> {
    pub(super) fn comprehension(&mut self, parsed: &'s ComprehensionExpr) -> Typed {
        if self.item.is_some() {
            return Err(RuleError::TooComplex {
                what: "loops within loops",
                most: 1,
            });
        }
        let form = form(parsed).ok_or(RuleError::Unsupported("this loop"))?;
        let (over, kind) = match self.part(&parsed.iter_range)? {
            (_, Kind::Table(table)) => (Over::Names(table), Kind::Text),
            (node, Kind::List(of)) => (Over::Elements(Box::new(node)), *of),
            (_, kind) => return Err(mismatch("a loop", &[&kind])),
        };
        if names::variable(&parsed.iter_var).is_some() {
            return Err(RuleError::Unsupported(
                "the name of a variable for the items of a loop",
            ));
        }
        self.item = Some((&parsed.iter_var, kind));
        let made = self.looped(form, over);
        self.item = None;
        made
    }

    fn looped(&mut self, form: Loop<'s>, over: Over) -> Typed {
        match form {
            Loop::Ask(quantifier, test) => {
                let test = self.test(test)?;
                Ok((Node::Ask(quantifier, over, Box::new(test)), Kind::Bool))
            }
            Loop::Collect { kept, made } => {
                let kept = kept.map(|kept| self.test(kept)).transpose()?;
                let (made, kind) = self.part(made)?;
                if let Kind::Table(_) = kind {
                    return Err(mismatch("map", &[&kind]));
                }
                let node = Node::Collect {
                    over,
                    kept: kept.map(Box::new),
                    made: Box::new(made),
                };
                Ok((node, Kind::List(Box::new(kind))))
            }
        }
    }

    fn test(&mut self, test: &'s Expression) -> Result<Node, RuleError> {
        match self.part(test)? {
            (node, Kind::Bool) => Ok(node),
            (_, kind) => Err(mismatch("a loop's condition", &[&kind])),
        }
    }
}

/// Reads the accumulating form back.
fn form(parsed: &ComprehensionExpr) -> Option<Loop<'_>> {
    let (name, arguments) = called(&parsed.loop_step)?;
    match (&parsed.accu_init.expr, name, arguments) {
        (Expr::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_OR, [_, test]) => {
            Some(Loop::Ask(Quantifier::Any, test))
        }
        (Expr::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_AND, [_, test]) => {
            Some(Loop::Ask(Quantifier::All, test))
        }
        (Expr::Literal(LiteralValue::Int(_)), operators::CONDITIONAL, [test, _, _]) => {
            Some(Loop::Ask(Quantifier::One, test))
        }
        (Expr::List(_), operators::CONDITIONAL, [kept, step, _]) => Some(Loop::Collect {
            kept: Some(kept),
            made: appended(step)?,
        }),
        (Expr::List(_), operators::ADD, _) => Some(Loop::Collect {
            kept: None,
            made: appended(&parsed.loop_step)?,
        }),
        _ => None,
    }
}

/// The item of `accumulator + [item]`.
fn appended(step: &Expression) -> Option<&Expression> {
    match called(step)? {
        (operators::ADD, [_, list]) => match &list.expr {
            Expr::List(list) => list.elements.first(),
            _ => None,
        },
        _ => None,
    }
}

fn called(expression: &Expression) -> Option<(&str, &[Expression])> {
    match &expression.expr {
        Expr::Call(call) => Some((&call.func_name, &call.args)),
        _ => None,
    }
}
