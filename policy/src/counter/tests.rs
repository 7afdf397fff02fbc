use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::scope::ScopeKind;
use crate::window::Period;

pub(super) fn id(unit: Unit, period: &str, window: WindowKind) -> CounterId {
    CounterId {
        scope: ScopeKind::VirtualKey,
        entity: "demo".into(),
        unit,
        period: (unit != Unit::Concurrent).then(|| period.parse().unwrap()),
        window,
        name: None,
        generation: 0,
    }
}

/// The kinds of counter, with sub-windows or periods of one second.
pub(super) fn kinds() -> [CounterId; 5] {
    [
        id(Unit::Tokens, "30s", WindowKind::Sliding),
        id(Unit::Requests, "30s", WindowKind::Sliding),
        id(Unit::Tokens, "30s", WindowKind::Smooth),
        id(Unit::Usd, "1s", WindowKind::Calendar),
        id(Unit::Concurrent, "", WindowKind::Fixed),
    ]
}

#[test]
fn settled_amounts_are_charged_where_they_were_booked() {
    use WindowKind::{Calendar, Fixed, Sliding};
    // Tokens of a sliding window at the settlement, requests at the admission.
    check(id(Unit::Tokens, "30s", Sliding), 5, Some((12, 5, 43_000)));
    check(id(Unit::Requests, "30s", Sliding), 1, Some((1, 1, 32_000)));
    check(id(Unit::Requests, "10s", Sliding), 1, None);
    // Periods at the admission, however long the request ran.
    check(id(Unit::Requests, "10s", Fixed), 1, Some((0, 1, 10_000)));
    check(id(Unit::Usd, "1d", Calendar), 70, Some((0, 70, 86_400_000)));
    check(id(Unit::Usd, "5s", Calendar), 70, Some((0, 70, 5_000)));
    check(id(Unit::Concurrent, "", Fixed), 1, None);
    for kind in kinds() {
        check(kind, 0, None);
    }
}

/// One hold at 1 s, settled with `used` at 12.5 s, gives this charge of
/// (epoch, amount, expires at), and leaves nothing held.
#[track_caller]
fn check(id: CounterId, used: u64, expected: Option<(i64, u64, u64)>) {
    let counter = Counter::new(&id);
    let hold = counter.reserve(1, 1, Timestamp(1_000)).unwrap();
    let charge = counter.settle(hold, used, Timestamp(12_500));
    let expected = expected.map(|(epoch, amount, expires_at)| Charge {
        counter: id.to_string().into(),
        epoch,
        amount,
        expires_at: Timestamp(expires_at),
    });
    assert_eq!(charge, expected, "{id}");
    assert_eq!(counter.level(Timestamp(12_500)).reserved, 0, "{id}");
}

#[test]
fn two_hundred_threads_share_ten_tenths() {
    for kind in kinds() {
        let counter = Counter::new(&kind);
        let barrier = Barrier::new(200);
        let holds: Vec<Hold> = thread::scope(|scope| {
            let threads: Vec<_> = (0..200)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        counter.reserve(10, 100, Timestamp(1_000))
                    })
                })
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(holds.len(), 10, "{kind}");
        assert!(
            counter.reserve(1, 100, Timestamp(1_000)).is_none(),
            "{kind}"
        );
        for hold in holds {
            counter.release(hold, Timestamp(1_000));
        }
        assert!(counter.is_idle(Timestamp(1_000)), "{kind}");
    }
}

#[test]
fn periods_turn_once_for_all_threads() {
    const THREADS: usize = 8;
    let counter = Counter::new(&id(Unit::Usd, "1s", WindowKind::Calendar));
    let barrier = Barrier::new(THREADS);
    let charges: Vec<Charge> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let take = |step: u64| counter.reserve(1, 100, Timestamp(step * 10));
                    let holds: Vec<_> = (0..10_000).filter_map(take).collect();
                    let settle = |hold| counter.settle(hold, 1, Timestamp(0));
                    holds.into_iter().filter_map(settle).collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let mut by_epoch: BTreeMap<i64, u64> = BTreeMap::new();
    for charge in charges {
        *by_epoch.entry(charge.epoch).or_default() += charge.amount;
    }
    assert!(by_epoch.values().all(|sum| *sum <= 100), "{by_epoch:?}");
    assert_eq!(counter.level(Timestamp(99_999)).used, by_epoch[&99]);
}

