//! A new configuration, whole or not at all, without a failed request.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::conf::{KEY, OTHER_KEY, key};
use crate::harness::events::Events;
use crate::harness::node::number;
use crate::harness::{Ask, Conf, Connection, Mock, Node, Upstream, eventually, ports, tyr_binary};

const CHAT: &str = "/v1/chat/completions";
const NEW_KEY: &str = "sk-tyr-test-0000000000000003";
const OK: &str = "tyr_config_last_reload_successful";

fn chat() -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]})
}

fn with_key(node: &Node, key: &str) -> u16 {
    node.ask(&Ask::post(CHAT, &chat()).bearer(key)).status()
}

/// The configuration with one key more, one key less.
fn changed(upstream: &Upstream) -> Conf {
    let mut conf = Conf::for_upstream(upstream.address);
    conf.keys = key("demo", KEY, "") + &key("new", NEW_KEY, "");
    conf
}

fn start() -> (Upstream, Node) {
    let upstream = Upstream::chat();
    let node = Node::start(&Conf::for_upstream(upstream.address));
    assert_eq!(
        (with_key(&node, OTHER_KEY), with_key(&node, NEW_KEY)),
        (200, 401)
    );
    (upstream, node)
}

#[track_caller]
fn applied(node: &Node) {
    eventually("the new key is accepted", || {
        (with_key(node, NEW_KEY) == 200).then_some(())
    });
    assert_eq!(
        with_key(node, OTHER_KEY),
        401,
        "and the old one gone, at the same moment"
    );
    assert_eq!(node.metric(OK, ""), 1.0);
}

#[test]
fn a_changed_file_is_read_by_itself() {
    let (upstream, node) = start();
    node.write_conf(&changed(&upstream));
    applied(&node);
}

#[test]
fn sighup_reloads() {
    let (upstream, node) = start();
    node.write_conf(&changed(&upstream));
    node.process.signal("HUP");
    applied(&node);
}

#[test]
fn the_api_reloads_and_answers_with_the_result() {
    let (upstream, node) = start();
    node.write_conf(&changed(&upstream));
    let answer = node.admin("POST", "/api/reload");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(
        (with_key(&node, NEW_KEY), with_key(&node, OTHER_KEY)),
        (200, 401),
        "applied when it answers"
    );
}

#[test]
fn a_bad_file_keeps_the_old_configuration_and_says_so() {
    let (upstream, node) = start();
    let mut broken = changed(&upstream);
    broken.models += "  - {name: x, provider: openai, prise: free}\n  - {name: y, provider: openai, price: dear}\n";
    node.write_conf(&broken);
    let answer = node.admin("POST", "/api/reload");
    assert_eq!(answer.status(), 400, "{}", answer.text());
    let text = answer.text();
    for word in ["prise", "models[5].price", "tyr.yaml"] {
        assert!(
            text.contains(word),
            "all errors at once, with their place: {text}"
        );
    }
    eventually("the metric tells", || {
        (node.metric(OK, "") == 0.0).then_some(())
    });
    node.await_log(&["prise"]);
    assert_eq!(
        (with_key(&node, OTHER_KEY), with_key(&node, NEW_KEY)),
        (200, 401)
    );
    node.write_conf(&changed(&upstream));
    applied(&node);
}

#[test]
fn what_was_used_stays_used_when_an_amount_changes() {
    let upstream = Upstream::chat();
    let conf = |amount: u32| {
        Conf::for_upstream(upstream.address)
            .limited(&format!("rate_limits: [{{requests: {amount}, every: 1h}}]"))
    };
    let node = Node::start(&conf(3));
    for _ in 0..3 {
        assert_eq!(with_key(&node, KEY), 200);
    }
    assert_eq!(with_key(&node, KEY), 429);
    node.write_conf(&conf(5));
    assert_eq!(node.admin("POST", "/api/reload").status(), 200);
    assert_eq!(number(&node.settled("demo", "requests")["used"]), 3.0);
    assert_eq!(
        [
            with_key(&node, KEY),
            with_key(&node, KEY),
            with_key(&node, KEY)
        ],
        [200, 200, 429]
    );
}

#[test]
fn a_request_in_flight_keeps_what_it_began_with() {
    let mock = Mock::start();
    let node = Node::start(&Conf::for_upstream(mock.address));
    let body = json!({"model": "gpt-4o-mini", "stream": true,
        "messages": [{"role": "user", "content": "[[mock tokens=10 token_ms=50 output=10 input=10]]"}]});
    let mut connection = Connection::open(node.data);
    connection.ask(&Ask::post(CHAT, &body));
    connection.head().expect("a head");
    let mut events = Events::of(&mut connection);
    events.data().expect("the first event");
    let mut conf = Conf::for_upstream(mock.address);
    conf.models = "  - {name: other, provider: openai, price: free}\n".into();
    node.write_conf(&conf);
    assert_eq!(node.admin("POST", "/api/reload").status(), 200);
    assert_eq!(
        node.post(CHAT, &chat()).status(),
        404,
        "the model is gone for new requests"
    );
    assert_eq!(
        events
            .rest()
            .last()
            .map(|event| event.data.clone())
            .as_deref(),
        Some("[DONE]")
    );
    let records = eventually("its record", || {
        let records = node.records();
        records.iter().any(|r| r.status == 200).then_some(records)
    });
    let record = records
        .iter()
        .find(|record| record.status == 200)
        .expect("the stream");
    assert_eq!(
        record.cost_nano_usd,
        10 * 150 + 10 * 600,
        "at the price it began with"
    );
}

