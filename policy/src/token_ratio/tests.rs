use super::*;
use proptest::prelude::*;

const MEGABYTE: u64 = 1_000_000;

/// The ratio after `reports` of (bytes, tokens).
fn learnt(reports: &[(u64, u64)]) -> TokenRatio {
    let ratio = TokenRatio::new();
    for (bytes, tokens) in reports {
        ratio.learn(*bytes, *tokens);
    }
    ratio
}

/// After `reports` of (bytes, tokens) a megabyte makes `tokens`.
#[track_caller]
fn check(reports: &[(u64, u64)], tokens: u64) {
    assert_eq!(learnt(reports).estimate(MEGABYTE), Tokens(tokens));
}

#[test]
fn learns_and_stays_in_bounds() {
    check(&[], 250_000);
    check(&[(0, 5), (5, 0), (199, 199), (1_000, 0)], 250_000);
    check(&[(8_192, 8_192)], 333_334);
    check(&[(u64::MAX, u64::MAX)], 333_334);
    check(&[(8_192, 1)], 227_778);
    check(&[(u64::MAX, 1)], 227_778);
    let high = learnt(&[(8_192, u64::MAX); 2_000]).estimate(MEGABYTE).0;
    assert!((999_000..=1_000_000).contains(&high), "{high}");
    let low = learnt(&[(u64::MAX, 1); 2_000]).estimate(MEGABYTE).0;
    assert!((49_900..=50_100).contains(&low), "{low}");
}

#[test]
fn follows_what_a_models_prompts_are_like() {
    // Two thousand bytes at 0.4: a model for a dense script.
    let dense = learnt(&[(2_000, 800); 1_000]).estimate(MEGABYTE).0;
    assert!((395_000..=401_000).contains(&dense), "{dense}");
}

#[test]
fn small_prompts_move_it_little() {
    // A conversation that the provider keeps: few bytes, many tokens.
    let kept = learnt(&[(300, 100_000)]).estimate(MEGABYTE).0;
    assert!(kept < 255_000, "{kept}");
}

#[test]
fn padded_prompts_of_one_caller_cheat_no_strict_limit() {
    let ratio = learnt(&[(200_000, 2_500); 30]);
    assert_eq!(ratio.estimate_strict(100_000), Tokens(25_000));
    assert!(ratio.estimate(100_000) >= Tokens(5_000));
    // An honest model with dense prompts is held at its own ratio.
    let ratio = learnt(&[(8_192, 4_096); 500]);
    assert_eq!(ratio.estimate_strict(100_000), ratio.estimate(100_000));
}

#[test]
fn rounds_up() {
    assert_eq!(TokenRatio::new().estimate(0), Tokens(0));
    assert_eq!(TokenRatio::new().estimate(1), Tokens(1));
    assert_eq!(TokenRatio::new().estimate(5), Tokens(2));
    assert_eq!(TokenRatio::new().estimate_strict(5), Tokens(2));
    let most = TokenRatio::new().estimate(u64::MAX);
    assert_eq!(most, Tokens(u64::MAX / 4 + 1));
}

proptest! {
    #[test]
    fn one_report_has_a_bounded_influence(
        before in prop::collection::vec((any::<u64>(), any::<u64>()), 0..100),
        report in (any::<u64>(), any::<u64>()),
        size in 200_u64..20_000,
    ) {
        let ratio = learnt(&before);
        for report in [report, (size, report.1), (size, report.1 % size)] {
            let old = ratio.estimate(MEGABYTE).0;
            ratio.learn(report.0, report.1);
            let new = ratio.estimate(MEGABYTE).0;
            // A ninth of the distance to either bound, and rounding.
            prop_assert!(new <= old + (MEGABYTE - old.min(MEGABYTE)) / 9 + 2);
            prop_assert!(new + old.saturating_sub(50_000) / 9 + 2 >= old);
            prop_assert!((49_900..=MEGABYTE).contains(&new));
            let strict = ratio.estimate_strict(MEGABYTE).0;
            prop_assert_eq!(strict, new.max(250_000));
        }
    }

    #[test]
    fn sums_keep_within_their_halves(
        reports in prop::collection::vec((any::<u64>(), any::<u64>()), 0..200),
    ) {
        let mut sums = Sums::START;
        for (bytes, tokens) in reports {
            sums = sums.with(bytes.max(LEAST_BYTES), tokens);
            prop_assert!(sums.bytes <= WINDOW && sums.parts <= WINDOW * PARTS);
            prop_assert_eq!(Sums::unpack(sums.pack()), sums);
        }
    }
}
