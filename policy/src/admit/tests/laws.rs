//! What holds whatever happens in which order.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::limit::Limit;
use crate::testing::{CHOICES, candidates};

/// Ten requests of a tenth at every level, in every unit.
fn ten_tenths() -> World {
    let each: &[&str] = &[
        "10 requests/1m",
        "1500 tokens/1m",
        "50 usd/1d strict",
        "10 concurrent",
    ];
    let places = [
        "key",
        "team",
        "customer",
        "user",
        "global",
        "demo/openai",
        "openai",
        "gpt",
        "openai/gpt",
    ];
    World::new(&places.map(|place| (place, each)))
}

/// Two hundred threads ask at once, each `tries` times at most.
fn admitted_at_once(world: &World, choices: usize, tries: usize) -> Vec<Reservation> {
    let barrier = Barrier::new(200);
    let all = candidates(&demand());
    thread::scope(|threads| {
        let asking: Vec<_> = (0..200)
            .map(|_| {
                threads.spawn(|| {
                    barrier.wait();
                    (0..tries).find_map(|_| {
                        let user = world.user.as_ref();
                        match admit(&world.snapshot, &world.key, user, &all[..choices], NOW) {
                            Verdict::Admit(admitted) => Some(admitted.reservation),
                            Verdict::Reject(_) => None,
                        }
                    })
                })
            })
            .collect();
        asking
            .into_iter()
            .filter_map(|thread| thread.join().unwrap())
            .collect()
    })
}

#[test]
fn two_hundred_threads_share_ten_tenths_of_the_whole_walk() {
    let world = ten_tenths();
    let admitted = admitted_at_once(&world, 1, 1);
    assert_eq!(admitted.len(), 10);
    for limit in world.limits() {
        assert_eq!(limit.standing(NOW).remaining, 0, "{}", limit.id);
    }
    drop(admitted);
    for limit in world.limits() {
        assert_eq!(limit.standing(NOW).remaining, limit.amount, "{}", limit.id);
    }
}

#[test]
fn threads_fill_one_choice_after_the_other() {
    let world = World::new(&[
        ("key", &["50 concurrent"]),
        ("team", &["20 requests/1m"]),
        ("openai", &["3 requests/1m"]),
        ("azure/gpt", &["600 tokens/1m"]),
        ("mini", &["15 usd/1d strict"]),
    ]);
    // A refusal may be due to holds that others are about to give back;
    // whoever asks again finds the truth: 3 + 4 + 3.
    let admitted = admitted_at_once(&world, 3, 200);
    assert_eq!(admitted.len(), 10);
    let held: Vec<u64> = world
        .limits()
        .map(|limit| limit.standing(NOW))
        .map(|standing| standing.limit - standing.remaining)
        .collect();
    assert_eq!(held, [10, 10, 3, 600, 15_000_000_000]);
    drop(admitted);
    for limit in world.limits() {
        assert_eq!(limit.standing(NOW).remaining, limit.amount, "{}", limit.id);
    }
}

/// What may happen to the requests of a world.
#[derive(Clone, Debug)]
enum Step {
    /// A request of (tokens, cost) comes.
    Admit(u64, u64),
    /// An open one goes to another choice, reached before or not.
    Move(usize, usize, bool),
    /// An open one has grown to (tokens, cost).
    TopUp(usize, u64, u64),
    /// An open one ends with (requests, tokens, cost), cut to what it holds.
    Settle(usize, u64, u64, u64),
    Release(usize),
    Drop(usize),
    /// Milliseconds pass, backwards too; never so many that a hold outlives
    /// its window, as it may be booked beyond the limit then.
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = any::<usize>;
    let step = prop_oneof![
        6 => (0_u64..300, 0_u64..300).prop_map(|(tokens, cost)| Step::Admit(tokens, cost)),
        3 => (which(), 0_usize..3, any::<bool>()).prop_map(|(a, to, r)| Step::Move(a, to, r)),
        3 => (which(), 0_u64..500, 0_u64..500).prop_map(|(a, t, c)| Step::TopUp(a, t, c)),
        3 => (which(), 0_u64..2, 0_u64..300, 0_u64..300)
            .prop_map(|(a, r, t, c)| Step::Settle(a, r, t, c)),
        1 => which().prop_map(Step::Release),
        1 => which().prop_map(Step::Drop),
        2 => (-300_i64..600).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..80)
}

