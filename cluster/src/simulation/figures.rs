//! What a cluster costs and how well it holds its limits, measured on simulated ones where nothing
//! goes wrong but packet loss and one crash.

use std::path::Path;
use std::time::Duration;

use policy::WindowKind;

use super::load::{Bearer, LimitSpec, Load, Request};
use super::scenario::{Operation, Scenario};
use super::traffic::Sent;
use super::weather::Weather;
use super::world::World;
use crate::core::MemberState;

/// How far to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent<'a> {
    pub(super) nodes: &'a [usize],
    pub(super) seeds: &'a [u64],
    /// Divides every length of time.
    pub(super) shorter: u32,
    /// Where the tables go, line by line; they take long.
    pub(super) to: Option<&'a Path>,
}

/// Tables on their way.
struct Tables<'a> {
    text: String,
    to: Option<&'a Path>,
}

/// By this time a cluster has formed, and serves.
const FORMED: Duration = Duration::from_secs(10);

/// Requests a minute of the limit that is measured.
const LIMIT: u64 = 6_000;

/// All tables, as Markdown.
pub(super) fn tables(extent: Extent<'_>) -> String {
    let mut tables = Tables {
        text: String::new(),
        to: extent.to,
    };
    overshoot(extent, &mut tables);
    convergence(extent, &mut tables);
    traffic(extent, &mut tables);
    many_counters(extent, &mut tables);
    detection(extent, &mut tables);
    tables.text
}

fn line(tables: &mut Tables<'_>, cells: std::fmt::Arguments<'_>) {
    tables.text.push_str(&format!("{cells}\n"));
    if let Some(path) = tables.to {
        std::fs::write(path, &tables.text).expect("a file to write to");
    }
}

fn calm(seed: u64, nodes: usize, load: Load, loss: f64) -> World {
    let mut scenario = Scenario::calm(seed, nodes, load, Duration::from_secs(3_600));
    scenario.weather = Weather {
        loss,
        ..Weather::LOCAL
    };
    World::new(scenario)
}

fn requests(rate: f64, keys: usize, limits: Vec<LimitSpec>) -> Load {
    Load {
        rate,
        keys,
        evenly: true,
        limits,
        open_for: Duration::from_millis(500),
        failing: 0.0,
        skewed: false,
    }
}

fn per_minute(key: usize, amount: u64) -> LimitSpec {
    LimitSpec::requests(Bearer::Key(key), "1m", amount as f64)
}

fn overshoot(extent: Extent<'_>, text: &mut Tables<'_>) {
    line(
        text,
        format_args!("## Overshoot of a limit of {LIMIT} requests a minute\n"),
    );
    line(
        text,
        format_args!(
            "| nodes | load | worst | of the limit | `R (S + D)` | exported bound at the end |"
        ),
    );
    line(text, format_args!("|---|---|---|---|---|---|"));
    for nodes in extent.nodes {
        for over in [2_u64, 20] {
            let (mut worst, mut bound) = (0, 0);
            let rate = (LIMIT * over) as f64 / 60.0;
            let mut delay = Duration::ZERO;
            for seed in extent.seeds {
                let mut world = calm(
                    *seed,
                    *nodes,
                    requests(rate, 1, vec![per_minute(0, LIMIT)]),
                    0.0,
                );
                let lasts = FORMED + Duration::from_secs(180) / extent.shorter;
                world.run_until(lasts);
                assert_eq!(world.violation, None, "seed {seed}, {nodes} nodes");
                let books = &world.ledger.accounts[0];
                worst = worst.max(books.worst);
                bound = bound.max(exported_bound(&world));
                delay = world.paths.longest();
            }
            let formula = rate * (super::node::SYNC + delay).as_secs_f64();
            line(
                text,
                format_args!(
                    "| {nodes} | {over}x | {worst} | {:.2} % | {formula:.0} = {:.2} % | {bound} |",
                    100.0 * worst as f64 / LIMIT as f64,
                    100.0 * formula / LIMIT as f64,
                ),
            );
        }
    }
}

/// The largest bound that a node tells for any limit.
fn exported_bound(world: &World) -> u64 {
    let bounds = world.nodes.iter().filter_map(|node| {
        let view = node.process.as_ref()?.core.view(node.time(world.now()));
        view.limits
            .iter()
            .filter_map(|limit| limit.overshoot_bound)
            .max()
    });
    bounds.max().unwrap_or(0)
}

