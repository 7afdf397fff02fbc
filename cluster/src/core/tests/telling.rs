//! What is told over a link, and in which portions.

use super::*;
use crate::entity::{Change, Entity};
use crate::membership::{Membership, MembershipConfig, MembershipEffect};

fn change() -> Change {
    let text = String::new;
    Change {
        at: Timestamp(1),
        actor: text(),
        peer: text(),
        action: text(),
        kind: text(),
        name: text(),
        before: None,
        after: None,
    }
}

fn place(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The message and the number of revocations of each frame that has some.
fn told(effects: &[Effect]) -> Vec<(crate::message::MessageId, usize)> {
    let frames = effects.iter().filter_map(|effect| match effect {
        Effect::Frame {
            frame: Frame::Revocations { id, revocations },
            ..
        } => Some((*id, revocations.len())),
        _ => None,
    });
    frames.collect()
}

#[test]
fn a_node_that_comes_is_told_of_revocations_a_part_at_a_time() {
    let mut bench = Bench::serving();
    for number in 0..1_200 {
        let hash = format!("{number:064x}");
        bench.order(Command::Revoke {
            hash,
            change: change(),
        });
    }
    let mut part = told(&bench.link(5, origin(2, 20)));
    let mut all = 0;
    while let Some((id, count)) = part.pop() {
        assert!(part.is_empty(), "one at a time");
        assert!((1..=500).contains(&count), "{count}");
        all += count;
        part = told(&bench.frame(5, Frame::Received(id)));
    }
    assert_eq!(all, 1_200);
    let view = bench.core.view(bench.now());
    assert_eq!(view.revocations.len(), 1_200, "each can be waited for");
}

#[test]
fn a_change_too_large_for_a_link_is_counted() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    let entity = |revision, bytes| Entity {
        kind: "team".to_owned(),
        name: format!("t{revision}"),
        revision,
        body: Some("x".repeat(bytes).into()),
        changed_at: Timestamp(0),
    };
    bench.order(Command::Announce(vec![entity(1, 10)]));
    assert_eq!(bench.core.view(bench.now()).figures.revisions_too_large, 0);
    bench.order(Command::Announce(vec![entity(2, 4 << 20)]));
    assert_eq!(bench.core.view(bench.now()).figures.revisions_too_large, 1);
}

#[test]
fn a_drain_that_came_over_the_link_alone_makes_no_partition() {
    let mut bench = Bench::serving();
    let peer = origin(2, 20);
    let mut config = bench.core.config.clone();
    (config.me, config.name, config.gossip) = (peer, "node-2".to_owned(), place(9));
    let gossip = MembershipConfig {
        suspicion: config.suspicion,
        failure_threshold: config.failure_threshold,
        seeds: vec![place(1)],
        cluster: config.cluster.clone(),
    };
    let mut other = Membership::new(config.identity(), gossip, 3, Duration::ZERO);
    other.tick(Duration::ZERO);
    let asked = other
        .take_effects()
        .into_iter()
        .find_map(|effect| match effect {
            MembershipEffect::Exchange { bytes, .. } => Some(bytes),
            _ => None,
        });
    let (exchange, bytes) = (1, asked.expect("it asks its seed"));
    let bytes = bytes.into();
    bench.tell(Input::ExchangeAsked { exchange, bytes });
    bench.link(5, peer);
    let drains = |bench: &Bench| {
        let member = bench.core.membership.by_node(peer.node);
        member.expect("a member").announced_drain
    };
    assert!(!drains(&bench));
    bench.frame(5, Frame::Drain);
    assert!(drains(&bench), "gossip said nothing");
}
