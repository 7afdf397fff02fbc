//! Nodes of one cluster on one database: word of news, old programs beside new ones, and locks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::audit::AuditKey;
use crate::entity::Expect;
use crate::message::WireCell;
use crate::record::UsageRecord;
use crate::store::{CLUSTER_SCOPE, Position, SEAL_TASK};
use crate::testing::{change, entity_write};

const DEADLINE: Duration = Duration::from_secs(30);

fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        thread::yield_now();
    }
}

fn put(store: &PostgresStore, name: &str) {
    let write = [entity_write(name, Expect::Any, Some("{}"))];
    let key = AuditKey::keyless();
    store.write_entities(&write, &change(name), &key).unwrap();
}

/// Counts how often news came.
fn counted(store: &PostgresStore) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&count);
    store.listen(News::new(move || {
        told.fetch_add(1, Ordering::SeqCst);
    }));
    count
}

#[test]
fn who_listens_hears_of_each_write_and_of_nothing_else() {
    let server = postgres::shared();
    let config = config(server, &server.database());
    let [writer, listener] = [(); 2].map(|()| PostgresStore::open(&config).unwrap());
    let heard = counted(&listener);
    let heard = || heard.load(Ordering::SeqCst);
    until("it listens", || heard() == 1);
    let mut worst = Duration::ZERO;
    for number in 0..20 {
        let asked = Instant::now();
        put(&writer, &format!("team {number}"));
        until("news came", || heard() == 2 + number);
        worst = worst.max(asked.elapsed());
    }
    assert!(worst < Duration::from_secs(5), "{worst:?}");
    // Refused, or only a row of the audit log: the next write is what is heard.
    let key = AuditKey::keyless();
    let stale = [entity_write("team 1", Expect::Absent, Some("{}"))];
    writer
        .write_entities(&stale, &change("x"), &key)
        .unwrap_err();
    writer.record_change(&change("x"), &key).unwrap();
    put(&writer, "last");
    until("the last came", || heard() == 22);
}

#[test]
fn a_listener_comes_back_after_the_server_and_looks_for_what_it_missed() {
    let mut server = Postgres::start(None);
    let config = config(&server, &server.database());
    let [writer, listener] = [(); 2].map(|()| PostgresStore::open(&config).unwrap());
    let heard = counted(&listener);
    let heard = || heard.load(Ordering::SeqCst);
    until("it listens", || heard() == 1);
    for crash in [false, true] {
        let before = heard();
        match crash {
            true => server.crash(),
            false => server.stop(),
        }
        server.resume();
        // There may have been news meanwhile.
        until("it listens again", || heard() > before);
        until("the store is back", || writer.usage_count().is_ok());
        let before = heard();
        put(&writer, "a");
        until("news came", || heard() > before);
    }
}

/// The statements that programs of schema 2 use for cells.
const OLD_ADD: &str = "
    INSERT INTO counter_cells AS cell (counter, epoch, boot, expires_at_ms, amount)
    VALUES ('a', 1, 7, 2000000000000, 5)
    ON CONFLICT (counter, epoch, boot) DO UPDATE SET amount = cell.amount + excluded.amount";
const OLD_RECORD: &str = "
    INSERT INTO usage_record (boot, request_id, virtual_key, model_requested, endpoint, stream,
        input_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, output_tokens,
        reasoning_tokens, cost_nano_usd, basis, status, started_at_ms, duration_ms, attempts,
        end_reason, charges)
    VALUES (7, 'old', 'demo', 'gpt', 'chat_completions', false, 1, 0, 0, 0, 2, 0, 3, 'reported',
        200, 1, 2, 1, 'success',
        '[{\"counter\":\"a\",\"epoch\":1,\"amount\":5,\"expires_at_ms\":2000000000000}]')";
const OLD_SUM: &str = "SELECT sum(amount) FROM counter_cells WHERE counter = 'a'";

#[test]
fn programs_of_before_go_on_beside_new_ones() {
    let server = postgres::shared();
    let database = server.database();
    for (version, sql) in [
        (
            1,
            include_str!("../../migrations/postgres/0001_usage_and_cells.sql"),
        ),
        (
            2,
            include_str!("../../migrations/postgres/0002_entities.sql"),
        ),
    ] {
        server.admin(&database, &format!("SET ROLE {}; {sql}", postgres::USER));
        let note = format!(
            "SET ROLE {}; CREATE TABLE IF NOT EXISTS tyr_schema (version BIGINT PRIMARY KEY,
                works_with BIGINT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now());
             INSERT INTO tyr_schema (version, works_with) VALUES ({version}, 1)",
            postgres::USER
        );
        server.admin(&database, &note);
    }
    server.admin(&database, OLD_RECORD);
    server.admin(&database, OLD_ADD);

    let store = PostgresStore::open(&config(server, &database)).unwrap();
    // Two new nodes with that boot, and the old one.
    for (number, node) in [(1, 1), (2, 2)] {
        let batch = [UsageRecord {
            charges: vec![charge("a", 1, 100)],
            ..record(number)
        }];
        store.record_usage(origin(node, 7), &batch).unwrap();
    }
    server.admin(&database, OLD_ADD);
    let mut known: Vec<_> = store
        .cells_by_origin(Timestamp(0))
        .unwrap()
        .into_iter()
        .map(|(of, cell)| (of, cell.amount))
        .collect();
    known.sort_unstable();
    assert_eq!(
        known,
        [(origin(0, 7), 10), (origin(1, 7), 100), (origin(2, 7), 100)]
    );
    // It, too, sees what all did.
    assert_eq!(server.admin(&database, OLD_SUM), "210");
    let added = store
        .added_cells(origin(3, 7), Position::default(), 9)
        .unwrap();
    assert_eq!(amount(&added.cells, "a"), 5, "its successor follows it");
}