/// Strict everywhere, so that nothing may ever pass a limit; one of each that
/// only counts.
const STRICT: [(&str, &[&str]); 8] = [
    (
        "key",
        &["4 concurrent", "9 requests/1m", "1500 tokens/1m strict"],
    ),
    (
        "team",
        &["1100 tokens/1m strict", "0.0000009 usd/1d strict"],
    ),
    ("user", &["7 requests/1h", "5 tokens/1m shadow"]),
    ("global", &["1000 tokens/1h strict", "0.0000005 usd/1d"]),
    ("demo/openai", &["3 requests/1m"]),
    ("openai", &["2 concurrent", "500 tokens/1m strict"]),
    ("gpt", &["5 requests/1m", "900 tokens/1m strict"]),
    (
        "azure/mini",
        &["300 tokens/1m strict", "0.0000004 usd/1d strict"],
    ),
];

struct Run {
    world: World,
    now: Timestamp,
    open: Vec<Reservation>,
    /// By counter.
    charged: BTreeMap<String, u64>,
    /// Requests, tokens and cost that were settled at the end of requests.
    actual: [u64; 3],
    /// Whether a reservation was dropped, and its charges with it.
    dropped: bool,
}

impl Run {
    fn demand(tokens: u64, cost: u64) -> Demand {
        Demand {
            tokens: Tokens(tokens),
            cost: NanoUsd(cost),
            strict_tokens: Tokens(tokens),
            strict_cost: NanoUsd(cost),
            ..Demand::default()
        }
    }

    fn take(&mut self, step: &Step) {
        let last = self.open.len();
        match *step {
            Step::Pass(millis) => self.now = Timestamp(self.now.0.saturating_add_signed(millis)),
            Step::Admit(tokens, cost) => {
                let before = self.world.levels(self.now);
                match self.world.ask_at(&Self::demand(tokens, cost), self.now) {
                    Verdict::Admit(admitted) => self.open.push(admitted.reservation),
                    Verdict::Reject(_) => assert_eq!(before, self.world.levels(self.now)),
                }
            }
            _ if last == 0 => {}
            Step::Move(which, to, reached) => {
                let to = Candidate {
                    model: CHOICES[to],
                    demand: Self::demand(50, 50),
                };
                let World { snapshot, key, .. } = &self.world;
                let open = &mut self.open[which % last];
                let _ = open.move_to(snapshot, key, &to, reached, self.now);
            }
            Step::TopUp(which, tokens, cost) => {
                let open = &mut self.open[which % last];
                let before = open.all_standings(self.now);
                if open
                    .top_up(Tokens(tokens), NanoUsd(cost), self.now)
                    .is_err()
                {
                    let after = open.all_standings(self.now);
                    for (before, after) in before.iter().zip(after) {
                        let strict = before.enforcement == Enforcement::Strict && !before.shadow;
                        assert!(!strict || before.reserved == after.reserved, "all or none");
                    }
                }
            }
            Step::Settle(which, requests, tokens, cost) => {
                let open = self.open.swap_remove(which % last);
                // At most what was held everywhere; what a provider uses
                // beyond that passes the limits too.
                let within = |used: u64, unit| open.holds(unit).chain([used]).min().unwrap();
                let actual = Actual {
                    requests,
                    tokens: Tokens(within(tokens, Unit::Tokens)),
                    cost: NanoUsd(within(cost, Unit::Usd)),
                };
                self.actual[0] += requests;
                self.actual[1] += actual.tokens.0;
                self.actual[2] += actual.cost.0;
                self.book(open.settle(&actual, self.now));
            }
            Step::Release(which) => {
                let open = self.open.swap_remove(which % last);
                let charges = open.release(self.now);
                self.book(charges);
            }
            Step::Drop(which) => {
                drop(self.open.swap_remove(which % last));
                self.dropped = true;
            }
        }
    }

