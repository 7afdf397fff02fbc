//! What is asked for again, and when.

use super::*;

fn loads(effects: &[Effect]) -> usize {
    let loads = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Store(StoreRequest::LoadCells)));
    loads.count()
}

fn loaded() -> Input {
    Input::Store(StoreReply::LoadCells(Ok(Vec::new())))
}

/// After which revisions a peer was asked.
fn wanted(effects: &[Effect]) -> Vec<u64> {
    let wanted = frames(effects).into_iter().filter_map(|frame| match frame {
        Frame::EntitiesWanted { after } => Some(*after),
        _ => None,
    });
    wanted.collect()
}

fn entity(revision: u64) -> crate::entity::Entity {
    crate::entity::Entity {
        kind: "team".to_owned(),
        name: "a".to_owned(),
        revision,
        body: None,
        changed_at: Timestamp(1),
    }
}

fn page(after: u64, last: u64) -> Frame {
    Frame::Entities(crate::message::EntityBatch {
        id: MessageId(u128::from(last)),
        after,
        entities: vec![entity(last)],
    })
}

fn is_ready(bench: &Bench) -> bool {
    bench.core.view(bench.now()).caught_up
}

#[test]
fn a_second_death_gets_its_own_look_at_the_store() {
    let mut bench = Bench::serving();
    let ms = Duration::from_millis;
    let began = bench.ms;
    for after in [5_000, 9_000] {
        bench.core.flush.reload_at(ms(began + after));
    }
    // What comes unasked answers none of them.
    bench.tell(loaded());
    assert_eq!(loads(&bench.pass(4_900)), 0);
    assert_eq!(loads(&bench.pass(200)), 1);
    bench.tell(loaded());
    assert_eq!(loads(&bench.pass(3_800)), 0);
    assert_eq!(loads(&bench.pass(200)), 1);
    bench.tell(loaded());
    assert_eq!(loads(&bench.pass(20_000)), 0);
}

#[test]
fn one_look_answers_for_a_death_before_it_and_not_for_a_later_one() {
    let mut bench = Bench::serving();
    let ms = Duration::from_millis;
    let began = bench.ms;
    bench.core.flush.reload_at(ms(began + 1_000));
    assert_eq!(loads(&bench.pass(1_100)), 1);
    // The store is slow, and meanwhile somebody else dies.
    bench.core.flush.reload_at(ms(began + 3_000));
    bench.tell(loaded());
    assert_eq!(loads(&bench.pass(1_500)), 0);
    assert_eq!(loads(&bench.pass(500)), 1);
    bench.tell(Input::Store(StoreReply::LoadCells(Err(()))));
    assert_eq!(loads(&bench.pass(1_100)), 1, "it failed");
}

#[test]
fn a_revocation_that_found_no_room_is_handed_on_when_it_is_told_again() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    let told = |id| Frame::Revocations {
        id: MessageId(id),
        revocations: vec![Revocation {
            hash: "x".to_owned(),
            change: change(),
        }],
    };
    assert_eq!(incoming(&bench.frame(5, told(1))).len(), 1);
    // Nobody says that it is in force.
    assert_eq!(incoming(&bench.frame(5, told(2))).len(), 1);
    bench.order(Command::RevocationApplied {
        hash: "x".to_owned(),
    });
    assert_eq!(incoming(&bench.frame(5, told(3))).len(), 0);
}

#[test]
fn the_next_page_of_entities_is_asked_for_as_soon_as_one_was_read() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    bench.frame(5, Frame::Applied { revision: 2_000 });
    assert_eq!(wanted(&bench.pass(600)), [0]);
    for (after, last) in [(0, 512), (512, 1_024), (1_024, 1_536)] {
        bench.frame(5, page(after, last));
        assert_eq!(wanted(&bench.pass(100)), Vec::<u64>::new(), "not read yet");
        bench.tell(Input::EntitiesRead { revision: last });
        assert_eq!(wanted(&bench.pass(100)), [last]);
    }
    bench.frame(5, page(1_536, 2_000));
    bench.tell(Input::EntitiesRead { revision: 2_000 });
    assert_eq!(wanted(&bench.pass(1_000)), Vec::<u64>::new());
}

#[test]
fn what_was_read_and_does_not_fit_here_is_not_asked_for_again() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    bench.frame(5, Frame::Applied { revision: 7 });
    assert_eq!(wanted(&bench.pass(600)), [0]);
    bench.frame(5, page(0, 7));
    // It is never said to be applied.
    bench.tell(Input::EntitiesRead { revision: 7 });
    assert_eq!(wanted(&bench.pass(4_000)), Vec::<u64>::new());
    bench.frame(5, Frame::Applied { revision: 8 });
    assert_eq!(wanted(&bench.pass(600)), [7]);
}

#[test]
fn a_node_does_not_serve_by_older_entities_than_its_peers_unless_for_too_long() {
    for comes in [true, false] {
        let mut bench = Bench::new();
        bench.tell(Input::Store(StoreReply::LoadCells(Err(()))));
        bench.order(Command::Applied { revision: 3 });
        bench.pass(100);
        bench.link(5, origin(2, 20));
        bench.frame(5, Frame::Applied { revision: 7 });
        bench.frame(5, Frame::CaughtUp);
        bench.pass(2_000);
        assert!(!is_ready(&bench));
        if comes {
            bench.order(Command::Applied { revision: 7 });
        } else {
            bench.frame(5, Frame::CaughtUp);
            bench.pass(4_000);
            bench.frame(5, Frame::CaughtUp);
            bench.pass(3_900);
            assert!(!is_ready(&bench));
        }
        bench.pass(100);
        assert!(is_ready(&bench));
    }
}
