//! The walk over scopes as one table of cases.

use super::*;
use crate::limit::{Limit, OnTight, Override};
use crate::testing::{CHOICES, candidates};
use crate::virtual_key::AllowList;

type Limits<'a> = &'a [(&'static str, &'a [&'a str])];

/// One request a minute, which the first request of each case uses up.
const ONE: &[&str] = &["1 requests/1m"];
const NONE: &[&str] = &["0 requests/1m"];

#[test]
fn each_scope_refuses_alone() {
    let full = |label: &str| format!("{label}/requests/1m: 1 of 1 used, full again in 62 s");
    for (place, label) in [
        ("key", "virtual_key/demo"),
        ("team", "team/red"),
        ("customer", "customer/acme"),
        ("user", "user/eve"),
        ("global", "global/global"),
        ("demo/openai", "virtual_key_provider/demo/openai"),
        ("openai", "provider/openai"),
        ("gpt", "model/gpt"),
        ("openai/gpt", "model/openai/gpt"),
    ] {
        check(&[(place, ONE)], 1, 1, &full(label));
        // Limits of what this request does not meet do not concern it.
        let elsewhere = ["azure", "demo/azure", "azure/gpt", "mini"].map(|place| (place, NONE));
        check(&elsewhere, 1, 1, "goes to 0");
    }
    check(&[], 3, 1, "goes to 0");
}

#[test]
fn the_walk_has_an_order() {
    // Of two neighbours without room the first is named.
    for (first, second, label) in [
        ("key", "team", "virtual_key/demo"),
        ("team", "customer", "team/red"),
        ("customer", "user", "customer/acme"),
        ("user", "global", "user/eve"),
        ("global", "demo/openai", "global/global"),
        ("demo/openai", "openai", "virtual_key_provider/demo/openai"),
        ("openai", "gpt", "provider/openai"),
        ("gpt", "openai/gpt", "model/gpt"),
    ] {
        let shown = format!("{label}/requests/1m: 0 of 0 used, full again in 0 s");
        check(&[(first, NONE), (second, NONE)], 1, 0, &shown);
        check(&[(second, NONE), (first, NONE)], 1, 0, &shown);
    }
}

#[test]
fn a_full_choice_is_skipped() {
    check(&[("openai", NONE)], 3, 0, "goes to 1");
    check(&[("demo/openai", NONE)], 3, 0, "goes to 1");
    check(&[("openai/gpt", NONE)], 3, 0, "goes to 1");
    check(&[("openai/gpt", ONE)], 3, 1, "goes to 1");
    // The bare name is the same at every provider.
    check(&[("gpt", NONE)], 3, 0, "goes to 2");
    check(&[("openai", NONE), ("azure/gpt", NONE)], 3, 0, "goes to 2");
    // Too large for one choice is no reason against the next.
    check(&[("openai", &["9 tokens/1m strict"])], 3, 0, "goes to 1");
    // All full: the first choice's refusal.
    let full = "provider/openai/requests/1m: 0 of 0 used, full again in 0 s";
    check(&[("azure", NONE), ("openai", NONE)], 3, 0, full);
    let full = "model/gpt/requests/1m: 0 of 0 used, full again in 0 s";
    check(&[("azure/mini", NONE), ("gpt", NONE)], 3, 0, full);
    // What is common refuses before any choice is looked at.
    let full = "global/global/requests/1m: 0 of 0 used, full again in 0 s";
    check(&[("openai", NONE), ("global", NONE)], 3, 0, full);
}

#[test]
fn every_unit_counts_at_every_level() {
    let tokens = "model/gpt/tokens/1h: 150 of 200 used, full again in 3640 s";
    check(&[("gpt", &["200 tokens/1h"])], 1, 1, tokens);
    let budget = "customer/acme/usd/1d: 1500000000 of 2000000000 used, full again in 11800 s";
    check(&[("customer", &["2 usd/1d"])], 1, 1, budget);
    check(&[("team", &["1 concurrent"])], 1, 1, "goes to 0");
    let tight = "user/eve/tokens/1h: 150 of 600 used, full again in 3640 s";
    check(&[("user", &["600 tokens/1h strict"])], 1, 1, tight);
}

#[test]
fn shadow_limits_count_and_refuse_nothing() {
    let shadow: &[&str] = &["1 requests/1m shadow"];
    check(&[("key", shadow)], 1, 0, "goes to 0");
    let seen = "goes to 0, virtual_key/demo/requests/1m would refuse";
    check(&[("key", shadow)], 1, 1, seen);
    check(&[("key", shadow)], 1, 2, seen);
    // A later limit refuses for real; the shadow one gives back.
    let full = "team/red/requests/1m: 1 of 1 used, full again in 62 s";
    check(&[("key", shadow), ("team", ONE)], 1, 1, full);
    // Only the choice that is taken is told.
    let seen = "goes to 1, provider/azure/requests/1m would refuse";
    let none: &[&str] = &["0 requests/1m shadow"];
    let limits: Limits<'_> = &[("openai", none), ("openai/gpt", NONE), ("azure", none)];
    check(limits, 3, 0, seen);
    let large = "goes to 0, global/global/tokens/1m would refuse";
    check(&[("global", &["9 tokens/1m strict shadow"])], 1, 0, large);
}

/// After `settled` requests, each with one request, 150 tokens and $1.50, the
/// next one over the first `choices` choices ends like this. Whatever was not
/// admitted holds nothing.
#[track_caller]
fn check(limits: Limits<'_>, choices: usize, settled: usize, expected: &str) {
    let world = World::new(limits);
    shown(&world, choices, settled, expected);
}

#[track_caller]
fn shown(world: &World, choices: usize, settled: usize, expected: &str) {
    let ask = |now| {
        let candidates = &candidates(&demand())[..choices];
        admit(
            &world.snapshot,
            &world.key,
            world.user.as_ref(),
            candidates,
            now,
        )
    };
    for _ in 0..settled {
        let actual = Actual {
            requests: 1,
            tokens: demand().tokens,
            cost: demand().cost,
        };
        let _ = admitted(ask(NOW)).settle(&actual, NOW);
    }
    let before = world.levels(NOW);
    let outcome = match ask(NOW) {
        Verdict::Admit(admitted) => {
            let counted = world.levels(NOW);
            assert_eq!(
                counted.iter().any(|level| level.1 > 0),
                has_holds(world, &admitted)
            );
            let mut text = format!("goes to {}", admitted.chosen);
            for rejection in &admitted.shadowed {
                text.push_str(&format!(", {} would refuse", rejection.limit_label()));
            }
            text
        }
        Verdict::Reject(refused) => format!(
            "{}: {} of {} used, full again in {} s",
            refused.limit_label(),
            refused.used,
            refused.limit,
            refused.resets_at.since(NOW).as_secs()
        ),
    };
    assert_eq!(outcome, expected);
    assert_eq!(before, world.levels(NOW), "{expected}: something is held");
}

fn has_holds(world: &World, admitted: &Admitted) -> bool {
    let holds = admitted.reservation.all_standings(NOW);
    // A gauge shows its holds as use.
    holds
        .iter()
        .any(|standing| standing.unit != Unit::Concurrent)
        && world.limits().count() > 0
}

#[test]
fn an_override_holds_until_its_end() {
    let later = NOW.plus(Duration::from_secs(10));
    let world = |amount, until| {
        World::changed(&[("team", ONE)], move |limit: &mut Limit| {
            limit.overridden = Some(Override { amount, until });
        })
    };
    let raised = world(2, Some(later));
    shown(&raised, 1, 1, "goes to 0");
    let standing = raised.limits().next().unwrap().standing(NOW);
    assert_eq!((standing.limit, standing.overridden), (2, true));
    let standing = raised.limits().next().unwrap().standing(later);
    assert_eq!((standing.limit, standing.overridden), (1, false));
    assert_eq!(rejected(raised.ask_at(&demand(), later)).limit, 1);
    shown(&world(2, None), 1, 1, "goes to 0");
    let lowered = "team/red/requests/1m: 0 of 0 used, full again in 0 s";
    shown(&world(0, None), 1, 0, lowered);
    shown(&world(0, Some(NOW)), 1, 0, "goes to 0");
}

#[test]
fn a_new_generation_starts_at_zero() {
    let table = crate::counter::CounterTable::new();
    let old = crate::testing::limit(&table, ScopeKind::Team, "red", "1 requests/1m");
    let mut id = old.id.clone();
    id.generation = 2;
    let new = Limit {
        counter: table.counter(&id),
        id,
        ..old.clone()
    };
    let taken = |limit: &Limit| limit.counter.reserve(1, 1, NOW).is_some();
    assert!(taken(&old) && !taken(&old));
    assert!(taken(&new) && !taken(&new));
    assert_eq!(new.id.to_string(), "team/red/requests/1m/sliding#2");
    // The API's name of the limit stays.
    assert_eq!(new.standing(NOW).id_text(), old.id.to_string());
}

#[test]
fn the_customer_is_the_keys_own_or_its_teams() {
    let world = World::new(&[("customer", NONE)]);
    let ask = |team: Option<&str>, customer: Option<&str>| {
        let key = VirtualKey {
            team: team.map(Into::into),
            customer: customer.map(Into::into),
            ..(*world.key).clone()
        };
        admit(&world.snapshot, &key, None, &candidates(&demand()), NOW)
    };
    let label = |verdict| rejected(verdict).limit_label();
    assert_eq!(label(ask(Some("red"), None)), "customer/acme/requests/1m");
    assert_eq!(label(ask(None, Some("acme"))), "customer/acme/requests/1m");
    // Its own goes before its team's; names that do not exist have no limits.
    let _ = admitted(ask(Some("red"), Some("other")));
    let _ = admitted(ask(Some("blue"), None));
    let _ = admitted(ask(None, None));
}

#[test]
fn a_choice_is_judged_by_the_grant_that_allows_it() {
    let world = World::new(&[("demo/openai", NONE)]);
    let only = |name: &str| AllowList::from_names(vec![name.to_owned()]).unwrap();
    let mut key = (*world.key).clone();
    key.grants[0].models = only("mini");
    let free = crate::virtual_key::Grant {
        models: only("gpt"),
        scope: None,
        ..key.grants[0].clone()
    };
    key.grants.push(free);
    let verdict = admit(
        &world.snapshot,
        &key,
        None,
        &candidates(&demand())[..1],
        NOW,
    );
    let _ = admitted(verdict);
}

#[test]
fn common_scopes_take_the_largest_demand_of_all_candidates() {
    let world = World::new(&[
        ("key", &["9999 tokens/1m", "99 usd/1d"]),
        ("openai", &["9999 tokens/1m"]),
    ]);
    let asking = |tokens, cost| Demand {
        tokens: Tokens(tokens),
        cost: NanoUsd(cost),
        ..demand()
    };
    let candidates = [asking(10, 900), asking(300, 20)].map(|demand| Candidate {
        model: CHOICES[0],
        demand,
    });
    let held = admitted(admit(&world.snapshot, &world.key, None, &candidates, NOW));
    assert_eq!(world.levels(NOW), [(0, 300), (0, 900), (0, 10)]);
    drop(held);
    // Without candidates only the request itself counts.
    let world = World::new(&[("key", &["1 concurrent", "9 tokens/1m"])]);
    let held = admitted(admit(&world.snapshot, &world.key, None, &[], NOW));
    assert_eq!(world.levels(NOW), [(1, 0), (0, 0)]);
    drop(held);
}

#[test]
fn judging_tells_every_limit_and_takes_nothing() {
    let world = World::new(&[
        ("key", &["2 requests/1m", "1 concurrent"]),
        ("user", &["100 tokens/1m strict"]),
        ("global", &["200 tokens/1m shadow"]),
        ("openai", &["1 usd/1d"]),
        ("azure", &["0 usd/1d"]),
    ]);
    let look = || -> Vec<_> {
        let candidate = candidates(&demand())[0];
        judge(
            &world.snapshot,
            &world.key,
            world.user.as_ref(),
            &candidate,
            NOW,
        )
        .into_iter()
        .map(|judged| {
            (
                judged.standing.scope,
                judged.asked,
                judged.fits,
                judged.shadow,
            )
        })
        .collect()
    };
    let expected = |in_flight, cost_fits| {
        vec![
            (ScopeKind::VirtualKey, 1, true, false),
            (ScopeKind::VirtualKey, 1, in_flight, false),
            (ScopeKind::User, 500, false, false),
            (ScopeKind::Global, 150, cost_fits, true),
            (ScopeKind::Provider, 1_500_000_000, cost_fits, false),
        ]
    };
    assert_eq!(look(), expected(true, true));
    assert_eq!(look(), expected(true, true));
    let candidate = &candidates(&demand())[..1];
    let _held = admitted(admit(&world.snapshot, &world.key, None, candidate, NOW));
    assert_eq!(look(), expected(false, false));
}

#[test]
fn tight_is_a_strict_limit_within_twice_the_demand() {
    let tight = |place: &'static str, limit: &str| {
        let world = World::new(&[(place, &[limit])]);
        let all = candidates(&demand());
        is_tight(&world.snapshot, &world.key, world.user.as_ref(), &all, NOW)
    };
    for place in ["key", "user", "global", "openai", "azure/mini"] {
        assert!(tight(place, "999 tokens/1m strict"), "{place}");
        assert!(!tight(place, "1000 tokens/1m strict"), "{place}");
        assert!(tight(place, "9.99 usd/1d strict"), "{place}");
        assert!(!tight(place, "10 usd/1d strict"), "{place}");
    }
    assert!(!tight("key", "1 tokens/1m"));
    assert!(!tight("key", "1 tokens/1m strict shadow"));
    assert!(!tight("key", "1 requests/1m strict"));
}

#[test]
fn a_refusal_tells_what_would_fit_now() {
    let world = World::new(&[("key", &["1000 tokens/1m strict clamp"])]);
    let refusal = |held: u64| {
        let ask = Demand {
            strict_tokens: Tokens(held),
            ..demand()
        };
        let _held = admitted(world.ask(&ask));
        let refused = rejected(world.ask(&demand()));
        (refused.kind, refused.on_tight, refused.max_tokens_left)
    };
    let rate = RejectionKind::RateLimit;
    assert_eq!(refusal(600), (rate, OnTight::Clamp, Some(300)));
    assert_eq!(refusal(899), (rate, OnTight::Clamp, Some(1)));
    assert_eq!(refusal(900), (rate, OnTight::Clamp, None));
    let eventual = World::new(&[("key", &["140 tokens/1m"])]);
    let _held = admitted(eventual.ask(&demand()));
    assert_eq!(rejected(eventual.ask(&demand())).max_tokens_left, None);
}
