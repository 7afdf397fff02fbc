//! Who is gone is found out soon, who is not is left alone.

use std::time::Duration;

use super::net::{Host, Net, addr, identity};
use crate::core::MemberState;
use crate::data_dir::NodeKey;
use crate::membership::MembershipEffect;
use crate::origin::Origin;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_crash_is_detected_by_gossip_alone() {
    for seed in 20..26 {
        let mut net = Net::new(seed);
        net.linking = false;
        for n in 0..5 {
            net.start(identity(n, 1), vec![addr(0)]);
        }
        net.run(60);
        net.set(2, Host::Silent);
        let took = net.run_until(12, "all see the crash", |net| net.all_see_down(2));
        assert!(
            took > secs(3),
            "seed {seed}: a silent node is suspected first: {took:?}"
        );
        assert_eq!(net.downs().len(), 4, "each of the others was told, once");
    }
}

#[test]
fn a_refused_port_is_fast_evidence() {
    for (seed, n) in [(30, 2), (31, 3), (32, 5), (33, 10)] {
        let mut net = Net::joined(seed, n);
        net.set(1, Host::Refusing);
        let took = net.run_until(5, "all see the crash", |net| net.all_see_down(1));
        assert!(took < secs(5), "{n} nodes: {took:?}");
        assert_eq!(net.downs().len(), usize::from(n) - 1);
        net.run(30);
        assert_eq!(net.downs().len(), usize::from(n) - 1, "nobody else is down");
    }
}

#[test]
fn a_port_that_answers_once_more_while_its_process_dies_hides_nothing() {
    for seed in [35, 36] {
        let mut net = Net::joined(seed, 3);
        net.linking = false;
        // Its links are gone already, and its kernel still takes connections.
        net.set(1, Host::Paused);
        net.cut(addr(1));
        for _ in 0..10 {
            net.step();
        }
        net.set(1, Host::Refusing);
        let took = net.run_until(5, "all see the crash", |net| net.all_see_down(1));
        assert!(took < secs(2), "{took:?}");
    }
}

#[test]
fn a_silent_node_without_a_link_is_fast_evidence_too() {
    for (seed, n) in [(40, 2), (41, 3), (42, 5), (43, 10), (44, 3), (45, 3)] {
        let mut net = Net::joined(seed, n);
        net.set(1, Host::Silent);
        let took = net.run_until(8, "all see the silence", |net| net.all_see_down(1));
        assert!(took > secs(2) && took < secs(8), "{n} nodes: {took:?}");
        assert_eq!(net.downs().len(), usize::from(n) - 1);
    }
}

#[test]
fn a_closed_link_of_a_living_node_is_no_evidence() {
    let mut net = Net::joined(50, 5);
    net.linking = false;
    net.cut(addr(1));
    net.run(60);
    assert!(net.downs().is_empty(), "{:?}", net.downs());
    assert_eq!(net.state(0, 1), Some(MemberState::Degraded));
    assert_eq!(net.state(0, 2), Some(MemberState::Up));
    net.linking = true;
    net.run(1);
    assert!(net.all_up());
}

#[test]
fn nobody_is_wrongly_down_at_a_fifth_of_packets_lost() {
    // Without links, so that nothing but gossip counts. Then without probes over TCP, so that patience
    // alone helps; then without TCP at all.
    let cases = [
        (60, true, true),
        (61, true, true),
        (62, true, false),
        (63, true, false),
        (64, false, false),
    ];
    for (seed, tcp, wrapping) in cases {
        let mut net = Net::new(seed);
        net.linking = false;
        net.loss = 0.2;
        for n in 0..10 {
            net.start(identity(n, 1), vec![addr(0)]);
        }
        net.run_until(30, "ten know each other", Net::all_up);
        (net.tcp, net.wrapping) = (tcp, wrapping);
        net.told.clear();
        net.run(120);
        assert!(net.downs().is_empty(), "seed {seed}: {:?}", net.downs());
        net.run_until(30, "all are members", Net::all_up);
        assert!(net.node(4).stats().probes_lost > 10, "loss was measured");
        let rejoins: u64 = (0..10).map(|n| net.node(n).stats().rejoins).sum();
        assert_eq!(rejoins, 0, "seed {seed}: gossip took somebody for dead");
    }
}

#[test]
fn a_restart_at_the_same_address_replaces_the_old_process() {
    let mut net = Net::joined(70, 3);
    net.cut(addr(1));
    net.start(identity(1, 2), vec![addr(0)]);
    net.run_until(8, "the new process is known", Net::all_up);
    let node = NodeKey(2);
    for n in [0, 2] {
        let of = |effect: &MembershipEffect| match effect {
            MembershipEffect::Down { origin, .. } => Some((false, *origin)),
            MembershipEffect::Up(origin) => Some((true, *origin)),
            _ => None,
        };
        let told = net.told.iter().filter(|(_, at, _)| *at == addr(n));
        let told: Vec<_> = told.filter_map(|(.., effect)| of(effect)).collect();
        let expected = [
            (false, Origin { node, boot: 1 }),
            (true, Origin { node, boot: 2 }),
        ];
        assert_eq!(told, expected, "node {n}");
    }
}

