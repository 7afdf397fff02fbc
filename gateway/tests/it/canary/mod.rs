//! Secrets that must not be seen anywhere: each is unique, and every byte that
//! leaves the process is searched for it: answers, metrics, the log at its most
//! detailed, the database and everything in `data_dir`.

mod search;
mod world;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::search::{files, hits};
use self::world::{CHAT, GIVEN, Node, command, given, provider, tyr};
use crate::harness::postgres::{Postgres, USER};
use crate::harness::{Ask, Upstream, eventually};

/// What the API is given.
const OF_API: &str = "canary-8Qd1-of-the-provider-made-by-the-api";
const REPLACED: &str = "canary-8Qd2-of-the-provider-changed-by-the-api";
const REFUSED: &str = "canary-8Qd3-of-a-provider-that-was-refused";
const KEY_OF_API: &str = "canary-8Qd4-of-the-virtual-key-made-by-the-api";
const TOKEN_OF_API: &str = "canary-8Qd5-of-the-admin-token-made-by-the-api";

/// The search finds what is there, in each form.
#[test]
fn the_search_works() {
    let secret = "canary-of-the-search-itself".to_owned();
    let secrets = [secret.clone()];
    for text in [
        format!("key={secret}!"),
        format!("key={}!", hex::encode(&secret)),
        STANDARD_NO_PAD.encode(format!("user:{secret}")),
        STANDARD_NO_PAD.encode(format!("users:{secret}")),
        URL_SAFE_NO_PAD.encode(format!("a user:{secret}")),
    ] {
        let mut found = Vec::new();
        hits("a text", text.as_bytes(), &secrets, &mut found);
        assert!(!found.is_empty(), "{text}");
    }
    let mut found = Vec::new();
    hits("a text", b"canary-of-the-search", &secrets, &mut found);
    assert!(found.is_empty(), "{found:?}");
}

/// Requests that work, that fail and that are refused.
fn traffic(node: &Node, keys: &[&str]) {
    for key in keys {
        assert_eq!(node.chat(key, "good", false).status(), 200);
        assert_eq!(node.chat(key, "good", true).status(), 200);
    }
    for user in ["quote-401", "quote-400", "quote-500", "hang-up"] {
        for stream in [false, true] {
            assert!(node.chat(given("CANARY_KEY"), user, stream).status() >= 400);
        }
    }
    let key = given("CANARY_KEY");
    let asks = [
        Ask::post_bytes(CHAT, "{not json").bearer(key),
        Ask::post(CHAT, &json!({"model": "nothing-like-it", "messages": []})).bearer(key),
        Ask::post(CHAT, &json!({"model": "claude", "messages": []})).header("x-api-key", key),
        Ask::post_bytes(CHAT, "{}").header("x-tyr-key", &format!("{key}x")),
        Ask::get("/v1/models").bearer(key),
        Ask::get(&format!("/v1/nowhere?key={}", "x".repeat(10))).bearer(key),
        Ask::post_bytes("/v1/messages", "{}").header("x-api-key", given("CANARY_ADMIN")),
    ];
    for ask in asks {
        node.keep(node.data, &ask);
    }
    broken_head(node, key);
}

/// A head that no parser takes, with a key in it.
fn broken_head(node: &Node, key: &str) {
    let mut stream = TcpStream::connect(node.data).expect("the port is open");
    let head = format!("GET / HTTP/1.1\r\nauthorization: Bearer {key}\r\nno colon here\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it takes bytes");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let what = "a broken head".to_owned();
    node.answers.borrow_mut().push((what, answer));
}

fn provider_body(name: &str, base_url: &str, value: &str) -> Value {
    json!({"name": name, "kind": "openai", "base_url": base_url, "allow_private_addresses": true,
        "keys": [{"name": "main", "value": value}]})
}