/// A clock that steps back opens no old period and gives nothing away again.
#[test]
fn a_clock_that_steps_back_stays_in_the_newest_period() {
    for (period, window) in [
        ("1d", WindowKind::Calendar),
        ("1M", WindowKind::Calendar),
        ("1Y@4", WindowKind::Calendar),
        ("1h", WindowKind::Fixed),
        ("1h", WindowKind::Sliding),
        ("1h", WindowKind::Smooth),
    ] {
        let counter = Counter::new(&id(Unit::Usd, period, window));
        let length = period.parse::<Period>().unwrap().longest();
        let before = Timestamp(1_795_380_200_000);
        let after = before.plus(length);
        let held = counter.reserve(10, 10, after).unwrap();
        for back in [1, 1_000, 3_600_000, 86_400_000] {
            let now = Timestamp(after.0 - back);
            assert!(
                counter.reserve(1, 10, now).is_none(),
                "{period} {window} {back}"
            );
            assert_eq!(counter.level(now).reserved, 10);
        }
        let charge = counter.settle(held, 10, before).unwrap();
        assert!(charge.expires_at > after, "{period} {window}");
        assert!(counter.reserve(1, 10, before).is_none());
        assert!(counter.reserve(10, 10, charge.expires_at).is_some());
    }
}

#[test]
fn other_nodes_lower_what_is_left() {
    for kind in kinds() {
        let counter = Counter::new(&kind);
        counter.change_remote(0, 0, 6, Timestamp(0));
        assert!(counter.reserve(5, 10, Timestamp(0)).is_none(), "{kind}");
        let hold = counter.reserve(4, 10, Timestamp(0)).unwrap();
        counter.release(hold, Timestamp(0));
        counter.change_remote(0, 6, 0, Timestamp(0));
        let ceiling = |ceiling| Fleet {
            ceiling,
            ..Fleet::default()
        };
        counter.set_fleet(ceiling(3));
        assert_eq!(counter.ceiling(10.into()), 3);
        assert!(counter.reserve(4, 10, Timestamp(0)).is_none(), "{kind}");
        counter.set_fleet(ceiling(u64::MAX));
        assert!(counter.reserve(10, 10, Timestamp(0)).is_some(), "{kind}");
    }
}

#[test]
fn sliding_limits_are_capped_to_what_a_slot_holds() {
    let [sliding, .., budget, _] = kinds();
    assert_eq!(
        Counter::new(&sliding).ceiling(u64::MAX.into()),
        (1 << 40) - 1
    );
    assert_eq!(Counter::new(&budget).ceiling(u64::MAX.into()), u64::MAX);
}

// === a plain model of the counters ===

/// What a counter should do, written without any thought of threads: a list
/// of amounts, each with the epoch it stands in.
#[derive(Debug)]
struct Model {
    id: CounterId,
    newest: i64,
    /// (epoch, amount, whether held); holds are replaced by index.
    amounts: Vec<(i64, u64, bool)>,
}

impl Model {
    fn enter(&mut self, now: u64) {
        self.newest = self.newest.max(i64::try_from(now / 1_000).unwrap());
    }

    fn is_live(&self, epoch: i64) -> bool {
        match (self.id.unit, self.id.window) {
            (Unit::Concurrent, _) => true,
            (_, WindowKind::Sliding | WindowKind::Smooth) => self.newest - epoch <= 30,
            _ => self.newest == epoch,
        }
    }

    fn sum(&self, wanted: impl Fn(bool) -> bool) -> u64 {
        let live = |(epoch, amount, held): &(i64, u64, bool)| {
            if self.is_live(*epoch) && wanted(*held) {
                *amount
            } else {
                0
            }
        };
        self.amounts.iter().map(live).sum()
    }

