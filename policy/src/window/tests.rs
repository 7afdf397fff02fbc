use jiff::civil::{Weekday, date};
use jiff::{ToSpan, tz::TimeZone};
use proptest::prelude::*;

use super::*;

/// The year 2200, where jiff can still follow.
const LAST: u64 = 7_258_118_400_000;

#[test]
fn calendar_periods() {
    check(
        "1d",
        "2024-02-29T23:59:59Z",
        "2024-02-29T00:00:00Z",
        "2024-03-01T00:00:00Z",
    );
    check(
        "1d",
        "2023-02-28T12:00:00Z",
        "2023-02-28T00:00:00Z",
        "2023-03-01T00:00:00Z",
    );
    check(
        "1M",
        "2024-02-29T00:00:00Z",
        "2024-02-01T00:00:00Z",
        "2024-03-01T00:00:00Z",
    );
    check(
        "1M",
        "2025-12-31T23:59:59.999Z",
        "2025-12-01T00:00:00Z",
        "2026-01-01T00:00:00Z",
    );
    check(
        "1w",
        "2026-11-22T20:00:00Z",
        "2026-11-16T00:00:00Z",
        "2026-11-23T00:00:00Z",
    );
    check(
        "1w",
        "2026-11-23T00:00:00Z",
        "2026-11-23T00:00:00Z",
        "2026-11-30T00:00:00Z",
    );
}

#[test]
fn fiscal_periods() {
    check(
        "1Q",
        "2024-03-31T23:59:59Z",
        "2024-01-01T00:00:00Z",
        "2024-04-01T00:00:00Z",
    );
    check(
        "1Q@2",
        "2024-01-31T00:00:00Z",
        "2023-11-01T00:00:00Z",
        "2024-02-01T00:00:00Z",
    );
    check(
        "1Q@2",
        "2024-02-01T00:00:00Z",
        "2024-02-01T00:00:00Z",
        "2024-05-01T00:00:00Z",
    );
    check(
        "1Y",
        "2024-12-31T00:00:00Z",
        "2024-01-01T00:00:00Z",
        "2025-01-01T00:00:00Z",
    );
    check(
        "1Y@4",
        "2024-03-31T23:59:59Z",
        "2023-04-01T00:00:00Z",
        "2024-04-01T00:00:00Z",
    );
    check(
        "1Y@12",
        "2024-12-01T00:00:00Z",
        "2024-12-01T00:00:00Z",
        "2025-12-01T00:00:00Z",
    );
    check(
        "1M",
        "2100-02-28T00:00:00Z",
        "2100-02-01T00:00:00Z",
        "2100-03-01T00:00:00Z",
    );
}

/// UTC has no summer time: on nights where Europe's and America's clocks turn,
/// every hour and every day has its full length and its own number.
#[test]
fn nights_of_summer_time_are_like_any_other() {
    for night in [
        "2026-03-08T00:00:00Z",
        "2026-03-29T00:00:00Z",
        "2026-10-25T00:00:00Z",
        "2026-11-01T00:00:00Z",
    ] {
        let midnight = at(night);
        let hour = Period::Fixed(Duration::from_secs(3_600));
        let first = (hour.epoch(midnight), Period::Day.epoch(midnight));
        for (minute, hours) in (0..24 * 60).map(|minute| (minute, minute / 60)) {
            let now = midnight.plus(Duration::from_secs(60 * minute));
            let hours = i64::try_from(hours).unwrap();
            assert_eq!(hour.epoch(now), first.0 + hours, "{now}");
            assert_eq!(Period::Day.epoch(now), first.1, "{now}");
        }
        assert_eq!(
            Period::Day.end(first.1).since(midnight),
            Duration::from_secs(86_400)
        );
    }
}

#[test]
fn a_leap_day_lengthens_its_month_quarter_and_year() {
    let days = |period: &str, now: &str| {
        let period: Period = period.parse().unwrap();
        let epoch = period.epoch(at(now));
        period.end(epoch).since(period.start(epoch)).as_secs() / 86_400
    };
    for (year, february, quarter, whole) in [
        (2023, 28, 90, 365),
        (2024, 29, 91, 366),
        (2100, 28, 90, 365),
        (2000, 29, 91, 366),
    ] {
        let now = format!("{year}-02-28T12:00:00Z");
        assert_eq!(days("1M", &now), february, "{year}");
        assert_eq!(days("1Q", &now), quarter, "{year}");
        assert_eq!(days("1Y", &now), whole, "{year}");
        // A fiscal year has the leap day of the calendar year it ends in.
        assert_eq!(days("1Y@4", &now), whole, "{year}");
        assert_eq!(
            days("1Y@2", &format!("{year}-03-01T00:00:00Z")),
            whole,
            "{year}"
        );
    }
}

#[test]
fn fixed_periods_are_aligned_to_1970() {
    check(
        "1m",
        "2026-11-22T20:43:59.999Z",
        "2026-11-22T20:43:00Z",
        "2026-11-22T20:44:00Z",
    );
    check(
        "24h",
        "2026-11-22T20:43:00Z",
        "2026-11-22T00:00:00Z",
        "2026-11-23T00:00:00Z",
    );
    check(
        "7s",
        "1970-01-01T00:00:13Z",
        "1970-01-01T00:00:07Z",
        "1970-01-01T00:00:14Z",
    );
    // The first week, quarter and fiscal year are cut off by 1970.
    check(
        "1w",
        "1970-01-02T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "1970-01-05T00:00:00Z",
    );
    check(
        "1Y@4",
        "1970-01-02T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "1970-04-01T00:00:00Z",
    );
}

