//! Periods, prices and shares, exact: every number stays text.

use policy::PerMillion;

/// A period as ours, and what is different about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Every {
    pub(super) text: String,
    pub(super) note: Option<String>,
}

/// What a period is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Of money; `true` when the source begins it at calendar boundaries.
    Budget(bool),
    RateLimit,
}

/// Longest period of a limit in seconds, 366 days.
const LONGEST: u64 = 366 * 86_400;

/// `1M`, `30d`, `1h30m` as one of our periods; `None` when there is none.
pub(super) fn every(text: &str, usage: Use) -> Option<Every> {
    let text = text.trim();
    let Some((count, unit, days)) = calendar(text) else {
        return length(text).map(|text| Every { text, note: None });
    };
    if let (1, Use::Budget(aligned)) = (count, usage) {
        let begins = match unit {
            'd' => "at 00:00 UTC",
            'w' => "on Monday, 00:00 UTC",
            'M' => "on the 1st, 00:00 UTC",
            _ => "on the 1st of its first month, 00:00 UTC",
        };
        let note = format!(
            "in the source {days} days counted from the first use; here it begins {begins}"
        );
        return Some(Every {
            text: text.to_owned(),
            note: (!aligned).then_some(note),
        });
    }
    let seconds = count.checked_mul(days)?.checked_mul(86_400)?;
    if seconds > LONGEST {
        return None;
    }
    if usage == Use::RateLimit && (matches!(unit, 'd' | 'w')) {
        return Some(Every {
            text: text.to_owned(),
            note: None,
        });
    }
    let hours = seconds / 3_600;
    let note = format!("`{text}` is written as {hours} hours");
    Some(Every {
        text: format!("{hours}h"),
        note: Some(note),
    })
}

/// Count, unit and days of `3M`.
fn calendar(text: &str) -> Option<(u64, char, u64)> {
    let unit = text.chars().last()?;
    let days = match unit {
        'd' => 1,
        'w' => 7,
        'M' => 30,
        'Q' => 90,
        'Y' => 365,
        _ => return None,
    };
    let count = text.strip_suffix(unit)?.parse().ok()?;
    (count > 0).then_some((count, unit, days))
}

/// `90m`, `1h30m`, `30`: hours, minutes and seconds, as one number and unit.
fn length(text: &str) -> Option<String> {
    let mut seconds = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u64 = rest.get(..digits)?.parse().ok()?;
        let unit = rest.get(digits..)?.chars().next();
        let each = match unit {
            Some('h') => 3_600,
            Some('m') => 60,
            Some('s') | None => 1,
            Some(_) => return None,
        };
        seconds = seconds.checked_add(count.checked_mul(each)?)?;
        rest = rest.get(digits + usize::from(unit.is_some())..)?;
    }
    if seconds == 0 || seconds > LONGEST {
        return None;
    }
    Some(match (seconds % 3_600, seconds % 60) {
        (0, _) => format!("{}h", seconds / 3_600),
        (_, 0) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    })
}

/// A number of seconds as a length of time: `30`, `0.5`, `600.0`.
pub(super) fn seconds(number: &str) -> Option<String> {
    let millis: u64 = shifted(number, 3)?.parse().ok()?;
    match millis {
        0 => None,
        _ if millis.is_multiple_of(1_000) => Some(format!("{}s", millis / 1_000)),
        _ => Some(format!("{millis}ms")),
    }
}

/// US dollars per token as US dollars per million; `None` when it is finer
/// than prices are kept, or no amount.
pub(super) fn per_million(per_token: &str) -> Option<String> {
    let price = shifted(per_token, 6)?;
    PerMillion::from_decimal(&price).ok()?;
    Some(price)
}

/// A decimal number without exponent: `1e2` is `100`.
pub(super) fn decimal(number: &str) -> Option<String> {
    shifted(number, 0)
}

/// Whether a number is zero.
pub(super) fn is_zero(number: &str) -> bool {
    shifted(number, 0).as_deref() == Some("0")
}

