//! How soon a crash is known, and how often a living node is taken for dead.

use std::time::Duration;

use super::super::scenario::Operation;
use super::super::world::World;
use super::{Extent, FORMED, LIMIT, Tables, calm, head, line, per_minute, requests};
use crate::core::MemberState;

/// Parts of datagrams that are lost.
const LOSSES: [f64; 3] = [0.0, 0.05, 0.2];

pub(super) fn crashes(extent: &Extent<'_>, text: &mut Tables<'_>) {
    head(
        text,
        "A crash, until the first and the last other node says down",
        &[
            "nodes",
            "loss",
            "port refuses: first, last",
            "silent: first, last",
            "crashes of each kind",
        ],
    );
    for nodes in extent.nodes {
        for loss in LOSSES {
            let (mut refused, mut silent) = (Vec::new(), Vec::new());
            for seed in extent.seeds {
                let mut world = quiet(*seed, *nodes, loss);
                world.run_until(FORMED * 2);
                let victim = nodes - 1;
                refused.push(downed(&mut world, victim, false));
                world.operate(Operation::Start {
                    node: victim,
                    keeps_key: true,
                });
                world.run_until(world.now() + FORMED * 2);
                silent.push(downed(&mut world, victim, true));
                assert_eq!(world.violation, None, "seed {seed}, {nodes} nodes");
            }
            line(
                text,
                format_args!(
                    "| {nodes} | {:.0} % | {} | {} | {} |",
                    loss * 100.0,
                    range(&refused),
                    range(&silent),
                    silent.len(),
                ),
            );
        }
    }
}

pub(super) fn false_downs(extent: &Extent<'_>, text: &mut Tables<'_>) {
    head(
        text,
        "How often a node took a living one for down",
        &["nodes", "loss", "watched, all seeds", "false downs"],
    );
    for nodes in extent.nodes {
        for loss in LOSSES {
            let lasts = Duration::from_secs(60) / extent.shorter;
            let mut count = 0;
            for seed in extent.seeds {
                let mut world = quiet(*seed, *nodes, loss);
                world.run_until(FORMED * 2);
                count += count_downs(&mut world, lasts);
                assert_eq!(world.violation, None, "seed {seed}, {nodes} nodes");
            }
            let watched = lasts * u32::try_from(extent.seeds.len()).unwrap_or(u32::MAX);
            line(
                text,
                format_args!(
                    "| {nodes} | {:.0} % | {watched:?} | {count} |",
                    loss * 100.0
                ),
            );
        }
    }
}

fn quiet(seed: u64, nodes: usize, loss: f64) -> World {
    calm(
        seed,
        nodes,
        requests(1.0, 1, vec![per_minute(0, LIMIT)]),
        loss,
    )
}

/// Smallest and largest of the first and of the last.
fn range(times: &[(Duration, Duration)]) -> String {
    let span = |of: fn(&(Duration, Duration)) -> Duration| {
        let seconds = times.iter().map(of).map(|time| time.as_secs_f64());
        let (least, most) = seconds.fold((f64::MAX, 0.0_f64), |(least, most), time| {
            (least.min(time), most.max(time))
        });
        format!("{least:.1}-{most:.1} s")
    };
    format!("{}, {}", span(|(first, _)| *first), span(|(_, last)| *last))
}

/// How a node sees another.
fn state(world: &World, node: usize, other: usize) -> Option<MemberState> {
    let key = world.nodes[other].key;
    let process = world.nodes[node].process.as_ref()?;
    let view = process.core.view(world.nodes[node].time(world.now()));
    view.members
        .iter()
        .find(|member| member.key == key)
        .map(|member| member.state)
}

/// Kills a node; tells when the first and the last other one says so.
fn downed(world: &mut World, victim: usize, with_host: bool) -> (Duration, Duration) {
    let began = world.now();
    world.operate(Operation::Crash {
        node: victim,
        with_host,
    });
    let (mut first, mut waiting) = (
        None,
        (0..world.nodes.len())
            .filter(|node| *node != victim)
            .collect::<Vec<_>>(),
    );
    while !waiting.is_empty() && world.now() - began < Duration::from_secs(120) {
        let next = world.now() + Duration::from_millis(50);
        world.run_until(next);
        let before = waiting.len();
        waiting.retain(|node| {
            !matches!(
                state(world, *node, victim),
                None | Some(MemberState::Down | MemberState::Left)
            )
        });
        if waiting.len() < before {
            first.get_or_insert(world.now() - began);
        }
    }
    (first.unwrap_or(Duration::MAX), world.now() - began)
}

/// How often a node takes a living one to be down.
fn count_downs(world: &mut World, lasts: Duration) -> u64 {
    let nodes = world.nodes.len();
    let (end, mut down, mut count) = (world.now() + lasts, vec![false; nodes * nodes], 0);
    while world.now() < end {
        let next = world.now() + Duration::from_millis(500);
        world.run_until(next);
        for node in 0..nodes {
            let process = world.nodes[node].process.as_ref();
            let Some(view) =
                process.map(|process| process.core.view(world.nodes[node].time(world.now())))
            else {
                continue;
            };
            for (other, there) in world.nodes.iter().enumerate() {
                let member = view.members.iter().find(|member| member.key == there.key);
                let is_down = member.is_some_and(|member| member.state == MemberState::Down);
                count += u64::from(is_down && !down[node * nodes + other]);
                down[node * nodes + other] = is_down;
            }
        }
    }
    count
}
