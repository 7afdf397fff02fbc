//! The node's region first, and no choice lost by it; and models whose price
//! is not known.

use super::rules::{rule, rules, shown};
use super::*;
use crate::rule::RuleSpec;

/// All at weight 1 but openai, at 3.
const EVERYTHING: &[(u16, &[&str], u32)] = &[(0, ALL, 1), (1, ALL, 3), (2, ALL, 1)];

/// Two more providers of `gpt`, 3 west and 4 east; where azure, openai, west
/// and east are, and where the node is. Empty: nowhere.
fn world(node: &str, regions: [&str; 4], specs: &[RuleSpec]) -> Snapshot {
    let place = |name: &str| (!name.is_empty()).then(|| Arc::from(name));
    let mut parts = parts();
    for name in ["west", "east"] {
        parts.providers.push(Provider {
            name: name.into(),
            ..parts.providers[0].clone()
        });
        let provider = u16::try_from(parts.providers.len() - 1).unwrap();
        parts.models.push(Model {
            provider: ProviderId(provider),
            ..parts.models[0].clone()
        });
    }
    for (provider, region) in [0, 1, 3, 4].into_iter().zip(regions) {
        parts.providers[provider].region = place(region);
    }
    // Of 0 azure, 1 openai, 6 west, 7 east.
    let everywhere = [7, 1, 6, 0].map(ModelId);
    parts.aliases.push(("listed".into(), everywhere.to_vec()));
    parts.region = place(node);
    parts.rules = rules(specs);
    Snapshot::new(7, parts, [])
}

fn caller(weights: [u32; 4]) -> VirtualKey {
    let mut caller = key(&[(0, ALL, weights[0]), (1, ALL, weights[1])]);
    for (name, weight) in [("west", weights[2]), ("east", weights[3])] {
        caller.grants.push(Grant {
            provider: name.into(),
            models: AllowList::all(),
            weight,
            scope: None,
        });
    }
    caller
}

fn providers(snapshot: &Snapshot, weights: [u32; 4], model: &str, random: u64) -> Vec<String> {
    let call = call(model, Dialect::OpenAi, random);
    let routed = route(snapshot, &caller(weights), &call).unwrap();
    let names = shown(snapshot, &routed.choices);
    let names = names.iter().map(|name| name.split_once('/').unwrap().0);
    names.map(str::to_owned).collect()
}

const OF_BOTH: [&str; 4] = ["eu", "", "us", "eu"];

#[test]
fn a_bare_name_is_drawn_in_the_nodes_region() {
    let world = world("eu", OF_BOTH, &[]);
    let equal = [1, 1, 1, 1];
    for (weights, random, expected) in [
        (equal, 0, ["azure", "east", "openai", "west"]),
        (equal, 1, ["east", "azure", "openai", "west"]),
        // Heavy elsewhere is still elsewhere.
        ([1, 8, 9, 3], 0, ["azure", "east", "openai", "west"]),
        ([1, 8, 9, 3], 1, ["east", "azure", "openai", "west"]),
        ([1, 8, 9, 3], 3, ["east", "azure", "openai", "west"]),
        // Nothing by weight is a last resort, also here.
        ([0, 1, 1, 0], 5, ["openai", "west", "azure", "east"]),
        ([0, 1, 1, 2], 5, ["east", "openai", "west", "azure"]),
        ([0, 0, 0, 0], 5, ["azure", "east", "openai", "west"]),
    ] {
        let found = providers(&world, weights, "gpt", random);
        assert_eq!(found, expected, "{weights:?} {random}");
    }
}

#[test]
fn a_list_keeps_its_order_within_a_region() {
    for (node, regions, expected) in [
        ("eu", OF_BOTH, ["east", "azure", "openai", "west"]),
        ("us", OF_BOTH, ["west", "openai", "east", "azure"]),
        ("asia", OF_BOTH, ["openai", "east", "west", "azure"]),
        // Nobody says where they are, or the node does not know its place.
        ("eu", [""; 4], ["east", "openai", "west", "azure"]),
        ("", OF_BOTH, ["east", "openai", "west", "azure"]),
    ] {
        let world = world(node, regions, &[]);
        let found = providers(&world, [1; 4], "listed", 3);
        assert_eq!(found, expected, "{node} {regions:?}");
        assert_eq!(providers(&world, [1; 4], "east/gpt", 3), ["east"]);
    }
}

#[test]
fn no_choice_is_lost_and_plain_draws_stay_as_they_were() {
    for weights in [[1, 3, 5, 7], [0, 2, 0, 2], [0, 0, 0, 1]] {
        for random in 0..40 {
            let draw = |node: &str, regions: [&str; 4]| {
                providers(&world(node, regions, &[]), weights, "gpt", random)
            };
            let mut near = draw("eu", OF_BOTH);
            let plain = draw("", ["", "", "", ""]);
            assert_eq!(draw("eu", [""; 4]), plain);
            assert_eq!(draw("eu", ["eu"; 4]), plain, "all are here");
            near.sort();
            assert_eq!(near, ["azure", "east", "openai", "west"]);
        }
    }
}

