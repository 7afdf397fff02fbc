//! Everything that can be made through the admin API, over both kinds of store:
//! made, read, written back, changed, kept over a restart, and taken away.

use serde_json::{Value, json};

use crate::harness::api::{ENCRYPTION, Store, chat};
use crate::harness::conf::{ADMIN, Conf};
use crate::harness::{Answer, Ask, Node, Upstream, eventually};

const CHAT: &str = "/v1/chat/completions";
const SECRET: &str = "credential-made-by-the-api-0001";

/// One entity: its kind in paths, its name, its body, and what a change of it
/// puts where.
struct Case {
    kind: &'static str,
    name: &'static str,
    body: Value,
    change: (&'static str, Value),
    /// Who refers to it, if somebody does.
    used_by: &'static [&'static str],
}

/// In the order in which they can be made.
fn cases(upstream: &Upstream) -> Vec<Case> {
    let base_url = format!("http://{}/v1", upstream.address);
    let case = |kind, name, body, change, used_by| Case {
        kind,
        name,
        body,
        change,
        used_by,
    };
    vec![
        case(
            "customers",
            "umbrella",
            json!({"name": "umbrella", "budgets": [{"limit_usd": "5.25", "every": "1M"}]}),
            ("/budgets/0/limit_usd", json!("6.5")),
            &["teams/lab"],
        ),
        case(
            "teams",
            "lab",
            json!({"name": "lab", "customer": "umbrella", "rate_limits": [{"requests": 500, "every": "1m"}]}),
            ("/rate_limits/0/requests", json!(600)),
            &["virtual-keys/worker"],
        ),
        case(
            "providers",
            "made",
            json!({"name": "made", "kind": "openai", "base_url": base_url, "allow_private_addresses": true,
                   "keys": [{"name": "main", "value": SECRET, "weight": 2}]}),
            ("/keys/0/weight", json!(3)),
            &["models/made/n"],
        ),
        case(
            "models",
            "made/n",
            json!({"name": "n", "provider": "made", "price": {"input": "0.15", "output": "0.6"}, "max_output_tokens": 1000}),
            ("/max_output_tokens", json!(2000)),
            &["models/quick", "routing-rules/detour"],
        ),
        case(
            "models",
            "quick",
            json!({"name": "quick", "choices": ["made/n"]}),
            ("/choices", json!(["made/n", "openai/gpt-4o-mini"])),
            &[],
        ),
        case(
            "virtual-keys",
            "worker",
            json!({"name": "worker", "team": "lab", "providers": [{"name": "made", "models": ["n"]}],
                   "rate_limits": [{"requests": 100, "every": "1h"}]}),
            ("/rate_limits/0/requests", json!(200)),
            &[],
        ),
        case(
            "routing-rules",
            "detour",
            json!({"name": "detour", "scope": "virtual_key", "subject": "worker", "when": "model == 'nowhere'",
                   "targets": [{"provider": "made", "model": "n"}]}),
            ("/priority", json!(7)),
            &[],
        ),
        case(
            "roles",
            "auditor",
            json!({"name": "auditor", "permissions": [{"resource": "audit", "operations": ["read"]}]}),
            ("/permissions/0/operations", json!(["read", "run"])),
            &["admin-tokens/reader"],
        ),
        case(
            "admin-tokens",
            "reader",
            json!({"name": "reader", "role": "auditor"}),
            ("/role", json!("viewer")),
            &[],
        ),
        case(
            "limit-overrides",
            "virtual_key/worker/requests/1h/sliding",
            json!({"limit": "virtual_key/worker/requests/1h/sliding", "amount": 50}),
            ("/amount", json!(60)),
            &[],
        ),
    ]
}

impl Case {
    fn path(&self) -> String {
        format!("/api/{}/{}", self.kind, self.name)
    }
}

fn tag(answer: &Answer) -> String {
    answer.header("etag").expect("an ETag").to_owned()
}

/// Without what time or a write changes.
fn fields(shown: &Value) -> Value {
    let mut fields = shown.clone();
    for name in ["revision", "standing", "value", "applied_on"] {
        fields.as_object_mut().expect("an object").remove(name);
    }
    fields
}

