//! A private Postgres as the store of nodes, and what it holds.

use std::collections::BTreeMap;

use serde_json::Value;

use super::client::{self, Ask};
use super::conf::Conf;
use super::node::Node;
use super::postgres::Postgres;

/// One server with one database for nodes.
pub struct Database {
    pub server: Postgres,
    name: String,
}

/// Sums over all usage records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    pub records: u64,
    pub input: u64,
    pub output: u64,
    pub nano_usd: u64,
}

impl Database {
    pub fn start() -> Self {
        let server = Postgres::start(None);
        let name = server.database();
        Self { server, name }
    }

    /// The configuration with this database as its store.
    pub fn store_of(&self, mut conf: Conf) -> Conf {
        let url = self.server.url(&self.name);
        conf.store = format!("  type: postgres\n  url: {url}\n  pool: 2\n");
        conf
    }

    /// What the statements print, a row a line.
    #[track_caller]
    pub fn rows(&self, statements: &str) -> String {
        self.server.admin(&self.name, statements)
    }

    #[track_caller]
    fn numbers(&self, statement: &str) -> Vec<u64> {
        let row = self.rows(statement);
        let fields = row.split('|').map(|field| field.parse().ok());
        fields
            .collect::<Option<_>>()
            .unwrap_or_else(|| panic!("{statement} gave {row:?}"))
    }

    /// The usage records added up.
    #[track_caller]
    pub fn usage(&self) -> Sums {
        let found = self.numbers(
            "SELECT count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),
                coalesce(sum(cost_nano_usd), 0) FROM usage_record",
        );
        Sums {
            records: found[0],
            input: found[1],
            output: found[2],
            nano_usd: found[3],
        }
    }

    /// Ids of the requests that have a record.
    #[track_caller]
    pub fn request_ids(&self) -> Vec<String> {
        let rows = self.rows("SELECT request_id FROM usage_record ORDER BY request_id");
        rows.lines().map(str::to_string).collect()
    }

    /// The settled amount of every counter.
    #[track_caller]
    pub fn cells(&self) -> BTreeMap<String, u64> {
        let rows = self.rows("SELECT counter, sum(amount) FROM counter_cells GROUP BY counter");
        let cells = rows.lines().filter_map(|row| {
            let (counter, amount) = row.rsplit_once('|')?;
            Some((counter.to_string(), amount.parse().ok()?))
        });
        cells.collect()
    }
}

/// What `/readyz` says; its status and the parts that the node is without.
#[track_caller]
pub fn readiness(node: &Node) -> (u16, Vec<String>) {
    let answer = client::ask(node.admin, &Ask::get("/readyz"));
    let parts = answer.json()["degraded"].as_array().cloned();
    let parts = parts.unwrap_or_default();
    let parts = parts.iter().filter_map(Value::as_str).map(str::to_string);
    (answer.status(), parts.collect())
}

/// The settled amount of each limit that a key's requests pass, by the id of the limit: requests,
/// tokens or nano-dollars.
#[track_caller]
pub fn used(node: &Node, key: &str) -> BTreeMap<String, u64> {
    let standing = node.standing(key);
    let used = standing.iter().map(|one| {
        let amount = one["used_nano_usd"].as_u64().or(one["used"].as_u64());
        let id = one["id"].as_str().expect("an id").to_string();
        (id, amount.expect("an amount"))
    });
    used.collect()
}