/// In the past, whatever clock is asked.
const ENDED: Timestamp = Timestamp(1_500_000_000_000);

#[test]
fn flushes_records_sealing_and_removal_never_wait_in_a_circle() {
    let server = postgres::shared();
    let database = server.database();
    let config = config(server, &database);
    let stores = [(); 4].map(|()| PostgresStore::open(&config).unwrap());
    let [first, second, third, fourth] = &stores;
    let counter = |number: u64| format!("virtual_key/k{number}/usd/1d/calendar");
    let me = origin(9, 1);
    let term = fourth
        .take_term(CLUSTER_SCOPE, SEAL_TASK, me, Duration::from_secs(600))
        .unwrap()
        .unwrap();
    thread::scope(|scope| {
        for (node, store) in [(1_u64, first), (2, second)] {
            scope.spawn(move || {
                for turn in 0..40_u64 {
                    let charges = (0..30).rev().map(|number| policy::Charge {
                        expires_at: ENDED,
                        ..charge(&counter(number), 1, 1)
                    });
                    let record = UsageRecord {
                        charges: charges.collect(),
                        ..record(node * 1_000 + turn)
                    };
                    store
                        .record_usage(origin(node.into(), 1), &[record])
                        .unwrap();
                }
            });
        }
        // Both nodes' totals, told by a third one.
        scope.spawn(move || {
            for turn in 0..40_u64 {
                let cells: Vec<_> = (0..60_u64)
                    .rev()
                    .map(|number| {
                        let cell = WireCell {
                            counter: counter(number % 30).into(),
                            epoch: 1,
                            ver: 0,
                            used: turn,
                            held: 0,
                            expires_at: ENDED,
                        };
                        (origin(u128::from(number / 30) + 1, 1), cell)
                    })
                    .collect();
                third.flush_cells(&cells).unwrap();
            }
        });
        scope.spawn(move || {
            for _ in 0..40 {
                let sealing = Sealing {
                    me,
                    term,
                    before: ENDED,
                    most: 7,
                };
                assert!(!fourth.seal_windows(sealing).unwrap().stale);
                fourth.expire_windows(EXPIRY).unwrap();
            }
        });
    });
    let sealing = Sealing {
        me,
        term,
        before: ENDED,
        most: 100,
    };
    while {
        let sealed = fourth.seal_windows(sealing).unwrap();
        sealed.windows + sealed.late > 0
    } {}
    // Sealed and late together are the sum of the charges of all records.
    let sums = "SELECT count(*), min(total), max(total) FROM (
        SELECT counter, sum(amount) AS total FROM (
            SELECT counter, amount FROM usage_sealed UNION ALL
            SELECT counter, amount FROM usage_late) AS parts GROUP BY counter) AS totals";
    assert_eq!(server.admin(&database, sums), "30|80|80");
    assert_eq!(fourth.expire_windows(EXPIRY).unwrap(), 0, "nothing is left");
}

/// An answer that is lost leaves the question whether it was done; asked again it is as if once.
#[test]
fn a_flush_whose_answer_was_lost_is_repeated_without_harm() {
    let mut server = Postgres::start(None);
    let config = config(&server, &server.database());
    let store = PostgresStore::open(&config).unwrap();
    let me = origin(4, 1);
    let told = |used| {
        let cell = WireCell {
            counter: "a".into(),
            epoch: 1,
            ver: used,
            used,
            held: 3,
            expires_at: EXPIRY,
        };
        [(me, cell)]
    };
    let mut failures = 0_u32;
    for used in 1..=120_u64 {
        if used % 40 == 0 {
            // Cuts what is under way, at some point of it.
            thread::scope(|scope| {
                let flush = scope.spawn(|| store.flush_cells(&told(used)));
                server.crash();
                failures += u32::from(flush.join().unwrap().is_err());
            });
            server.resume();
        }
        until("the store takes it", || {
            store.flush_cells(&told(used)).is_ok()
        });
        // Older ones that come late change nothing.
        store.flush_cells(&told(used / 2)).unwrap();
        let known = store.cells_by_origin(Timestamp(0)).unwrap();
        assert_eq!((known.len(), known[0].0, known[0].1.amount), (1, me, used));
    }
    assert!(failures <= 3);
}
