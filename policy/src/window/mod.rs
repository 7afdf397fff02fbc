//! Periods of time as pure arithmetic: which one an instant is in, when it
//! starts and when it ends. All in UTC.
//!
//! Law: `start(epoch(t)) <= t < end(epoch(t))`, and epochs never fall as time
//! grows.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::calendar::{DAY_MS, month_of, month_start};
use crate::time::{Timestamp, day_number};

/// The length of a limit's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// Whole seconds, at least one; aligned to 1970-01-01T00:00:00Z.
    Fixed(Duration),
    /// From midnight.
    Day,
    /// From Monday, midnight.
    Week,
    /// From the first.
    Month,
    /// Three months, counted from the first of month `fiscal_start` (1-12).
    Quarter {
        /// First month of the fiscal year, 1 to 12.
        fiscal_start: u8,
    },
    /// Twelve months, counted from the first of month `fiscal_start` (1-12).
    Year {
        /// First month of the fiscal year, 1 to 12.
        fiscal_start: u8,
    },
}

/// How a window moves over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowKind {
    /// The current and the 30 previous sub-windows count in full.
    Sliding,
    /// Like sliding, the oldest sub-window by the part not yet passed.
    Smooth,
    /// Whole windows aligned to the Unix epoch.
    Fixed,
    /// Whole calendar periods.
    Calendar,
}

/// Why a text is not a period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// Not a number and one of the units s, m, h, d, w, M, Q, Y.
    #[error("'{0}' is not a length such as 30s, 1m, 12h, 1d, 1w, 1M, 1Q or 1Y")]
    Unreadable(String),
    /// Zero, or beyond a thousand years.
    #[error("'{0}' is not between one second and a thousand years")]
    OutOfRange(String),
    /// Days and longer exist only once.
    #[error("'{0}' is not 1: days, weeks, months, quarters and years have no multiples")]
    Multiple(String),
}

/// A thousand years in seconds: longer windows are a typing mistake.
const LONGEST_SECONDS: u64 = 1_000 * 366 * 86_400;

// === impl Period ===

impl Period {
    /// The index of the period that `now` is in.
    #[must_use]
    pub fn epoch(&self, now: Timestamp) -> i64 {
        let day = day_number(now);
        match *self {
            Self::Fixed(length) => signed(now.0 / millis(length)),
            Self::Day => day,
            // 1970-01-01 was a Thursday, the fourth day of week 0.
            Self::Week => (day + 3).div_euclid(7),
            Self::Month => month_of(day),
            Self::Quarter { fiscal_start } => (month_of(day) - offset(fiscal_start)).div_euclid(3),
            Self::Year { fiscal_start } => (month_of(day) - offset(fiscal_start)).div_euclid(12),
        }
    }

    /// When the period `epoch` starts, not before 1970.
    #[must_use]
    pub fn start(&self, epoch: i64) -> Timestamp {
        let day = match *self {
            Self::Fixed(length) => {
                let index = u64::try_from(epoch).unwrap_or(0);
                return Timestamp(index.saturating_mul(millis(length)));
            }
            Self::Day => epoch,
            Self::Week => epoch.saturating_mul(7).saturating_sub(3),
            Self::Month => month_start(bounded(epoch)),
            Self::Quarter { fiscal_start } => {
                month_start(bounded(epoch) * 3 + offset(fiscal_start))
            }
            Self::Year { fiscal_start } => month_start(bounded(epoch) * 12 + offset(fiscal_start)),
        };
        Timestamp(u64::try_from(day).unwrap_or(0).saturating_mul(DAY_MS))
    }

    /// When the period `epoch` ends: the first instant no longer in it.
    #[must_use]
    pub fn end(&self, epoch: i64) -> Timestamp {
        self.start(epoch.saturating_add(1))
    }

    /// The length a sliding window of this name has; calendar units take
    /// their longest form, so that no real month or year holds more.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let days = match *self {
            Self::Fixed(length) => return length,
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 31,
            Self::Quarter { .. } => 92,
            Self::Year { .. } => 366,
        };
        Duration::from_millis(days * DAY_MS)
    }

    /// Like `Display`, with a fiscal start other than January added as `@4`:
    /// two periods have the same text only if they are equal.
    pub(crate) fn key_text(&self) -> String {
        match *self {
            Self::Quarter { fiscal_start } | Self::Year { fiscal_start } if fiscal_start != 1 => {
                format!("{self}@{fiscal_start}")
            }
            _ => self.to_string(),
        }
    }
}

/// As written in the configuration: `30s`, `1m`, `12h`, `1d`, `1M`.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Fixed(length) => {
                let seconds = length.as_secs();
                if seconds % 3_600 == 0 {
                    write!(f, "{}h", seconds / 3_600)
                } else if seconds % 60 == 0 {
                    write!(f, "{}m", seconds / 60)
                } else {
                    write!(f, "{seconds}s")
                }
            }
            Self::Day => f.write_str("1d"),
            Self::Week => f.write_str("1w"),
            Self::Month => f.write_str("1M"),
            Self::Quarter { .. } => f.write_str("1Q"),
            Self::Year { .. } => f.write_str("1Y"),
        }
    }
}

/// Reads what `Display` writes; quarter and year start in January unless
/// `@month` follows.
impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let unreadable = || PeriodError::Unreadable(text.to_owned());
        let (length, fiscal_start) = match text.split_once('@') {
            None => (text, 1),
            Some((length, month)) => {
                let month = month.parse::<u8>().map_err(|_| unreadable())?;
                if !length.ends_with(['Q', 'Y']) || !(1..=12).contains(&month) {
                    return Err(unreadable());
                }
                (length, month)
            }
        };
        let unit = length.chars().next_back().ok_or_else(unreadable)?;
        let digits = &length[..length.len() - unit.len_utf8()];
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(unreadable());
        }
        let count = digits.parse::<u64>().unwrap_or(u64::MAX);
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            _ => 0,
        };
        let period = match unit {
            's' | 'm' | 'h' => {
                let total = count.saturating_mul(seconds);
                if total == 0 || total > LONGEST_SECONDS {
                    return Err(PeriodError::OutOfRange(text.to_owned()));
                }
                return Ok(Self::Fixed(Duration::from_secs(total)));
            }
            'd' => Self::Day,
            'w' => Self::Week,
            'M' => Self::Month,
            'Q' => Self::Quarter { fiscal_start },
            'Y' => Self::Year { fiscal_start },
            _ => return Err(unreadable()),
        };
        if count == 1 {
            Ok(period)
        } else {
            Err(PeriodError::Multiple(digits.to_owned()))
        }
    }
}

// === impl WindowKind ===

impl WindowKind {
    /// The word used in configuration and counter names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sliding => "sliding",
            Self::Smooth => "smooth",
            Self::Fixed => "fixed",
            Self::Calendar => "calendar",
        }
    }

    /// Reads `as_str` back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Sliding, Self::Smooth, Self::Fixed, Self::Calendar]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A length in milliseconds, at least one, so that dividing by it is safe.
fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// An index as a signed number; saturates for windows of one millisecond.
fn signed(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

/// Months to the start of a fiscal year; months outside 1 to 12 are January.
fn offset(fiscal_start: u8) -> i64 {
    match fiscal_start {
        1..=12 => i64::from(fiscal_start) - 1,
        _ => 0,
    }
}

/// An epoch small enough that its months and days do not overflow; the bound
/// lies beyond the last `Timestamp`.
fn bounded(epoch: i64) -> i64 {
    epoch.clamp(-1_000_000_000_000, 1_000_000_000_000)
}

#[cfg(test)]
mod tests;