fn start(store: Store, upstream: &Upstream) -> Node {
    let mut conf = store.under(Conf::for_upstream(upstream.address));
    conf.more = ENCRYPTION.to_owned();
    Node::start(&conf)
}

/// Makes one and reads it in all the places where it is shown.
#[track_caller]
fn make(node: &Node, case: &Case) -> Answer {
    let all = format!("/api/{}", case.kind);
    let made = node.call("POST", &all, &case.body);
    assert_eq!(made.status(), 201, "{}: {}", case.path(), made.text());
    let place = made.header("location").expect("a Location");
    let there = node.admin("GET", place);
    assert_eq!(there.status(), 200, "{place}: {}", there.text());
    assert_eq!(fields(&there.json()), fields(&made.json()), "{place}");
    assert_eq!(tag(&there), tag(&made), "{place}");
    assert_eq!(there.json()["source"], "api", "{place}");
    let shown = node.admin("GET", &case.path());
    assert_eq!(
        (shown.status(), fields(&shown.json())),
        (200, fields(&made.json()))
    );
    let list = node.shown(&all);
    let listed = list["data"].as_array().expect("a list").iter();
    let found = listed
        .filter(|one| fields(one) == fields(&made.json()))
        .count();
    assert_eq!(found, 1, "{} in {list}", case.path());
    let again = node.call("POST", &all, &case.body);
    assert_eq!(again.status(), 409, "{}: {}", case.path(), again.text());
    made
}

/// What a read showed can be written, changes nothing, and a stale tag is told.
#[track_caller]
fn write_back(node: &Node, case: &Case) {
    let path = case.path();
    let before = node.admin("GET", &path);
    let old = tag(&before);
    let same = node.call_with("PUT", &path, ("if-match", &old), &before.json());
    assert_eq!(same.status(), 200, "{path}: {}", same.text());
    assert_eq!(fields(&same.json()), fields(&before.json()), "{path}");
    assert_eq!(same.json()["value"], Value::Null, "{path}: no new value");
    let mut changed = same.json();
    *changed
        .pointer_mut(case.change.0)
        .unwrap_or(&mut Value::Null) = case.change.1.clone();
    assert_eq!(
        changed.pointer(case.change.0),
        Some(&case.change.1),
        "{path}: {changed}"
    );
    let current = tag(&same);
    for stale in ["\"0\"", "\"99999\"", "W/\"1\""] {
        let refused = node.call_with("PUT", &path, ("if-match", stale), &changed);
        assert_eq!(refused.status(), 412, "{path}: {}", refused.text());
        let refused = node.call_with("DELETE", &path, ("if-match", stale), &Value::Null);
        assert_eq!(refused.status(), 412, "{path}: {}", refused.text());
    }
    assert_eq!(fields(&node.shown(&path)), fields(&before.json()), "{path}");
    let written = node.call_with("PUT", &path, ("if-match", &current), &changed);
    assert_eq!(written.status(), 200, "{path}: {}", written.text());
    assert_ne!(tag(&written), current, "{path}: a change has another tag");
    assert_eq!(
        written.json().pointer(case.change.0),
        Some(&case.change.1),
        "{path}"
    );
    assert_eq!(
        fields(&node.shown(&path)),
        fields(&written.json()),
        "{path}"
    );
    let late = node.call_with("PUT", &path, ("if-match", &current), &changed);
    assert_eq!(late.status(), 412, "{path}: the tag of before is stale now");
    let unchanged = node.call_with(
        "GET",
        &path,
        ("if-none-match", &tag(&written)),
        &Value::Null,
    );
    assert_eq!(unchanged.status(), 304, "{path}");
}

#[track_caller]
fn serves(node: &Node, key: &str, upstream: &Upstream) {
    for model in ["n", "quick", "made/n"] {
        let answer = node.ask(&Ask::post(CHAT, &chat(model, 5)).bearer(key));
        assert_eq!(answer.status(), 200, "{model}: {}", answer.text());
        let seen = upstream.seen().pop().expect("it was asked");
        let credential = format!("Bearer {SECRET}");
        assert_eq!(
            seen.header("authorization"),
            Some(credential.as_str()),
            "{model}"
        );
    }
}