    /// No limit that refuses is ever passed.
    fn check_limits(&self) {
        for limit in self.world.limits().filter(|limit| refuses(limit)) {
            let standing = limit.standing(self.now);
            let sum = standing.used + standing.reserved;
            assert!(
                sum <= limit.amount,
                "{}: {sum} of {}",
                limit.id,
                limit.amount
            );
        }
    }

    /// Nothing is held any more, and what is used is what was settled.
    fn check_books(&self) {
        for limit in self.world.limits() {
            let standing = limit.standing(self.now);
            assert_eq!(standing.reserved, 0, "{}", limit.id);
            if limit.id.unit == Unit::Concurrent {
                assert_eq!(standing.used, 0);
                continue;
            }
            let charged = self.charged.get(&limit.id.to_string()).copied();
            if !self.dropped {
                assert_eq!(standing.used, charged.unwrap_or(0), "{}", limit.id);
            }
            if limit.id.scope == ScopeKind::Global || limit.id.scope == ScopeKind::VirtualKey {
                let actual = match limit.id.unit {
                    Unit::Requests => self.actual[0],
                    Unit::Tokens => self.actual[1],
                    _ => self.actual[2],
                };
                assert_eq!(standing.used, actual, "{}", limit.id);
            }
        }
    }

    fn book(&mut self, charges: Vec<Charge>) {
        for charge in charges {
            assert!(charge.amount > 0);
            *self.charged.entry(charge.counter.to_string()).or_default() += charge.amount;
        }
    }
}

/// Whether a limit holds as much as a request can use, and refuses.
fn refuses(limit: &Limit) -> bool {
    let whole = !limit.id.unit.is_estimated() || limit.enforcement == Enforcement::Strict;
    whole && !limit.shadow
}

proptest! {
    #[test]
    fn no_limit_is_passed_and_no_use_is_lost(steps in steps()) {
        let mut run = Run {
            world: World::new(&STRICT),
            now: NOW,
            open: Vec::new(),
            charged: BTreeMap::new(),
            actual: [0; 3],
            dropped: false,
        };
        for step in &steps {
            run.take(step);
            run.check_limits();
        }
        while !run.open.is_empty() {
            run.take(&Step::Settle(0, 1, 40, 40));
            run.check_limits();
        }
        run.check_books();
    }

    /// The same at once from several threads, the clock standing still.
    #[test]
    fn threads_keep_the_books(seeds in prop::collection::vec(steps(), 4)) {
        let world = World::new(&STRICT);
        let barrier = Barrier::new(seeds.len());
        thread::scope(|threads| {
            for steps in &seeds {
                threads.spawn(|| {
                    barrier.wait();
                    at_once(&world, steps);
                });
            }
        });
        for limit in world.limits() {
            let standing = limit.standing(NOW);
            prop_assert_eq!(standing.remaining, limit.amount, "{}", &limit.id);
        }
    }
}

/// One thread's part: takes, moves and raises, and gives everything back.
fn at_once(world: &World, steps: &[Step]) {
    let mut open: Vec<Reservation> = Vec::new();
    for step in steps {
        let last = open.len();
        match *step {
            Step::Admit(tokens, cost) => match world.ask(&Run::demand(tokens, cost)) {
                Verdict::Admit(admitted) => open.push(admitted.reservation),
                Verdict::Reject(_) => {}
            },
            Step::Pass(_) => {}
            _ if last == 0 => {}
            Step::Move(which, to, _) => {
                let to = Candidate {
                    model: CHOICES[to],
                    demand: Run::demand(50, 50),
                };
                let _ = open[which % last].move_to(&world.snapshot, &world.key, &to, false, NOW);
            }
            Step::TopUp(which, tokens, cost) => {
                let _ = open[which % last].top_up(Tokens(tokens), NanoUsd(cost), NOW);
            }
            Step::Settle(which, ..) | Step::Release(which) | Step::Drop(which) => {
                drop(open.swap_remove(which % last));
            }
        }
        for limit in world.limits().filter(|limit| refuses(limit)) {
            let level = limit.standing(NOW);
            assert!(level.used + level.reserved <= limit.amount, "{}", limit.id);
        }
    }
}
