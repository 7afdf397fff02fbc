//! `catalogue`, `price: catalogue` and regions: what they mean, and what is
//! wrong with them.

use std::path::PathBuf;
use std::sync::Arc;

use policy::{ModelId, Nearness, Price};

use super::super::{References, check, parse_all};
use super::{lines, resolved};

const TEXT: &str = "\
version: 1
server: {listen: 127.0.0.1:1}
cluster: {region: eu}
catalogue: {source: https://prices.example/list.json?token=t, every: 12h}
providers:
  - {name: near, kind: openai, region: eu, base_url: https://a.example, keys: [{name: k, value: sk-k}]}
  - {name: far, kind: openai, region: us, base_url: https://b.example, keys: [{name: k, value: sk-k}]}
  - {name: nowhere, kind: openai, base_url: https://c.example, keys: [{name: k, value: sk-k}]}
models:
  - {name: m, provider: near, price: catalogue, catalogue_name: openai/m}
  - {name: m, provider: far, price: free}
  - {name: m, provider: nowhere, price: {input: 1, output: 2}}
";

#[test]
fn prices_of_a_list_are_unknown_until_it_is_there() {
    let live = resolved(TEXT, &Arc::default()).live;
    let prices: Vec<Price> = live
        .policy
        .models()
        .iter()
        .map(|model| model.price)
        .collect();
    assert_eq!(prices[0], Price::UNKNOWN);
    assert_eq!(prices[1], Price::FREE);
    assert!(prices[2].is_known());
    let source = live.pricing.source.expect("it is configured");
    assert_eq!(source.every.as_secs(), 12 * 3_600);
    assert_eq!(
        source.to_string(),
        "https://prices.example/list.json",
        "a query may hold a secret"
    );
    assert!(live.pricing.list.is_empty());
}

#[test]
fn regions_make_providers_near_or_far() {
    let nearness = |text: &str| {
        let live = resolved(text, &Arc::default()).live;
        [0, 1, 2].map(|id| live.policy.nearness(ModelId(id)))
    };
    use Nearness::{Anywhere, Elsewhere, Here};
    assert_eq!(nearness(TEXT), [Here, Elsewhere, Anywhere]);
    // The default says that the node does not know where it is.
    let unknown = TEXT.replace("cluster: {region: eu}\n", "");
    assert_eq!(nearness(&unknown), [Anywhere; 3]);
}

#[test]
fn what_is_wrong_with_a_catalogue_is_said() {
    for (from, to, expected) in [
        (
            "catalogue: {source: https://prices.example/list.json?token=t, every: 12h}\n",
            "",
            "t.yaml:9: models[0].price: `catalogue` needs the section `catalogue`, which says where prices come from",
        ),
        (
            "price: free}",
            "price: free, catalogue_name: x}",
            "t.yaml:11: models[1].catalogue_name: is of use with `price: catalogue` only",
        ),
        (
            "every: 12h",
            "every: 10ms",
            "t.yaml:4: catalogue.every: must be a second or more",
        ),
        (
            "https://prices.example/list.json?token=t",
            "ftp://prices.example/list.json",
            "t.yaml:4: catalogue.source: expected `https://…`, `http://…` or the path of a file",
        ),
        (
            "source: https://prices.example/list.json?token=t, ",
            "",
            "t.yaml:4: catalogue: `source` is missing",
        ),
    ] {
        let text = TEXT.replace(from, to);
        assert_ne!(text, TEXT, "{from}");
        let texts = [(PathBuf::from("t.yaml"), text)];
        let judged = parse_all(&texts).and_then(|document| check(&document, References::Skip));
        let problems = judged.expect_err(expected);
        assert_eq!(lines(&problems), expected);
    }
}
