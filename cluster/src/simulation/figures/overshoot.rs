//! By how much a limit is passed when far more is asked of all nodes at once, from one moment to the
//! next.

use std::time::Duration;

use policy::{Fleet, Mode};

use super::super::load::Request;
use super::super::node::SYNC;
use super::super::scenario::{Health, Operation};
use super::super::weather::Weather;
use super::super::world::World;
use super::{Extent, FORMED, LIMIT, Tables, calm, head, line, per_minute, requests};
use crate::enforcement;

/// The limit's window.
const WINDOW: Duration = Duration::from_secs(60);

/// What is asked goes on into the next window: what the first second of it used comes back then.
const LASTS: Duration = Duration::from_secs(65);

/// So many nodes take long: they are asked only until the limit is full, and less is compared.
const MANY: usize = 100;

/// Until then nothing of the first window has come back.
const BEFORE_ANYTHING_IS_BACK: Duration = Duration::from_secs(58);

/// Requests by which it is seen who admitted the last of a limit, in parts of it.
const LAST_PARTS: usize = 20;

/// What holds the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Everything there is.
    All,
    /// Not that nodes share out the rest: each may take all that it thinks is left.
    Telling,
    /// Nor that they tell at once what weighs much: only that they tell each `SYNC`.
    Interval,
}

/// How the limit is pressed.
#[derive(Clone, Copy, Debug)]
struct Press {
    seed: u64,
    nodes: usize,
    limit: u64,
    /// How many times the limit is asked for.
    over: u32,
    by: By,
    lasts: Duration,
    /// Cuts the first third off when half of the limit is used; what the database does then.
    cut: Option<Health>,
}

/// What came of it.
#[derive(Debug, Default)]
struct Pressed {
    /// What was counted in the limit's window beyond the limit, at any moment.
    worst: u64,
    /// The same before anything came back.
    worst_filling: u64,
    /// When each request was admitted, and where.
    admitted: Vec<(Duration, usize)>,
    /// Largest bound that a node told meanwhile.
    bound: u64,
    /// Whether nodes shared out the rest.
    banded: bool,
}

pub(super) fn pressed(extent: &Extent<'_>, text: &mut Tables<'_>) {
    head(
        text,
        "Overshoot of a limit of requests a minute, asked of all nodes at full rate from one moment on",
        &[
            "nodes",
            "limit",
            "asked",
            "full after",
            "nodes that admitted the last 5 %",
            "worst: first filling; later",
            "most in any 60 s",
            "told bound",
            "`R (S + D)`",
            "of the limit in the first 60 s",
            "worst without `guard_band`",
            "and without telling at once",
        ],
    );
    for nodes in extent.nodes {
        let cases = [(LIMIT / 10, 20), (LIMIT / 10, 2), (LIMIT, 2), (LIMIT, 20)];
        let cases = match extent.is_trial() {
            true => &cases[..1],
            false if *nodes < MANY => &cases[..],
            false => &cases[2..],
        };
        for (limit, over) in cases {
            pressed_line(extent, text, *nodes, *limit, *over);
        }
    }
}

fn pressed_line(extent: &Extent<'_>, text: &mut Tables<'_>, nodes: usize, limit: u64, over: u32) {
    let filling = WINDOW / over;
    let runs = |by| {
        let press = move |seed: &u64| Press {
            seed: *seed,
            nodes,
            limit,
            over,
            by,
            lasts: match nodes < MANY && !extent.is_trial() {
                true => LASTS,
                false => filling * 3 / 2 + Duration::from_secs(5),
            },
            cut: None,
        };
        let runs = extent.seeds.iter().map(|seed| run(press(seed)));
        runs.collect::<Vec<Pressed>>()
    };
    let worst = |runs: &[Pressed]| runs.iter().map(|run| run.worst).max().unwrap_or(0);
    let part = |amount: f64| 100.0 * amount / limit as f64;
    let told = |worst: u64| format!("{worst} = {:.2} %", part(worst as f64));
    let held = runs(By::All);
    let most = |of: fn(&Pressed) -> u64| held.iter().map(of).max().unwrap_or(0);
    let last_ones = held.iter().map(|run| run.last_ones(limit)).min();
    let first = held.iter().map(|run| part(run.first_window() as f64));
    let telling = (nodes < MANY).then(|| told(worst(&runs(By::Telling))));
    let interval = told(worst(&runs(By::Interval)));
    assert!(
        held.iter().all(|run| run.banded),
        "the limit was not pressed"
    );
    let rate = (limit * u64::from(over)) as f64 / WINDOW.as_secs_f64();
    let formula = rate * (SYNC + Weather::LOCAL.longest()).as_secs_f64();
    line(
        text,
        format_args!(
            "| {nodes} | {limit} | {over}x | {:.1} s | {} | {}; {} | {} | {} | {formula:.0} = {:.2} % | {:.1} % | {} | {interval} |",
            held[0].full_after(limit).as_secs_f64(),
            last_ones.unwrap_or(0),
            most(|run| run.worst_filling),
            told(worst(&held)),
            most(Pressed::most_in_window),
            most(|run| run.bound),
            part(formula),
            first.fold(f64::MAX, f64::min),
            telling.as_deref().unwrap_or("-"),
        ),
    );
}

