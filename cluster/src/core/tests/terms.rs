//! Outcomes that are told under terms that nobody was given, or that are not whole.

use super::*;

fn asks_for_the_row(effects: &[Effect]) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::Store(StoreRequest::ReadTerm { .. })))
}

fn told(bench: &mut Bench, outcome: Outcome) -> Vec<Effect> {
    bench.frame(5, Frame::Outcome(outcome))
}

#[test]
fn an_outcome_of_the_far_future_stops_no_task() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    told(&mut bench, outcome(3, u64::MAX));
    bench.tell(row(Ok(Some(3))));
    bench.tell(Input::LinkDown {
        link: 5,
        node: NodeKey(2),
    });
    bench.pass(10_000);
    bench.tell(term(Ok(Some(5))));
    assert_eq!(duties(&bench.pass(1_000)), [5]);
}

#[test]
fn a_term_that_the_store_never_gave_is_refused() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    let asked = told(&mut bench, outcome(u64::MAX, 10));
    assert!(asks_for_the_row(&asked) && incoming(&asked).is_empty());
    assert!(incoming(&bench.tell(row(Ok(Some(6))))).is_empty());
    // The true one is taken at once, now that its term is known.
    let true_one = told(&mut bench, outcome(6, 11));
    assert_eq!(incoming(&true_one), [&Incoming::Outcome(outcome(6, 11))]);
    assert_eq!(bench.core.view(bench.now()).figures.outcomes_refused, 1);
}

#[test]
fn a_lie_that_was_believed_while_the_store_was_away_is_forgotten() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    told(&mut bench, outcome(u64::MAX, 10));
    let believed = bench.tell(row(Err(())));
    assert_eq!(incoming(&believed).len(), 1);
    told(&mut bench, outcome(6, 11));
    assert!(incoming(&bench.tell(row(Err(())))).is_empty(), "less");
    // It asks until the store is back.
    assert!(asks_for_the_row(&bench.pass(6_000)));
    let back = bench.tell(row(Ok(Some(6))));
    let loads = |effect: &Effect| matches!(effect, Effect::Store(StoreRequest::LoadOutcomes));
    assert!(back.iter().any(loads), "{back:?}");
    let kept = Input::Store(StoreReply::LoadOutcomes(Ok(vec![outcome(6, 11)])));
    assert_eq!(
        incoming(&bench.tell(kept)),
        [&Incoming::Outcome(outcome(6, 11))]
    );
}

#[test]
fn a_smaller_term_makes_the_known_one_doubted() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    told(&mut bench, outcome(50, 10));
    bench.tell(row(Ok(Some(50))));
    // The database was restored from a copy: its terms begin again.
    for _ in 0..3 {
        bench.pass(2_000);
        bench.frame(5, Frame::Drain);
    }
    assert!(asks_for_the_row(&told(&mut bench, outcome(4, 20))));
    let taken = bench.tell(row(Ok(Some(4))));
    assert_eq!(incoming(&taken), [&Incoming::Outcome(outcome(4, 20))]);
}

#[test]
fn a_term_that_was_given_after_the_question_is_asked_for_again() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    told(&mut bench, outcome(5, 10));
    bench.pass(10);
    assert!(!asks_for_the_row(&told(&mut bench, outcome(6, 11))));
    let again = bench.tell(row(Ok(Some(5))));
    assert!(asks_for_the_row(&again), "{again:?}");
    let taken = bench.tell(row(Ok(Some(6))));
    assert_eq!(incoming(&taken), [&Incoming::Outcome(outcome(6, 11))]);
}

#[test]
fn a_node_that_holds_a_term_forgets_larger_ones() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    told(&mut bench, outcome(u64::MAX, WALL));
    bench.tell(row(Err(())));
    bench.tell(Input::LinkDown {
        link: 5,
        node: NodeKey(2),
    });
    bench.pass(10_000);
    bench.tell(term(Ok(Some(5))));
    assert_eq!(duties(&bench.pass(1_000)), [5]);
    let done = bench.order(Command::TaskDone(outcome(5, WALL + 1)));
    assert!(!done.is_empty());
}

#[test]
fn an_outcome_that_is_not_what_its_hash_says_is_refused() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    let other = Outcome {
        body: Arc::from(*b"[]"),
        ..outcome(6, 10)
    };
    assert!(told(&mut bench, other).is_empty());
    assert!(bench.tell(row(Ok(Some(6)))).is_empty());
    assert_eq!(bench.core.view(bench.now()).figures.outcomes_refused, 1);
}

#[test]
fn outcomes_of_invented_tasks_take_a_bounded_place() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    let mut taken = 0;
    for number in 0..2_000 {
        let task = format!("invented-{number}");
        let invented = Outcome {
            task: task.clone(),
            ..outcome(1, 1)
        };
        told(&mut bench, invented);
        let answer = bench.tell(Input::Store(StoreReply::ReadTerm {
            scope: "cluster".to_owned(),
            task,
            result: Err(()),
        }));
        taken += incoming(&answer).len();
    }
    assert!(taken < 1_000, "{taken}");
}