#[test]
fn reloads_under_load_fail_no_request() {
    let upstream = Upstream::chat();
    let node = Arc::new(Node::start(&Conf::for_upstream(upstream.address)));
    let (stop, sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let (node, stop, sent) = (Arc::clone(&node), Arc::clone(&stop), Arc::clone(&sent));
            std::thread::spawn(move || {
                let mut connection = Connection::open(node.data);
                while !stop.load(Ordering::Relaxed) {
                    if number == 0 {
                        connection = Connection::open(node.data);
                    }
                    let answer = connection.exchange(&Ask::post(CHAT, &chat()));
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..60 {
        let mut conf = Conf::for_upstream(upstream.address);
        conf.keys += &key(
            &format!("extra-{round}"),
            &format!("sk-tyr-extra-{round:012}"),
            "",
        );
        let bad = round % 10 == 9;
        if bad {
            conf.models += "  - {name: broken}\n";
        }
        node.write_conf(&conf);
        let answer = node.admin("POST", "/api/reload");
        assert_eq!(
            answer.status(),
            if bad { 400 } else { 200 },
            "{}",
            answer.text()
        );
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("no request failed");
    }
    assert!(sent.load(Ordering::Relaxed) > 100, "there was load");
}

#[test]
fn a_referenced_secret_file_is_read_again() {
    let upstream = Upstream::chat();
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("key");
    std::fs::write(&secret, "upstream-secret-before-1\n").expect("written");
    let mut conf = Conf::for_upstream(upstream.address);
    let reference = format!("value: file.{}", secret.display());
    conf.providers = conf.providers.replacen(
        &format!("value: {}", crate::harness::conf::OPENAI_SECRET),
        &reference,
        1,
    );
    let node = Node::start(&conf);
    assert_eq!(with_key(&node, KEY), 200);
    let next = folder.path().join("next");
    std::fs::write(&next, "upstream-secret-after-01\n").expect("written");
    std::fs::rename(&next, &secret).expect("swapped");
    eventually("the new secret is used", || {
        assert_eq!(with_key(&node, KEY), 200);
        let last = upstream.seen().pop().expect("a request");
        (last.header("authorization") == Some("Bearer upstream-secret-after-01")).then_some(())
    });
    assert_eq!(
        upstream.seen()[0].header("authorization"),
        Some("Bearer upstream-secret-before-1")
    );
}

/// Runs `tyr check` on a file of this text.
fn check(text: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.yaml");
    std::fs::write(&path, text).expect("written");
    let output = Command::new(tyr_binary())
        .args(["check", "--conf"])
        .arg(&path)
        .output()
        .expect("tyr runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn check_tells_every_error_with_file_and_line() {
    let upstream = Upstream::chat();
    let good = Conf::for_upstream(upstream.address);
    let folder = std::path::Path::new("/nowhere");
    let (data, admin) = (ports::free(), ports::free());
    let text = good.render(data, admin, folder);
    let (ok, said) = check(&text);
    assert!(ok, "{said}");
    let bad = text
        .replace("max_body: 32MiB", "max_body: 32 potatoes\n  surprise: 1")
        .replace("kind: anthropic", "kind: nobody");
    let (ok, said) = check(&bad);
    assert!(!ok, "{said}");
    for word in ["surprise", "max_body", "kind"] {
        let line = said.lines().find(|line| line.contains(word));
        let line = line.unwrap_or_else(|| panic!("{word} is named in {said}"));
        let number = line
            .split(':')
            .nth(1)
            .and_then(|text| text.trim().parse::<u32>().ok());
        assert!(
            line.contains("x.yaml:") && number.is_some(),
            "file:line: {line}"
        );
    }
    let (ok, said) = check("");
    assert!(!ok, "an empty file is an error: {said}");
    let (ok, said) = check("version: 1\nversion: 1\n");
    assert!(!ok, "a name twice is an error: {said}");
    let limits = "budgets: [{limit_usd: 1, every: 2M}]";
    let (ok, said) = check(&good.limited(limits).render(data, admin, folder));
    assert!(
        !ok && said.contains("every"),
        "two months are no period: {said}"
    );
}

#[test]
fn the_schema_is_json_and_names_the_sections() {
    let output = Command::new(tyr_binary())
        .arg("schema")
        .output()
        .expect("tyr runs");
    assert!(output.status.success());
    let schema: Value = serde_json::from_slice(&output.stdout).expect("the schema is JSON");
    for section in [
        "server",
        "providers",
        "models",
        "virtual_keys",
        "teams",
        "customers",
    ] {
        assert!(schema["properties"].get(section).is_some(), "{section}");
    }
    let committed = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf");
    let files: Vec<_> = std::fs::read_dir(&committed)
        .expect("conf/")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let file = files
        .iter()
        .find(|path| path.to_string_lossy().contains("schema"))
        .expect("a committed schema");
    let kept: Value = serde_json::from_slice(&std::fs::read(file).expect("read")).expect("JSON");
    assert_eq!(
        kept,
        schema,
        "{} is what `tyr schema` prints",
        file.display()
    );
}