fn everything(node: &Node, cases: &[Case]) -> Vec<Value> {
    let shown = cases.iter().map(|case| {
        let mut shown = node.shown(&case.path());
        shown["standing"].take();
        shown
    });
    shown.collect()
}

fn over(store: Store) {
    let upstream = Upstream::chat();
    let mut node = start(store, &upstream);
    let cases = cases(&upstream);
    let mut values = Vec::new();
    for case in &cases {
        let made = make(&node, case).json();
        values.extend(
            made["value"]
                .as_str()
                .map(|value| (case.name, value.to_owned())),
        );
    }
    let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["worker", "reader"], "values that Tyr made");
    let (key, token) = (values[0].1.clone(), values[1].1.clone());
    assert!(key.starts_with("sk-tyr-"), "the form of keys");
    serves(&node, &key, &upstream);
    assert_eq!(
        node.call_as(&token, "GET", "/api/audit", &Value::Null)
            .status(),
        200
    );
    assert_eq!(
        node.call_as(&token, "GET", "/api/customers", &Value::Null)
            .status(),
        403
    );
    for case in &cases {
        write_back(&node, case);
    }
    serves(&node, &key, &upstream);
    let limit = node.limit("virtual_key/worker/requests/1h/sliding");
    assert_eq!(
        (&limit["limit"], &limit["overridden"]),
        (&json!(60), &json!(true))
    );
    let used = node.limits_at_rest();
    let before = everything(&node, &cases);
    node.process.signal("TERM");
    let ended = node.process.wait(std::time::Duration::from_secs(30));
    assert!(
        ended.is_some_and(|status| status.success()),
        "it ends in order"
    );
    node.start_again();
    assert_eq!(everything(&node, &cases), before, "kept over a restart");
    let after = node.limit("virtual_key/worker/requests/1h/sliding");
    let was = used
        .iter()
        .find(|limit| limit["id"] == after["id"])
        .expect("it was there");
    assert_eq!(
        (&after["used"], &after["limit"]),
        (&was["used"], &json!(60))
    );
    serves(&node, &key, &upstream);
    assert_eq!(
        node.call_as(&token, "GET", "/api/customers", &Value::Null)
            .status(),
        200
    );
    let shown = serde_json::to_string(&before).expect("text");
    for secret in [&key, &token, SECRET, ADMIN] {
        assert!(!shown.contains(secret), "a read shows a secret");
    }
    take_away(&node, &cases, &key);
}

/// Those that are used stay, and say by whom; the others go one by one.
fn take_away(node: &Node, cases: &[Case], key: &str) {
    for case in cases.iter().filter(|case| !case.used_by.is_empty()) {
        if case.name == "auditor" {
            // The token was given another role by its change.
            continue;
        }
        let refused = node.call("DELETE", &case.path(), &Value::Null);
        assert_eq!(refused.status(), 409, "{}: {}", case.path(), refused.text());
        for user in case.used_by {
            assert!(refused.text().contains(user), "{user}: {}", refused.text());
        }
        assert_eq!(
            node.admin("GET", &case.path()).status(),
            200,
            "{}",
            case.path()
        );
    }
    for case in cases.iter().rev() {
        let gone = node.call("DELETE", &case.path(), &Value::Null);
        assert_eq!(
            (gone.status(), gone.body.len()),
            (204, 0),
            "{}: {}",
            case.path(),
            gone.text()
        );
        assert_eq!(
            node.admin("GET", &case.path()).status(),
            404,
            "{}",
            case.path()
        );
        let again = node.call("DELETE", &case.path(), &Value::Null);
        assert_eq!(again.status(), 404, "{}", case.path());
    }
    let refused = node.ask(&Ask::post(CHAT, &chat("n", 5)).bearer(key));
    assert_eq!(refused.status(), 401, "{}", refused.text());
    for case in cases {
        let left = node.shown(&format!("/api/{}", case.kind));
        let ours = left["data"].as_array().expect("a list").iter();
        assert_eq!(
            ours.filter(|one| one["source"] == "api").count(),
            0,
            "{left}"
        );
    }
}

#[test]
fn every_kind_is_made_changed_kept_and_taken_away_over_sqlite() {
    over(Store::Sqlite);
}

