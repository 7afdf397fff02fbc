//! Round trips that a diagnosis makes.

use super::fleet::Fleet;
use super::*;

const CHANNELS: [&str; 3] = ["udp", "tcp", "grpc"];

fn asked(fleet: &mut Fleet, id: u64) -> u64 {
    fleet.order(0, Command::Diagnose { id });
    fleet.ms
}

/// What a diagnosis found out about the ways to a node, and after how many milliseconds.
fn ways(fleet: &Fleet, id: u64, since: u64, node: &str) -> Vec<(u64, Diagnosis)> {
    let found = fleet.diagnosed.iter().filter(|(_, of, _)| *of == id);
    let found = found.filter_map(|(at, _, found)| Some((at - since, found.clone()?)));
    let ways = found.filter(|(_, found)| found.node == node && CHANNELS.contains(&found.check));
    ways.collect()
}

fn way(fleet: &Fleet, id: u64, since: u64, node: &str, check: &str) -> (u64, Diagnosis) {
    let mut ways = ways(fleet, id, since, node).into_iter();
    ways.find(|(_, found)| found.check == check).expect(check)
}

/// When it ended, after how many milliseconds; it ends once, and nothing comes afterwards.
fn ended(fleet: &Fleet, id: u64, since: u64) -> Option<u64> {
    let mut of = fleet.diagnosed.iter().filter(|(_, of, _)| *of == id);
    let end = of.by_ref().find(|(.., found)| found.is_none())?;
    assert!(of.next().is_none(), "{:?}", fleet.diagnosed);
    Some(end.0 - since)
}

#[test]
fn each_channel_to_each_member_is_measured_and_told_when_its_answer_comes() {
    let mut fleet = Fleet::whole(3);
    let since = asked(&mut fleet, 1);
    let known: Vec<&str> = fleet
        .diagnosed
        .iter()
        .map(|(.., found)| found.as_ref().expect("not its end").check)
        .collect();
    assert!(known.contains(&"gossip") && !known.iter().any(|check| CHANNELS.contains(check)));
    fleet.pass(100);
    for node in ["n2", "n3"] {
        assert_eq!(ways(&fleet, 1, since, node).len(), CHANNELS.len());
        for channel in CHANNELS {
            let (after, found) = way(&fleet, 1, since, node, channel);
            assert!(found.ok && after > 0, "{found:?}");
            let took = found.took.expect("measured");
            assert!(took.as_millis() <= 30, "{found:?}");
        }
    }
    assert!(ended(&fleet, 1, since).is_some_and(|after| after <= 40));
}

#[test]
fn who_does_not_answer_is_told_after_two_seconds_and_the_others_before() {
    let mut fleet = Fleet::whole(3);
    fleet.side[1] = 1;
    let since = asked(&mut fleet, 1);
    fleet.pass(3_000);
    for (channel, detail) in [
        ("udp", "no answer to 3 datagrams"),
        ("tcp", "no answer from"),
        ("grpc", "no answer over the stream"),
    ] {
        let (after, found) = way(&fleet, 1, since, "n2", channel);
        assert!(!found.ok && found.took.is_none(), "{found:?}");
        assert!(found.detail.starts_with(detail), "{found:?}");
        assert!((2_000..2_100).contains(&after), "{after}");
        assert!(way(&fleet, 1, since, "n3", channel).0 <= 40);
    }
    assert!(ended(&fleet, 1, since).is_some_and(|after| after < 2_100));
}

#[test]
fn a_lost_datagram_is_sent_again_and_the_round_trip_is_of_the_answered_one() {
    let mut fleet = Fleet::whole(2);
    fleet.side[1] = 1;
    let since = asked(&mut fleet, 1);
    fleet.pass(300);
    fleet.side[1] = 0;
    fleet.pass(2_500);
    let (after, found) = way(&fleet, 1, since, "n2", "udp");
    assert!((500..700).contains(&after), "{after}");
    assert!(found.ok && found.detail.ends_with("2 datagrams sent"));
    assert!(found.took.is_some_and(|took| took.as_millis() <= 30));
    for channel in ["tcp", "grpc"] {
        assert!(!way(&fleet, 1, since, "n2", channel).1.ok, "{channel}");
    }
}

#[test]
fn a_refused_exchange_is_told_at_once_and_one_that_broke_off_may_be_an_older_one() {
    let mut fleet = Fleet::whole(2);
    fleet.side[1] = 1;
    let since = asked(&mut fleet, 1);
    let to = SocketAddr::from(([127, 0, 0, 1], 2));
    for (failure, told) in [
        (ExchangeFailure::TimedOut, false),
        (ExchangeFailure::Broken, false),
        (ExchangeFailure::Refused, true),
    ] {
        let result = Err(failure);
        let effects = fleet.nodes[0].tell(Input::ExchangeAnswered { to, result });
        let is_told = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Diagnosed { diagnosis, .. } if !diagnosis.ok && diagnosis.check == "tcp"));
        assert_eq!(is_told, told, "{failure:?}");
    }
    fleet.pass(2_100);
    assert_eq!(ways(&fleet, 1, since, "n2").len(), 2, "not told again");
    assert!(ended(&fleet, 1, since).is_some());
}

#[test]
fn diagnoses_are_few_at_a_time_and_end_when_the_node_leaves() {
    let mut fleet = Fleet::whole(2);
    fleet.side[1] = 1;
    for id in 1..=5 {
        asked(&mut fleet, id);
    }
    let of_five = fleet.diagnosed.iter().filter(|(_, id, _)| *id == 5);
    let of_five: Vec<_> = of_five.map(|(.., found)| found.clone()).collect();
    let [Some(refused), None] = &of_five[..] else {
        panic!("{of_five:?}")
    };
    assert!(!refused.ok && refused.check == "diagnosis");
    fleet.pass(2_100);
    assert!((1..=4).all(|id| ended(&fleet, id, 0).is_some()));

    let since = asked(&mut fleet, 6);
    assert_eq!(ended(&fleet, 6, since), None);
    fleet.leave(0);
    assert!(ended(&fleet, 6, since).is_some());
    let (_, found) = way(&fleet, 6, since, "n2", "udp");
    assert!(!found.ok && found.detail == "this node leaves");
}
