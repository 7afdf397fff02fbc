//! US dollars per token, as lists write them, in our unit.

use policy::PerMillion;

/// A dollar per token is this power of ten of nano-dollars per million tokens.
const POWER: i32 = 15;

/// Digits that are told apart; more mean a text that is no price.
const DIGITS_MAX: usize = 36;

/// Reads `1.5e-07` digit by digit. What is finer than a nano-dollar per million
/// tokens is rounded up, so that no price is ever too low. `None`: negative,
/// too large, or no number.
pub(super) fn per_token(text: &str) -> Option<PerMillion> {
    let text = text.trim();
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let digits = digits.trim_start_matches('0');
    if mantissa.is_empty() || mantissa == "." || !plain || digits.len() > DIGITS_MAX {
        return None;
    }
    if digits.is_empty() {
        return Some(PerMillion(0));
    }
    let number: u128 = digits.parse().ok()?;
    let finer = i32::try_from(fraction.len()).ok()?;
    let power = exponent.checked_add(POWER)?.checked_sub(finer)?;
    let scale = 10_u128.checked_pow(power.unsigned_abs());
    let amount = match (power >= 0, scale) {
        (true, Some(scale)) => number.checked_mul(scale)?,
        (true, None) => return None,
        (false, Some(scale)) => number.div_ceil(scale),
        // Finer than anything: the smallest price there is.
        (false, None) => 1,
    };
    u64::try_from(amount).ok().map(PerMillion)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_exactly() {
        for (text, expected) in [
            ("1.5e-07", Some(150_000_000)),
            ("6e-07", Some(600_000_000)),
            ("0.00000015", Some(150_000_000)),
            ("0.0000025", Some(2_500_000_000)),
            ("3e-6", Some(3_000_000_000)),
            ("1E-5", Some(10_000_000_000)),
            ("0.0", Some(0)),
            ("0", Some(0)),
            ("0e99", Some(0)),
            ("1e-15", Some(1)),
            // As computed by others: what a float left over costs a hair more.
            ("1.0000000000000001e-07", Some(100_000_001)),
            ("9.999999999999999e-08", Some(100_000_000)),
            ("1e-16", Some(1)),
            ("1e-200", Some(1)),
            ("1e+0", Some(1_000_000_000_000_000)),
            ("18446.744073709551615", Some(u64::MAX)),
            ("18446.744073709551616", None),
            ("1e9", None),
            ("1e99", None),
            ("1e99999999999", None),
            ("-1e-07", None),
            ("", None),
            (".", None),
            ("e-07", None),
            ("1.2.3", None),
            ("NaN", None),
            ("0x10", None),
            ("1111111111111111111111111111111111111", None),
        ] {
            assert_eq!(per_token(text), expected.map(PerMillion), "{text}");
        }
    }
}