    /// What counts at `now`; the oldest sub-window of a smooth one fades.
    fn counted(&self, now: u64) -> u64 {
        let total = self.sum(|_| true);
        if self.id.window != WindowKind::Smooth {
            return total;
        }
        let oldest = |amount: &&(i64, u64, bool)| amount.0 == self.newest - 30;
        let fading: u64 = self
            .amounts
            .iter()
            .filter(oldest)
            .map(|amount| amount.1)
            .sum();
        let start = u64::try_from(self.newest).unwrap() * 1_000;
        total - fading * now.saturating_sub(start).min(1_000) / 1_000
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Moves the clock, back too.
    Pass(i64),
    Reserve(u64),
    /// Which open hold, and what was used.
    Settle(usize, u64),
    Release(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_i64..4_000).prop_map(Step::Pass),
        1 => (-40_000_i64..60_000).prop_map(Step::Pass),
        6 => (0_u64..12).prop_map(Step::Reserve),
        3 => (any::<usize>(), 0_u64..14).prop_map(|(which, used)| Step::Settle(which, used)),
        1 => any::<usize>().prop_map(Step::Release),
    ];
    prop::collection::vec(step, 1..120)
}

/// A counter and its model, side by side.
struct Pair {
    counter: Counter,
    model: Model,
    now: u64,
    limit: u64,
    /// Open holds with their place in the model.
    open: Vec<(Hold, usize)>,
    charges: Vec<Charge>,
}

impl Pair {
    fn new(id: &CounterId, limit: u64) -> Self {
        Self {
            counter: Counter::new(id),
            model: Model {
                id: id.clone(),
                newest: 0,
                amounts: Vec::new(),
            },
            now: 100_000,
            limit,
            open: Vec::new(),
            charges: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Pass(millis) => self.now = self.now.saturating_add_signed(millis),
            Step::Reserve(amount) => self.reserve(amount),
            Step::Settle(which, used) => self.end(which, used),
            Step::Release(which) => self.end(which, 0),
        }
    }

    fn reserve(&mut self, amount: u64) {
        self.model.enter(self.now);
        let fits = amount == 0 || self.model.counted(self.now) + amount <= self.limit;
        let hold = self
            .counter
            .reserve(amount, self.limit, Timestamp(self.now));
        assert_eq!(
            hold.is_some(),
            fits,
            "{amount} at {} in {:?}",
            self.now,
            self.model
        );
        if let Some(hold) = hold {
            self.model.amounts.push((self.model.newest, amount, true));
            self.open.push((hold, self.model.amounts.len() - 1));
        }
    }

    fn end(&mut self, which: usize, used: u64) {
        if self.open.is_empty() {
            return;
        }
        let (hold, place) = self.open.swap_remove(which % self.open.len());
        let charge = self.counter.settle(hold, used, Timestamp(self.now));
        let sliding = matches!(
            self.model.id.window,
            WindowKind::Sliding | WindowKind::Smooth
        );
        let unit = self.model.id.unit;
        if sliding {
            self.model.enter(self.now);
        }
        let (admitted, held, _) = self.model.amounts[place];
        let entry = match unit {
            _ if used == 0 => (admitted, 0, false),
            Unit::Concurrent => (admitted, 0, false),
            Unit::Requests if sliding => (admitted, held, false),
            _ if sliding => (self.model.newest, used, false),
            _ => (admitted, used, false),
        };
        self.model.amounts[place] = entry;
        let charged = charge.as_ref().map_or(0, |charge| charge.amount);
        let late = unit == Unit::Requests && !self.model.is_live(admitted);
        assert_eq!(
            charged,
            if late { 0 } else { entry.1 },
            "settle never loses"
        );
        self.charges.extend(charge);
    }

    /// Both agree on what is used and held.
    fn compare(&mut self) {
        if self.model.id.unit == Unit::Concurrent {
            let count = self.counter.level(Timestamp(self.now)).used;
            assert_eq!(count, self.model.sum(|held| held));
            return;
        }
        self.model.enter(self.now);
        let level = self.counter.level(Timestamp(self.now));
        let counted = self.model.counted(self.now);
        assert_eq!(
            level.used + level.reserved,
            counted,
            "at {} in {:?}",
            self.now,
            self.model
        );
        if self.open.is_empty() {
            assert_eq!(level.reserved, 0);
        }
    }
}

