//! What is foreseen is what happens, and takes nothing.

use crate::admit::{admit, foresee};
use crate::testing::{NOW, World, candidates, demand};
use crate::verdict::Verdict;

/// Asks until the world is full, and compares each answer with what was
/// foreseen of it.
#[track_caller]
fn check(limits: &[(&'static str, &[&str])], fills: usize) {
    let world = World::new(limits);
    let candidates = candidates(&demand());
    let mut held = Vec::new();
    for round in 0..=fills {
        let before = world.levels(NOW);
        let user = world.user.as_ref();
        let foreseen = foresee(&world.snapshot, &world.key, user, &candidates, NOW);
        assert_eq!(world.levels(NOW), before, "nothing is taken");
        let looked_at =
            foreseen.common.len() + foreseen.choices.iter().map(Vec::len).sum::<usize>();
        assert!(looked_at >= world.limits().count(), "{looked_at}");
        match (
            admit(&world.snapshot, &world.key, user, &candidates, NOW),
            foreseen.outcome,
        ) {
            (Verdict::Admit(admitted), Ok(chosen)) => {
                assert_eq!(admitted.chosen, chosen, "round {round}");
                held.push(admitted.reservation);
            }
            (Verdict::Reject(told), Err(foreseen)) => {
                assert_eq!(told, *foreseen, "round {round}");
                assert_eq!(round, fills, "refused too early");
            }
            (told, foreseen) => panic!("round {round}: {told:?}, foreseen {foreseen:?}"),
        }
    }
    assert_eq!(held.len(), fills);
    for reservation in held {
        reservation.release(NOW);
    }
}

#[test]
fn a_common_limit_refuses() {
    check(
        &[("key", &["3 requests/1m"]), ("global", &["9 requests/1m"])],
        3,
    );
    check(&[("team", &["400 tokens/1m"])], 2);
    check(&[("customer", &["499 tokens/1m strict"])], 0);
}

#[test]
fn full_choices_are_passed_over_and_the_first_refuses() {
    check(
        &[
            ("openai/gpt", &["1 requests/1m"]),
            ("demo/azure", &["2 requests/1m"]),
            ("user", &["9 requests/1m"]),
        ],
        3,
    );
}

#[test]
fn shadow_limits_refuse_nothing() {
    check(
        &[
            ("key", &["1 requests/1m shadow"]),
            ("team", &["2 requests/1m"]),
        ],
        2,
    );
}
