//! What others send may be anything.

use std::time::Duration;

use proptest::prelude::*;

use super::net::{Net, addr, config, identity};
use crate::membership::identity::{NAME_BYTES, PLACE_BYTES};
use crate::membership::notice::{Intent, Notice};
use crate::membership::wire::{Exchange, Lists};
use crate::membership::{Identity, Membership, MembershipError};

fn lone() -> Membership {
    Membership::new(identity(0, 1), config(vec![addr(1)]), 7, Duration::ZERO)
}

fn lists(from: Identity, members: Vec<foca::Member<Identity>>) -> Vec<u8> {
    let cluster = "tyr".into();
    let notices = Vec::new();
    Exchange::Lists(Lists {
        cluster,
        from,
        members,
        notices,
    })
    .encode()
}

/// Real bytes of all kinds, as a running cluster sends them.
fn real() -> Vec<Vec<u8>> {
    let mut net = Net::new(100);
    net.loss = 0.3;
    net.tracing = true;
    for n in 0..4 {
        net.start(identity(n, 1), vec![addr(0)]);
    }
    net.run(10);
    net.with(1, |membership, _| membership.announce_drain());
    net.with(2, |membership, now| membership.leave(now));
    net.run(5);
    assert!(net.sent.len() > 50);
    net.sent
}

/// Gives all of it to a node, as a datagram, a question and an answer.
fn feed(inputs: &[Vec<u8>]) -> Membership {
    let mut membership = lone();
    let mut now = Duration::ZERO;
    for bytes in inputs {
        now += Duration::from_millis(70);
        membership.datagram(bytes, now);
        let _ = membership.exchange_asked(bytes, now);
        membership.exchange_answered(addr(1), Ok(bytes), now);
        membership.tick(now);
        membership.take_effects();
    }
    membership
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_never_panic(
        inputs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1_500), 1..64)
    ) {
        let membership = feed(&inputs);
        prop_assert_eq!(membership.members().count(), 0);
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let originals = real();
    let damage = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        any::<u8>(),
        any::<bool>(),
    );
    let damages = proptest::collection::vec(damage, 1..64);
    proptest!(ProptestConfig::with_cases(64), |(damages in damages)| {
        let damaged = damages.iter().map(|(which, place, byte, cut)| {
            let mut bytes = which.get(&originals).clone();
            let place = place.index(bytes.len());
            bytes[place] = *byte;
            if *cut {
                bytes.truncate(place);
            }
            bytes
        });
        feed(&damaged.collect::<Vec<_>>());
    });
}

#[test]
fn strangers_are_refused_and_change_nothing() {
    let mut membership = lone();
    let now = Duration::from_secs(1);
    let stranger = Lists {
        cluster: "other".into(),
        from: identity(5, 1),
        members: Vec::new(),
        notices: Vec::new(),
    };
    let asked = membership.exchange_asked(&Exchange::Lists(stranger).encode(), now);
    assert_eq!(asked, Err(MembershipError::OtherCluster));
    let myself = lists(identity(0, 3), Vec::new());
    assert_eq!(
        membership.exchange_asked(&myself, now),
        Err(MembershipError::Ourselves)
    );
    let mut long = identity(5, 1);
    long.name = "x".repeat(NAME_BYTES + 1);
    let asked = membership.exchange_asked(&lists(long, Vec::new()), now);
    assert_eq!(asked, Err(MembershipError::Malformed));
    let nobody = foca::Member::alive(Identity::unknown_at(addr(6)));
    let asked = membership.exchange_asked(&lists(identity(5, 1), vec![nobody]), now);
    assert_eq!(asked, Err(MembershipError::Malformed));
    assert_eq!(membership.members().count(), 0);
    assert_eq!(membership.stats().malformed, 4);
}

#[test]
fn a_list_does_not_kill_a_live_member() {
    let mut net = Net::joined(101, 4);
    let dead = [1, 2].map(|n| foca::Member::down(net.node(n).me().clone()));
    let bytes = lists(identity(8, 1), dead.into());
    net.with(0, |membership, now| {
        membership.exchange_asked(&bytes, now).unwrap();
    });
    net.run(1);
    assert!((1..4).all(|n| {
        net.node(0)
            .by_node(net.node(n).me().node)
            .unwrap()
            .is_live()
    }));
    assert!(net.downs().is_empty());
}

#[test]
fn the_largest_identities_fit_into_packets() {
    let mut net = Net::new(102);
    for n in 0..6 {
        let mut large = identity(n, u64::MAX - 1);
        large.name = format!("{n:0>NAME_BYTES$}");
        large.region = "r".repeat(PLACE_BYTES);
        large.zone = "z".repeat(PLACE_BYTES);
        large.caps = u64::MAX;
        large.bump = u64::MAX / 2;
        net.start(large, vec![addr(0)]);
    }
    net.loss = 0.2;
    net.tcp = false;
    // Without TCP every fact must fit a datagram, next to two or three such identities.
    net.run_until(60, "six know each other", Net::all_up);
    net.run(60);
    net.run_until(30, "no suspicion stays", Net::all_up);
    assert!(net.downs().is_empty(), "{:?}", net.downs());
}

#[test]
fn the_dead_that_are_remembered_are_bounded() {
    let mut membership = lone();
    let mut now = Duration::from_secs(1);
    for round in 0..20_u16 {
        for n in 0..50 {
            let n = 1 + round * 50 + n;
            let from = identity(n, u64::from(n));
            let gone = Notice::new(from.origin(), Intent::Leave);
            let bytes = Exchange::Lists(Lists {
                cluster: "tyr".into(),
                from,
                members: Vec::new(),
                notices: vec![gone],
            });
            now += Duration::from_millis(10);
            membership.exchange_asked(&bytes.encode(), now).unwrap();
        }
        membership.tick(now);
        membership.take_effects();
    }
    assert!(membership.members().all(|member| !member.is_live()));
    assert_eq!(membership.members().count(), 256);
    assert!(membership.swim.states().count() <= 256);
    assert!(membership.early_notices.len() <= 256);
    assert!(membership.stats().forgotten > 0);
}
