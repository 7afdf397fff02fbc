//! Prices from a list that somebody else keeps, and regions of providers.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::api::chat;
use crate::harness::conf::{model, provider};
use crate::harness::{Answer, Ask, Conf, Node, Upstream, eventually};

const CHAT: &str = "/v1/chat/completions";

/// A list in which `listed` costs this per token of input, and twice that per
/// token of output.
fn list(per_token: &str, twice: &str) -> String {
    format!(
        r#"{{"sample_spec": {{"litellm_provider": "one of many", "input_cost_per_token": 0.0}},
            "listed": {{"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": {per_token},
              "output_cost_per_token": {twice}, "max_output_tokens": 4096}}}}"#
    )
}

/// Models that are listed, not listed, and priced by the file; both of the
/// latter behind one name.
fn conf(upstream: &Upstream, source: &str, more: &str) -> Conf {
    let mut conf = Conf::for_upstream(upstream.address);
    conf.models = "  - {name: listed, provider: openai, price: catalogue}\n  \
                   - {name: strange, provider: openai, price: catalogue}\n"
        .to_owned()
        + &model("own", "openai", "{input: 1, output: 1}", 100)
        + "  - {name: any, choices: [openai/strange, openai/own]}\n";
    conf.more = format!("catalogue: {{source: \"{source}\", {more}}}\n");
    conf
}

fn ask(node: &Node, model: &str) -> Answer {
    node.ask(&Ask::post(CHAT, &chat(model, 5)))
}

fn state(node: &Node) -> Value {
    node.shown("/api/catalogue")
}

/// What a request cost that used 10 tokens of input and 5 of output.
#[track_caller]
fn cost(node: &Node, model: &str) -> u64 {
    let before = node.records().len();
    let answer = ask(node, model);
    assert_eq!(answer.status(), 200, "{model}: {}", answer.text());
    let records = node.records_exactly(before + 1);
    records[before].cost_nano_usd
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("a file");
    fs::rename(&new, path).expect("it is replaced");
}

#[test]
fn a_file_of_prices_is_read_again_and_outlives_itself() {
    let upstream = Upstream::chat();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prices.json");
    let conf = conf(&upstream, file.to_str().unwrap(), "every: 1h");
    let mut node = Node::start(&conf);
    // Without a list nothing is served at a price that nobody knows.
    let refused = ask(&node, "listed");
    assert_eq!(refused.status(), 503, "{}", refused.text());
    assert!(refused.text().contains("price"), "{}", refused.text());
    assert_eq!(upstream.count(), 0);
    eventually("the file was looked for", || {
        state(&node)["error"].is_string().then_some(())
    });
    replace(&file, &list("1.5e-07", "3e-07"));
    let shown = eventually("the file was read", || {
        let shown = state(&node);
        (shown["models"] == 1).then_some(shown)
    });
    assert_eq!(shown["unpriced"], json!(["openai/strange"]));
    assert_eq!(shown["error"], Value::Null);
    assert_eq!(cost(&node, "listed"), 10 * 150 + 5 * 300);
    assert_eq!(node.metric("tyr_catalogue_unpriced_models", ""), 1.0);
    // What the list lacks is left out, and said to be.
    assert_eq!(ask(&node, "strange").status(), 503);
    assert_eq!(cost(&node, "any"), 15_000);
    let question = json!({"key": "demo", "model": "any", "max_tokens": 5});
    let said = node.call("POST", "/api/explain", &question).json();
    assert_eq!(said["chosen"], "openai/own");
    assert_eq!(
        said["skipped"],
        json!([{"model": "openai/strange", "why": "its price is not known"}])
    );
    // Another price is another configuration; a bad list is none.
    let revision = shown["revision"].as_u64().unwrap();
    replace(&file, &list("2e-07", "4e-07"));
    eventually("the new prices run", || {
        (state(&node)["revision"].as_u64() > Some(revision)).then_some(())
    });
    assert_eq!(cost(&node, "listed"), 10 * 200 + 5 * 400);
    for bad in [
        "",
        "{}",
        "[1, 2",
        r#"{"listed": {"litellm_provider": "openai"}}"#,
    ] {
        let tried = state(&node)["tried_at"].clone();
        replace(&file, bad);
        let shown = eventually("the bad list was read", || {
            let shown = state(&node);
            (shown["tried_at"] != tried && shown["error"].is_string()).then_some(shown)
        });
        assert_eq!(shown["models"], 1, "{bad}");
    }
    assert!(node.metric("tyr_catalogue_fetches_total", "failed") >= 4.0);
    assert_eq!(cost(&node, "listed"), 10 * 200 + 5 * 400);
    // The last good list serves a start without its file.
    fs::remove_file(&file).unwrap();
    node.process.kill();
    node.start_again();
    assert_eq!(cost(&node, "listed"), 10 * 200 + 5 * 400);
}

