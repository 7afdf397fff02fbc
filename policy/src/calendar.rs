//! Civil dates of the proleptic Gregorian calendar in UTC.
//!
//! Pure arithmetic on day numbers (day 0 is 1970-01-01), after Howard
//! Hinnant's "chrono-Compatible Low-Level Date Algorithms"; total over every
//! `Timestamp`, where a library type with a bounded year would panic.

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: i64,
    /// 1 to 31.
    pub(crate) day: i64,
}

/// Milliseconds in a day; the calendar knows no leap seconds.
pub(crate) const DAY_MS: u64 = 86_400_000;

/// The date of a day number.
pub(crate) fn date_of(day_number: i64) -> Date {
    // Eras are 400 years that start on 1 March, so the leap day comes last.
    let shifted = day_number + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    Date { year, month, day }
}

/// The day number of the first day of a month, months counted from
/// January 1970 = 0.
pub(crate) fn month_start(month_number: i64) -> i64 {
    let month = month_number.rem_euclid(12) + 1;
    let year = 1970 + month_number.div_euclid(12) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The month number of a day number, January 1970 = 0.
pub(crate) fn month_of(day_number: i64) -> i64 {
    let date = date_of(day_number);
    (date.year - 1970) * 12 + date.month - 1
}
