//! The suite over Postgres, and what is particular to it.

mod fleet;
mod outage;
mod schema;
mod tls;

use std::thread;

use policy::Charge;

use super::*;
use crate::store::tests::suite::store_suite;
use crate::testing::postgres::{self, Postgres};
use crate::testing::{EXPIRY, amount, assert_exactly, charge, origin, record};

const ME: Origin = origin(9 << 70, 7);

fn config(server: &Postgres, database: &str) -> PostgresConfig {
    PostgresConfig::from_url(&server.url(database)).unwrap()
}

fn open(server: &Postgres) -> PostgresStore {
    PostgresStore::open(&config(server, &server.database())).unwrap()
}

store_suite!({
    || {
        let server = postgres::shared();
        let config = config(server, &server.database());
        [(); 2].map(|()| Arc::new(PostgresStore::open(&config).unwrap()) as Arc<dyn Store>)
    }
});

#[test]
fn many_callers_share_one_connection() {
    let server = postgres::shared();
    let database = server.database();
    let config = PostgresConfig {
        pool: 1,
        ..config(server, &database)
    };
    let store = &PostgresStore::open(&config).unwrap();
    thread::scope(|scope| {
        for caller in 0..8_u64 {
            scope.spawn(move || {
                for number in 0..20 {
                    let record = record(caller * 1_000 + number);
                    assert_eq!(store.record_usage(origin(1, caller), &[record]).unwrap(), 1);
                }
            });
        }
    });
    assert_eq!(store.usage_count().unwrap(), 160);
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tyr'
        AND datname = current_database()";
    assert_eq!(server.admin(&database, sessions), "1");
}

#[test]
fn a_call_from_a_thread_of_another_runtime_works() {
    let store = open(postgres::shared());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        assert_eq!(store.record_usage(ME, &[record(1)]).unwrap(), 1);
        drop(store);
    });
}

#[test]
fn no_text_of_a_client_can_fail_a_batch() {
    let store = open(postgres::shared());
    let mut odd = record(1);
    odd.model_requested = "a\0b".to_owned();
    odd.team = Some("\0".to_owned());
    let long = "user/".repeat(2_000);
    odd.charges = vec![charge(&long, 1, 4), charge("a\0b", 1, 2)];
    assert_eq!(
        store.record_usage(ME, &[odd.clone(), odd.clone()]).unwrap(),
        1
    );
    let kept = store.usage(&odd.request_id).unwrap().unwrap();
    assert_eq!(kept.model_requested, "a\u{fffd}b");
    assert_eq!(kept.charges, odd.charges);
    let cells = store.load_cells(Timestamp(0)).unwrap().cells();
    assert_eq!(amount(&cells, "a\u{fffd}b"), 2);
    assert_eq!(cells.iter().map(|cell| cell.amount).sum::<u64>(), 6);
}

#[test]
fn a_batch_that_fails_leaves_nothing() {
    let server = postgres::shared();
    let database = server.database();
    let store = PostgresStore::open(&config(server, &database)).unwrap();
    let trip = "CREATE FUNCTION trip() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'tripped'; END $$;
        CREATE TRIGGER trip BEFORE INSERT ON counter_cells FOR EACH ROW
            WHEN (new.counter = 'trip') EXECUTE FUNCTION trip();";
    server.admin(&database, trip);
    let charges: Vec<Charge> = vec![charge("trip", 1, 1)];
    let batch = [
        record(1),
        crate::record::UsageRecord {
            charges,
            ..record(2)
        },
    ];
    let refused = store.record_usage(ME, &batch).unwrap_err().to_string();
    assert_eq!(refused, "store could not keep usage: tripped (P0001)");
    assert_exactly(&store, []);
    assert_eq!(store.record_usage(ME, &batch[..1]).unwrap(), 1);
    assert_exactly(&store, [1]);
}

/// However many there are, no statement runs into its timeout over them.
#[test]
fn more_cells_than_one_statement_removes_expire() {
    let store = open(postgres::shared());
    let charges: Vec<Charge> = (0..10_500).map(|epoch| charge("a", epoch, 1)).collect();
    let many = UsageRecord {
        charges,
        ..record(1)
    };
    store.record_usage(ME, &[many]).unwrap();
    assert_eq!(store.expire_cells(Timestamp(1)).unwrap(), 0);
    assert_eq!(store.expire_cells(EXPIRY).unwrap(), 10_500);
    assert_eq!(store.load_cells(Timestamp(0)).unwrap().cells(), []);
}

#[test]
fn writers_of_shared_cells_and_their_removal_never_wait_in_a_circle() {
    let stores = {
        let server = postgres::shared();
        let config = config(server, &server.database());
        [(); 3].map(|()| PostgresStore::open(&config).unwrap())
    };
    let [first, second, third] = &stores;
    thread::scope(|scope| {
        for (writer, store) in (0..).zip([first, second]) {
            scope.spawn(move || {
                for turn in 0..40_u64 {
                    // The same cells of the same boot, in opposite orders.
                    let mut charges: Vec<Charge> = (0..50)
                        .map(|cell| charge(&format!("c{cell}"), 1, 1))
                        .collect();
                    if writer == 1 {
                        charges.reverse();
                    }
                    let number = writer * 1_000 + turn;
                    let record = UsageRecord {
                        charges,
                        ..record(number)
                    };
                    store.record_usage(ME, &[record]).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..40 {
                third.expire_cells(Timestamp(1)).unwrap();
                third.expire_cells(EXPIRY).unwrap();
            }
        });
    });
    assert_eq!(first.usage_count().unwrap(), 80);
}