pub(super) fn split(extent: &Extent<'_>, text: &mut Tables<'_>) {
    head(
        text,
        "A third of the nodes cut off when half of a limit of 6000 a minute is used, 2x asked",
        &[
            "nodes",
            "partition",
            "the database, for both sides",
            "admitted in the first 60 s, of the limit",
            "worst",
            "told bound",
        ],
    );
    for nodes in extent.nodes {
        let cases = [
            (By::All, Health::Well),
            (By::All, Health::Down),
            (By::Telling, Health::Well),
            (By::Telling, Health::Down),
        ];
        let few = if extent.is_trial() { 1 } else { cases.len() };
        for (by, store) in cases.into_iter().take(few) {
            let runs = extent.seeds.iter().map(|seed| {
                run(Press {
                    seed: *seed,
                    nodes: *nodes,
                    limit: LIMIT,
                    over: 2,
                    by,
                    lasts: LASTS / if extent.is_trial() { 3 } else { 1 },
                    cut: Some(store),
                })
            });
            let runs: Vec<Pressed> = runs.collect();
            let part = |run: &Pressed| 100.0 * run.first_window() as f64 / LIMIT as f64;
            let name = match by {
                By::All => "`share`",
                _ => "each side has the whole limit",
            };
            let reached = if store == Health::Well {
                "reachable"
            } else {
                "away"
            };
            line(
                text,
                format_args!(
                    "| {nodes} | {name} | {reached} | {:.1}-{:.1} % | {} | {} |",
                    runs.iter().map(part).fold(f64::MAX, f64::min),
                    runs.iter().map(part).fold(0.0, f64::max),
                    runs.iter().map(|run| run.worst).max().unwrap_or(0),
                    match by {
                        By::All => runs
                            .iter()
                            .map(|run| run.bound)
                            .max()
                            .unwrap_or(0)
                            .to_string(),
                        _ => "-".to_owned(),
                    },
                ),
            );
        }
    }
}

/// One run: a formed cluster is asked, from one moment on.
fn run(press: Press) -> Pressed {
    // What the world itself asks never comes.
    let load = requests(1e-6, 1, vec![per_minute(0, press.limit)]);
    let mut world = calm(press.seed, press.nodes, load, 0.0);
    let began = FORMED * 2;
    world.run_until(began);
    let mut pressed = Pressed::default();
    let gap = WINDOW.div_f64((press.limit * u64::from(press.over)) as f64);
    let mut cut = press.cut;
    let mut next = began;
    while next < began + press.lasts {
        let node = world.chance.index(press.nodes);
        if press.by != By::All {
            unguard(&mut world, node, press);
        }
        let before = world.seen.admitted;
        let open_for = world.chance.exponential(Duration::from_millis(500));
        world.arrive(
            node,
            Request {
                key: 0,
                predicted: 10,
                most: 10,
                used: 10,
                open_for,
            },
        );
        if world.seen.admitted > before {
            pressed.admitted.push((world.now() - began, node));
            pressed.look(&world, node);
        }
        if pressed.admitted.len() as u64 * 2 >= press.limit
            && let Some(store) = cut.take()
        {
            let sides = (0..press.nodes).map(|node| u8::from(node * 3 < press.nodes));
            world.operate(Operation::Split {
                sides: sides.collect(),
            });
            world.operate(Operation::Database(store));
        }
        if world.now() < began + BEFORE_ANYTHING_IS_BACK {
            pressed.worst_filling = world.ledger.accounts[0].worst;
        }
        next += world.chance.exponential(gap);
        world.run_until(next);
        // Whoever is not held is meant to pass the limit, and nobody tells by how much.
        while press.by != By::All && world.violation.take().is_some() {
            world.run_until(next);
        }
    }
    assert_eq!(world.violation, None, "{press:?}");
    pressed.worst = world.ledger.accounts[0].worst;
    pressed
}

/// Lets a node admit up to the limit by what it has heard.
fn unguard(world: &mut World, node: usize, press: Press) {
    let wall = world.nodes[node].time(world.now()).wall;
    let Some(process) = world.nodes[node].process.as_ref() else {
        return;
    };
    let counter = &process.gateway.counters[0];
    let trigger = match press.by {
        By::Interval => u64::MAX,
        _ => enforcement::trigger(press.limit, counter.total(wall), press.nodes as u64),
    };
    counter.set_fleet(Fleet {
        trigger,
        ..Fleet::default()
    });
}

// === impl Pressed ===

impl Pressed {
    /// What the node that admitted says of the limit.
    fn look(&mut self, world: &World, node: usize) {
        let wall = world.nodes[node].time(world.now()).wall;
        let Some(process) = world.nodes[node].process.as_ref() else {
            return;
        };
        let standing = process.gateway.limits[0].standing(wall);
        self.bound = self.bound.max(standing.overshoot_bound.unwrap_or(0));
        self.banded |= standing.mode == Mode::GuardBand;
    }

    /// Until so much was admitted as the limit allows, less what rounding leaves.
    fn full_after(&self, limit: u64) -> Duration {
        let nearly = (limit - limit / 100) as usize;
        self.admitted.get(nearly).map_or(LASTS, |(at, _)| *at)
    }

    /// How many nodes admitted the last part of the limit.
    fn last_ones(&self, limit: u64) -> usize {
        let limit = limit as usize;
        let last = self
            .admitted
            .iter()
            .take(limit)
            .skip(limit - limit / LAST_PARTS);
        let nodes: std::collections::BTreeSet<usize> = last.map(|(_, node)| *node).collect();
        nodes.len()
    }

    /// The most that was admitted in any window, by the onlooker's clock.
    fn most_in_window(&self) -> u64 {
        let (mut most, mut first) = (0, 0);
        for (last, (at, _)) in self.admitted.iter().enumerate() {
            while *at - self.admitted[first].0 >= WINDOW {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most as u64
    }

    fn first_window(&self) -> usize {
        self.admitted.partition_point(|(at, _)| *at < WINDOW)
    }
}
