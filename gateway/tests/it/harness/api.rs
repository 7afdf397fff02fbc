//! The admin API as tests use it: entities by path, limits by id, and the two
//! kinds of store that all of it has to work over.

use serde_json::{Value, json};

use super::client::{self, Answer, Ask};
use super::conf::{ADMIN, Conf};
use super::node::{Node, number};
use super::{eventually, postgres};

/// A key to seal secrets with, and to sign the audit trail.
pub const ENCRYPTION: &str =
    "encryption: {keys: [{id: k1, value: the-encryption-key-of-the-tests-0001}]}\n";

/// Where a node keeps what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Sqlite,
    Postgres,
}

impl Store {
    /// The same configuration over a new, empty store of this kind.
    pub fn under(self, mut conf: Conf) -> Conf {
        if self == Store::Postgres {
            let server = postgres::shared();
            let url = server.url(&server.database());
            conf.store = format!("  type: postgres\n  url: {url}\n  tls: {{mode: disable}}\n");
        }
        conf
    }
}

impl Node {
    /// A call of the admin API with this token and body.
    #[track_caller]
    pub fn call_as(&self, token: &str, method: &str, path: &str, body: &Value) -> Answer {
        client::ask(self.admin, &request(method, path, body).bearer(token))
    }

    /// The same with the token of the tests.
    #[track_caller]
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.call_as(ADMIN, method, path, body)
    }

    /// The same with one more header.
    #[track_caller]
    pub fn call_with(
        &self,
        method: &str,
        path: &str,
        header: (&str, &str),
        body: &Value,
    ) -> Answer {
        let ask = request(method, path, body).bearer(ADMIN);
        client::ask(self.admin, &ask.header(header.0, header.1))
    }

    /// What `GET` of a path under `/api/` answers, which has to be 200.
    #[track_caller]
    pub fn shown(&self, path: &str) -> Value {
        let answer = self.admin("GET", path);
        assert_eq!(answer.status(), 200, "GET {path}: {}", answer.text());
        answer.json()
    }

    /// Makes an entity of this kind; it has to be new.
    #[track_caller]
    pub fn made(&self, kind: &str, body: &Value) -> Value {
        let answer = self.call("POST", &format!("/api/{kind}"), body);
        assert_eq!(answer.status(), 201, "{kind} {body}: {}", answer.text());
        answer.json()
    }

    /// Makes a virtual key and gives its value.
    #[track_caller]
    pub fn made_key(&self, body: &Value) -> String {
        let made = self.made("virtual-keys", body);
        let value = made["value"].as_str().expect("the value is shown once");
        value.to_owned()
    }

    /// All limits but those of end users, by id.
    #[track_caller]
    pub fn limits(&self) -> Vec<Value> {
        let page = self.shown("/api/limits?limit=1000");
        assert_eq!(page["next"], Value::Null, "more limits than a page holds");
        page["data"].as_array().expect("a list").clone()
    }

    /// One limit by its id.
    #[track_caller]
    pub fn limit(&self, id: &str) -> Value {
        let limits = self.limits();
        let found = limits.iter().find(|limit| limit["id"] == id);
        found
            .cloned()
            .unwrap_or_else(|| panic!("no limit {id} in {limits:#?}"))
    }

    /// All limits once none of them holds anything.
    #[track_caller]
    pub fn limits_at_rest(&self) -> Vec<Value> {
        eventually("no limit holds anything", || {
            let limits = self.limits();
            limits.iter().all(is_idle).then_some(limits)
        })
    }
}

/// Whether no request in flight has a part of this limit.
pub fn is_idle(limit: &Value) -> bool {
    let held = match limit["unit"] == "concurrent" {
        true => &limit["used"],
        false => &limit["reserved"],
    };
    number(held) == 0.0
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the year 500,000,000")
}

fn request(method: &str, path: &str, body: &Value) -> Ask {
    let mut ask = Ask::new(method, path);
    if !body.is_null() {
        ask = ask.header("content-type", "application/json");
        ask.body = body.to_string().into_bytes();
    }
    ask
}

/// A small chat request.
pub fn chat(model: &str, max_tokens: u64) -> Value {
    json!({"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": "hi"}]})
}