#[test]
fn a_restart_at_another_address_replaces_the_old_process() {
    let mut net = Net::joined(71, 4);
    net.set(1, Host::Silent);
    let mut moved = identity(1, 2);
    moved.addr = addr(9);
    net.start(moved, vec![addr(0)]);
    net.run_until(8, "the new process is known", |net| {
        let new = |n| {
            net.node(n)
                .by_node(NodeKey(2))
                .is_some_and(|m| m.origin().boot == 2 && m.state == MemberState::Up)
        };
        [0, 2, 3].into_iter().all(new)
    });
    net.run(30);
    assert_eq!(
        net.downs().len(),
        3,
        "the old process, told to three: {:?}",
        net.downs()
    );
}

#[test]
fn a_paused_node_is_evicted_and_comes_back() {
    for seed in 80..84 {
        let mut net = Net::joined(seed, 5);
        net.set(3, Host::Paused);
        net.run_until(15, "the paused node is down", |net| net.all_see_down(3));
        net.run(15);
        net.told.clear();
        net.set(3, Host::Running);
        let took = net.run_until(75, "it is back", Net::all_up);
        assert!(
            net.downs().is_empty(),
            "it takes nobody for dead: {:?}",
            net.downs()
        );
        assert!(took < secs(20), "seed {seed}: {took:?}");
        assert!(net.node(3).local_health() > 0, "it knows that it was late");
    }
}

#[test]
fn who_leaves_is_gone_at_once_and_was_not_lost() {
    for (seed, n) in [(90, 3), (91, 10), (92, 40)] {
        let mut net = Net::joined(seed, n);
        net.with(2, |membership, now| membership.leave(now));
        net.set(2, Host::Refusing);
        let took = net.run_until(2, "all know that it left", |net| net.all_see_down(2));
        assert!(took < secs(1), "{took:?}");
        net.run(30);
        assert_eq!(net.downs().len(), usize::from(n) - 1);
        for (.., effect) in net.downs() {
            assert!(
                matches!(effect, MembershipEffect::Down { left: true, .. }),
                "{effect:?}"
            );
        }
        assert_eq!(net.state(0, 2), Some(MemberState::Left));
        assert_eq!(net.node(2).due(), None);
    }
}

#[test]
fn a_drain_is_told_to_all_even_to_those_that_come_later() {
    let mut net = Net::joined(95, 6);
    net.loss = 0.3;
    net.with(1, |membership, _| membership.announce_drain());
    let drains = |net: &Net, n| {
        let member = net.node(n).by_node(NodeKey(2));
        member.is_some_and(|member| member.announced_drain && member.is_live())
    };
    net.run_until(30, "all know of the drain", |net| {
        [0, 2, 3, 4, 5].iter().all(|n| drains(net, *n))
    });
    net.start(identity(6, 1), vec![addr(4)]);
    net.run_until(20, "the newcomer knows of the drain", |net| drains(net, 6));
}

#[test]
fn who_stands_alone_asks_nobody_and_others_are_asked_first() {
    let mut net = Net::joined(96, 3);
    net.set(1, Host::Refusing);
    net.run(1);
    let about = Origin {
        node: NodeKey(2),
        boot: 1,
    };
    assert!(net.node(0).asked_about(about));
    let stranger = Origin {
        node: NodeKey(77),
        boot: 1,
    };
    assert!(!net.node(0).asked_about(stranger));
    assert!(!net.node(0).asked_about(net.node(2).me().origin()));
    let later = Origin { boot: 2, ..about };
    assert!(
        !net.node(0).asked_about(later),
        "a later process is not judged by an earlier one"
    );

    let mut net = Net::joined(97, 2);
    net.set(1, Host::Refusing);
    let took = net.run_until(5, "it is down", |net| net.all_see_down(1));
    assert!(
        took >= secs(2),
        "with nobody to ask, evidence stands for 2 s first: {took:?}"
    );
}

#[test]
fn a_vote_counts_only_from_a_live_member_about_this_process() {
    let mut net = Net::joined(98, 4);
    // Node 1's port refuses, but no verdict of the others gets through.
    let about = Origin {
        node: NodeKey(2),
        boot: 1,
    };
    net.with(0, |membership, now| {
        membership.link_down(about, now);
        membership.link_probed(about.node, crate::core::ProbeOutcome::Refused, now);
        membership.confirmed(about, NodeKey(99), true, now);
        membership.confirmed(about, about.node, true, now);
        membership.confirmed(Origin { boot: 9, ..about }, NodeKey(3), true, now);
        membership.confirmed(about, NodeKey(3), true, now);
        membership.confirmed(about, NodeKey(4), false, now);
    });
    assert_eq!(
        net.state(0, 1),
        Some(MemberState::Up),
        "one of two is too few"
    );
    net.with(0, |membership, now| {
        membership.confirmed(about, NodeKey(4), true, now)
    });
    assert_eq!(net.state(0, 1), Some(MemberState::Down));
}
