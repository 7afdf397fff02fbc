//! RFC 3339, as far as configurations need it.

use policy::Timestamp;

const DAY_MILLIS: i64 = 86_400_000;

/// A time as milliseconds since 1970; `None` for what is no time of the
/// calendar, or before 1970.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let (date, rest) = (text.get(..10)?, text.get(11..)?);
    let between = text.as_bytes().get(10)?;
    if !matches!(between, b'T' | b't' | b' ') {
        return None;
    }
    let (clock, offset) = rest.split_at_checked(8)?;
    let (millis, offset) = fraction(offset)?;
    let total = day_number(date)?
        .checked_mul(DAY_MILLIS)?
        .checked_add(of_day(clock)?)?
        .checked_add(millis)?
        .checked_sub(offset_millis(offset)?)?;
    u64::try_from(total).ok().map(Timestamp)
}

/// `2027-01-31` as days since 1970.
fn day_number(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return None;
    }
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=longest).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is the last.
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    Some(
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
            - 719_468,
    )
}

/// `18:00:00` in milliseconds; second 60 is the next minute's first.
fn of_day(clock: &str) -> Option<i64> {
    let mut parts = clock.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    if (hour.len(), minute.len(), second.len()) != (2, 2, 2) {
        return None;
    }
    let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    (hour < 24 && minute < 60 && second <= 60)
        .then_some(((hour * 60 + minute) * 60 + second) * 1_000)
}

/// Milliseconds of `.25`, and what stands after them.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(digits) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let length = digits.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = digits.split_at(length);
    let millis: String = digits.chars().chain("00".chars()).take(3).collect();
    (length > 0).then_some(())?;
    Some((number(&millis)?, rest))
}

/// `Z`, `+01:00`.
fn offset_millis(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    if (hours.len(), minutes.len()) != (2, 2) {
        return None;
    }
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000)
}

fn number(digits: &str) -> Option<i64> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:00.5Z", Some(500)),
            ("1970-01-01T00:00:00.123456789Z", Some(123)),
            ("2000-02-29 12:00:00z", Some(951_825_600_000)),
            ("2027-01-31T18:00:00+01:00", Some(1_801_414_800_000)),
            ("2026-12-31T23:59:60Z", Some(1_798_761_600_000)),
            ("2027-02-29T00:00:00Z", None),
            ("2027-13-01T00:00:00Z", None),
            ("2027-00-01T00:00:00Z", None),
            ("2027-01-01T24:00:00Z", None),
            ("2027-01-01T00:00:00", None),
            ("2027-01-01", None),
            ("1969-12-31T23:59:59Z", None),
            ("", None),
            ("2027-01-01T00:00:00.Z", None),
            ("2027-01-01T00:00:00+1:00", None),
        ];
        for (text, millis) in cases {
            assert_eq!(parse(text).map(|at| at.0), millis, "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for millis in [0, 1, 951_782_399_999, 951_782_400_000, 4_102_444_800_000] {
            let at = Timestamp(millis);
            assert_eq!(parse(&at.to_rfc3339()), Some(at));
        }
    }
}