#[test]
fn every_kind_is_made_changed_kept_and_taken_away_over_postgres() {
    over(Store::Postgres);
}

#[test]
fn values_that_were_made_are_shown_once_and_kept_as_hashes() {
    let upstream = Upstream::chat();
    let node = start(Store::Sqlite, &upstream);
    let body = json!({"name": "secretive", "providers": [{"name": "openai"}]});
    let first = node.made_key(&body);
    let path = "/api/virtual-keys/secretive";
    let own = json!({"name": "chosen", "value": "a-value-of-the-caller-0001", "providers": [{"name": "openai"}]});
    let chosen = node.made("virtual-keys", &own);
    assert_ne!(
        chosen["value"], "a-value-of-the-caller-0001",
        "the caller knows it: {chosen}"
    );
    let answer =
        node.ask(&Ask::post(CHAT, &chat("gpt-4o-mini", 5)).bearer("a-value-of-the-caller-0001"));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let rotated = node.call("POST", &format!("{path}/rotate"), &json!({"grace": "1h"}));
    assert_eq!(rotated.status(), 200, "{}", rotated.text());
    let second = rotated.json()["value"]
        .as_str()
        .expect("shown once")
        .to_owned();
    assert_ne!(first, second);
    node.made("providers", &cases(&upstream)[2].body);
    let shown: String = [
        "/api/virtual-keys",
        path,
        "/api/config",
        "/api/audit?limit=1000",
        "/api/providers",
    ]
    .iter()
    .map(|path| node.shown(path).to_string())
    .collect();
    node.process.signal("TERM");
    let files = eventually("the store is in its file", || {
        let folder = std::fs::read_dir(node.folder()).ok()?.flatten();
        let data = std::fs::read_dir(node.folder().join("data"))
            .ok()?
            .flatten();
        let files = folder
            .chain(data)
            .filter(|file| file.file_name() != "tyr.yaml");
        Some(
            files
                .filter_map(|file| std::fs::read(file.path()).ok())
                .collect::<Vec<_>>(),
        )
    });
    let hash =
        |value: &str| hex(ring::digest::digest(&ring::digest::SHA256, value.as_bytes()).as_ref());
    for secret in [&*first, &*second, SECRET, "a-value-of-the-caller-0001"] {
        assert!(!shown.contains(secret), "an answer shows {secret}");
        assert!(
            !shown.contains(&hash(secret)),
            "an answer shows the hash of {secret}"
        );
        for file in &files {
            let found = file
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "a file or the log holds {secret}");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn lists_are_given_page_by_page() {
    let upstream = Upstream::chat();
    let node = start(Store::Sqlite, &upstream);
    for index in 0..250 {
        node.made("virtual-keys", &json!({"name": format!("page-{index:03}")}));
    }
    for limit in [None, Some(1000), Some(100), Some(7)] {
        let (mut names, mut after, mut sizes) = (Vec::new(), String::new(), Vec::new());
        loop {
            let size = limit.map_or(String::new(), |limit: usize| format!("limit={limit}&"));
            let page = node.shown(&format!("/api/virtual-keys?{size}after={after}"));
            let data = page["data"].as_array().expect("a list");
            sizes.push(data.len());
            names.extend(
                data.iter()
                    .map(|one| one["name"].as_str().expect("a name").to_owned()),
            );
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => break,
            }
        }
        assert_eq!(names.len(), 252, "each once: {limit:?} {sizes:?}");
        assert!(
            names.is_sorted() && names.windows(2).all(|pair| pair[0] != pair[1]),
            "{names:?}"
        );
        let most = limit.unwrap_or(100);
        assert!(
            sizes.iter().all(|size| *size <= most),
            "{limit:?}: {sizes:?}"
        );
        assert_eq!(
            sizes.len(),
            252_usize.div_ceil(most),
            "{limit:?}: {sizes:?}"
        );
    }
    for wrong in ["limit=0", "limit=1001", "limit=x", "page=2"] {
        let answer = node.admin("GET", &format!("/api/virtual-keys?{wrong}"));
        assert_eq!(answer.status(), 400, "{wrong}");
    }
}
