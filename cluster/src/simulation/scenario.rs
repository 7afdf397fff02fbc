//! What a seed means: the size of a cluster, its clocks, its network, its load, and the list of what
//! goes wrong in it. All of it is data, so that a run can be told, repeated and made smaller.

use std::time::Duration;

use super::chance::Chance;
use super::load::Load;
use super::weather::Weather;

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    /// Drift in parts per million and milliseconds ahead, by node.
    pub(super) clocks: Vec<(i64, i64)>,
    /// How far away from the others, by node.
    pub(super) distances: Vec<Duration>,
    pub(super) weather: Weather,
    /// Nodes of the build before this one.
    pub(super) old: Vec<bool>,
    pub(super) load: Load,
    /// By time.
    pub(super) operations: Vec<(Duration, Operation)>,
    /// When the network is whole again, nothing is paused and the database is well.
    pub(super) heal_at: Duration,
    /// When no more requests come.
    pub(super) idle_at: Duration,
    /// Something done wrong on purpose, to see that it is noticed.
    pub(super) sabotage: Option<Sabotage>,
}

/// What a test of the rules does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// No cell gets from one node to another.
    LoseCells,
    /// The database says that it has stored cells, and has not.
    ForgetCells,
    /// It gives every term to whoever asks, and none is larger than another.
    OneTermForAll,
    /// Nodes serve as soon as they run.
    ServeAtOnce,
    /// Revocations stay where they are made.
    LoseRevocations,
    /// What peers push is used though something before it is missing.
    SkipEntities,
    /// Nodes tell that no limit can be passed.
    TellNothing,
    /// Each node has the whole of every strict limit.
    PassStrict,
}

/// One thing that happens to the cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operation {
    /// The process is killed. With its host, nothing answers for it; else its port refuses.
    Crash {
        node: usize,
        with_host: bool,
    },
    /// A process is started if there is none, with the node's key or as a stranger.
    Start {
        node: usize,
        keeps_key: bool,
    },
    /// It tells the others, serves what it has, and goes.
    Leave {
        node: usize,
    },
    /// The process stands still, its kernel does not.
    Pause {
        node: usize,
        lasts: Duration,
    },
    StepClock {
        node: usize,
        by_ms: i64,
    },
    /// Nothing gets from one to the other; the way back works.
    CutOneWay {
        from: usize,
        to: usize,
    },
    /// Nodes of different sides do not reach each other.
    Split {
        sides: Vec<u8>,
    },
    /// Each node reaches its two neighbours only.
    Ring,
    /// Every path works again; the weather stays.
    Reconnect,
    /// All links of a node break at once.
    BreakLinks {
        node: usize,
    },
    Weather(Weather),
    Database(Health),
    /// A virtual key is revoked at a node.
    Revoke {
        node: usize,
    },
    /// An entity is written at a node.
    Write {
        node: usize,
    },
    /// Bytes that no member has sent.
    Noise {
        node: usize,
    },
}

/// How the database is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Health {
    Well,
    /// Everything takes this much longer.
    Slow(Duration),
    /// Nothing gets in.
    Down,
    /// What gets in is done, but every other answer is lost.
    LosesAnswers,
}

/// When the first fault may come: by then a cluster has formed.
const FIRST_FAULT: Duration = Duration::from_secs(6);

// === impl Scenario ===

impl Scenario {
    /// Of 100 seeds in a row 50 have 3 nodes, 35 have 10, 14 have 30, and 1 has 100.
    pub(super) fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let (nodes, faulty, faults) = match seed % 100 {
            0..50 => (3, 30, 8),
            50..85 => (10, 24, 8),
            85..99 => (30, 14, 6),
            _ => (100, 8, 5),
        };
        let heal_at = FIRST_FAULT + Duration::from_secs(faulty);
        let weather = random_weather(&mut chance);
        let mut operations = random_operations(&mut chance, nodes, faults, heal_at, weather);
        operations.extend(random_writes(seed, nodes, heal_at));
        operations.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            clocks: (0..nodes).map(|_| random_clock(&mut chance)).collect(),
            distances: random_distances(&mut chance, nodes),
            weather,
            old: random_builds(&mut chance, nodes),
            load: Load::random(&mut chance, nodes),
            operations,
            heal_at,
            idle_at: heal_at + Duration::from_secs(4),
            sabotage: None,
        }
    }

    /// Nothing goes wrong: what figures are measured with.
    pub(super) fn calm(seed: u64, nodes: usize, load: Load, lasts: Duration) -> Self {
        Self {
            seed,
            clocks: vec![(0, 0); nodes],
            distances: vec![Duration::ZERO; nodes],
            weather: Weather::LOCAL,
            old: vec![false; nodes],
            load,
            operations: Vec::new(),
            heal_at: lasts,
            idle_at: lasts,
            sabotage: None,
        }
    }

    /// Without one of its operations.
    pub(super) fn without(&self, operation: usize) -> Self {
        let mut smaller = self.clone();
        smaller.operations.remove(operation);
        smaller
    }
}

fn random_weather(chance: &mut Chance) -> Weather {
    let millis = |low, high, chance: &mut Chance| Duration::from_millis(chance.between(low, high));
    match chance.below(4) {
        0 => Weather::LOCAL,
        1 => Weather {
            delay: millis(1, 20, chance),
            jitter: millis(1, 20, chance),
            loss: 0.01,
            twice: 0.01,
        },
        2 => Weather {
            delay: millis(1, 60, chance),
            jitter: millis(5, 60, chance),
            loss: chance.unit() * 0.1,
            twice: 0.05,
        },
        _ => Weather {
            delay: millis(1, 100, chance),
            jitter: millis(10, 200, chance),
            loss: chance.unit() * 0.3,
            twice: 0.1,
        },
    }
}