#[test]
fn a_rule_goes_to_the_nearest_of_equal_targets() {
    let first = |targets: &[&str], node: &str| -> Vec<usize> {
        let spec = RuleSpec {
            fallbacks: ["openai/mini", "west/gpt", "openai/gpt", "azure/gpt"]
                .map(Arc::from)
                .to_vec(),
            ..rule("r", "true", targets)
        };
        let world = world(node, OF_BOTH, &[spec]);
        let mut counts = vec![0; targets.len()];
        for random in 0..400 {
            let found = providers(&world, [1; 4], "gpt", random);
            let at = targets.iter().position(|target| {
                let name = target.split('/').next().unwrap();
                name == found[0]
            });
            counts[at.unwrap()] += 1;
        }
        counts
    };
    // Equal weights: the node's region takes all, evenly.
    let counts = first(&["west/gpt", "east/gpt", "azure/gpt"], "eu");
    assert_eq!(counts[0], 0, "{counts:?}");
    assert!(counts[1] > 150 && counts[2] > 150, "{counts:?}");
    assert_eq!(first(&["west/gpt", "east/gpt"], "us"), [400, 0]);
    // Weights that differ are a promise: one in a hundred stays that.
    let counts = first(&["west/gpt*99", "east/gpt*1"], "eu");
    assert!(counts[0] > 380, "{counts:?}");
    // Without a region, or where all are as near, weights decide.
    let counts = first(&["west/gpt", "east/gpt"], "");
    assert!(counts[0] > 150 && counts[1] > 150, "{counts:?}");
}

#[test]
fn the_targets_that_follow_and_the_fallbacks_are_ordered_by_region() {
    let spec = RuleSpec {
        fallbacks: ["west/gpt", "openai/mini", "east/gpt"]
            .map(Arc::from)
            .to_vec(),
        ..rule("r", "true", &["openai/gpt*9", "west/gpt*1", "azure/gpt*1"])
    };
    let world = world("eu", OF_BOTH, &[spec]);
    let drawn = (0..50).find_map(|random| {
        let call = call("gpt", Dialect::OpenAi, random);
        let routed = route(&world, &caller([1; 4]), &call).unwrap();
        let names = shown(&world, &routed.choices);
        (names[0] == "openai/gpt").then_some(names)
    });
    let expected = [
        "openai/gpt",
        "azure/gpt",
        "west/gpt",
        "east/gpt",
        "openai/mini",
    ];
    assert_eq!(drawn.expect("nine of eleven draws"), expected);
}

/// The standard world in which these models have no known price.
fn unpriced(models: &[usize], specs: &[RuleSpec]) -> Snapshot {
    let mut parts = parts();
    for model in models {
        parts.models[*model].price = Price::UNKNOWN;
    }
    parts.rules = rules(specs);
    Snapshot::new(7, parts, [])
}

#[test]
fn what_has_no_price_is_left_out_and_told_of() {
    let skipped = |name: &str| Skipped {
        name: name.to_owned(),
        why: SkipReason::PriceUnknown,
    };
    let to_all = rule("r", "true", &["azure/gpt", "openai/gpt"]);
    let to_azure = rule("r", "true", &["azure/gpt"]);
    for specs in [vec![], vec![to_all.clone()]] {
        let half = unpriced(&[0], &specs);
        for random in 0..20 {
            let call = call("gpt", Dialect::OpenAi, random);
            let found = explain_route(&half, &key(EVERYTHING), &call);
            assert_eq!(found.outcome, Ok(vec![Choice::of(ModelId(1))]));
            assert_eq!(found.skipped, [skipped("azure/gpt")]);
        }
        let none = unpriced(&[0, 1], &specs);
        let call = call("gpt", Dialect::OpenAi, 3);
        let found = explain_route(&none, &key(EVERYTHING), &call);
        assert_eq!(found.outcome, Err(RouteRefusal::PriceUnknown));
        assert_eq!(found.skipped.len(), 2, "{:?}", found.skipped);
    }
    let call_of = |model| call(model, Dialect::OpenAi, 3);
    // As a fallback too, and said in full.
    let spec = RuleSpec {
        fallbacks: vec!["openai/mini".into()],
        ..to_azure
    };
    let found = explain_route(&unpriced(&[2], &[spec]), &key(EVERYTHING), &call_of("gpt"));
    assert_eq!(found.outcome, Ok(vec![Choice::of(ModelId(0))]));
    assert_eq!(found.skipped, [skipped("openai/mini")]);
    let found = route(
        &unpriced(&[2], &[]),
        &key(EVERYTHING),
        &call_of("openai/mini"),
    );
    assert_eq!(found, Err(RouteRefusal::PriceUnknown));
    // A key learns no more of what it may not use than before.
    let found = route(&unpriced(&[2], &[]), &key(&[(0, ALL, 1)]), &call_of("mini"));
    assert_eq!(found, Err(RouteRefusal::ModelNotAllowed));
}

#[test]
fn an_unknown_price_costs_more_than_anything() {
    let usage = crate::price::Usage {
        output: 1,
        ..Default::default()
    };
    assert!(Price::UNKNOWN.cost(&usage) > Price::FREE.cost(&usage));
    assert!(!Price::UNKNOWN.is_known() && Price::FREE.is_known());
}
