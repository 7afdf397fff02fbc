use super::super::percent::fullest;
use crate::model::ModelId;
use crate::scope::Unit;
use crate::testing::{CHOICES, NOW, World};

/// Uses `amount` of every limit of the world, settled or held.
fn fill(world: &World, amounts: &[u64], settled: bool) {
    for (limit, amount) in world.limits().zip(amounts) {
        let hold = limit.counter.reserve(*amount, u64::MAX, NOW).unwrap();
        if settled {
            let _ = limit.counter.settle(hold, *amount, NOW);
        } else {
            // Held for the rest of the test.
            std::mem::forget(hold);
        }
    }
}

/// With these amounts of the limits used, the percentages of tokens are
/// `expected` for a request open to `choices`.
#[track_caller]
fn check(limits: &[(&'static str, &[&str])], used: &[u64], choices: &[ModelId], expected: f64) {
    for settled in [true, false] {
        let world = World::new(limits);
        fill(&world, used, settled);
        let found = fullest(
            &world.snapshot,
            &world.key,
            world.user.as_ref(),
            choices,
            Unit::Tokens,
            NOW,
        );
        assert_eq!(found, expected, "{limits:?}");
    }
}

#[test]
fn the_fullest_scope_counts() {
    check(&[], &[], &CHOICES, 0.0);
    for place in ["key", "team", "customer", "user", "global"] {
        check(&[(place, &["1000 tokens/1m"])], &[990], &CHOICES, 99.0);
    }
    let common: &[(_, &[_])] = &[
        ("key", &["100 tokens/1m", "1000 tokens/1h"]),
        ("team", &["100 tokens/1m"]),
        ("global", &["1000 tokens/1m"]),
    ];
    check(common, &[10, 700, 20, 300], &CHOICES, 70.0);
    check(common, &[10, 70, 20, 450], &[], 45.0);
}

#[test]
fn other_units_and_shadows_do_not_count() {
    check(
        &[("key", &["10 requests/1m", "100 tokens/1m", "5 concurrent"])],
        &[9, 30, 5],
        &CHOICES,
        30.0,
    );
    check(
        &[("key", &["100 tokens/1m shadow", "100 tokens/1h"])],
        &[90, 30],
        &CHOICES,
        30.0,
    );
    check(&[("key", &["0 tokens/1m"])], &[0], &CHOICES, 100.0);
}

#[test]
fn of_several_choices_the_emptiest_counts() {
    let [gpt, azure, _] = CHOICES;
    let limits: &[(_, &[_])] = &[
        ("openai", &["100 tokens/1m"]),
        ("azure/gpt", &["100 tokens/1m"]),
        ("gpt", &["100 tokens/1m"]),
        ("demo/azure", &["100 tokens/1m"]),
    ];
    check(limits, &[90, 40, 10, 0], &[gpt], 90.0);
    check(limits, &[90, 40, 10, 0], &[azure], 40.0);
    check(limits, &[90, 40, 10, 0], &[gpt, azure], 40.0);
    check(limits, &[90, 40, 60, 0], &[gpt, azure], 60.0);
    check(limits, &[90, 40, 60, 80], &[gpt, azure], 80.0);
    check(limits, &[90, 40, 60, 95], &[gpt, azure], 90.0);
}
