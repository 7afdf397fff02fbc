//! The database goes and comes back.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;

/// Longest time for anything here that has no deadline of its own.
const DEADLINE: Duration = Duration::from_secs(30);

/// Repeats a call until it succeeds, as the thread that stores usage does; how often it failed.
fn insist<T>(call: impl Fn() -> Result<T, StoreError>) -> (T, u32) {
    let until = Instant::now() + DEADLINE;
    let mut failures = 0;
    loop {
        match call() {
            Ok(done) => return (done, failures),
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        failures += 1;
        thread::yield_now();
    }
}

#[test]
fn writes_go_on_after_stops_and_crashes_and_count_once() {
    let mut server = Postgres::start(None);
    let config = config(&server, &server.database());
    let store = &PostgresStore::open(&config).unwrap();
    let total = Mutex::new(0);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut failures = 0;
            // Batches overlap, as after an answer that was lost.
            for number in 0..400_u64 {
                let batch = [record(number), record(number + 1)];
                failures += insist(|| store.record_usage(ME, &batch)).1;
                *total.lock().unwrap() = number;
            }
            failures
        });
        for (after, crash) in [(20, false), (100, true), (200, false)] {
            while *total.lock().unwrap() < after {
                thread::yield_now();
            }
            match crash {
                true => server.crash(),
                false => server.stop(),
            }
            let away = |error: &StoreError| matches!(error, StoreError::Away { .. });
            let until = Instant::now() + DEADLINE;
            while !store.usage_count().is_err_and(|error| away(&error)) {
                assert!(Instant::now() < until, "the outage is noticed");
            }
            let asked = Instant::now();
            store.usage_count().unwrap_err();
            assert!(
                asked.elapsed() < Duration::from_millis(100),
                "refused at once"
            );
            server.resume();
        }
        assert!(writer.join().unwrap() > 0, "some writes met the outage");
    });
    assert_exactly(store, 0..=400);
}

#[test]
fn it_is_found_again_within_a_second() {
    let mut server = Postgres::start(None);
    let config = config(&server, &server.database());
    let store = PostgresStore::open(&config).unwrap();
    server.stop();
    store.usage_count().unwrap_err();
    server.resume();
    let back = Instant::now();
    insist(|| store.usage_count());
    let took = back.elapsed();
    assert!(took < Duration::from_millis(1_500), "{took:?}");
}

#[test]
fn a_password_that_changes_while_it_runs_is_read_again() {
    let mut server = Postgres::start(None);
    let database = server.database();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, postgres::PASSWORD).unwrap();
    let path = file.clone();
    let config = PostgresConfig {
        password: Some(PasswordSource::new(move || {
            std::fs::read_to_string(&path).map_err(|error| error.to_string())
        })),
        ..config(&server, &database)
    };
    let store = PostgresStore::open(&config).unwrap();

    server.set_password("second password");
    server.stop();
    store.usage_count().unwrap_err();
    server.resume();
    let until = Instant::now() + DEADLINE;
    let refused = loop {
        let error = store.usage_count().unwrap_err().to_string();
        if error.contains("password authentication failed") {
            break error;
        }
        assert!(Instant::now() < until, "{error}");
    };
    assert!(!refused.contains("first password"), "{refused}");
    std::fs::remove_file(&file).unwrap();
    let unread = loop {
        let error = store.usage_count().unwrap_err().to_string();
        if error.contains("cannot be read") {
            break error;
        }
        assert!(Instant::now() < until, "{error}");
    };
    assert!(unread.contains("No such file"), "{unread}");
    std::fs::write(&file, "second password").unwrap();
    insist(|| store.usage_count());
    let shown = format!("{store:?} {config:?}");
    assert!(
        !shown.contains("password:") || !shown.contains("second"),
        "{shown}"
    );
}

#[test]
fn a_start_without_the_database_fails_or_waits_as_asked() {
    let mut server = Postgres::start(None);
    let config = config(&server, &server.database());
    server.stop();
    let asked = Instant::now();
    let refused = PostgresStore::open(&config).unwrap_err();
    assert!(matches!(refused, StoreError::Away { .. }), "{refused}");
    assert!(
        refused.to_string().contains("onnection refused"),
        "{refused}"
    );
    assert!(asked.elapsed() < Duration::from_secs(6));

    let store = PostgresStore::open_or_wait(&config).unwrap();
    assert!(store.outage().is_some());
    store.record_usage(ME, &[record(1)]).unwrap_err();
    server.resume();
    // The schema is brought up to date when it is found.
    insist(|| store.record_usage(ME, &[record(1)]));
    assert_exactly(&store, [1]);
}

#[test]
fn what_hangs_fails_in_time_and_its_connection_is_not_used_again() {
    let server = postgres::shared();
    let database = server.database();
    let store = PostgresStore::open(&config(server, &database)).unwrap();
    store.record_usage(ME, &[record(1)]).unwrap();
    let hold = "BEGIN; LOCK TABLE usage_record; SELECT pg_sleep(8); COMMIT";
    thread::scope(|scope| {
        let holder = scope.spawn(|| server.admin(&database, hold));
        let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'
            AND relation = 'usage_record'::regclass AND granted";
        while server.admin(&database, held) == "0" {}
        let asked = Instant::now();
        let refused = store.record_usage(ME, &[record(2)]).unwrap_err();
        let took = asked.elapsed();
        let text = refused.to_string();
        assert!(text.contains("statement timeout"), "{text}");
        assert!((4..8).contains(&took.as_secs()), "{took:?}");
        assert!(store.outage().is_none(), "a slow statement is no outage");
        holder.join().unwrap();
    });
    assert_eq!(store.record_usage(ME, &[record(2)]).unwrap(), 1);
    assert_exactly(&store, [1, 2]);
}