proptest! {
    /// Random steps, the clock running backwards at times: every decision and
    /// every level is the plain model's, and a restart changes nothing.
    #[test]
    fn counters_do_what_the_plain_model_does(steps in steps(), limit in 0_u64..30) {
        for id in kinds() {
            let mut pair = Pair::new(&id, limit);
            for step in &steps {
                pair.take(step);
                pair.compare();
            }
            while !pair.open.is_empty() {
                pair.end(0, 0);
            }
            pair.compare();
            let table = CounterTable::new();
            let cells: Vec<Cell> = pair.charges.iter().map(|charge| Cell {
                counter: charge.counter.to_string(),
                epoch: charge.epoch,
                amount: charge.amount,
                expires_at: charge.expires_at,
            }).collect();
            prop_assert_eq!(table.restore(&cells), 0);
            // The clock of the next run is not behind what was seen.
            let now = Timestamp(pair.now.max(u64::try_from(pair.model.newest).unwrap() * 1_000));
            prop_assert_eq!(table.counter(&id).level(now).used, pair.counter.level(now).used);
        }
    }

    /// Settlements within their holds and windows never pass the limit.
    #[test]
    fn honest_use_never_passes_the_limit(steps in steps(), limit in 1_u64..30) {
        for id in kinds() {
            let counter = Counter::new(&id);
            let mut now = 100_000_u64;
            for step in &steps {
                match *step {
                    // What has faded comes back with the time.
                    Step::Pass(millis) if millis < 0 && id.window == WindowKind::Smooth => {}
                    Step::Pass(millis) => now = now.saturating_add_signed(millis),
                    Step::Reserve(amount) => {
                        let hold = counter.reserve(amount, limit, Timestamp(now));
                        let used = amount / 2;
                        hold.map(|hold| counter.settle(hold, used, Timestamp(now)));
                    }
                    Step::Settle(..) | Step::Release(_) => {}
                }
                let level = counter.level(Timestamp(now));
                prop_assert!(level.used + level.reserved <= limit);
                prop_assert_eq!(level.reserved, 0);
            }
        }
    }

    /// Waiting as long as told is enough, and waiting less is not.
    #[test]
    fn a_demand_fits_when_it_was_said_to(steps in steps(), amount in 1_u64..12) {
        const LIMIT: u64 = 12;
        for id in kinds() {
            if id.unit == Unit::Concurrent {
                continue;
            }
            let mut now = 100_000_u64;
            let counter = Counter::new(&id);
            for step in &steps {
                match *step {
                    Step::Pass(millis) => now = now.saturating_add(millis.unsigned_abs()),
                    Step::Reserve(taken) => drop(counter.reserve(taken, LIMIT, Timestamp(now))),
                    Step::Settle(..) | Step::Release(_) => {}
                }
            }
            let wait = counter.retry_after(amount, LIMIT, Timestamp(now));
            let later = Timestamp(now).plus(wait);
            if !wait.is_zero() {
                let early = Timestamp(later.0 - 1);
                prop_assert!(counter.reserve(amount, LIMIT, early).is_none(), "{} early", id);
            }
            prop_assert!(counter.reserve(amount, LIMIT, later).is_some(), "{} late", id);
        }
    }
}

#[test]
fn periods_have_no_more_kinds_than_tested() {
    // `Period::longest` decides the sub-windows of a sliding limit.
    let month = Counter::new(&id(Unit::Tokens, "1M", WindowKind::Sliding));
    let hold = month.reserve(1, 1, Timestamp(0)).unwrap();
    let leaves = Timestamp(0)
        .plus(Period::Month.longest())
        .plus(Period::Month.longest() / 30);
    assert!(month.settle(hold, 1, Timestamp(0)).unwrap().expires_at >= leaves);
}
