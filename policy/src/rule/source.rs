//! The text of an expression before it is parsed: its bounds, and where a
//! word stands in it.
//!
//! Promise: what passes is parsed within a small stack. The parser itself
//! bounds only brackets; chains such as `a.f().f()` deepen its tree as well.

use crate::rule::error::RuleError;

/// The longest expression, in bytes.
pub(super) const MAX_BYTES: usize = 4_096;
/// The most operators and brackets; `&&`, `||` and commas do not count.
const MAX_OPERATORS: usize = 200;

/// A piece of the text outside of strings and comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// An identifier, keyword or number, and where it begins.
    Word(usize, &'a str),
    /// Any other character but white space.
    Mark(u8),
}

/// Walks over the text and leaves strings and comments out.
struct Pieces<'a> {
    text: &'a str,
    at: usize,
    /// Where a string begins that does not end.
    unterminated: Option<usize>,
}

/// Refuses what is empty, too long or has too many operators.
pub(super) fn check(text: &str) -> Result<(), RuleError> {
    if text.trim().is_empty() {
        return Err(RuleError::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(RuleError::TooLong {
            found: text.len(),
            most: MAX_BYTES,
        });
    }
    let counts = |piece: &Piece<'_>| match piece {
        Piece::Word(..) => false,
        Piece::Mark(mark) => !matches!(mark, b'&' | b'|' | b',' | b')' | b']' | b'}' | b':'),
    };
    let mut pieces = Pieces::of(text);
    let operators = pieces.by_ref().filter(counts).count();
    if let Some(start) = pieces.unterminated {
        return Err(RuleError::Syntax {
            column: column(text, start),
            message: "the string does not end".to_owned(),
        });
    }
    if operators > MAX_OPERATORS {
        return Err(RuleError::TooComplex {
            what: "operators and brackets",
            most: MAX_OPERATORS,
        });
    }
    Ok(())
}

/// The column of the first `word` outside of strings, in characters from 1;
/// 0 when there is none.
pub(super) fn column_of(text: &str, word: &str) -> usize {
    Pieces::of(text)
        .find_map(|piece| match piece {
            Piece::Word(at, found) if found == word => Some(column(text, at)),
            _ => None,
        })
        .unwrap_or(0)
}

/// The column of the byte `at`, in characters from 1.
fn column(text: &str, at: usize) -> usize {
    text.char_indices()
        .take_while(|(start, _)| *start < at)
        .count()
        + 1
}

// === impl Pieces ===

impl<'a> Pieces<'a> {
    fn of(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            unterminated: None,
        }
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn skip_comment(&mut self) {
        let line = self.rest().iter().position(|byte| *byte == b'\n');
        self.at += line.unwrap_or(self.rest().len());
    }

    /// Skips a string that begins here, with its quotes.
    fn skip_string(&mut self, raw: bool) {
        let rest = self.rest();
        let quote = rest[0];
        let triple = rest.len() >= 3 && rest[1] == quote && rest[2] == quote;
        let width = if triple { 3 } else { 1 };
        let mut at = width;
        while at < rest.len() {
            if rest[at..].len() >= width && rest[at..at + width].iter().all(|b| *b == quote) {
                self.at += at + width;
                return;
            }
            if !triple && matches!(rest[at], b'\n' | b'\r') {
                break;
            }
            at += if rest[at] == b'\\' && !raw { 2 } else { 1 };
        }
        self.unterminated.get_or_insert(self.at);
        self.at = self.text.len();
    }

    fn word(&mut self) -> (usize, &'a str) {
        let start = self.at;
        let length = self
            .rest()
            .iter()
            .take_while(|byte| is_word(**byte))
            .count();
        self.at += length;
        (start, &self.text[start..self.at])
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        loop {
            let byte = *self.rest().first()?;
            match byte {
                b'\'' | b'"' => self.skip_string(false),
                b'/' if self.rest().get(1) == Some(&b'/') => self.skip_comment(),
                _ if is_word(byte) => {
                    let (start, word) = self.word();
                    let quoted = matches!(self.rest().first(), Some(b'\'' | b'"'));
                    if quoted && matches!(word.to_ascii_lowercase().as_str(), "r" | "rb" | "br") {
                        self.skip_string(true);
                    } else {
                        return Some(Piece::Word(start, word));
                    }
                }
                _ => {
                    self.at += 1;
                    if byte.is_ascii() && !byte.is_ascii_whitespace() {
                        return Some(Piece::Mark(byte));
                    }
                }
            }
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
