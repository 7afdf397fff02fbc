//! A member that sends anything: frames that were heard before, and what becomes of them when some
//! of their bytes are changed.

use std::time::Duration;

use proto::Message;
use proto::v1 as wire;

use super::super::chance::Chance;
use super::super::load::{Bearer, LimitSpec, Load};
use super::super::scenario::Scenario;
use super::super::world::World;
use crate::convert::{Inbound, Outbound};
use crate::core::Input;
use crate::message::Frame;

const FORMED: Duration = Duration::from_secs(8);
const ROUNDS: usize = 60;
const PER_ROUND: usize = 40;

/// The one that lies, and the one it lies to.
const LIAR: usize = 2;
const VICTIM: usize = 1;

fn world(seed: u64) -> World {
    let load = Load {
        rate: 60.0,
        keys: 1,
        evenly: true,
        limits: vec![LimitSpec::requests(Bearer::Key(0), "10s", 400.0)],
        open_for: Duration::from_millis(100),
        failing: 0.0,
        skewed: false,
    };
    let mut scenario = Scenario::calm(seed, 3, load, FORMED * 10);
    scenario.idle_at = FORMED * 2;
    World::new(scenario)
}

/// Frames as bytes: what links carried.
fn heard(world: &World) -> Vec<Vec<u8>> {
    let mut outbound = Outbound::new(2);
    let frames = world.links.carried.iter().cloned();
    frames
        .flat_map(|frame| outbound.write(frame))
        .map(|frame| frame.encode_to_vec())
        .collect()
}

fn spoilt(bytes: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..chance.between(0, 4) {
        if bytes.is_empty() {
            break;
        }
        let at = chance.index(bytes.len());
        match chance.below(4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, chance.next().to_le_bytes()[0]),
            2 => bytes[at] ^= 1 << chance.below(8),
            _ => bytes[at] = *chance.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        }
    }
    bytes
}

/// What the other end reads; `None`: the link would end.
fn read(inbound: &mut Inbound, bytes: &[u8]) -> Option<Frame> {
    let frame = wire::Frame::decode(bytes).ok()?;
    inbound.read(frame).ok().flatten()
}

#[test]
fn simulation_of_a_member_that_sends_anything() {
    let mut taken = 0;
    for seed in 1..=3 {
        let mut world = world(seed);
        world.links.keeps = 4_000;
        world.run_until(FORMED);
        let known = heard(&world);
        assert!(known.len() > 200, "{}", known.len());
        let mut chance = Chance::new(seed);
        let mut inbound = Inbound::default();
        for bytes in &known {
            // So that counters are named as on the liar's own link.
            let _ = read(&mut inbound, bytes);
        }
        let honest = world.nodes[0].process.as_ref().expect("it runs").origin;
        for _ in 0..ROUNDS {
            for _ in 0..PER_ROUND {
                let bytes = match chance.happens(0.1) {
                    true => (0..chance.index(64))
                        .map(|_| chance.next().to_le_bytes()[0])
                        .collect(),
                    false => {
                        let bytes = chance.pick(&known).clone();
                        spoilt(&bytes, &mut chance)
                    }
                };
                let Some(frame) = read(&mut inbound, &bytes) else {
                    continue;
                };
                if let Some(link) = world.links.between(LIAR, VICTIM) {
                    let node = world.nodes[LIAR].key;
                    world.tell(VICTIM, Input::Frame { link, node, frame });
                    taken += 1;
                }
            }
            world.run_until(world.now() + Duration::from_millis(200));
            // What a member says of itself is believed, so rules about that may be broken.
            world.violation = None;
            let process = world.nodes[VICTIM].process.as_ref().expect("it runs");
            let believed = process.core.counted_of(honest);
            let told = world.nodes[0]
                .process
                .as_ref()
                .expect("it runs")
                .core
                .counted_of(honest);
            // Its own cells alone say how much it counted; what has come of them may be older.
            assert!(
                believed
                    .iter()
                    .all(|(key, used)| told.get(key).is_none_or(|own| used <= own))
            );
        }
        let quiet = world.now() + FORMED * 2;
        while world.now() < quiet {
            world.run_until(quiet.min(world.now() + Duration::from_millis(200)));
            world.violation = None;
        }
        let of = |node: usize| {
            let process = world.nodes[node].process.as_ref().expect("it runs");
            process.core.counted_of(honest)
        };
        assert_eq!(of(VICTIM), of(0), "seed {seed}");
    }
    assert!(taken > 1_000, "{taken}");
}
