//! The suite over the stores of this folder, and what is SQLite's alone.

pub(crate) mod suite;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use policy::Timestamp;

use self::suite::store_suite;
use super::{MemoryStore, SqliteStore, Store};
use crate::audit::{AuditKey, Breach, Broken, VerifyError, verify_store};
use crate::entity::Expect;
use crate::error::{StoreError, WriteError};
use crate::origin::Origin;
use crate::record::UsageRecord;
use crate::testing::{amount, assert_exactly, change, charge, entity_write, origin, record};

const ME: Origin = origin(9 << 70, 7);

mod memory {
    use super::*;

    store_suite!({
        || {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
            [Arc::clone(&store), store]
        }
    });
}

mod sqlite {
    use super::*;

    store_suite!({
        let dir = tempfile::tempdir().unwrap();
        let files = AtomicU64::new(0);
        move || {
            let number = files.fetch_add(1, Ordering::Relaxed);
            let path = dir.path().join(format!("{number}.db"));
            [(); 2].map(|()| Arc::new(SqliteStore::open(&path).unwrap()) as Arc<dyn Store>)
        }
    });
}

fn with_charges(number: u64, charges: Vec<policy::Charge>) -> UsageRecord {
    UsageRecord {
        charges,
        ..record(number)
    }
}

#[test]
fn sqlite_brings_the_first_schema_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tyr.db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch(include_str!("../migrations/0001_usage_and_cells.sql"))
        .unwrap();
    file.pragma_update(None, "user_version", 1).unwrap();
    file.execute_batch(
        "INSERT INTO usage_record (request_id, virtual_key, model_requested, endpoint, stream,
             input_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens,
             output_tokens, reasoning_tokens, cost_nano_usd, basis, status, started_at_ms,
             duration_ms, attempts, end_reason, charges)
         VALUES ('old', 'demo', 'gpt', 'chat_completions', 0, 1, 0, 0, 0, 2, 0, 3, 'reported', 200,
             1, 2, 1, 'success', '[]');
         INSERT INTO counter_cells (counter, epoch, expires_at_ms, amount)
         VALUES ('a', 1, 2000000000000, 10), ('b', 2, 5, 4);",
    )
    .unwrap();
    drop(file);

    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.setting("user_version"), "5");
    assert_eq!(store.usage("old").unwrap().unwrap().usage.output, 2);
    let more = [with_charges(1, vec![charge("a", 1, 5)])];
    assert_eq!(store.record_usage(ME, &more).unwrap(), 1);
    let cells = store.load_cells(Timestamp(0)).unwrap().cells();
    assert_eq!((amount(&cells, "a"), amount(&cells, "b")), (15, 4));
    assert_eq!(store.expire_cells(Timestamp(5)).unwrap(), 1);
    drop(store);
    let again = SqliteStore::open(&path).unwrap();
    assert_eq!(
        amount(&again.load_cells(Timestamp(0)).unwrap().cells(), "a"),
        15
    );
}

#[test]
fn sqlite_is_migrated_once_by_processes_that_start_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tyr.db");
    let stores = std::thread::scope(|scope| {
        let starts = [(); 4].map(|()| scope.spawn(|| SqliteStore::open(&path).unwrap()));
        starts.map(|start| start.join().unwrap())
    });
    for (number, store) in (1..).zip(&stores) {
        store.record_usage(ME, &[record(number)]).unwrap();
    }
    assert_exactly(&stores[0], 1..=4);
}

#[test]
fn sqlite_keeps_everything_over_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tyr.db");
    let store = SqliteStore::open(&path).unwrap();
    store.record_usage(ME, &[record(1), record(2)]).unwrap();
    drop(store);
    assert_exactly(&SqliteStore::open(&path).unwrap(), [1, 2]);
}

#[test]
fn sqlite_refuses_a_schema_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tyr.db");
    drop(SqliteStore::open(&path).unwrap());
    let file = rusqlite::Connection::open(&path).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    let refused = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(
        refused,
        StoreError::SchemaTooNew { found: 99, .. }
    ));
}

#[test]
fn sqlite_commits_survive_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("tyr.db")).unwrap();
    let setting = |name| store.setting(name);
    assert_eq!(setting("journal_mode"), "wal");
    assert_eq!(setting("synchronous"), "2", "FULL");
}

#[test]
fn sqlite_leaves_nothing_of_a_batch_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tyr.db");
    let store = SqliteStore::open(&path).unwrap();
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch(
        "CREATE TRIGGER trip BEFORE INSERT ON counter_cells WHEN new.counter = 'trip'
         BEGIN SELECT raise(ABORT, 'tripped'); END",
    )
    .unwrap();
    let batch = [record(1), with_charges(2, vec![charge("trip", 1, 1)])];
    store.record_usage(ME, &batch).unwrap_err();
    assert_exactly(&store, []);
    file.execute_batch("DROP TRIGGER trip").unwrap();
    assert_eq!(store.record_usage(ME, &batch[..1]).unwrap(), 1);
    assert_exactly(&store, [1]);
}

