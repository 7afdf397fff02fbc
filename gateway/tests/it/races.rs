//! Writes at the same time: one of them wins, the others are told, and nothing
//! is lost or half done; requests go on meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use crate::harness::api::{Store, chat};
use crate::harness::{Ask, Conf, Node, Upstream};

const CHAT: &str = "/v1/chat/completions";
const WRITERS: usize = 16;

/// The statuses of so many calls that begin together.
fn together(
    node: &Arc<Node>,
    call: impl Fn(&Node, usize) -> u16 + Send + Sync + 'static,
) -> Vec<u16> {
    let (start, call) = (Arc::new(Barrier::new(WRITERS)), Arc::new(call));
    let tasks: Vec<_> = (0..WRITERS)
        .map(|index| {
            let (node, start, call) = (Arc::clone(node), Arc::clone(&start), Arc::clone(&call));
            std::thread::spawn(move || {
                start.wait();
                call(&node, index)
            })
        })
        .collect();
    let mut statuses: Vec<u16> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
    statuses.sort_unstable();
    statuses
}

fn one_wins(store: Store) {
    let upstream = Upstream::chat();
    let node = Arc::new(Node::start(
        &store.under(Conf::for_upstream(upstream.address)),
    ));
    let made = together(&node, |node, index| {
        let body = json!({"name": "k", "providers": [{"name": "openai"}], "rate_limits": [{"requests": 100 + index, "every": "1h"}]});
        node.call("POST", "/api/virtual-keys", &body).status()
    });
    assert_eq!(
        (made[0], &made[1..]),
        (201, &[409; WRITERS - 1][..]),
        "{store:?}"
    );
    let path = "/api/virtual-keys/k";
    let tag = node
        .admin("GET", path)
        .header("etag")
        .expect("an ETag")
        .to_owned();
    let changed = together(&node, move |node, index| {
        let body = json!({"name": "k", "providers": [{"name": "openai"}], "rate_limits": [{"requests": 200 + index, "every": "1h"}]});
        node.call_with("PUT", path, ("if-match", &tag), &body)
            .status()
    });
    assert_eq!(changed[0], 200, "{store:?}: {changed:?}");
    let told = changed[1..]
        .iter()
        .all(|status| [409, 412].contains(status));
    assert!(
        told,
        "{store:?}: one of them, the others are stale: {changed:?}"
    );
    let rows = node.shown("/api/audit?limit=1000");
    let rows = rows["data"].as_array().expect("a list");
    let last = &rows.last().expect("a row")["after"]["rate_limits"];
    assert_eq!(
        rows.len(),
        2,
        "{store:?}: a row for each change that was done"
    );
    assert_eq!(&node.shown(path)["rate_limits"], last, "{store:?}");
    let gone = together(&node, move |node, _| {
        node.call("DELETE", path, &Value::Null).status()
    });
    assert_eq!((gone[0], gone[1]), (204, 404), "{store:?}: {gone:?}");
    let all = together(&node, |node, index| {
        let body = json!({"name": format!("k-{index}"), "providers": [{"name": "openai"}]});
        node.call("POST", "/api/virtual-keys", &body).status()
    });
    assert_eq!(all, [201; WRITERS], "{store:?}");
    assert_eq!(
        node.shown("/api/virtual-keys")["data"]
            .as_array()
            .map(Vec::len),
        Some(WRITERS + 2)
    );
}

#[test]
fn of_writes_at_once_one_wins_over_sqlite() {
    one_wins(Store::Sqlite);
}

#[test]
fn of_writes_at_once_one_wins_over_postgres() {
    one_wins(Store::Postgres);
}

/// A rename of what one needs is not possible; but a team can go while a key
/// that names it is made: then one of both is refused.
#[test]
fn a_reference_never_dangles() {
    let upstream = Upstream::chat();
    let node = Arc::new(Node::start(&Conf::for_upstream(upstream.address)));
    for round in 0..10 {
        let team = format!("team-{round}");
        node.made("teams", &json!({"name": team}));
        let statuses = together(&node, move |node, index| {
            let team = format!("team-{round}");
            match index {
                0 => node
                    .call("DELETE", &format!("/api/teams/{team}"), &Value::Null)
                    .status(),
                _ => {
                    let body = json!({"name": format!("k-{round}-{index}"), "team": team});
                    node.call("POST", "/api/virtual-keys", &body).status()
                }
            }
        });
        let there = node
            .admin("GET", &format!("/api/teams/team-{round}"))
            .status()
            == 200;
        let made = statuses.iter().filter(|status| **status == 201).count();
        let (deleted, in_use) = (statuses.contains(&204), statuses.contains(&409));
        assert_eq!(
            (there, deleted, in_use),
            (made > 0, made == 0, made > 0),
            "{statuses:?}"
        );
    }
}

#[test]
fn requests_are_answered_right_while_everything_changes() {
    let upstream = Upstream::chat();
    let node = Arc::new(Node::start(&Conf::for_upstream(upstream.address)));
    let key = node.made_key(&json!({"name": "steady", "providers": [{"name": "openai"}], "rate_limits": [{"requests": 100_000, "every": "1h"}]}));
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (node, key, done) = (Arc::clone(&node), key.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut asked = 0;
                while !done.load(Ordering::SeqCst) {
                    let answer = node.ask(&Ask::post(CHAT, &chat("gpt-4o-mini", 5)).bearer(&key));
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    for round in 0..30 {
        let name = format!("passing-{round}");
        let value = node.made_key(&json!({"name": name, "providers": [{"name": "openai"}]}));
        node.made(
            "teams",
            &json!({"name": name, "rate_limits": [{"requests": 5, "every": "1m"}]}),
        );
        let limit =
            json!({"limit": "virtual_key/steady/requests/1h/sliding", "amount": 100_000 + round});
        let set = node.call(
            "PUT",
            "/api/limit-overrides/virtual_key/steady/requests/1h/sliding",
            &limit,
        );
        assert!([200, 201].contains(&set.status()), "{}", set.text());
        let answer = node.ask(&Ask::post(CHAT, &chat("gpt-4o-mini", 5)).bearer(&value));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let gone = node.call("DELETE", &format!("/api/virtual-keys/{name}"), &Value::Null);
        assert_eq!(gone.status(), 204, "{}", gone.text());
        let refused = node.ask(&Ask::post(CHAT, &chat("gpt-4o-mini", 5)).bearer(&value));
        assert_eq!(refused.status(), 401, "{}", refused.text());
    }
    done.store(true, Ordering::SeqCst);
    let asked: u64 = clients
        .into_iter()
        .map(|client| client.join().expect("all were 200"))
        .sum();
    assert!(asked > 0);
    assert_eq!(
        node.settled("steady", "requests")["used"],
        asked,
        "no change loses a count"
    );
}
