//! Members that say what is not so.

use super::*;

impl Bench {
    fn frame_of(&mut self, link: u64, node: u128, frame: Frame) -> Vec<Effect> {
        let node = NodeKey(node);
        self.tell(Input::Frame { link, node, frame })
    }

    /// Makes what is counted here `used`.
    fn count(&self, used: u64) {
        let WireCell {
            epoch, expires_at, ..
        } = self.cell(0, used, 0);
        self.table.raise(&[policy::Cell {
            counter: COUNTER.to_owned(),
            epoch,
            amount: used,
            expires_at,
        }]);
    }
}

fn cells_of(effects: &[Effect], of: Origin) -> usize {
    let batches = frames(effects).into_iter().filter_map(|frame| match frame {
        Frame::Cells(batch) if batch.origin == of => Some(batch.cells.len()),
        _ => None,
    });
    batches.sum()
}

#[test]
fn nobody_is_believed_about_a_member_that_speaks_for_itself() {
    let mut bench = Bench::serving();
    let honest = origin(2, 20);
    bench.link(5, honest);
    bench.link(6, origin(3, 30));
    let forged = bench.cells(honest, u64::MAX, vec![bench.cell(u64::MAX, 1_000, 1_000)]);
    bench.frame_of(6, 3, forged);
    assert_eq!(bench.total(), 0);
    // Nor does it keep the true ones away.
    let cells = bench.cells(honest, 3, vec![bench.cell(3, 7, 0)]);
    bench.frame(5, cells);
    assert_eq!(bench.total(), 7);
    let acks = bench.pass(20);
    assert!(frames(&acks).contains(&&Frame::Ack(vec![(honest, 3)])));
    // Once it is gone others may tell what it said last.
    bench.tell(Input::LinkDown {
        link: 5,
        node: NodeKey(2),
    });
    let last = bench.cells(honest, 4, vec![bench.cell(4, 8, 0)]);
    bench.frame_of(6, 3, last);
    assert_eq!(bench.total(), 8);
}

#[test]
fn what_others_told_of_a_member_that_spoke_for_itself_is_no_part_of_what_is_here() {
    let mut bench = Bench::serving();
    let dead = origin(2, 20);
    bench.link(5, dead);
    bench.link(6, origin(3, 30));
    let declined = bench.cells(dead, 4, vec![bench.cell(4, 7, 0)]);
    bench.frame_of(6, 3, declined);
    let acks = bench.pass(20);
    assert!(frames(&acks).contains(&&Frame::Ack(vec![(dead, 4)])));
    bench.tell(Input::LinkDown {
        link: 5,
        node: NodeKey(2),
    });
    // It is told from the beginning, of which this is a part.
    let Frame::Cells(whole) = bench.cells(dead, 4, vec![bench.cell(2, 7, 0)]) else {
        unreachable!("cells are cells");
    };
    let part = Frame::Cells(CellBatch { to_ver: 2, ..whole });
    bench.frame_of(6, 3, part);
    let acks = bench.pass(20);
    assert!(frames(&acks).contains(&&Frame::Ack(vec![(dead, 2)])));
}

#[test]
fn a_peer_that_claims_to_have_more_than_there_is_is_told_all_the_same() {
    let mut bench = Bench::serving();
    let me = origin(1, 10);
    bench.link(5, origin(2, 20));
    bench.count(1);
    bench.pass(200);
    let claimed = Frame::Digest(vec![(me, u64::MAX)]);
    bench.frame(5, claimed);
    assert_eq!(cells_of(&bench.pass(200), me), 1);
    bench.frame(5, Frame::Ack(vec![(me, u64::MAX)]));
    bench.count(2);
    assert_eq!(cells_of(&bench.pass(200), me), 1);
}

#[test]
fn a_node_that_has_the_key_of_another_one_but_not_its_name_gets_no_link() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    let mut hello = bench.core.hello();
    hello.origin = origin(2, 21);
    hello.name = "node-3".to_owned();
    let refused = bench.tell(Input::LinkUp { link: 6, hello });
    assert!(matches!(refused[..], [Effect::CloseLink { link: 6 }]));
    let ping = Frame::Ping {
        number: 1,
        sent: Duration::ZERO,
    };
    assert_eq!(frames(&bench.frame(5, ping)).len(), 1);
}

#[test]
fn a_cell_stays_no_longer_than_its_window() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    let cell = WireCell {
        expires_at: Timestamp::NEVER,
        ..bench.cell(1, 5, 0)
    };
    let batch = bench.cells(origin(2, 20), 1, vec![cell]);
    bench.frame(5, batch);
    assert_eq!(bench.core.view(bench.now()).figures.cells, 1);
    bench.pass(120_000);
    assert_eq!(bench.core.view(bench.now()).figures.cells, 0);
}

#[test]
fn peers_that_ask_and_ask_have_one_question_at_the_store() {
    let mut bench = Bench::serving();
    for node in [2, 3, 4] {
        bench.link(node, origin(u128::from(node), 20));
    }
    let asked = |effects: &[Effect]| -> Vec<u64> {
        let asked = effects.iter().filter_map(|effect| match effect {
            Effect::Store(StoreRequest::EntitiesSince { after }) => Some(*after),
            _ => None,
        });
        asked.collect()
    };
    let told = |effects: &[Effect]| {
        let frames = frames(effects).into_iter();
        frames
            .filter(|frame| matches!(frame, Frame::Entities(_)))
            .count()
    };
    let wants = |bench: &mut Bench, link, after| {
        let (node, frame) = (NodeKey(u128::from(link)), Frame::EntitiesWanted { after });
        asked(&bench.tell(Input::Frame { link, node, frame }))
    };
    assert_eq!(wants(&mut bench, 2, 7), [7]);
    for _ in 0..100 {
        assert_eq!(wants(&mut bench, 2, 7), Vec::<u64>::new());
    }
    assert_eq!(wants(&mut bench, 3, 7), Vec::<u64>::new());
    assert_eq!(wants(&mut bench, 4, 9), Vec::<u64>::new());
    let answer = |after, result| Input::Store(StoreReply::EntitiesSince { after, result });
    let entity = crate::entity::Entity {
        kind: "team".to_owned(),
        name: "a".to_owned(),
        revision: 10,
        body: None,
        changed_at: Timestamp(1),
    };
    let effects = bench.tell(answer(7, Ok(vec![entity])));
    assert_eq!(
        (told(&effects), asked(&effects)),
        (2, vec![9]),
        "both, and the next"
    );
    let effects = bench.tell(answer(9, Err(())));
    assert_eq!((told(&effects), asked(&effects)), (0, vec![]));
    assert_eq!(wants(&mut bench, 4, 9), [9], "it asks again");
}

#[test]
fn revocations_that_never_come_into_force_take_a_bounded_place() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    for number in 0..5_000_u128 {
        let revocations = vec![Revocation {
            hash: "never".to_owned(),
            change: change(),
        }];
        let id = MessageId(number);
        bench.frame(5, Frame::Revocations { id, revocations });
    }
    let applied = bench.order(Command::RevocationApplied {
        hash: "never".to_owned(),
    });
    let answers = frames(&applied);
    assert!(answers.len() < 5_000, "{}", answers.len());
    assert!(answers.contains(&&Frame::Received(MessageId(4_999))));
}
