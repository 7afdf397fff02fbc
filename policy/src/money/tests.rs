use proptest::prelude::*;

use super::*;

#[test]
fn reads_decimals_exactly() {
    check("0", Ok(0));
    check("0.000000000000", Ok(0));
    check("0e99999999999999999999", Ok(0));
    check("10", Ok(10_000_000_000));
    check("+10", Ok(10_000_000_000));
    check("0.15", Ok(150_000_000));
    check(".5", Ok(500_000_000));
    check("5.", Ok(5_000_000_000));
    check("1e-3", Ok(1_000_000));
    check("1e-7", Ok(100));
    check("1E-9", Ok(1));
    check("12.5e+2", Ok(1_250_000_000_000));
    check("0.000001e3", Ok(1_000_000));
    check("000.100", Ok(100_000_000));
    check("0.0000000010000", Ok(1));
    check("18446744073.709551615", Ok(u64::MAX));
}

#[test]
fn refuses_what_does_not_fit() {
    check("18446744073.709551616", Err(MoneyError::TooLarge));
    check("99999999999", Err(MoneyError::TooLarge));
    check("1e30", Err(MoneyError::TooLarge));
    check("1e99999999999999999999", Err(MoneyError::TooLarge));
    check("0.0000000001", Err(MoneyError::TooFine));
    check("1e-10", Err(MoneyError::TooFine));
    check("1e-99999999999999999999", Err(MoneyError::TooFine));
    check("-1", Err(MoneyError::Negative));
    check("-0", Err(MoneyError::Negative));
    for text in [
        "", ".", "+", "e3", "1e", "1e+", "1_000", "1,5", "1.2.3", "0x10", ".inf", ".nan", "NaN",
        " 1", "1 ", "$1", "1e1.5", "١", "--1", "+-1", "1e-+1",
    ] {
        check(text, Err(MoneyError::NotANumber));
    }
}

#[track_caller]
fn check(text: &str, expected: Result<u64, MoneyError>) {
    assert_eq!(
        NanoUsd::from_decimal(text),
        expected.map(NanoUsd),
        "{text:?}"
    );
}

#[test]
fn prints_dollars() {
    assert_eq!(NanoUsd(0).to_string(), "$0.00");
    assert_eq!(NanoUsd(1).to_string(), "$0.000000001");
    assert_eq!(NanoUsd(1_250_000_000).to_string(), "$1.25");
    assert_eq!(NanoUsd(1_200_000_000).to_string(), "$1.20");
    assert_eq!(NanoUsd(100_001_000_000).to_string(), "$100.001");
    assert_eq!(NanoUsd::MAX.to_string(), "$18446744073.709551615");
}

#[test]
fn sums_stay_in_range() {
    assert_eq!(NanoUsd::MAX.saturating_add(NanoUsd(1)), NanoUsd::MAX);
    assert_eq!(NanoUsd::MAX.checked_add(NanoUsd(1)), None);
    assert_eq!(NanoUsd(2).checked_add(NanoUsd(1)), Some(NanoUsd(3)));
    assert_eq!(NanoUsd(1).saturating_sub(NanoUsd(2)), NanoUsd::ZERO);
    assert_eq!(Tokens(1).saturating_sub(Tokens(2)), Tokens::ZERO);
    assert_eq!(Tokens(u64::MAX).saturating_add(Tokens(2)), Tokens(u64::MAX));
}

proptest! {
    #[test]
    fn print_reads_back(nano in any::<u64>()) {
        prop_assert_eq!(NanoUsd::from_decimal(&NanoUsd(nano).to_decimal()), Ok(NanoUsd(nano)));
    }

    #[test]
    fn shifting_the_point_changes_nothing(
        digits in 1_u64..1_000_000_000,
        places in 0_usize..9,
        exponent in -9_i32..9,
    ) {
        let text = format!("{digits:010}");
        let (whole, fraction) = text.split_at(text.len() - places);
        let written = format!("{whole}.{fraction}e{exponent}");
        let power = 9 - i32::try_from(places).unwrap() + exponent;
        let expected = if power >= 0 {
            let scaled = u128::from(digits) * 10_u128.pow(power.unsigned_abs());
            u64::try_from(scaled).map_err(|_| MoneyError::TooLarge)
        } else {
            let divisor = 10_u64.pow(power.unsigned_abs());
            if digits % divisor == 0 { Ok(digits / divisor) } else { Err(MoneyError::TooFine) }
        };
        prop_assert_eq!(NanoUsd::from_decimal(&written), expected.map(NanoUsd), "{}", written);
    }

    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = NanoUsd::from_decimal(&text);
    }
}
