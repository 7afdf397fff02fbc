//! An hour without the database: nothing grows with it, and all that was counted is stored
//! afterwards.

use std::time::Duration;

use policy::{Enforcement, Unit, WindowKind};

use super::super::load::{Bearer, LimitSpec, Load, TOKEN_COST};
use super::super::run::finish;
use super::super::scenario::{Health, Operation, Scenario};
use super::super::world::World;

const AWAY_AT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_secs(10);

/// A debug build has not the time for more than some minutes of it.
fn away() -> Duration {
    Duration::from_secs(if cfg!(debug_assertions) { 300 } else { 3_600 })
}

fn limit(of: Bearer, unit: Unit, every: &'static str, amount: u64) -> LimitSpec {
    let sliding = every != "1h";
    LimitSpec {
        of,
        unit,
        every,
        window: match sliding {
            true => WindowKind::Sliding,
            false => WindowKind::Fixed,
        },
        amount,
        enforcement: Enforcement::Eventual,
    }
}

/// Two thirds of what is asked for are admitted, and budgets are never spent.
fn load() -> Load {
    let spent = 20 * 3_600 * 1_000 * TOKEN_COST;
    Load {
        rate: 20.0,
        keys: 2,
        evenly: true,
        limits: vec![
            limit(Bearer::Key(0), Unit::Requests, "10s", 60),
            limit(Bearer::Team, Unit::Tokens, "20s", 200_000),
            limit(Bearer::Global, Unit::Usd, "1h", spent),
            limit(Bearer::Team, Unit::Concurrent, "", 50),
        ],
        open_for: Duration::from_millis(600),
        failing: 0.05,
        skewed: false,
    }
}

/// The database is away, and everything else goes wrong once, in each quarter of the time.
fn hour(seed: u64) -> Scenario {
    let heal_at = AWAY_AT + away();
    let mut scenario = Scenario::calm(seed, 3, load(), heal_at);
    scenario.idle_at = heal_at + Duration::from_secs(4);
    let mut operations = vec![(AWAY_AT, Operation::Database(Health::Down))];
    for quarter in 0..4 {
        let begin = AWAY_AT + away() / 4 * quarter;
        let keeps_key = quarter % 2 == 0;
        let with_host = !keeps_key;
        let events = [
            (5, Operation::Crash { node: 1, with_host }),
            (15, Operation::Start { node: 1, keeps_key }),
            (30, Operation::Revoke { node: 0 }),
            (
                31,
                Operation::Split {
                    sides: vec![0, 0, 1],
                },
            ),
            (45, Operation::Reconnect),
            (60, Operation::BreakLinks { node: 2 }),
        ];
        let at = |seconds| begin + Duration::from_secs(seconds);
        operations.extend(events.map(|(seconds, what)| (at(seconds), what)));
    }
    operations.sort_by_key(|(at, _)| *at);
    scenario.operations = operations;
    scenario
}

/// What the nodes keep, the most of any.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    cells: u64,
    unflushed: u64,
    origins: u64,
    /// Requests to the store.
    waiting: usize,
}

impl Kept {
    fn or_more(self, other: Self) -> Self {
        Self {
            cells: self.cells.max(other.cells),
            unflushed: self.unflushed.max(other.unflushed),
            origins: self.origins.max(other.origins),
            waiting: self.waiting.max(other.waiting),
        }
    }

    fn seen(self, world: &World) -> Self {
        let mut most = self;
        for node in &world.nodes {
            let Some(process) = &node.process else {
                continue;
            };
            let figures = process.core.view(node.time(world.now())).figures;
            most.cells = most.cells.max(figures.cells);
            most.unflushed = most.unflushed.max(figures.unflushed);
            most.origins = most.origins.max(figures.origins);
            most.waiting = most.waiting.max(process.store.len());
        }
        most
    }
}

#[test]
fn simulation_of_an_hour_without_the_database() {
    let mut world = World::new(hour(11));
    let mut quarters = Vec::new();
    for quarter in 1..=4 {
        let end = AWAY_AT + away() / 4 * quarter;
        let mut most = Kept::default();
        while world.now() < end && world.violation.is_none() {
            world.run_until((world.now() + LOOK).min(end));
            most = most.seen(&world);
        }
        quarters.push(most);
    }
    let first = quarters[0].or_more(quarters[1]);
    let last = quarters[2].or_more(quarters[3]);
    // Two processes were started anew in each half, and have cells and budgets of their own.
    let more = 2 * world.scenario.load.limits.len() as u64;
    assert!(first.cells > 20 && first.unflushed > 0, "{quarters:?}");
    assert!(last.cells <= first.cells + more, "{quarters:?}");
    // What has expired meanwhile goes when it is its turn to be written.
    assert!(last.unflushed <= first.unflushed * 2, "{quarters:?}");
    assert!(last.origins <= first.origins + 2, "{quarters:?}");
    assert!(last.waiting <= first.waiting + 2, "{quarters:?}");
    let report = finish(world).expect("no rule is broken");
    let asked = report.admitted + report.refused;
    assert!(asked > away().as_secs() * 19, "{report:?}");
    assert!(report.refused > asked / 10, "{report:?}");
}