#[test]
fn an_address_is_asked_once_and_by_version() {
    let upstream = Upstream::chat();
    let published = Arc::new(Mutex::new(list("1e-06", "2e-06")));
    let body = Arc::clone(&published);
    let web = Upstream::start(move |exchange| {
        let body = body.lock().unwrap().clone();
        let etag = format!("\"{}\"", body.len());
        if exchange.seen.header("if-none-match") == Some(&etag) {
            return exchange.reply(304, &[("etag", &etag)], b"");
        }
        exchange.reply(200, &[("etag", &etag)], body.as_bytes());
    });
    let source = format!("http://{}/prices.json?token=hidden", web.address);
    let conf = conf(
        &upstream,
        &source,
        "every: 1s, allow_private_addresses: true",
    );
    let mut node = Node::start(&conf);
    eventually("the list is there", || {
        (state(&node)["models"] == 1).then_some(())
    });
    assert_eq!(cost(&node, "listed"), 10 * 1_000 + 5 * 2_000);
    eventually("it was found unchanged", || {
        let unchanged = node.metric("tyr_catalogue_fetches_total", "unchanged");
        (unchanged >= 2.0).then_some(())
    });
    assert_eq!(
        node.metric("tyr_catalogue_fetches_total", "\"fetched\""),
        1.0
    );
    let shown = state(&node);
    assert!(!shown.to_string().contains("hidden"), "{shown}");
    for bad in ["<html>", "{}"] {
        *published.lock().unwrap() = bad.to_owned();
        eventually("the bad list was fetched", || {
            state(&node)["error"].is_string().then_some(())
        });
        assert_eq!(cost(&node, "listed"), 10 * 1_000 + 5 * 2_000, "{bad}");
    }
    *published.lock().unwrap() = list("0.0000030", "6e-06");
    eventually("the new list runs", || {
        (state(&node)["error"] == Value::Null).then_some(())
    });
    assert_eq!(cost(&node, "listed"), 10 * 3_000 + 5 * 6_000);
    // A start waits for no address.
    node.process.kill();
    drop(web);
    node.start_again();
    assert_eq!(cost(&node, "listed"), 10 * 3_000 + 5 * 6_000);
}

#[test]
fn an_address_that_must_not_be_asked_gives_no_prices() {
    let upstream = Upstream::chat();
    let elsewhere = Upstream::start(|exchange| {
        exchange.reply(200, &[], list("1e-06", "2e-06").as_bytes());
    });
    let target = elsewhere.address;
    let web = Upstream::start(move |exchange| {
        let location = format!("http://{target}/prices.json");
        exchange.reply(302, &[("location", &location)], b"");
    });
    for (address, more, error) in [
        (elsewhere.address, "every: 1h", "not a public one"),
        (
            web.address,
            "every: 1h, allow_private_addresses: true",
            "redirects are not followed",
        ),
    ] {
        let source = format!("http://{address}/prices.json");
        let node = Node::launch(&conf(&upstream, &source, more));
        let Some(shown) = refused_or_shown(&node) else {
            assert_eq!(error, "not a public one", "the configuration is refused");
            continue;
        };
        let said = shown["error"].as_str().unwrap();
        assert!(said.contains(error), "{said}");
        assert_eq!(shown["models"], 0);
        assert_eq!(ask(&node, "listed").status(), 503);
    }
    assert_eq!(elsewhere.count(), 0, "nothing was asked of it");
}

/// The error of the price list, or `None` if the node does not even start.
fn refused_or_shown(node: &Node) -> Option<Value> {
    eventually("it started or ended", || {
        if node.readyz() == Some(200) {
            let shown = state(node);
            return shown["error"].is_string().then_some(Some(shown));
        }
        node.process
            .log()
            .contains("not a public one")
            .then_some(None)
    })
}

#[test]
fn requests_stay_in_the_nodes_region_while_it_serves() {
    let of = |status: u16| {
        Upstream::start(move |exchange| match status {
            200 => exchange.json(200, &crate::harness::upstream::chat_completion("hi", 1, 1)),
            status => exchange.fail(status, &[]),
        })
    };
    for near_answers in [200, 500] {
        let (near, far, plain) = (of(near_answers), of(200), of(200));
        let mut conf = Conf::empty();
        let once = "retries: {max: 0}";
        conf.providers = provider(
            "far",
            "openai",
            far.address,
            "sk-far-0000001",
            &format!("region: us\n{once}"),
        ) + &provider("plain", "openai", plain.address, "sk-plain-00001", once)
            + &provider(
                "near",
                "openai",
                near.address,
                "sk-near-000001",
                &format!("region: eu\n{once}"),
            );
        let price = "{input: 1, output: 1}";
        conf.models = ["far", "plain", "near"]
            .map(|name| model("m", name, price, 100))
            .concat()
            + "  - {name: listed, choices: [far/m, plain/m, near/m]}\n";
        conf.keys = format!(
            "  - {{name: demo, value: {}, providers: [{{name: far, weight: 1000}}, {{name: plain, weight: 10}}, {{name: near}}]}}\n",
            crate::harness::conf::KEY
        );
        conf.more = "cluster: {region: eu}\n".to_owned();
        let node = Node::start(&conf);
        for model in ["m", "listed"] {
            for _ in 0..10 {
                assert_eq!(ask(&node, model).status(), 200);
            }
        }
        let expected = match near_answers {
            200 => (20, 0, 0),
            // What is in no region comes before another region.
            _ => (20, 20, 0),
        };
        assert_eq!((near.count(), plain.count(), far.count()), expected);
        let question = json!({"key": "demo", "model": "m", "max_tokens": 5});
        let said = node.call("POST", "/api/explain", &question).json();
        assert_eq!(said["region"], "eu");
        let choices = said["choices"].as_array().unwrap().iter();
        let choices: Vec<_> = choices
            .map(|choice| {
                (
                    choice["model"].as_str().unwrap(),
                    choice["nearness"].as_str().unwrap(),
                )
            })
            .collect();
        let expected = [
            ("near/m", "here"),
            ("plain/m", "anywhere"),
            ("far/m", "elsewhere"),
        ];
        assert_eq!(choices, expected);
    }
}