/// Makes entities that hold secrets; what was shown once.
fn writes(node: &Node, upstream: SocketAddr) -> Vec<String> {
    let url = format!("http://{upstream}/v1");
    let made = node.write(
        "POST",
        "/api/providers",
        &provider_body("made", &url, OF_API),
    );
    assert_eq!(made.status(), 201, "{}", made.text());
    let kept = node.write(
        "PUT",
        "/api/providers/made",
        &provider_body("made", &url, "***"),
    );
    assert_eq!(kept.status(), 200, "{}", kept.text());
    let changed = provider_body("made", &url, REPLACED);
    assert_eq!(
        node.write("PUT", "/api/providers/made", &changed).status(),
        200
    );
    let model = json!({"name": "house", "provider": "made", "price": "free"});
    let model = node.write("POST", "/api/models", &model);
    assert_eq!(model.status(), 201, "{}", model.text());
    for wrong in [
        provider_body("made", &url, REFUSED),
        provider_body("bad name", &url, REFUSED),
        provider_body("worse", "ftp://nowhere", REFUSED),
        json!({"name": "list", "kind": "openai", "base_url": url, "keys": [{"name": "main", "value": [REFUSED]}]}),
        json!({"name": "spaces", "kind": "openai", "base_url": url, "keys": [{"name": "main", "value": format!(" {REFUSED} ")}]}),
        json!({"name": "none", "kind": "openai", "base_url": url, "keys": REFUSED}),
    ] {
        let refused = node.write("POST", "/api/providers", &wrong);
        assert!(refused.status() >= 400, "{wrong}: {}", refused.text());
    }
    let key = json!({"name": "made", "providers": [{"name": "openai"}, {"name": "made"}]});
    let made = node.shown_once("POST", "/api/virtual-keys", &key);
    let rotated = node.shown_once(
        "POST",
        "/api/virtual-keys/made/rotate",
        &json!({"grace": "1h"}),
    );
    let given = json!({"name": "given", "value": KEY_OF_API, "providers": [{"name": "openai"}]});
    node.shown_once("POST", "/api/virtual-keys", &given);
    let token = json!({"name": "made", "role": "viewer", "value": TOKEN_OF_API});
    node.shown_once("POST", "/api/admin-tokens", &token);
    [&made["value"], &rotated["value"]]
        .into_iter()
        .map(|value| value.as_str().expect("it is shown once").to_owned())
        .collect()
}

/// Every read there is.
fn reads(node: &Node) {
    let described = node.read("/api/openapi.json").json();
    let paths = described["paths"].as_object().expect("it has paths");
    let mut asked = 0;
    for (path, methods) in paths {
        if methods["get"].is_null() {
            continue;
        }
        let path = match path.strip_prefix("/api") {
            Some(_) => path.clone(),
            None => format!("/api{path}"),
        };
        let names = [
            "made",
            "demo",
            "openai",
            "given",
            "leaked",
            "openai/gpt-4o-mini",
            "ops",
        ];
        for name in names
            .iter()
            .take(if path.contains('{') { names.len() } else { 1 })
        {
            let (start, rest) = path.split_once('{').unwrap_or((&path, ""));
            let end = rest.split_once('}').map_or("", |(_, end)| end);
            let name = if rest.is_empty() { "" } else { name };
            node.read(&format!("{start}{name}{end}"));
            asked += 1;
        }
    }
    assert!(asked > 20, "{asked} reads");
    for path in ["/metrics", "/livez", "/readyz"] {
        node.keep(node.admin, &Ask::get(path));
    }
    let viewer = Ask::get("/api/config").bearer(given("CANARY_VIEWER"));
    assert_eq!(node.keep(node.admin, &viewer).status(), 200);
    let made = Ask::get("/api/virtual-keys").bearer(TOKEN_OF_API);
    assert_eq!(node.keep(node.admin, &made).status(), 200);
    for key in ["demo", "made", "given", "leaked", "nobody"] {
        let question = json!({"key": key, "model": "gpt-4o-mini"});
        node.write("POST", "/api/explain", &question);
    }
}

