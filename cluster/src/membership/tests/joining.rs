//! Every member learns of every other, however the cluster came to be.

use std::time::Duration;

use super::net::{Host, Net, addr, identity};
use crate::core::MemberState;
use crate::data_dir::NodeKey;
use crate::membership::Identity;
use crate::membership::MembershipEffect;

#[test]
fn nodes_join_by_one_seed() {
    let mut net = Net::new(1);
    for n in 0..5 {
        net.start(identity(n, 1), vec![addr(0)]);
    }
    let took = net.run_until(5, "five nodes know each other", Net::all_up);
    assert!(took < Duration::from_secs(3), "it took {took:?}");
    net.run(2);
    assert!((0..5).all(|n| net.node(n).members().any(|member| member.listed_us_back)));
    assert!((0..5).all(|n| net.node(n).seeds_settled()));
    let ups = net.told.iter();
    let ups = ups
        .filter(|(.., effect)| matches!(effect, MembershipEffect::Up(_)))
        .count();
    assert_eq!(ups, 20, "each of five is told of four others, once");
}

#[test]
fn a_node_that_comes_late_joins_by_any_member() {
    let mut net = Net::joined(2, 4);
    net.start(identity(4, 9), vec![addr(3)]);
    let took = net.run_until(5, "the fifth is known to all", Net::all_up);
    assert!(took < Duration::from_secs(3), "it took {took:?}");
}

#[test]
fn nodes_join_where_no_datagram_arrives() {
    let mut net = Net::new(3);
    net.udp = false;
    for n in 0..5 {
        net.start(identity(n, 1), vec![addr(0)]);
    }
    net.run_until(20, "five nodes know each other over TCP", Net::all_up);
    net.told.clear();
    net.run(180);
    assert!(net.all_up(), "they stay members: {}", net.states());
    assert!(net.downs().is_empty(), "nobody was down: {:?}", net.downs());
    assert!(net.node(1).peers_over_tcp() > 0);
    net.udp = true;
    net.run(240);
    assert!(net.all_up());
    assert_eq!(net.node(1).peers_over_tcp(), 0, "UDP is used again");
}

#[test]
fn seeds_are_settled_when_they_refused_or_were_silent() {
    let mut net = Net::new(4);
    net.start(identity(0, 1), vec![addr(0), addr(1), addr(2)]);
    net.start(identity(1, 1), vec![]);
    net.set(1, Host::Refusing);
    net.run(1);
    assert!(
        !net.node(0).seeds_settled(),
        "one seed is silent for a second only"
    );
    net.run(3);
    assert!(net.node(0).seeds_settled());
    assert!(!net.node(0).members().any(|member| member.listed_us_back));
}

#[test]
fn a_split_start_heals_although_seeds_stay_away() {
    let mut net = Net::new(5);
    // Each half was started by one of its own, and knows of the other half only by seeds.
    let absent = addr(90);
    for n in 0..6 {
        net.start(identity(n, 1), vec![addr(0), addr(3), absent]);
    }
    net.island = (3..6).map(addr).collect();
    net.run(60);
    assert!(
        net.node(0)
            .members()
            .all(|member| member.identity.node <= NodeKey(3))
    );
    assert_eq!(net.node(0).members().count(), 2);
    net.island.clear();
    let took = net.run_until(45, "both halves are one", Net::all_up);
    assert!(took < Duration::from_secs(45), "it took {took:?}");
}

#[test]
fn a_long_split_heals_without_a_restart() {
    let mut net = Net::joined(6, 6);
    net.island = (3..6).map(addr).collect();
    net.run(3_600);
    for (n, other) in [(0, 3), (3, 0), (2, 5), (5, 2)] {
        assert_eq!(
            net.state(n, other),
            Some(MemberState::Down),
            "{n} of {other}"
        );
    }
    for (n, other) in [(0, 2), (3, 5)] {
        assert_eq!(net.state(n, other), Some(MemberState::Up), "{n} of {other}");
    }
    net.told.clear();
    net.island.clear();
    net.run_until(90, "both sides are one", Net::all_up);
    assert!(
        net.downs().is_empty(),
        "healing takes nobody down: {:?}",
        net.downs()
    );
}

