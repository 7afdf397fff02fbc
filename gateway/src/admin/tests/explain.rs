//! What would happen to a request, told without doing it.

use http::Method;
use serde_json::{Value, json};

use super::world::{NOON, VIEWER, World};

async fn explain(world: &World, question: &Value) -> Value {
    let path = "/api/explain";
    let answer = world.write(Method::POST, path, VIEWER, &[], question).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    answer.json()
}

#[tokio::test]
async fn an_admitted_request_shows_its_whole_way() {
    let world = World::new();
    let question = json!({
        "key": "demo", "model": "fast", "max_tokens": 100, "prompt_bytes": 400,
        "headers": {"X-Tier": "free"},
    });
    let told = explain(&world, &question).await;
    assert_eq!(told["verdict"], "admit");
    let key = json!({
        "name": "demo", "state": "active", "says": null, "team": "search", "customer": "acme",
    });
    assert_eq!(told["key"], key);
    let rules = json!([{"rule": "spare", "outcome": "matched", "says": null}]);
    assert_eq!(
        (&told["rules"], &told["decided_by"]),
        (&rules, &json!("spare"))
    );
    let gone = json!([{"model": "openai/gone", "why": "no such model"}]);
    assert_eq!(told["skipped"], gone);
    assert_eq!(told["chosen"], "openai/gpt-4o-mini");
    let demand = json!({
        "tokens": 200, "cost_usd": "0.0005", "strict_tokens": 200, "strict_cost_usd": "0.0005",
    });
    assert_eq!(told["choices"][0]["demand"], demand);
    let asked: Vec<_> = told["limits"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|limit| {
            (
                limit["standing"]["id"].clone(),
                limit["asked"].clone(),
                limit["fits"].clone(),
            )
        })
        .collect();
    let expected = [
        (
            json!("virtual_key/demo/requests/1m/sliding"),
            json!(1),
            json!(true),
        ),
        (
            json!("virtual_key/demo/usd/1d/calendar"),
            json!("0.0005"),
            json!(true),
        ),
        (
            json!("team/search/tokens/1m/sliding"),
            json!(200),
            json!(true),
        ),
        (
            json!("customer/acme/usd/1M/calendar"),
            json!("0.0005"),
            json!(true),
        ),
    ];
    assert_eq!(asked, expected);
    assert_eq!(told["refusal"], Value::Null);
    // Asking took nothing.
    let page = world.read("/api/limits").await.json();
    for limit in page["data"].as_array().expect("a list") {
        let taken = (limit["used"].to_string(), limit["reserved"].to_string());
        assert!(["0", "\"0\""].contains(&taken.0.as_str()), "{limit}");
        assert!(["0", "\"0\""].contains(&taken.1.as_str()), "{limit}");
    }
}

#[tokio::test]
async fn a_rule_that_does_not_match_is_told_too() {
    let world = World::new();
    let told = explain(&world, &json!({"key": "demo", "model": "fast"})).await;
    assert_eq!(told["decided_by"], Value::Null);
    let outcome = told["rules"][0]["outcome"].as_str().expect("an outcome");
    assert!(["not_matched", "failed"].contains(&outcome), "{told:#}");
}

#[tokio::test]
async fn a_full_limit_shows_the_refusal_of_the_callers_protocol() {
    let world = World::new();
    let held = world.book_and_hold();
    // Four dollars per million tokens: more than ten dollars strict.
    let question = json!({"key": "demo", "model": "gpt-4o-mini", "answers": 200});
    let told = explain(&world, &question).await;
    held.release(NOON);
    assert_eq!(told["verdict"], "refuse", "{told:#}");
    assert_eq!(told["chosen"], Value::Null);
    let budget = &told["limits"][1];
    assert_eq!(
        (&budget["fits"], &budget["asked"]),
        (&json!(false), &json!("13.1072"))
    );
    let refusal = &told["refusal"];
    assert_eq!(refusal["status"], 429);
    assert_eq!(refusal["headers"]["x-should-retry"], "false");
    assert_eq!(refusal["headers"]["x-tyr-limit"], "virtual_key/demo/usd/1d");
    assert_eq!(refusal["body"]["error"]["type"], "insufficient_quota");
}

#[tokio::test]
async fn a_request_that_gets_nowhere_says_where_it_stops() {
    let world = World::new();
    let cases = [
        (json!({"key": "none", "model": "fast"}), "unknown", 401),
        (json!({"key": "zeta", "model": "fast"}), "inactive", 403),
        (json!({"key": "demo", "model": "other"}), "active", 404),
        (
            json!({"key": "demo", "model": "fast", "endpoint": "/anthropic/v1/messages"}),
            "active",
            400,
        ),
    ];
    for (question, state, status) in cases {
        let told = explain(&world, &question).await;
        assert_eq!(told["verdict"], "refuse", "{question}");
        assert_eq!(told["key"]["state"], state, "{question}");
        assert_eq!(told["refusal"]["status"], status, "{question}: {told:#}");
        assert_eq!(told["limits"], json!([]), "{question}");
    }
    let odd = json!({"key": "demo", "model": "fast", "endpoint": "/v1/nothing"});
    let answer = world
        .write(Method::POST, "/api/explain", VIEWER, &[], &odd)
        .await;
    assert_eq!(answer.status.as_u16(), 400);
    assert_eq!(answer.json()["problems"][0]["pointer"], "/endpoint");
}