fn random_clock(chance: &mut Chance) -> (i64, i64) {
    let within = |most: u64, chance: &mut Chance| {
        let at = chance.between(0, 2 * most);
        at.cast_signed() - most.cast_signed()
    };
    let ahead = match chance.below(8) {
        0 => within(5_000, chance),
        1..3 => within(200, chance),
        _ => within(10, chance),
    };
    (within(500, chance), ahead)
}

fn random_distances(chance: &mut Chance, nodes: usize) -> Vec<Duration> {
    let far = chance.happens(0.3);
    (0..nodes)
        .map(|_| match far && chance.happens(0.3) {
            true => Duration::from_millis(chance.between(5, 50)),
            false => Duration::ZERO,
        })
        .collect()
}

fn random_builds(chance: &mut Chance, nodes: usize) -> Vec<bool> {
    let mixed = chance.happens(0.2);
    (0..nodes).map(|_| mixed && chance.happens(0.5)).collect()
}

fn random_operations(
    chance: &mut Chance,
    nodes: usize,
    most: u64,
    heal_at: Duration,
    weather: Weather,
) -> Vec<(Duration, Operation)> {
    let mut operations = Vec::new();
    for _ in 0..chance.between(1, most) {
        let at = chance.time(FIRST_FAULT, heal_at);
        let node = chance.index(nodes);
        random_operation(chance, nodes, node, at, weather, &mut operations);
    }
    operations
}

/// Entities are written whatever else happens.
fn random_writes(seed: u64, nodes: usize, until: Duration) -> Vec<(Duration, Operation)> {
    let mut chance = Chance::new(seed ^ 0xe47);
    let writes = chance.between(2, 12);
    (0..writes)
        .map(|_| {
            let at = chance.time(Duration::from_secs(3), until);
            (
                at,
                Operation::Write {
                    node: chance.index(nodes),
                },
            )
        })
        .collect()
}

/// Adds one fault and, where it has an end, most often its end.
fn random_operation(
    chance: &mut Chance,
    nodes: usize,
    node: usize,
    at: Duration,
    weather: Weather,
    operations: &mut Vec<(Duration, Operation)>,
) {
    let later = at + chance.time(Duration::from_millis(200), Duration::from_secs(15));
    let (fault, end) = match chance.below(14) {
        kind @ 0..=4 => process_fault(chance, kind, node),
        kind @ 5..=10 => network_fault(chance, kind, nodes, node, weather),
        11 => database_fault(chance),
        12 => (Operation::Revoke { node }, Some(Operation::Write { node })),
        _ => (Operation::Noise { node }, None),
    };
    operations.push((at, fault));
    operations.extend(end.map(|end| (later, end)));
}

fn process_fault(chance: &mut Chance, kind: u64, node: usize) -> (Operation, Option<Operation>) {
    match kind {
        0 => {
            let with_host = chance.happens(0.3);
            let comes_back = chance.happens(0.8);
            let start = comes_back.then(|| Operation::Start {
                node,
                keeps_key: chance.happens(0.7),
            });
            (Operation::Crash { node, with_host }, start)
        }
        1 => {
            let keeps_key = true;
            let start = Operation::Start { node, keeps_key };
            (Operation::Leave { node }, Some(start))
        }
        2 | 3 => {
            let lasts = match chance.below(3) {
                0 => chance.time(Duration::from_millis(100), Duration::from_secs(1)),
                1 => chance.time(Duration::from_secs(1), Duration::from_secs(8)),
                _ => chance.time(Duration::from_secs(8), Duration::from_secs(60)),
            };
            (Operation::Pause { node, lasts }, None)
        }
        _ => {
            let by_ms = chance.between(0, 10_000).cast_signed() - 5_000;
            (Operation::StepClock { node, by_ms }, None)
        }
    }
}

fn network_fault(
    chance: &mut Chance,
    kind: u64,
    nodes: usize,
    node: usize,
    weather: Weather,
) -> (Operation, Option<Operation>) {
    match kind {
        5 => {
            let to = (node + 1 + chance.index(nodes - 1)) % nodes;
            let cut = Operation::CutOneWay { from: node, to };
            (cut, Some(Operation::Reconnect))
        }
        6 | 7 => {
            let count = chance.between(2, 3);
            let sides = (0..nodes).map(|_| u8::try_from(chance.below(count)).unwrap_or(0));
            let sides = sides.collect();
            (Operation::Split { sides }, Some(Operation::Reconnect))
        }
        8 => (Operation::Ring, Some(Operation::Reconnect)),
        9 => (Operation::BreakLinks { node }, None),
        _ => {
            let fault = Operation::Weather(random_weather(chance));
            (fault, Some(Operation::Weather(weather)))
        }
    }
}

fn database_fault(chance: &mut Chance) -> (Operation, Option<Operation>) {
    let health = match chance.below(3) {
        0 => Health::Down,
        1 => Health::LosesAnswers,
        _ => Health::Slow(chance.time(Duration::from_millis(100), Duration::from_secs(8))),
    };
    let mended = chance.happens(0.7);
    let end = mended.then_some(Operation::Database(Health::Well));
    (Operation::Database(health), end)
}