#[test]
fn a_split_of_nodes_without_common_seeds_heals() {
    let mut net = Net::joined(7, 2);
    net.with(0, |membership, _| membership.set_seeds(&[]));
    net.with(1, |membership, _| membership.set_seeds(&[]));
    net.island = [addr(1)].into();
    net.run(300);
    assert_eq!(net.state(0, 1), Some(MemberState::Down));
    net.island.clear();
    net.run_until(30, "two nodes alone find each other again", Net::all_up);
}

#[test]
fn a_hundred_nodes_all_know_all() {
    let mut net = Net::new(8);
    for n in 0..100 {
        net.start(identity(n, 1), vec![addr(0), addr(1)]);
    }
    let took = net.run_until(40, "a hundred know each other", Net::all_up);
    net.told.clear();
    net.run(30);
    assert!(net.all_up(), "all-know-all came after {took:?}");
    assert!(net.downs().is_empty());
    let stats = net.node(50).stats();
    assert!(stats.malformed == 0, "{stats:?}");
}

#[test]
fn the_later_of_two_nodes_with_one_name_is_told() {
    let mut net = Net::joined(10, 3);
    let mut twin = identity(3, 5);
    twin.name = "node-1".into();
    net.start(twin, vec![addr(0)]);
    net.run(5);
    let first = net.node(1).me().origin();
    assert_eq!(net.node(3).name_taken_by(), Some(first));
    assert_eq!(
        net.node(1).name_taken_by(),
        None,
        "who came first keeps its name"
    );
    let told = net.told.iter().filter(|(_, at, effect)| {
        *at == addr(3) && matches!(effect, MembershipEffect::NameTaken { by, name } if *by == first && name == "node-1")
    });
    assert_eq!(told.count(), 1);
    net.set(1, Host::Refusing);
    net.run_until(15, "the name is free", |net| {
        net.node(3).name_taken_by().is_none()
    });
}

/// Node 1 again, at another address.
fn copied(boot: u64) -> Identity {
    Identity {
        addr: addr(3),
        ..identity(1, boot)
    }
}

#[test]
fn two_processes_with_one_key_are_both_told() {
    let mut net = Net::joined(11, 3);
    net.start(copied(5), vec![addr(0)]);
    let twins = |net: &Net| {
        let of = |n| net.node(n).twin().map(|twin| (twin.addr, twin.is_first));
        (of(1), of(3))
    };
    net.run_until(30, "both are told", |net| {
        twins(net) == (Some((addr(3), false)), Some((addr(1), true)))
    });
    net.run(60);
    let both = (Some((addr(3), false)), Some((addr(1), true)));
    assert_eq!(twins(&net), both, "as long as both live");
    assert_eq!((net.node(0).twin(), net.node(2).twin()), (None, None));
    net.set(3, Host::Refusing);
    net.run_until(90, "one is left", |net| twins(net).0.is_none());
}

#[test]
fn a_node_that_was_moved_has_no_twin() {
    let mut net = Net::joined(12, 3);
    net.set(1, Host::Silent);
    net.start(copied(5), vec![addr(0)]);
    for _ in 0..60 {
        net.run(1);
        assert_eq!(net.node(3).twin(), None);
    }
    // Nor one that follows a process which has left.
    let mut net = Net::joined(13, 3);
    net.with(1, |membership, now| membership.leave(now));
    net.start(copied(5), vec![addr(0)]);
    net.run(60);
    assert_eq!((net.node(1).twin(), net.node(3).twin()), (None, None));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut net = Net::new(seed);
        net.tracing = true;
        net.loss = 0.1;
        for n in 0..8 {
            net.start(identity(n, 1), vec![addr(0)]);
        }
        net.run(20);
        net.set(3, Host::Refusing);
        net.set(4, Host::Paused);
        net.run(20);
        net.set(4, Host::Running);
        net.run(20);
        net.trace
    };
    let first = trace(11);
    assert!(first.len() > 1_000);
    assert_eq!(first, trace(11));
    assert_ne!(first, trace(12));
}
