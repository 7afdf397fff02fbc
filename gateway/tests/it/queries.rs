//! No request waits for the store, or asks it anything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::conf::{ADMIN, KEY, key};
use crate::harness::database::{Database, readiness};
use crate::harness::upstream::chat_completion;
use crate::harness::{Ask, Conf, Connection, Node, Upstream, eventually};

const CHAT: &str = "/v1/chat/completions";

/// What nobody made.
const UNKNOWN: &str = "sk-tyr-nobody-has-this-one-0000";

/// Requests of each kind.
const REQUESTS: u64 = 200;

/// Statements of one batch of usage: begin, lock, records, cells, commit.
const OF_A_BATCH: [&str; 6] = [
    "START TRANSACTION",
    "SELECT pg_advisory_xact_lock_shared",
    "INSERT INTO origin",
    "INSERT INTO usage_record",
    "INSERT INTO counter_cells",
    "COMMIT",
];

/// Statements that come by themselves each second: the poll, and the settings of a connection that
/// is opened in place of one that was lost.
const OF_A_SECOND: [&str; 2] = [
    "SELECT kind, name, revision, body, changed_at_ms FROM entity",
    "SELECT set_config",
];

fn chat() -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]})
}

/// A node with a key that the API made, and that key.
fn node(database: &Database, upstream: &Upstream) -> (Node, String) {
    let mut conf = database.store_of(Conf::for_upstream(upstream.address));
    let limits = "rate_limits: [{requests: 1000000, every: 1d}, {tokens: 100000000, every: 1m}]";
    conf.keys = key("demo", KEY, limits);
    let node = Node::start(&conf);
    let body = json!({"name": "made", "providers": [{"name": "openai"}],
        "budgets": [{"limit_usd": 1000, "every": "1d"}]});
    let made = node.made_key(&body);
    (node, made)
}

fn provider() -> Upstream {
    Upstream::start(|exchange| exchange.json(200, &chat_completion("pong", 100, 50)))
}

/// Asks with each key in turn, `REQUESTS` times in all, and checks the status.
fn ask_all(node: &Node, keys: &[&str], status: u16) {
    let mut connection = Connection::open(node.data);
    for number in 0..REQUESTS {
        let key = keys[usize::try_from(number).expect("a small number") % keys.len()];
        let answer = connection.exchange(&Ask::post(CHAT, &chat()).bearer(key));
        assert_eq!(answer.status(), status, "{}", answer.text());
        if answer.header("connection") == Some("close") {
            connection = Connection::open(node.data);
        }
    }
}

/// How often the node has sent each statement, by its text.
fn statements(database: &Database) -> BTreeMap<String, u64> {
    let rows = database.rows(
        "SELECT regexp_replace(query, '\\s+', ' ', 'g'), sum(calls) FROM pg_stat_statements
            JOIN pg_roles ON pg_roles.oid = userid WHERE rolname = 'tyr' GROUP BY 1",
    );
    let counted = rows.lines().filter_map(|row| {
        let (text, calls) = row.rsplit_once('|')?;
        Some((text.trim().to_string(), calls.parse().ok()?))
    });
    counted.collect()
}

/// What was sent meanwhile.
fn since(before: &BTreeMap<String, u64>, now: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let sent = now.into_iter().map(|(text, calls)| {
        let earlier = before.get(&text).copied().unwrap_or_default();
        (text, calls - earlier)
    });
    sent.filter(|(_, calls)| *calls > 0).collect()
}

/// Fails for statements that are not of these lists, and for too many of them.
fn assert_bounded(sent: &BTreeMap<String, u64>, batches: u64, seconds: u64) {
    for (text, calls) in sent {
        let is_one_of = |list: &[&str]| {
            list.iter()
                .any(|known| text.to_lowercase().starts_with(&known.to_lowercase()))
        };
        let most = match () {
            () if is_one_of(&OF_A_BATCH) => batches,
            () if is_one_of(&OF_A_SECOND) => seconds,
            () => 0,
        };
        assert!(
            *calls <= most,
            "{calls} times, not {most}: {text}\n{sent:#?}"
        );
    }
}