#[track_caller]
fn check(period: &str, now: &str, start: &str, end: &str) {
    let period: Period = period.parse().unwrap();
    let epoch = period.epoch(at(now));
    assert_eq!(
        period.start(epoch).to_rfc3339(),
        start,
        "start of {period} at {now}"
    );
    assert_eq!(
        period.end(epoch).to_rfc3339(),
        end,
        "end of {period} at {now}"
    );
}

fn at(text: &str) -> Timestamp {
    let instant: jiff::Timestamp = text.parse().unwrap();
    Timestamp(u64::try_from(instant.as_millisecond()).unwrap())
}

#[test]
fn texts() {
    for text in [
        "1s", "90s", "1m", "90m", "1h", "24h", "1d", "1w", "1M", "1Q", "1Y",
    ] {
        assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        assert_eq!(text.parse::<Period>().unwrap().key_text(), text);
    }
    for (text, plain) in [("60s", "1m"), ("60m", "1h"), ("1Q@4", "1Q"), ("1Y@1", "1Y")] {
        assert_eq!(text.parse::<Period>().unwrap().to_string(), plain);
    }
    assert_eq!("1Q@4".parse::<Period>().unwrap().key_text(), "1Q@4");
    for text in [
        "", "m", "1", "1x", "-1m", "1.5h", "1 m", "1Q@13", "1Q@0", "1m@4", "1M@4", "é",
    ] {
        let refused = text.parse::<Period>();
        assert!(
            matches!(refused, Err(PeriodError::Unreadable(_))),
            "{text}: {refused:?}"
        );
    }
    for text in ["0s", "0m", "99999999999999999999h", "9000000h"] {
        let refused = text.parse::<Period>();
        assert!(
            matches!(refused, Err(PeriodError::OutOfRange(_))),
            "{text}: {refused:?}"
        );
    }
    for text in ["2d", "0d", "3M", "99999999999999999999Y"] {
        let refused = text.parse::<Period>();
        assert!(
            matches!(refused, Err(PeriodError::Multiple(_))),
            "{text}: {refused:?}"
        );
    }
}

#[test]
fn the_end_of_time_is_reached_without_panic() {
    let periods = ["1s", "1h", "1d", "1w", "1M", "1Q", "1Q@12", "1Y", "1Y@7"]
        .map(|text| text.parse().unwrap());
    for period in periods {
        let period: Period = period;
        let epoch = period.epoch(Timestamp(u64::MAX));
        assert!(period.start(epoch) <= period.end(epoch));
        for epoch in [i64::MIN, i64::MAX, 0, -1] {
            assert!(period.start(epoch) <= period.end(epoch), "{period} {epoch}");
        }
    }
}

fn periods() -> impl Strategy<Value = Period> {
    prop_oneof![
        (1_u64..200_000).prop_map(|seconds| Period::Fixed(Duration::from_secs(seconds))),
        Just(Period::Day),
        Just(Period::Week),
        Just(Period::Month),
        (1_u8..13).prop_map(|fiscal_start| Period::Quarter { fiscal_start }),
        (1_u8..13).prop_map(|fiscal_start| Period::Year { fiscal_start }),
    ]
}

proptest! {
    #[test]
    fn every_instant_is_in_its_period(period in periods(), millis in 0..LAST) {
        let now = Timestamp(millis);
        let epoch = period.epoch(now);
        prop_assert!(period.start(epoch) <= now);
        prop_assert!(now < period.end(epoch));
        prop_assert_eq!(period.epoch(period.end(epoch)), epoch + 1);
        prop_assert!(period.end(epoch).since(period.start(epoch)) <= period.longest());
    }

    #[test]
    fn epochs_never_fall(period in periods(), first in 0..LAST, step in 0_u64..100_000_000_000) {
        prop_assert!(period.epoch(Timestamp(first)) <= period.epoch(Timestamp(first + step)));
    }

    #[test]
    fn agrees_with_an_independent_calendar(millis in 0..LAST, fiscal_start in 1_u8..13) {
        let now = Timestamp(millis);
        let instant = jiff::Timestamp::from_millisecond(i64::try_from(millis).unwrap()).unwrap();
        let civil = instant.to_zoned(TimeZone::UTC).date();
        let midnight = |day: jiff::civil::Date| {
            let zoned = day.to_zoned(TimeZone::UTC).unwrap().timestamp().as_millisecond();
            Timestamp(u64::try_from(zoned).unwrap_or(0))
        };
        let start_of = |period: Period| period.start(period.epoch(now));
        prop_assert_eq!(start_of(Period::Day), midnight(civil));
        let monday = civil.tomorrow().unwrap().nth_weekday(-1, Weekday::Monday).unwrap();
        prop_assert_eq!(start_of(Period::Week), midnight(monday));
        prop_assert_eq!(start_of(Period::Month), midnight(civil.first_of_month()));
        let mut year = date(civil.year(), i8::try_from(fiscal_start).unwrap(), 1);
        if year > civil {
            year = year.checked_sub(1.year()).unwrap();
        }
        prop_assert_eq!(start_of(Period::Year { fiscal_start }), midnight(year));
        let mut quarter = year;
        while quarter.checked_add(3.months()).unwrap() <= civil {
            quarter = quarter.checked_add(3.months()).unwrap();
        }
        prop_assert_eq!(start_of(Period::Quarter { fiscal_start }), midnight(quarter));
    }

    #[test]
    fn rfc3339_reads_back(millis in 0..LAST) {
        prop_assert_eq!(at(&Timestamp(millis).to_rfc3339()), Timestamp(millis));
    }

    #[test]
    fn text_reads_back(period in periods()) {
        prop_assert_eq!(period.key_text().parse(), Ok(period));
    }
}
