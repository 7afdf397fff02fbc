//! A cluster cut in two while a limit of a short window is used up all the time: what expires is
//! admitted again at once, and by both sides until they notice.

use std::time::Duration;

use policy::Mode;

use super::super::load::{Bearer, LimitSpec, Load};
use super::super::scenario::{Operation, Scenario};
use super::super::weather::Weather;
use super::super::world::World;

const CUT_AT: Duration = Duration::from_secs(15);
const UNTIL: Duration = Duration::from_secs(40);
const STEP: Duration = Duration::from_millis(50);

fn cut_in_two(seed: u64, sides: Vec<u8>) -> Scenario {
    let load = Load {
        rate: 90.0,
        keys: 1,
        evenly: true,
        limits: vec![LimitSpec::requests(Bearer::Key(0), "5s", 100.0)],
        open_for: Duration::from_millis(100),
        failing: 0.0,
        skewed: false,
    };
    let mut scenario = Scenario::calm(seed, sides.len(), load, UNTIL);
    scenario.operations = vec![(CUT_AT, Operation::Split { sides })];
    scenario
}

/// Where a packet in five is lost a stream stands still for seconds at times, and nobody can tell
/// that from a cut. But it is a part of the time, and it ends by itself.
#[test]
fn simulation_of_lossy_links_holds_limits_by_shares_for_moments() {
    let mut scenario = cut_in_two(1, vec![0; 3]);
    scenario.operations.clear();
    scenario.weather = Weather {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(20),
        loss: 0.2,
        twice: 0.05,
    };
    scenario.heal_at = UNTIL * 3;
    scenario.idle_at = scenario.heal_at;
    let mut world = World::new(scenario);
    world.run_until(CUT_AT);
    let (mut looks, mut shares, mut since, mut longest) = (0, 0, [None; 3], Duration::ZERO);
    while world.now() < UNTIL * 3 {
        world.run_until(world.now() + STEP);
        let now = world.now();
        for (node, since) in world.nodes.iter().zip(&mut since) {
            let process = node.process.as_ref().expect("nobody crashes");
            let standing = process.gateway.limits[0].standing(node.time(now).wall);
            looks += 1;
            if standing.mode == Mode::Share {
                shares += 1;
                longest = longest.max(now - *since.get_or_insert(now));
            } else {
                *since = None;
            }
        }
    }
    assert_eq!(world.violation, None);
    assert!(shares * 10 < looks, "{shares} of {looks}");
    assert!(longest < Duration::from_secs(10), "{longest:?}");
}

#[test]
fn simulation_of_a_short_window_cut_in_two() {
    // (sides, most beyond 100): what leaves the window in six tenths of a second, and its delay.
    let cases = [(vec![0, 0, 1], 25), (vec![0, 1], 25), (vec![0, 1, 2], 45)];
    for (sides, most) in cases {
        for seed in 1..=3 {
            let case = format!("{sides:?}, seed {seed}");
            let mut world = World::new(cut_in_two(seed, sides.clone()));
            world.run_until(CUT_AT);
            let (mut told, mut shared) = (0, false);
            while world.now() < UNTIL {
                world.run_until(world.now() + STEP);
                let now = world.now();
                for node in &world.nodes {
                    let time = node.time(now);
                    let process = node.process.as_ref().expect("nobody crashes");
                    for limit in process.core.view(time).limits {
                        told = told.max(limit.overshoot_bound.unwrap_or(0));
                        shared |= limit.mode == Mode::Share;
                    }
                }
            }
            let worst = world.ledger.accounts[0].worst;
            assert!(shared, "{case}");
            assert!(worst <= most, "{worst} beyond the limit: {case}");
            assert!(
                worst <= told,
                "{worst} beyond the limit, {told} told: {case}"
            );
        }
    }
}