#[test]
fn no_secret_is_seen_anywhere() {
    let upstream = Upstream::start(provider);
    let mut node = Node::start(upstream.address);
    traffic(&node, &[given("CANARY_KEY"), given("CANARY_REVOKED")]);
    let shown = writes(&node, upstream.address);
    traffic(
        &node,
        &[given("CANARY_KEY"), KEY_OF_API, &shown[0], &shown[1]],
    );
    let house = json!({"model": "house", "messages": []});
    let ask = Ask::post(CHAT, &house).bearer(&shown[1]);
    eventually("the provider made by the API is asked", || {
        (node.keep(node.data, &ask).status() == 200).then_some(())
    });
    let revoked = node.write("POST", "/api/virtual-keys/leaked/revoke", &json!({}));
    assert_eq!(revoked.status(), 200, "{}", revoked.text());
    assert_eq!(
        node.chat(given("CANARY_REVOKED"), "good", false).status(),
        401
    );
    node.write("POST", "/api/reload", &json!({}));
    reads(&node);
    // The provider was told our credential, so the search is for something.
    let told = upstream.seen();
    for secret in [given("CANARY_PROVIDER"), REPLACED] {
        let bearer = format!("Bearer {secret}");
        let bearer = Some(bearer.as_str());
        assert!(
            told.iter()
                .any(|seen| seen.header("authorization") == bearer),
            "{secret}"
        );
    }
    let mut secrets: Vec<String> = GIVEN.iter().map(|(_, value)| (*value).to_owned()).collect();
    let of_api = [OF_API, REPLACED, REFUSED, KEY_OF_API, TOKEN_OF_API];
    secrets.extend(of_api.map(str::to_owned));
    secrets.extend(shown);
    let log = node.process.log();
    assert!(log.contains("\"DEBUG\""), "the log is at its most detailed");
    let mut found = Vec::new();
    // Half of what is searched is on disk only while the node runs.
    for round in ["running", "ended"] {
        let mut all = Vec::new();
        files(node.folder.path(), &mut all);
        let named = |end: &str| {
            all.iter()
                .any(|(path, bytes)| path.ends_with(end) && !bytes.is_empty())
        };
        assert!(named("tyr.log") && named("tyr.db"), "{round}");
        for (path, bytes) in &all {
            hits(&format!("{path} ({round})"), bytes, &secrets, &mut found);
        }
        if round == "running" {
            node.process.signal("TERM");
            let ended = node.process.wait(Duration::from_secs(30));
            assert!(ended.is_some(), "it ends");
        }
    }
    let mut answers = secrets.clone();
    // Hashes are what a stolen key is looked for by: not for callers either.
    answers.extend(
        secrets
            .iter()
            .map(|secret| hex::encode(Sha256::digest(secret))),
    );
    for (what, answer) in node.answers.borrow().iter() {
        hits(
            &format!("the answer to {what}"),
            answer.as_bytes(),
            &answers,
            &mut found,
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Commands that read the same secrets say nothing of them.
#[test]
fn commands_show_no_secret() {
    let upstream = Upstream::start(provider);
    let node = Node::start(upstream.address);
    writes(&node, upstream.address);
    let folder = node.folder.path();
    let text = fs::read_to_string(folder.join("tyr.yaml")).expect("it was written");
    // The new key comes first: what the old one sealed moves to it.
    let lines: Vec<&str> = text.lines().collect();
    let at = |word: &str| {
        lines
            .iter()
            .position(|line| line.contains(word))
            .expect("it is there")
    };
    let (old, new) = (at("{id: old"), at("{id: new"));
    let mut swapped = lines.clone();
    swapped.swap(old, new);
    fs::write(folder.join("tyr.yaml"), swapped.join("\n")).expect("it is replaced");
    let rotated = command(folder, &["rotate-keys"]);
    let said = String::from_utf8_lossy(&rotated.stdout).into_owned();
    assert!(
        said.contains("'new': 1 entities anew, 0 already"),
        "{said} {rotated:?}"
    );
    let again = command(folder, &["rotate-keys"]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("0 entities anew, 1 already"));
    let verified = command(folder, &["audit", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
    let migrated = command(folder, &["migrate"]);
    assert!(migrated.status.success(), "{migrated:?}");
    // The running node follows: its poll brings the rows, and both keys open.
    let body = json!({"name": "house2", "provider": "made", "price": "free"});
    assert_eq!(node.write("POST", "/api/models", &body).status(), 201);
    let without: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| !line.contains("{id: old"))
        .collect();
    fs::write(folder.join("tyr.yaml"), without.join("\n")).expect("it is replaced");
    let alone = command(folder, &["rotate-keys"]);
    assert!(
        alone.status.success(),
        "the old key is not needed any more: {alone:?}"
    );
    let only_old: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| !line.contains("{id: new"))
        .collect();
    fs::write(folder.join("tyr.yaml"), only_old.join("\n")).expect("it is replaced");
    let missing = command(folder, &["rotate-keys"]);
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(!missing.status.success(), "{missing:?}");
    assert!(
        said.contains("provider 'made'") && said.contains("'new'"),
        "{said}"
    );
    let unknown = command(folder, &["audit", "verify"]);
    assert!(
        !unknown.status.success(),
        "rows of an unknown key: {unknown:?}"
    );
    let secrets: Vec<String> = GIVEN.iter().map(|(_, value)| (*value).to_owned()).collect();
    let mut found = Vec::new();
    for output in [rotated, again, verified, migrated, alone, missing, unknown] {
        for bytes in [output.stdout, output.stderr] {
            hits("an output", &bytes, &secrets, &mut found);
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The password of the database, and an address that holds one.
#[test]
fn no_password_of_the_database_is_seen() {
    const PASSWORD: &str = "canary-9Qd1-of-the-database";
    const WRONG: &str = "canary-9Qd2-of-no-database";
    let server = Postgres::start(None);
    let (name, other) = (server.database(), server.database());
    server.set_password(PASSWORD);
    let upstream = Upstream::chat();
    let store = format!(
        "store: {{type: postgres, host: 127.0.0.1, port: {}, user: {USER}, password: env.CANARY_DB, database: {name}, tls: {{mode: disable}}}}",
        server.port()
    );
    let url = |password: &str| {
        let port = server.port();
        format!("postgres://{USER}:{password}@127.0.0.1:{port}/{other}?sslmode=disable")
    };
    let mut found = Vec::new();
    let secrets = [PASSWORD.to_owned(), WRONG.to_owned()];
    for (name, store, variable, value) in [
        (&name, store.as_str(), "CANARY_DB", PASSWORD.to_owned()),
        (
            &other,
            "store: {type: postgres, url: env.CANARY_URL}",
            "CANARY_URL",
            url(PASSWORD),
        ),
    ] {
        let node = Node::start_on(upstream.address, store, &[(variable, &value)]);
        assert_eq!(node.chat(given("CANARY_KEY"), "good", false).status(), 200);
        writes(&node, upstream.address);
        // From now on nobody gets in: reconnecting fails and says so.
        server.set_password("something-else");
        server.admin(
            name,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> 'postgres'",
        );
        eventually("the store is away", || {
            (node.read("/api/usage").status() == 503).then_some(())
        });
        reads(&node);
        server.set_password(PASSWORD);
        eventually("the store is back", || {
            (node.read("/api/usage").status() == 200).then_some(())
        });
        for wrong in [WRONG.to_owned(), url(WRONG), format!("http://{WRONG}")] {
            let mut migrate = tyr(node.folder.path(), &["migrate"]);
            let output = migrate.env(variable, wrong).output().expect("tyr runs");
            hits(
                "the output of migrate",
                &output.stdout,
                &secrets,
                &mut found,
            );
            hits(
                "the output of migrate",
                &output.stderr,
                &secrets,
                &mut found,
            );
            assert!(!output.status.success(), "{output:?}");
        }
        let mut all = Vec::new();
        files(node.folder.path(), &mut all);
        for (path, bytes) in &all {
            hits(path, bytes, &secrets, &mut found);
        }
        for (what, answer) in node.answers.borrow().iter() {
            hits(
                &format!("the answer to {what}"),
                answer.as_bytes(),
                &secrets,
                &mut found,
            );
        }
        let rows = server.admin(name, "SELECT database_to_xml(true, false, '')");
        let mut sealed: Vec<String> = GIVEN.iter().map(|(_, value)| (*value).to_owned()).collect();
        sealed.extend([OF_API, REPLACED, KEY_OF_API, TOKEN_OF_API].map(str::to_owned));
        assert!(
            rows.contains("sealed:v1:"),
            "what is searched holds secrets"
        );
        hits("the database", rows.as_bytes(), &sealed, &mut found);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