#[test]
fn requests_cause_no_statements() {
    let mut database = Database::start();
    database.rows("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'");
    database.server.stop();
    database.server.resume();
    database.rows("CREATE EXTENSION pg_stat_statements");
    let upstream = provider();
    let (node, made) = node(&database, &upstream);
    // Both have been used once.
    assert_eq!(
        [KEY, &made].map(|key| node.ask(&Ask::post(CHAT, &chat()).bearer(key)).status()),
        [200; 2]
    );
    eventually("their usage is in the store", || {
        (database.usage().records == 2).then_some(())
    });

    let (before, start) = (statements(&database), Instant::now());
    ask_all(&node, &[UNKNOWN], 401);
    let sent = since(&before, statements(&database));
    let seconds = start.elapsed().as_secs() + 2;
    assert_bounded(&sent, 0, seconds);

    let (before, start) = (statements(&database), Instant::now());
    ask_all(&node, &[KEY, &made], 200);
    eventually("their usage is in the store", || {
        (database.usage().records == 2 + REQUESTS).then_some(())
    });
    let sent = since(&before, statements(&database));
    let taken = start.elapsed();
    // At most one batch in each commit interval of 100 ms, whatever the requests.
    let batches = u64::try_from(taken.as_millis() / 100).expect("not so long") + 2;
    assert_bounded(&sent, batches, taken.as_secs() + 2);
    assert!(
        sent.keys()
            .any(|text| text.starts_with("INSERT INTO usage_record")),
        "{sent:#?}"
    );
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tyr'";
    let connections: u64 = database.rows(connections).parse().expect("a count");
    assert!(connections <= 2, "the pool keeps its size: {connections}");
}

#[test]
fn requests_do_not_wait_for_a_store_that_hangs() {
    /// How long nothing in the database can be read or written.
    const HANG: u64 = 8;
    let database = Database::start();
    let upstream = provider();
    let (node, made) = node(&database, &upstream);
    assert_eq!(
        node.ask(&Ask::post(CHAT, &chat()).bearer(&made)).status(),
        200
    );
    eventually("its usage is in the store", || {
        (database.usage().records == 1).then_some(())
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            database.rows(&format!(
                "BEGIN; LOCK TABLE usage_record, counter_cells, entity, entity_revision, audit_log
                    IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({HANG}); COMMIT"
            ))
        });
        eventually("everything is locked", || {
            let held =
                "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock'
                AND relation = 'audit_log'::regclass";
            (database.rows(held) == "1").then_some(())
        });
        let start = Instant::now();
        ask_all(&node, &[KEY, &made], 200);
        ask_all(&node, &[UNKNOWN], 401);
        let reads = ["/api/virtual-keys", "/api/limits", "/api/config"];
        assert_eq!(reads.map(|path| node.admin("GET", path).status()), [200; 3]);
        assert_eq!(readiness(&node).0, 200);
        // The first thing that anybody does who lost a key; also while others wait for the store.
        eventually("a look at what other nodes wrote hangs", || {
            let waiting = "SELECT count(*) FROM pg_stat_activity
                WHERE usename = 'tyr' AND wait_event_type = 'Lock' AND query LIKE '%FROM entity%'";
            (database.rows(waiting) != "0").then_some(())
        });
        let asked = Instant::now();
        let address = node.admin;
        let revoking = scope.spawn(move || {
            let ask = Ask::new("POST", "/api/virtual-keys/made/revoke").bearer(ADMIN);
            crate::harness::client::ask(address, &ask)
        });
        eventually("the key is refused", || {
            let refused = node.ask(&Ask::post(CHAT, &chat()).bearer(&made));
            (refused.status() == 401).then_some(())
        });
        let applied = asked.elapsed();
        assert!(
            start.elapsed() < Duration::from_secs(HANG),
            "the machine is too slow for this"
        );
        assert!(
            applied < Duration::from_secs(1),
            "refused after {applied:?}"
        );
        let revoked = revoking.join().expect("an answer");
        assert_eq!(revoked.status(), 200, "{}", revoked.text());
    });
    eventually("the usage is in the store", || {
        (database.usage().records > REQUESTS).then_some(())
    });
    let late = json!({"name": "late", "providers": [{"name": "openai"}]});
    eventually("writes are taken again", || {
        (node.call("POST", "/api/virtual-keys", &late).status() == 201).then_some(())
    });
}
