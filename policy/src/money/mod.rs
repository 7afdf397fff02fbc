//! Money in whole nano-dollars and tokens in whole tokens.
//!
//! Promise: no amount ever passes through a float. Text is read digit by
//! digit; what does not fit exactly is an error, never rounded.

use std::fmt;

/// Digits after the point that a nano-dollar can hold.
const FRACTION_DIGITS: i64 = 9;
/// Nano-dollars in a dollar.
const NANO: u64 = 1_000_000_000;

/// An amount of US dollars in nano-dollars (10^-9 USD).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(pub u64);

/// A number of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tokens(pub u64);

/// Why a text is not an amount of money; nothing was changed, the author of
/// the text has to correct it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Something other than digits, one point and an exponent.
    #[error("not a decimal number")]
    NotANumber,
    /// A minus sign.
    #[error("must not be negative")]
    Negative,
    /// A digit below 10^-9.
    #[error("has more than nine digits after the point")]
    TooFine,
    /// Beyond 2^64 nano-dollars, about 18 billion dollars.
    #[error("is larger than 18446744073.709551615")]
    TooLarge,
}

// === impl NanoUsd ===

impl NanoUsd {
    /// No money.
    pub const ZERO: Self = Self(0);
    /// About 18.4 billion dollars, where all sums saturate.
    pub const MAX: Self = Self(u64::MAX);

    /// Reads dollars written as a decimal number: `10`, `0.15`, `1e-3`.
    ///
    /// # Errors
    /// Negative, too large, or finer than a nano-dollar; zeros beyond the
    /// ninth digit are accepted.
    pub fn from_decimal(text: &str) -> Result<Self, MoneyError> {
        match text.as_bytes().first() {
            Some(b'-') => match read_unsigned(&text[1..]) {
                Err(MoneyError::NotANumber) => Err(MoneyError::NotANumber),
                _ => Err(MoneyError::Negative),
            },
            Some(b'+') => read_unsigned(&text[1..]).map(Self),
            _ => read_unsigned(text).map(Self),
        }
    }

    /// The sum, at most `MAX`.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, at least zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum, or `None` beyond `MAX`.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Dollars as a plain decimal with at least two digits after the point:
    /// `1.25`, `0.000000001`. `from_decimal` reads it back exactly.
    #[must_use]
    pub fn to_decimal(self) -> String {
        let fraction = format!("{:09}", self.0 % NANO);
        let (cents, rest) = fraction.split_at(2);
        format!("{}.{cents}{}", self.0 / NANO, rest.trim_end_matches('0'))
    }
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.to_decimal())
    }
}

// === impl Tokens ===

impl Tokens {
    /// No tokens.
    pub const ZERO: Self = Self(0);

    /// The sum, at most `u64::MAX`.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, at least zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Nano-dollars of a decimal number without sign.
fn read_unsigned(text: &str) -> Result<u64, MoneyError> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = String::with_capacity(whole.len() + fraction.len());
    digits.push_str(whole);
    digits.push_str(fraction);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(MoneyError::NotANumber);
    }
    let significant = digits.trim_end_matches('0');
    let zeros = digits.len() - significant.len();
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    let shift = exponent
        .saturating_sub(length(fraction.len()))
        .saturating_add(length(zeros))
        .saturating_add(FRACTION_DIGITS);
    let shift = usize::try_from(shift).map_err(|_| MoneyError::TooFine)?;
    // Twenty digits hold every u64, and never overflow the u128 below.
    if significant.len().saturating_add(shift) > 20 {
        return Err(MoneyError::TooLarge);
    }
    let scaled = significant
        .bytes()
        .chain(std::iter::repeat_n(b'0', shift))
        .fold(0_u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
    u64::try_from(scaled).map_err(|_| MoneyError::TooLarge)
}

/// An exponent; one too long to count is as good as a million.
fn read_exponent(text: &str) -> Result<i64, MoneyError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(MoneyError::NotANumber);
    }
    let value = digits.parse::<i64>().unwrap_or(i64::MAX / 4);
    Ok(if negative { -value } else { value })
}

/// A text length as a signed number; lengths never reach 2^63.
fn length(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