#[test]
fn sqlite_takes_records_of_the_program_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tyr.db");
    let store = SqliteStore::open(&path).unwrap();
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(
        "INSERT OR IGNORE INTO usage_record (request_id, virtual_key, team, customer,
             model_requested, model_served, provider, credential, endpoint, stream, input_tokens,
             cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, output_tokens,
             reasoning_tokens, cost_nano_usd, basis, status, started_at_ms, first_byte_ms,
             duration_ms, attempts, end_reason, upstream_request_id, charges, boot)
         VALUES ('old', 'demo', NULL, NULL, 'gpt', NULL, NULL, NULL, 'chat_completions', 0, 1, 0, 0,
             0, 2, 0, 3, 'reported', 200, 1, NULL, 2, 1, 'success', NULL, '[]', 5)",
    )
    .unwrap();
    let found = store.usage("old").unwrap().unwrap();
    assert_eq!(
        (found.user, found.rule, found.usage.output),
        (None, None, 2)
    );
}

#[test]
fn sqlite_shows_what_was_done_to_its_audit_log() {
    let key = AuditKey::from_secret("k1", b"of the audit log");
    for (statement, seq, why) in [
        ("SELECT 1", 0, None),
        (
            "UPDATE audit_log SET actor = 'nobody' WHERE seq = 2",
            2,
            Some(Breach::Altered),
        ),
        (
            "DELETE FROM audit_log WHERE seq = 3",
            3,
            Some(Breach::Removed),
        ),
        (
            "DELETE FROM audit_log WHERE seq > 3",
            4,
            Some(Breach::CutOff { last: 5 }),
        ),
        (
            "UPDATE audit_log SET seq = -seq WHERE seq IN (2, 4);
             UPDATE audit_log SET seq = 6 + seq WHERE seq < 0",
            2,
            Some(Breach::Moved { from: 4 }),
        ),
        ("DELETE FROM audit_head", 5, Some(Breach::HeadRemoved)),
        (
            "UPDATE audit_head SET seq = 4",
            4,
            Some(Breach::HeadAltered),
        ),
        ("DELETE FROM audit_log", 1, Some(Breach::CutOff { last: 5 })),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tyr.db");
        let store = SqliteStore::open(&path).unwrap();
        for name in ["a", "b", "c", "d", "e"] {
            store.record_change(&change(name), &key).unwrap();
        }
        let intruder = rusqlite::Connection::open(&path).unwrap();
        intruder.execute_batch(statement).unwrap();
        let verified = verify_store(&store, std::slice::from_ref(&key));
        match (verified, why) {
            (Ok(verified), None) => assert_eq!(verified.rows, 5),
            (Err(VerifyError::Broken(broken)), Some(why)) => {
                assert_eq!(broken, Broken { seq, why }, "{statement}");
            }
            (other, _) => panic!("{statement}: {other:?}"),
        }
    }
}

/// A head that was removed does not let the log begin anew beside its old rows.
#[test]
fn sqlite_writes_no_second_first_row() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tyr.db");
    let store = SqliteStore::open(&path).unwrap();
    let key = AuditKey::keyless();
    store.record_change(&change("a"), &key).unwrap();
    let intruder = rusqlite::Connection::open(&path).unwrap();
    intruder.execute_batch("DELETE FROM audit_head").unwrap();
    let writes = [entity_write("a", Expect::Absent, Some("{}"))];
    store
        .write_entities(&writes, &change("b"), &key)
        .unwrap_err();
    assert_eq!(store.entities_since(0, 9).unwrap(), []);
}

/// Rows that were cut off must not be hidden by the head of the next one.
#[test]
fn a_log_whose_end_was_altered_is_not_gone_on_with() {
    let cut = "DELETE FROM audit_log WHERE seq > 2;
        UPDATE audit_head SET seq = 2, hash = (SELECT hash FROM audit_log WHERE seq = 2)";
    let cases = [
        cut.to_owned(),
        format!("{cut}, key_id = NULL"),
        format!("{cut}, key_id = 'k9'"),
        format!("{cut}, key_id = 'k1', mac = (SELECT hash FROM audit_log WHERE seq = 1)"),
        "DELETE FROM audit_log WHERE seq = 4".to_owned(),
        "DELETE FROM audit_head".to_owned(),
        "UPDATE audit_log SET actor = 'nobody' WHERE seq = 4".to_owned(),
        "INSERT INTO audit_log SELECT 5, revision, at_ms, actor, peer, action, kind, name, before,
            after, key_id, previous, hash FROM audit_log WHERE seq = 4"
            .to_owned(),
    ];
    let former = AuditKey::from_secret("k1", b"one");
    let key = AuditKey::from_secret("k2", b"two").with_former([former.clone()]);
    for case in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tyr.db");
        let store = SqliteStore::open(&path).unwrap();
        for (name, key) in [("a", &former), ("b", &former), ("c", &key), ("d", &key)] {
            store.record_change(&change(name), key).unwrap();
        }
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute_batch(&case).unwrap();
        let write = [entity_write("e", Expect::Absent, Some("{}"))];
        let refused = store.write_entities(&write, &change("e"), &key);
        let broken = matches!(
            refused,
            Err(WriteError::Store(StoreError::AuditBroken { .. }))
        );
        assert!(broken, "{case}: {refused:?}");
        assert_eq!(store.entities_since(0, 9).unwrap(), []);
    }
}