/// A number that is not negative, times ten to the power of `by`.
fn shifted(number: &str, by: i32) -> Option<String> {
    let number = number.trim();
    let number = number.strip_prefix('+').unwrap_or(number);
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (number, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{part}");
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if digits.is_empty() || !plain || !(-400..=400).contains(&exponent) {
        return None;
    }
    // Where the point stands, counted from the left of `digits`.
    let point = i64::try_from(whole.len()).ok()? + i64::from(exponent) + i64::from(by);
    let (whole, part) = match usize::try_from(point) {
        Ok(point) if point >= digits.len() => (
            format!("{digits}{}", "0".repeat(point - digits.len())),
            "".to_owned(),
        ),
        Ok(point) => (digits[..point].to_owned(), digits[point..].to_owned()),
        Err(_) => {
            let zeros = usize::try_from(-point).ok()?;
            (String::new(), format!("{}{digits}", "0".repeat(zeros)))
        }
    };
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    match part.trim_end_matches('0') {
        "" => Some(whole.to_owned()),
        part => Some(format!("{whole}.{part}")),
    }
}

/// Most decimals of a share that are told apart.
const SHARE_DECIMALS: i32 = 6;

/// Largest share of ours.
const LARGEST_SHARE: u64 = 1_000_000;

/// Shares of any size as whole numbers in the same proportion; one that is no
/// number counts as 1.
pub(super) fn shares(numbers: &[String]) -> Vec<u64> {
    let whole = |number: &String| {
        let text = shifted(number, SHARE_DECIMALS)?;
        text.split('.').next()?.parse::<u64>().ok()
    };
    let one = 10_u64.pow(SHARE_DECIMALS.unsigned_abs());
    let scaled: Vec<u64> = numbers.iter().map(|n| whole(n).unwrap_or(one)).collect();
    let divisor = scaled.iter().fold(0, |a, b| common_divisor(a, *b)).max(1);
    let largest = scaled.iter().max().copied().unwrap_or(0) / divisor;
    let shrink = largest.div_ceil(LARGEST_SHARE).max(1);
    let fit = |share: &u64| match share / divisor {
        0 => 0,
        share => (share / shrink).max(1),
    };
    scaled.iter().map(fit).collect()
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods() {
        let budget = |text, aligned| every(text, Use::Budget(aligned)).map(|every| every.text);
        let rate = |text| every(text, Use::RateLimit).map(|every| every.text);
        for (text, expected) in [
            ("1h", Some("1h")),
            ("60s", Some("1m")),
            ("1h30m", Some("90m")),
            ("90s", Some("90s")),
            ("1d", Some("1d")),
            ("30d", Some("720h")),
            ("1M", Some("1M")),
            ("3M", Some("2160h")),
            ("1Q", Some("1Q")),
            ("2Y", None),
            ("0d", None),
            ("500ms", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(budget(text, true).as_deref(), expected, "{text}");
        }
        assert_eq!(rate("1d").as_deref(), Some("1d"));
        assert_eq!(rate("1M").as_deref(), Some("720h"));
        assert!(every("1M", Use::Budget(true)).is_some_and(|every| every.note.is_none()));
        assert!(every("1M", Use::Budget(false)).is_some_and(|every| every.note.is_some()));
    }

    #[test]
    fn prices_are_exact() {
        for (token, million) in [
            ("0.00000015", Some("0.15")),
            ("1.5e-07", Some("0.15")),
            ("6E-7", Some("0.6")),
            ("0", Some("0")),
            ("3e-6", Some("3")),
            ("0.000000000000001", Some("0.000000001")),
            ("0.0000000000000001", None),
            ("-1e-6", None),
            ("1e999", None),
            ("x", None),
            ("", None),
            (".5", Some("500000")),
        ] {
            assert_eq!(per_million(token).as_deref(), million, "{token}");
        }
    }

    #[test]
    fn shares_keep_their_proportion() {
        let check = |numbers: &[&str], expected: &[u64]| {
            let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            assert_eq!(shares(&numbers), expected, "{numbers:?}");
        };
        check(&["0.5", "0.5", "1.0"], &[1, 1, 2]);
        check(&["1", "3"], &[1, 3]);
        check(&["0", "0.25"], &[0, 1]);
        check(&["900000000", "1"], &[1_000_000, 1]);
        check(&["x", "2"], &[1, 2]);
        check(&[], &[]);
    }

    #[test]
    fn seconds_become_lengths() {
        for (number, expected) in [
            ("30", Some("30s")),
            ("0.5", Some("500ms")),
            ("6e2", Some("600s")),
            ("0", None),
        ] {
            assert_eq!(seconds(number).as_deref(), expected);
        }
    }
}