fn convergence(extent: Extent<'_>, text: &mut Tables<'_>) {
    line(
        text,
        format_args!("\n## From an admission at one node to its being counted at every node\n"),
    );
    line(
        text,
        format_args!("| nodes | counter | p50 | p99 | worst | samples |"),
    );
    line(text, format_args!("|---|---|---|---|---|---|"));
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

fn traffic(extent: Extent<'_>, text: &mut Tables<'_>) {
    line(
        text,
        format_args!(
            "\n## Bytes sent by a node each second: gossip, and links with one busy limit\n"
        ),
    );
    line(
        text,
        format_args!(
            "| nodes | loss | datagrams | gossip bytes | exchange bytes | frames | link bytes, no requests | link bytes, 200 requests a second |"
        ),
    );
    line(text, format_args!("|---|---|---|---|---|---|---|---|"));
    for nodes in extent.nodes {
        for loss in [0.0, 0.05, 0.2] {
            let lasts = Duration::from_secs(60) / extent.shorter;
            let idle = sent(
                extent.seeds[0],
                *nodes,
                requests(0.01, 1, vec![per_minute(0, LIMIT)]),
                loss,
                lasts,
            );
            let busy = sent(
                extent.seeds[0],
                *nodes,
                requests(200.0, 1, vec![per_minute(0, LIMIT)]),
                loss,
                lasts,
            );
            let each = |total: u64| total as f64 / *nodes as f64 / lasts.as_secs_f64();
            line(
                text,
                format_args!(
                    "| {nodes} | {:.0} % | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
                    loss * 100.0,
                    each(idle.datagrams),
                    each(idle.gossip_bytes),
                    each(idle.exchange_bytes),
                    each(busy.frames),
                    each(idle.frame_bytes),
                    each(busy.frame_bytes),
                ),
            );
        }
    }
}

/// What all nodes together send in this time, once the cluster has formed.
fn sent(seed: u64, nodes: usize, load: Load, loss: f64, lasts: Duration) -> Sent {
    let mut world = calm(seed, nodes, load, loss);
    world.run_until(FORMED * 2);
    let before = world.traffic.total();
    world.run_until(FORMED * 2 + lasts);
    assert_eq!(world.violation, None, "seed {seed}, {nodes} nodes");
    world.traffic.total().less(&before)
}

fn many_counters(extent: Extent<'_>, text: &mut Tables<'_>) {
    line(
        text,
        format_args!(
            "\n## Bytes sent on links by a node each second: 1,000 busy limits, 2,000 requests a second\n"
        ),
    );
    line(
        text,
        format_args!("| nodes | limits | link bytes | cells | bytes a cell |"),
    );
    line(text, format_args!("|---|---|---|---|---|"));
    for nodes in extent.nodes {
        for (name, amount) in [("far from their end", 1_000_000), ("at their end", 60)] {
            let keys = 1_000 / extent.shorter as usize;
            let limits = (0..keys).map(|key| per_minute(key, amount)).collect();
            let lasts = Duration::from_secs(40) / extent.shorter;
            let sent = sent(
                extent.seeds[0],
                *nodes,
                requests(2_000.0, keys, limits),
                0.0,
                lasts,
            );
            let each = |total: u64| total as f64 / *nodes as f64 / lasts.as_secs_f64();
            line(
                text,
                format_args!(
                    "| {nodes} | {name} | {:.0} | {:.0} | {:.1} |",
                    each(sent.frame_bytes),
                    each(sent.cells),
                    sent.frame_bytes as f64 / sent.cells.max(1) as f64,
                ),
            );
        }
    }
}

fn detection(extent: Extent<'_>, text: &mut Tables<'_>) {
    line(
        text,
        format_args!(
            "\n## A crash, until the first and the last other node says down; and false downs\n"
        ),
    );
    line(
        text,
        format_args!(
            "| nodes | loss | port refuses: first, last | silent: first, last | false downs in {:?} |",
            Duration::from_secs(60) / extent.shorter
        ),
    );
    line(text, format_args!("|---|---|---|---|---|"));
    for nodes in extent.nodes {
        for loss in [0.0, 0.05, 0.2] {
            let (mut refused, mut silent) = (Vec::new(), Vec::new());
            let mut false_downs = 0;
            for seed in extent.seeds {
                let load = requests(1.0, 1, vec![per_minute(0, LIMIT)]);
                let mut world = calm(*seed, *nodes, load, loss);
                world.run_until(FORMED);
                false_downs += count_downs(&mut world, Duration::from_secs(60) / extent.shorter);
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
                    "| {nodes} | {:.0} % | {} | {} | {false_downs} |",
                    loss * 100.0,
                    range(&refused),
                    range(&silent),
                ),
            );
        }
    }
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

impl LimitSpec {
    fn hourly(of: Bearer, amount: u64) -> Self {
        Self {
            every: "1h",
            window: WindowKind::Fixed,
            ..Self::requests(of, "1h", amount as f64)
        }
    }
}
