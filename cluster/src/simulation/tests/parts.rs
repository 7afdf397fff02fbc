//! Whether the simulator does what it says: time, network and database.

use std::time::Duration;

use policy::Timestamp;

use super::super::agenda::Agenda;
use super::super::chance::Chance;
use super::super::clock::{NodeClock, true_time};
use super::super::database::{Client, Database};
use super::super::links::{Links, MOST_UNDERWAY};
use super::super::weather::{Paths, Weather};
use crate::core::{StoreReply, StoreRequest};
use crate::data_dir::NodeKey;
use crate::message::{Frame, WireCell};
use crate::origin::Origin;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn simulation_time_passes_in_order() {
    let mut agenda = Agenda::new();
    agenda.at(SECOND * 2, 'c');
    agenda.at(SECOND, 'a');
    agenda.at(SECOND, 'b');
    assert_eq!(agenda.next(SECOND * 3), Some('a'));
    agenda.at(Duration::ZERO, 'A');
    assert_eq!(agenda.now(), SECOND);
    let rest: Vec<_> = std::iter::from_fn(|| agenda.next(SECOND * 3)).collect();
    assert_eq!(rest, ['b', 'A', 'c']);
    assert_eq!(agenda.now(), SECOND * 3);
}

#[test]
fn simulation_clocks_drift_and_step() {
    let mut clock = NodeClock::new(500, -5_000);
    let hour = SECOND * 3_600;
    assert_eq!(
        clock.mono(hour, Duration::ZERO),
        hour + Duration::from_millis(1_800)
    );
    clock.step(6_000);
    let ahead = clock.wall(hour).since(true_time(hour));
    assert_eq!(ahead, Duration::from_millis(2_800));
}

#[test]
fn simulation_loses_and_doubles_datagrams() {
    let weather = Weather {
        loss: 0.3,
        twice: 0.1,
        ..Weather::LOCAL
    };
    let mut paths = Paths::new(2, weather);
    let mut chance = Chance::new(1);
    let arrived = |paths: &Paths, chance: &mut Chance| -> usize {
        (0..10_000)
            .map(|_| paths.datagram(0, 1, chance).len())
            .sum()
    };
    let copies = arrived(&paths, &mut chance);
    assert!(
        (7_500..7_900).contains(&copies),
        "{copies} of 11,000 copies"
    );
    paths.cut(0, 1, SECOND);
    assert_eq!(arrived(&paths, &mut chance), 0);
    assert!(!paths.is_cut(1, 0));
    assert_eq!(paths.pair_cut_since(1, 0), Some(SECOND));
    paths.heal();
    assert!(arrived(&paths, &mut chance) > 0);
}

#[test]
fn simulation_links_keep_order_and_are_bounded() {
    let mut links = Links::new(2);
    let link = links.add([0, 1], [1, 1], [NodeKey(1), NodeKey(2)]);
    let mut send = |number, now, delay| {
        let frame = Frame::Applied { revision: number };
        links.send(link, 0, frame, now, delay)
    };
    assert_eq!(send(1, SECOND, SECOND), Ok(Some(SECOND * 2)));
    // Sent later on a faster way, it still comes later.
    assert_eq!(send(2, SECOND, Duration::ZERO), Ok(None));
    for number in 3..=MOST_UNDERWAY as u64 {
        assert_eq!(send(number, SECOND, SECOND * 2), Ok(None));
    }
    assert_eq!(send(0, SECOND, SECOND), Err(()));
    let (arrived, next) = links.arrived(link, 0, SECOND * 2);
    let revisions: Vec<_> = arrived.into_iter().map(|underway| underway.frame).collect();
    assert_eq!(
        revisions,
        [1, 2].map(|revision| Frame::Applied { revision })
    );
    assert_eq!(next, Some(SECOND * 3));
    assert!(links.joined(1, 0));
    assert!(links.remove(link).is_some());
    assert!(!links.joined(1, 0));
}

fn client(node: u128) -> Client {
    Client {
        origin: Origin {
            node: NodeKey(node),
            boot: 1,
        },
        name: format!("node-{node}"),
        region: String::new(),
    }
}

#[test]
fn simulation_database_gives_a_term_once() {
    let mut database = Database::default();
    let mut take = |node, now| {
        let (scope, task) = ("cluster".to_owned(), "prices".to_owned());
        let request = StoreRequest::TakeTerm { scope, task };
        match database.serve(&client(node), request, now) {
            StoreReply::TakeTerm { result, .. } => result.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(take(1, SECOND), Some(1));
    assert_eq!(take(2, SECOND * 20), None);
    assert_eq!(take(2, SECOND * 22), Some(2));
    assert_eq!(take(1, SECOND * 23), None);
}

#[test]
fn simulation_database_cells_only_grow() {
    let mut database = Database::default();
    let me = client(1);
    for used in [5, 7, 6] {
        let cell = WireCell {
            counter: "a".into(),
            epoch: 3,
            ver: 1,
            used,
            held: 2,
            expires_at: Timestamp(u64::MAX),
        };
        let request = StoreRequest::FlushCells(vec![(me.origin, cell)]);
        let _ = database.serve(&me, request, SECOND);
    }
    assert_eq!(database.used(me.origin, &"a".into(), 3), 7);
    assert_eq!(database.cells().count(), 1);
}
