//! The runs: many seeds, those that once failed, and one of the caller's choice.

mod apart;
mod hostile;
mod outage;
mod parts;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::figures::{Extent, tables};
use super::run::{Report, run};
use super::scenario::{Sabotage, Scenario};

/// Seeds that once broke a rule.
const ONCE_BROKEN: &[u64] = &[
    10, 33, 59, 73, 90, 137, 164, 197, 218, 247, 312, 439, 461, 497, 613, 630, 699, 785, 917, 991,
];

fn seeds() -> u64 {
    let asked = std::env::var("SIM_SEEDS").ok();
    let few = if cfg!(debug_assertions) { 20 } else { 1_000 };
    asked.map_or(few, |text| text.parse().expect("SIM_SEEDS is a number"))
}

fn outcome(scenario: &Scenario) -> Result<Report, String> {
    let scenario = scenario.clone();
    catch_unwind(AssertUnwindSafe(|| run(scenario))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("I10: panic: {}", text.unwrap_or_default()))
    })
}

/// One line per failure, with what repeats it.
fn told(seed: u64, what: &str) -> String {
    format!("{what}\n    SIM_SEED={seed} cargo test -p cluster --lib simulation_of_one_seed")
}

fn run_all(seeds: &[u64]) -> Vec<(u64, String)> {
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    if let Err(what) = outcome(&Scenario::of(*seed)) {
                        failures.lock().unwrap().push((*seed, what));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    failures
}

fn lines(failures: &[(u64, String)]) -> String {
    let lines = failures.iter().map(|(seed, what)| told(*seed, what));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn simulation_of_many_seeds() {
    let first = std::env::var("SIM_FIRST").map_or(0, |text| text.parse().expect("a number"));
    let seeds: Vec<u64> = (first..first + seeds()).collect();
    let failures = run_all(&seeds);
    assert!(
        failures.is_empty(),
        "{} runs failed\n{}",
        failures.len(),
        lines(&failures)
    );
}

#[test]
fn simulation_of_seeds_that_once_failed() {
    let failures = run_all(ONCE_BROKEN);
    assert!(failures.is_empty(), "{}", lines(&failures));
}

/// The seed of `SIM_SEED`; with `SIM_SMALLER` set, also its smallest list of operations that fails.
#[test]
fn simulation_of_one_seed() {
    let asked = std::env::var("SIM_SEED").ok();
    let seed = asked.map_or(1, |text| text.parse().expect("SIM_SEED is a number"));
    let mut scenario = Scenario::of(seed);
    let Err(mut what) = outcome(&scenario) else {
        return;
    };
    if std::env::var_os("SIM_SMALLER").is_some() {
        let mut at = 0;
        while at < scenario.operations.len() {
            match outcome(&scenario.without(at)) {
                Err(other) => (scenario, what) = (scenario.without(at), other),
                Ok(_) => at += 1,
            }
        }
    }
    panic!("{scenario:#?}\n{}", told(seed, &what));
}

#[test]
fn simulation_repeats_itself() {
    let trace = |seed| {
        outcome(&Scenario::of(seed))
            .expect("a run that breaks no rule")
            .trace
    };
    for seed in [3, 57] {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
    assert_ne!(trace(3), trace(4));
}

#[test]
fn simulation_notices_what_is_wrong() {
    for (sabotage, rule) in [
        (Sabotage::PassStrict, "I1"),
        (Sabotage::LoseCells, "I2"),
        (Sabotage::TellNothing, "I2"),
        (Sabotage::ForgetCells, "I3"),
        (Sabotage::OneTermForAll, "I7"),
        (Sabotage::ServeAtOnce, "I8"),
        (Sabotage::LoseRevocations, "I6"),
        (Sabotage::SkipEntities, "entities"),
    ] {
        let noticed = (0..30).any(|seed| {
            let scenario = Scenario {
                sabotage: Some(sabotage),
                ..Scenario::of(seed)
            };
            outcome(&scenario).is_err_and(|what| what.contains(rule))
        });
        assert!(noticed, "{sabotage:?} breaks {rule}, and nobody noticed");
    }
}

/// Writes the tables of figures for `SIM_NODES` nodes to the file that `SIM_FIGURES` names: those
/// that `SIM_TABLES` lists, from `SIM_SEEDS` seeds, with every time divided by `SIM_SHORTER`.
/// Without it, a small part of all tables to nowhere.
#[test]
fn simulation_gives_figures() {
    let Some(path) = std::env::var_os("SIM_FIGURES") else {
        let short = Extent {
            nodes: &[3],
            seeds: &[1],
            shorter: 20,
            only: Vec::new(),
            to: None,
        };
        assert!(tables(&short).lines().count() > 20);
        return;
    };
    let number = |name, usual| {
        std::env::var(name).map_or(usual, |text| text.parse::<u32>().expect("a number"))
    };
    let seeds: Vec<u64> = (7..7 + u64::from(number("SIM_SEEDS", 3))).collect();
    let only = std::env::var("SIM_TABLES").unwrap_or_default();
    let whole = Extent {
        nodes: &[number("SIM_NODES", 3) as usize],
        seeds: &seeds,
        shorter: number("SIM_SHORTER", 1),
        only: only.split_whitespace().map(str::to_owned).collect(),
        to: Some(path.as_ref()),
    };
    let _ = tables(&whole);
}
