use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::counter::Cell;
use crate::testing::NOW;

fn template(unit: Unit) -> LimitTemplate {
    LimitTemplate {
        unit,
        period: (unit != Unit::Concurrent).then_some(Period::Day),
        window: WindowKind::Calendar,
        name: Some("each".into()),
        amount: 5,
        enforcement: Enforcement::Strict,
        shadow: true,
        on_tight: OnTight::Clamp,
    }
}

fn users(max_tracked: usize) -> (UserLimits, Arc<CounterTable>) {
    let counters = Arc::new(CounterTable::new());
    let templates = vec![template(Unit::Requests), template(Unit::Concurrent)];
    let users = UserLimits::new(templates, Arc::clone(&counters), max_tracked);
    (users, counters)
}

fn entity(users: &UserLimits, user: &str) -> Arc<str> {
    Arc::clone(&users.scope(user, NOW).unwrap().entity)
}

fn later(seconds: u64) -> Timestamp {
    NOW.plus(std::time::Duration::from_secs(seconds))
}

#[test]
fn asking_makes_nobody_known() {
    let (users, counters) = users(1);
    let asked = users.peek("eve", NOW).unwrap();
    assert_eq!((&*asked.entity, users.tracked()), ("eve", 0));
    drop(asked);
    counters.drop_idle(NOW);
    assert!(
        counters
            .counters()
            .iter()
            .all(|(id, _)| &*id.entity == "(others)")
    );
    let eve = users.scope("eve", NOW).unwrap();
    assert!(Arc::ptr_eq(&eve, &users.peek("eve", NOW).unwrap()));
    let bob = users.peek("bob", NOW).unwrap();
    assert_eq!((&*bob.entity, users.tracked()), ("(others)", 1));
}

#[test]
fn every_user_has_the_limits_of_the_templates() {
    let (users, _) = users(10);
    let eve = users.scope("eve", NOW).unwrap();
    assert!(Arc::ptr_eq(&eve, &users.scope("eve", NOW).unwrap()));
    assert_eq!((eve.kind, &*eve.entity), (ScopeKind::User, "eve"));
    let [requests, concurrent] = &eve.limits[..] else {
        panic!("one limit for each template")
    };
    assert_eq!(
        requests.id.to_string(),
        "user/eve/requests/1d/calendar/each"
    );
    assert_eq!(concurrent.id.unit, Unit::Concurrent);
    assert_eq!((requests.amount, requests.shadow), (5, true));
    assert_eq!(requests.on_tight, OnTight::Clamp);
    assert_eq!(requests.enforcement, Enforcement::Strict);
    let bob = users.scope("bob", NOW).unwrap();
    assert!(!Arc::ptr_eq(&bob.limits[0].counter, &requests.counter));
    let none = UserLimits::new(Vec::new(), Arc::default(), 10);
    assert!(none.scope("eve", NOW).is_none());
}

#[test]
fn too_many_users_share_one_scope() {
    let (users, counters) = users(2);
    for (user, expected) in [
        ("a", "a"),
        ("b", "b"),
        ("c", "(others)"),
        ("d", "(others)"),
        ("a", "a"),
    ] {
        assert_eq!(&*entity(&users, user), expected);
    }
    // Of whom something is counted, by a restart or another node, has its own.
    let id = users.scope("a", NOW).unwrap().limits[0].id.clone();
    let cell = Cell {
        counter: CounterId {
            entity: "e".into(),
            ..id
        }
        .to_string(),
        epoch: Period::Day.epoch(NOW),
        amount: 3,
        expires_at: later(86_400),
    };
    assert_eq!(counters.restore(&[cell]), 0);
    let known = users.scope("e", NOW).unwrap();
    assert_eq!(&*known.entity, "e");
    assert_eq!(known.limits[0].standing(NOW).used, 3);
    assert_eq!(users.tracked(), 3);
    assert_eq!(&*entity(&users, "f"), "(others)");
}

#[test]
fn idle_users_make_room() {
    let (users, counters) = users(3);
    let held = users.scope("held", NOW).unwrap();
    let used = users.scope("used", NOW).unwrap();
    let charge = |limit: &Limit| {
        let hold = limit.counter.reserve(1, 9, NOW).unwrap();
        limit.counter.settle(hold, 1, NOW)
    };
    assert!(charge(&used.limits[0]).is_some());
    drop(used);
    let _ = users.scope("idle", NOW);
    users.sweep(later(59));
    assert_eq!(users.tracked(), 3, "seen within a minute");
    users.sweep(later(60));
    assert_eq!(users.tracked(), 2);
    drop(held);
    users.sweep(later(60));
    assert_eq!(users.tracked(), 1, "somebody held its scope until now");
    assert_eq!(&*entity(&users, "new"), "new");
    // What was used does not vanish; at the end of its day it does.
    counters.drop_idle(later(60));
    assert_eq!(
        users.scope("used", NOW).unwrap().limits[0]
            .standing(NOW)
            .used,
        1
    );
    users.sweep(later(86_400));
    assert_eq!(users.tracked(), 0);
}

#[test]
fn one_users_limit_is_reset_or_overridden() {
    let (plain, counters) = users(10);
    let id = plain.scope("eve", NOW).unwrap().limits[0].id.clone();
    let amendment = Amendment {
        generation: 2,
        overridden: Some(Override {
            amount: 50,
            until: None,
        }),
    };
    let (users, _) = users(10);
    let users = users.amended([(
        CounterId {
            generation: 9,
            ..id
        },
        amendment,
    )]);
    let eve = users.scope("eve", NOW).unwrap();
    assert_eq!(eve.limits[0].id.generation, 2);
    assert_eq!(eve.limits[0].amount_at(NOW), 50);
    assert_eq!(eve.limits[1].id.generation, 0);
    let bob = users.scope("bob", NOW).unwrap();
    assert_eq!(bob.limits[0].amount_at(NOW), 5);
    assert_eq!(
        counters.counters().len(),
        4,
        "eve's and those of the others"
    );
}

/// However many come at once, one name has one count, and no more are kept
/// than allowed.
#[test]
fn threads_make_each_user_once() {
    let (users, _) = users(50);
    let barrier = Barrier::new(8);
    thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                barrier.wait();
                for user in 0..200 {
                    let user = format!("u{}", user % 100);
                    let scope = users.scope(&user, NOW).unwrap();
                    let again = users.scope(&user, NOW).unwrap();
                    if *scope.entity == user {
                        let same = Arc::ptr_eq(&scope.limits[0].counter, &again.limits[0].counter);
                        assert!(same, "{user}");
                    }
                    if user == "u99" {
                        users.sweep(later(3_600));
                    }
                }
            });
        }
    });
    assert!(users.tracked() <= 50, "{}", users.tracked());
    users.sweep(later(3_600));
    assert_eq!(users.tracked(), 0);
}

proptest! {
    /// The count is that of the map, whatever comes and goes.
    #[test]
    fn the_number_of_users_is_bounded(steps in prop::collection::vec((0_u8..30, 0_u64..200), 1..200)) {
        let (users, _) = users(10);
        let mut now = 0;
        for (user, seconds) in steps {
            now += seconds / 20;
            let scope = users.scope(&format!("u{user}"), later(now)).unwrap();
            prop_assert!(scope.limits.len() == 2);
            drop(scope);
            if seconds > 150 {
                users.sweep(later(now));
            }
            prop_assert!(users.tracked() <= 10);
            prop_assert_eq!(users.tracked(), users.tracked.pin().len());
        }
    }
}
