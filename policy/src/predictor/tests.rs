use std::sync::Arc;
use std::thread;

use proptest::prelude::*;

use super::*;

#[test]
fn buckets_cover_all_lengths_without_gaps() {
    assert_eq!(bucket(0), 0);
    for tokens in (0..5_000).chain([1 << 15, 1 << 20, (1 << 21) - 1]) {
        let bucket = bucket(tokens);
        assert!(longest(bucket) >= tokens, "{tokens}");
        assert!(bucket == 0 || longest(bucket - 1) < tokens, "{tokens}");
        // A quarter of an octave at most.
        assert!(longest(bucket) <= tokens + tokens / 4, "{tokens}");
    }
    assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    assert_eq!(longest(BUCKETS - 1), (1 << 22) - 1);
}

#[test]
fn nothing_is_foretold_from_few_answers() {
    let predictor = Predictor::new();
    for _ in 0..19 {
        assert_eq!(predictor.predict("key", "gpt"), None);
        predictor.learn("key", "gpt", 300);
    }
    assert_eq!(predictor.predict("key", "gpt"), None);
    predictor.learn("key", "gpt", 300);
    assert_eq!(predictor.predict("key", "gpt"), Some(319));
    assert_eq!(predictor.predict("key", "mini"), None);
    assert_eq!(predictor.predict("keyg", "pt"), None);
}

#[test]
fn the_past_fades() {
    let predictor = Predictor::new();
    let learn = |count, tokens| (0..count).for_each(|_| predictor.learn("key", "gpt", tokens));
    learn(10_000, 4_000);
    assert_eq!(predictor.predict("key", "gpt"), Some(4_095));
    learn(300, 100);
    assert_eq!(predictor.predict("key", "gpt"), Some(4_095));
    learn(724, 100);
    assert_eq!(predictor.predict("key", "gpt"), Some(111));
}

#[test]
fn memory_is_as_stated() {
    let bytes = SETS * size_of::<Set>();
    assert!((1_400_000..=1_600_000).contains(&bytes), "{bytes}");
}

#[test]
fn the_pair_longest_not_heard_of_gives_way() {
    let predictor = Predictor::new();
    // Five pairs of one set.
    let home = tag("key", "0") % SETS as u64;
    let models: Vec<String> = (0..)
        .map(|number: u32| number.to_string())
        .filter(|model| tag("key", model) % SETS as u64 == home)
        .take(WAYS + 1)
        .collect();
    let learn = |model: &str| (0..30).for_each(|_| predictor.learn("key", model, 50));
    models[..WAYS].iter().for_each(|model| learn(model));
    predictor.learn("key", &models[0], 50);
    learn(&models[WAYS]);
    let known: Vec<bool> = models
        .iter()
        .map(|model| predictor.predict("key", model).is_some())
        .collect();
    assert_eq!(known, [true, false, true, true, true]);
    learn(&models[1]);
    assert_eq!(predictor.predict("key", &models[1]), Some(55));
    assert_eq!(predictor.predict("key", &models[2]), None);
}

#[test]
fn many_threads_lose_nothing_that_matters() {
    const THREADS: u64 = 8;
    let predictor = Arc::new(Predictor::new());
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let predictor = Arc::clone(&predictor);
            thread::spawn(move || {
                for answer in 0..20_000_u64 {
                    // Lengths from 1 to 1,000, and a crowd that claims places.
                    let tokens = (answer * 7 + thread * 131) % 1_000 + 1;
                    predictor.learn("shared", "gpt", tokens);
                    predictor.learn("crowd", &(answer % 5_000).to_string(), 1);
                    if let Some(foretold) = predictor.predict("shared", "gpt") {
                        assert!(foretold <= 1_023, "{foretold}");
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let foretold = predictor.predict("shared", "gpt").unwrap();
    // The 90th percentile is 900, in the bucket that ends at 1,023.
    assert!([895, 1_023].contains(&foretold), "{foretold}");
    let place = predictor.set(tag("shared", "gpt"));
    let place = place.find(tag("shared", "gpt")).unwrap();
    let total: u64 = place
        .weights
        .iter()
        .map(|w| u64::from(w.load(Ordering::Relaxed)))
        .sum();
    assert!(
        total <= 2 * HALF_LIFE * u64::from(WEIGHT) + u64::from(WEIGHT) * THREADS,
        "{total}"
    );
}

/// An order without any trend: the same few answers, again and again, each
/// round shuffled by multiplying with a number prime to its length.
fn stationary(answers: &[u64], rounds: usize) -> impl Iterator<Item = u64> {
    let count = answers.len();
    (0..rounds).flat_map(move |round| {
        let step = [1, 7, 11, 13, 17][round % 5];
        let step = if count.is_multiple_of(step) { 1 } else { step };
        (0..count).map(move |index| answers[(index * step + round) % count])
    })
}

proptest! {
    #[test]
    fn steady_input_is_foretold_within_one_bucket(
        mut answers in prop::collection::vec(
            (1_u64..4_000_000, 0_u32..20).prop_map(|(tokens, shift)| (tokens >> shift).max(1)),
            10..40,
        ),
        rounds in 20_usize..60,
    ) {
        let predictor = Predictor::new();
        for tokens in stationary(&answers, rounds) {
            predictor.learn("key", "gpt", tokens);
        }
        answers.sort_unstable();
        let rank = |part: f64| {
            let index = (answers.len() as f64 * part).ceil() as usize;
            bucket(answers[index.clamp(1, answers.len()) - 1])
        };
        let foretold = bucket(predictor.predict("key", "gpt").unwrap());
        let spread = (rank(0.9).saturating_sub(1), rank(0.9) + 1);
        // Of so few answers the percentile itself is only a step between two.
        let step = (rank(0.9 - 1.0 / answers.len() as f64), rank(0.9 + 1.0 / answers.len() as f64));
        prop_assert!(
            (spread.0.min(step.0)..=spread.1.max(step.1)).contains(&foretold),
            "{foretold} against {:?}", rank(0.9)
        );
    }

    #[test]
    fn drawn_input_is_foretold_within_one_bucket(
        seed in any::<u64>(),
        low in 1_u64..2_000,
        width in 1_u64..2_000,
    ) {
        let predictor = Predictor::new();
        let mut state = seed;
        for _ in 0..2_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            predictor.learn("key", "gpt", low + (state >> 33) % width);
        }
        let truth = bucket(low + width * 9 / 10) as i64;
        let foretold = bucket(predictor.predict("key", "gpt").unwrap()) as i64;
        prop_assert!((foretold - truth).abs() <= 1, "{} against {}", foretold, truth);
    }
}
