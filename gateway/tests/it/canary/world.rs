//! A node whose every secret is a canary, and the provider it asks.

use std::cell::RefCell;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::process::Process;
use crate::harness::upstream::{chat_chunk, chat_completion, chat_end};
use crate::harness::wait::within;
use crate::harness::{Answer, Ask, Exchange, client, ports, tyr_binary};

pub(super) const CHAT: &str = "/v1/chat/completions";

/// What the process is given, by environment variable.
pub(super) const GIVEN: [(&str, &str); 9] = [
    ("CANARY_PROVIDER", "canary-7Qd1-of-the-provider-in-the-file"),
    ("CANARY_SPARE", "canary-7Qd2-of-a-provider-never-asked"),
    ("CANARY_KEY", "canary-7Qd3-of-the-virtual-key-in-the-file"),
    ("CANARY_REVOKED", "canary-7Qd4-of-the-virtual-key-revoked"),
    ("CANARY_ADMIN", "canary-7Qd5-of-the-admin-token-in-the-file"),
    ("CANARY_VIEWER", "canary-7Qd6-of-the-viewer-in-the-file"),
    (
        "CANARY_ENCRYPTION",
        "canary-7Qd7-of-the-encryption-key-in-the-file",
    ),
    (
        "CANARY_OLD_ENCRYPTION",
        "canary-7Qd8-of-the-older-encryption-key-in-the-file",
    ),
    (
        "CANARY_CLUSTER",
        "canary-7Qd9-of-the-cluster-secret-in-the-file",
    ),
];

pub(super) fn given(variable: &str) -> &'static str {
    let found = GIVEN.iter().find(|(name, _)| *name == variable);
    found.map(|(_, value)| *value).expect("it is in the table")
}

pub(super) struct Node {
    pub(super) data: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) process: Process,
    pub(super) folder: tempfile::TempDir,
    /// Every answer so far, heads and bodies, and what made it.
    pub(super) answers: RefCell<Vec<(String, String)>>,
}

impl Node {
    pub(super) fn start(upstream: SocketAddr) -> Self {
        Self::start_on(upstream, "store: {type: sqlite, path: data/tyr.db}", &[])
    }

