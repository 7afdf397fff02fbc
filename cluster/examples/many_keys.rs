//! Fills a SQLite store with virtual keys as the admin API makes them, for `loadtest/many-keys`.
//!
//! `many_keys FILE COUNT`: keys `key-0000000` and up, each with the value
//! `sk-tyr-many-0000000`, a team `many`, a provider `openai`, two rate limits and a budget; with
//! `plain` as a third word no limits. A key that is there already is an error.

use std::error::Error;
use std::path::PathBuf;

use cluster::audit::AuditKey;
use cluster::{Change, EntityWrite, Expect, StoreConfig, open_store};
use policy::Timestamp;
use sha2::{Digest, Sha256};

/// Keys in one transaction.
const BATCH: u64 = 10_000;

const KIND: &str = "virtual_key";

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(path), Some(count)) = (words.next(), words.next()) else {
        return Err("usage: many_keys FILE COUNT [plain]".into());
    };
    let limited = words.next().as_deref() != Some("plain");
    let count: u64 = count.parse()?;
    let config = StoreConfig::Sqlite {
        path: PathBuf::from(path),
    };
    let store = open_store(&config)?;
    for first in (0..count).step_by(BATCH as usize) {
        let numbers = first..count.min(first + BATCH);
        let writes: Vec<EntityWrite> = numbers.map(|number| key(number, limited)).collect();
        store.write(&writes, &change(first), &AuditKey::keyless())?;
    }
    Ok(())
}

fn key(number: u64, limited: bool) -> EntityWrite {
    let name = format!("key-{number:07}");
    let hash = hex::encode(Sha256::digest(format!("sk-tyr-many-{number:07}")));
    let mut body = serde_json::json!({
        "name": name,
        "sha256": hash,
        "team": "many",
        "providers": [{"name": "openai"}],
    });
    if limited {
        body["rate_limits"] = serde_json::json!([
            {"requests": 1_000_000, "every": "1m"},
            {"tokens": 1_000_000_000, "every": "1m"},
        ]);
        body["budgets"] = serde_json::json!([{"limit_usd": "100", "every": "1M"}]);
    }
    EntityWrite {
        kind: KIND.to_owned(),
        name,
        expect: Expect::Absent,
        body: Some(body.to_string()),
    }
}

fn change(first: u64) -> Change {
    Change {
        // The moment does not matter.
        at: Timestamp(0),
        actor: "many_keys".to_owned(),
        peer: String::new(),
        action: "create".to_owned(),
        kind: KIND.to_owned(),
        name: format!("key-{first:07} and more"),
        before: None,
        after: None,
    }
}
