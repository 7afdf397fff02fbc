//! How long until every node counts what one has admitted.

use std::time::Duration;

use super::super::load::{Bearer, LimitSpec, Request};
use super::super::world::World;
use super::{Extent, FORMED, LIMIT, Tables, calm, head, line, per_minute, requests};

pub(super) fn convergence(extent: &Extent<'_>, text: &mut Tables<'_>) {
    head(
        text,
        "From an admission at one node to its being counted at every node",
        &["nodes", "counter", "p50", "p99", "worst", "samples"],
    );
    for nodes in extent.nodes {
        for (name, limit, filled) in [
            ("far from its limit", 1_000_000, 0),
            ("within 5 % of it", 4_000, 3_800),
        ] {
            let mut times = Vec::new();
            for seed in extent.seeds {
                let limits = vec![
                    per_minute(0, LIMIT),
                    LimitSpec::hourly(Bearer::Key(1), limit),
                ];
                let mut world = calm(*seed, *nodes, requests(20.0, 1, limits), 0.0);
                world.run_until(FORMED);
                for _ in 0..filled {
                    world.arrive(0, probe());
                }
                world.run_until(FORMED * 2);
                for sample in 0..60 / extent.shorter.min(20) {
                    times.push(spread(&mut world, sample as usize % nodes));
                }
                assert_eq!(world.violation, None, "seed {seed}, {nodes} nodes");
            }
            times.sort();
            line(
                text,
                format_args!(
                    "| {nodes} | {name} | {:?} | {:?} | {:?} | {} |",
                    times[times.len() / 2],
                    times[times.len() * 99 / 100],
                    times[times.len() - 1],
                    times.len(),
                ),
            );
        }
    }
}

fn probe() -> Request {
    Request {
        key: 1,
        predicted: 10,
        most: 10,
        used: 10,
        open_for: Duration::from_millis(1),
    }
}

/// Admits one request and waits until every node counts it.
fn spread(world: &mut World, node: usize) -> Duration {
    let pause = world
        .chance
        .time(Duration::from_millis(300), Duration::from_millis(1_300));
    world.run_until(world.now() + pause);
    let total = |world: &World, node: usize| {
        let wall = world.nodes[node].time(world.now()).wall;
        let process = world.nodes[node].process.as_ref();
        process.map_or(0, |process| process.gateway.counters[1].total(wall))
    };
    let began = world.now();
    world.arrive(node, probe());
    let wanted = total(world, node);
    while (0..world.nodes.len()).any(|node| total(world, node) < wanted) {
        let next = world.now() + Duration::from_millis(1);
        world.run_until(next);
        assert!(
            world.now() - began < Duration::from_secs(10),
            "never counted everywhere"
        );
    }
    world.now() - began
}