    /// With its store described by a line, and more environment.
    pub(super) fn start_on(upstream: SocketAddr, store: &str, more: &[(&str, &String)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the node");
        let (data, admin) = (ports::free(), ports::free());
        let conf = conf(upstream, data, admin, store);
        fs::write(folder.path().join("tyr.yaml"), conf).expect("the configuration is written");
        let process = run(folder.path(), more);
        let node = Node {
            data,
            admin,
            process,
            folder,
            answers: RefCell::default(),
        };
        let up = within(Duration::from_secs(30), || {
            TcpStream::connect(admin).ok()?;
            let ready = client::ask(admin, &Ask::get("/readyz")).status() == 200;
            (ready && TcpStream::connect(data).is_ok()).then_some(())
        });
        assert!(up.is_some(), "tyr is not ready:\n{}", node.process.log());
        node
    }

    /// Asks and keeps the answer for the search.
    pub(super) fn keep(&self, at: SocketAddr, ask: &Ask) -> Answer {
        let answer = client::ask(at, ask);
        let whole = format!("{:?}\n{}", answer.head, answer.text());
        let what = format!("{} {}", ask.method, ask.path);
        self.answers.borrow_mut().push((what, whole));
        answer
    }

    pub(super) fn chat(&self, key: &str, user: &str, stream: bool) -> Answer {
        let body = json!({"model": "gpt-4o-mini", "stream": stream, "user": user,
            "messages": [{"role": "user", "content": "hi"}]});
        self.keep(self.data, &Ask::post(CHAT, &body).bearer(key))
    }

    pub(super) fn read(&self, path: &str) -> Answer {
        let token = given("CANARY_ADMIN");
        self.keep(self.admin, &Ask::get(path).bearer(token))
    }

    pub(super) fn write(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.keep(self.admin, &written(method, path, body))
    }

    /// A write whose answer shows a secret, this once: it is not searched.
    pub(super) fn shown_once(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = client::ask(self.admin, &written(method, path, body));
        assert!(answer.status() < 300, "{path}: {}", answer.text());
        answer.json()
    }
}

pub(super) fn written(method: &str, path: &str, body: &Value) -> Ask {
    let mut ask = Ask::new(method, path)
        .header("content-type", "application/json")
        .bearer(given("CANARY_ADMIN"));
    ask.body = body.to_string().into_bytes();
    if method != "POST" {
        ask = ask.header("content-length", &body.to_string().len().to_string());
        ask.headers.dedup();
    }
    ask
}

pub(super) fn run(folder: &Path, more: &[(&str, &String)]) -> Process {
    let mut command = tyr(folder, &["serve"]);
    command.envs(more.iter().copied());
    command.env("RUST_LOG", "trace");
    Process::start("tyr", &mut command, &folder.join("tyr.log"))
}

pub(super) fn tyr(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(tyr_binary());
    command.args(arguments).current_dir(folder);
    command.arg("--conf").arg(folder.join("tyr.yaml"));
    command.envs(GIVEN);
    command
}

/// Runs a command beside the node.
pub(super) fn command(folder: &Path, arguments: &[&str]) -> Output {
    tyr(folder, arguments).output().expect("tyr runs")
}

pub(super) fn conf(
    upstream: SocketAddr,
    data: SocketAddr,
    admin: SocketAddr,
    store: &str,
) -> String {
    format!(
        "version: 1
server: {{listen: \"{data}\", admin_listen: \"{admin}\", data_dir: data}}
{store}
admin:
  tokens:
    - {{name: ops, role: admin, value: env.CANARY_ADMIN}}
    - {{name: see, role: viewer, value: env.CANARY_VIEWER}}
encryption:
  keys:
    - {{id: old, value: env.CANARY_OLD_ENCRYPTION}}
    - {{id: new, value: env.CANARY_ENCRYPTION}}
providers:
  - name: openai
    kind: openai
    base_url: http://{upstream}/v1
    allow_private_addresses: true
    retries: {{max: 1, backoff_min: 1ms, backoff_max: 2ms}}
    keys: [{{name: main, value: env.CANARY_PROVIDER}}]
  - name: spare
    kind: anthropic
    base_url: http://{upstream}
    allow_private_addresses: true
    keys: [{{name: main, value: env.CANARY_SPARE}}]
models:
  - {{name: gpt-4o-mini, provider: openai, price: {{input: 1, output: 2}}}}
  - {{name: claude, provider: spare, price: {{input: 1, output: 2}}}}
virtual_keys:
  - name: demo
    value: env.CANARY_KEY
    providers: [{{name: openai}}, {{name: spare}}]
    rate_limits: [{{requests: 1000, every: 1h}}]
    budgets: [{{limit_usd: 10, every: 1d}}]
  - {{name: leaked, value: env.CANARY_REVOKED, providers: [{{name: openai}}]}}
cluster: {{enabled: false, secret: {}}}
",
        given("CANARY_CLUSTER")
    )
}

/// A provider that fails in many ways and tells what it was sent.
pub(super) fn provider(exchange: &mut Exchange) {
    let quote = exchange.seen.header("authorization").unwrap_or("none");
    let quote = json!({"error": {"message": format!("who is {quote}?")}});
    let body = exchange.seen.json();
    match body["user"].as_str() {
        Some("quote-401") => exchange.json(401, &quote),
        Some("quote-400") => exchange.json(400, &quote),
        Some("quote-500") => exchange.json(500, &quote),
        Some("hang-up") => exchange.hang_up(),
        _ if body["stream"] == true => {
            exchange.stream();
            exchange.event(&chat_chunk("pong"));
            for data in chat_end(10, 5) {
                exchange.event(&data);
            }
            exchange.event("[DONE]");
            exchange.end();
        }
        _ => exchange.json(200, &chat_completion("pong", 10, 5)),
    }
}
