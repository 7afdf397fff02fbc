//! Why a rule is refused when it is written, and why it failed when it ran.

use std::fmt;

/// Why a rule cannot be taken; nothing was changed, its author has to correct
/// it. Columns count characters from 1; 0 = not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No expression at all.
    #[error("the expression is empty")]
    Empty,
    /// Longer than 4,096 bytes.
    #[error("the expression has {found} bytes, more than {most}")]
    TooLong {
        /// Its bytes.
        found: usize,
        /// What is allowed.
        most: usize,
    },
    /// Too many operators, brackets within brackets, or loops within loops.
    #[error("the expression has too many {what} (at most {most})")]
    TooComplex {
        /// What there is too much of.
        what: &'static str,
        /// What is allowed.
        most: usize,
    },
    /// Not an expression of the language.
    #[error("syntax error{}: {message}", At(*.column))]
    Syntax {
        /// Where.
        column: usize,
        /// What was found or expected.
        message: String,
    },
    /// A name that is no variable.
    #[error("unknown variable '{name}'{}{}", At(*.column), Hint(.nearest))]
    UnknownVariable {
        /// As written.
        name: String,
        /// Where.
        column: usize,
        /// The variable that may be meant.
        nearest: Option<&'static str>,
    },
    /// A name that is no function.
    #[error("unknown function '{name}'{}{}", At(*.column), Hint(.nearest))]
    UnknownFunction {
        /// As written.
        name: String,
        /// Where.
        column: usize,
        /// The function that may be meant.
        nearest: Option<&'static str>,
    },
    /// A function or operator does not take what it is given.
    #[error("'{function}' does not take {found}{hint}")]
    Mismatch {
        /// The function or operator as written.
        function: String,
        /// The types it was given, in brackets.
        found: String,
        /// What to write instead, or nothing.
        hint: &'static str,
    },
    /// Something of the language that rules do not have.
    #[error("{0} cannot be used in a rule")]
    Unsupported(&'static str),
    /// The pattern of `matches` is no regular expression.
    #[error("'{pattern}' is no regular expression: {message}")]
    Pattern {
        /// As written.
        pattern: String,
        /// What is wrong with it.
        message: String,
    },
    /// A header's name that no request can have.
    #[error("header names are lower-case here: write '{0}'")]
    HeaderCase(String),
    /// The expression gives something else than true or false.
    #[error("the expression is {found}, not bool")]
    NotBoolean {
        /// Its type.
        found: String,
    },
    /// The targets cannot be used.
    #[error("{0}")]
    Targets(&'static str),
}

/// Why a rule gave no answer for one request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleFailure {
    /// The request has no such header.
    #[error("the request has no header '{0}'")]
    NoHeader(String),
    /// The request has no such query parameter.
    #[error("the request has no parameter '{0}'")]
    NoParameter(String),
    /// A list has no such place.
    #[error("index {0} is out of range")]
    Index(i64),
    /// A number became too large.
    #[error("a number is out of range")]
    Overflow,
    /// Something divided by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// A text or number that cannot be converted.
    #[error("'{text}' is no {wanted}")]
    Conversion {
        /// What was to be converted.
        text: String,
        /// To what.
        wanted: &'static str,
    },
    /// A comparison with a number that is none.
    #[error("a value that is no number cannot be compared")]
    NotANumber,
    /// A value of another type than the rule was accepted with.
    #[error("a value has an unexpected type")]
    Mistyped,
}

/// Where an error is, if that is known.
struct At(usize);

/// What may be meant.
struct Hint<'a>(&'a Option<&'static str>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            column => write!(f, " at column {column}"),
        }
    }
}

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(nearest) => write!(f, ", did you mean '{nearest}'?"),
        }
    }
}
