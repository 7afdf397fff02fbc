//! Migrations: once, whole, by whoever comes first, and what a start says otherwise.

use super::*;

#[test]
fn many_nodes_that_start_at_once_migrate_once() {
    let server = postgres::shared();
    let database = server.database();
    let config = config(server, &database);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| PostgresStore::open(&config).unwrap());
        }
    });
    let rows = server.admin(
        &database,
        "SELECT version, works_with FROM tyr_schema ORDER BY 1",
    );
    assert_eq!(rows, "1|1\n2|1\n3|1\n4|1");
    PostgresStore::open(&config).unwrap();
    let count = server.admin(&database, "SELECT count(*) FROM tyr_schema");
    assert_eq!(count, "4");
}

#[test]
fn a_node_that_may_not_migrate_says_what_is_missing() {
    let server = postgres::shared();
    let database = server.database();
    let careful = PostgresConfig {
        migrate: false,
        ..config(server, &database)
    };
    let refused = PostgresStore::open(&careful).unwrap_err();
    let expected = "store has schema version 0, this program needs 4 and store.migrate is false: \
         run `tyr migrate`";
    assert_eq!(refused.to_string(), expected);
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(server.admin(&database, tables), "0");

    PostgresStore::open(&config(server, &database)).unwrap();
    let store = PostgresStore::open(&careful).unwrap();
    assert_eq!(store.record_usage(ME, &[record(1)]).unwrap(), 1);

    server.admin(&database, "DELETE FROM tyr_schema WHERE version = 4");
    let refused = PostgresStore::open(&careful).unwrap_err();
    assert!(matches!(
        refused,
        StoreError::SchemaTooOld { found: 3, known: 4 }
    ));
}

#[test]
fn a_newer_schema_is_accepted_if_it_says_so() {
    let server = postgres::shared();
    let database = server.database();
    let config = config(server, &database);
    PostgresStore::open(&config).unwrap();
    let newer = |version: i64, works_with: i64| {
        let row = format!(
            "INSERT INTO tyr_schema (version, works_with) VALUES ({version}, {works_with})"
        );
        server.admin(&database, &row);
    };
    newer(5, 4);
    server.admin(
        &database,
        "ALTER TABLE usage_record ADD COLUMN later TEXT DEFAULT 'x'",
    );
    let store = PostgresStore::open(&config).unwrap();
    assert_eq!(store.record_usage(ME, &[record(1)]).unwrap(), 1);
    assert_exactly(&store, [1]);

    newer(6, 5);
    let refused = PostgresStore::open(&config).unwrap_err();
    assert!(matches!(
        refused,
        StoreError::SchemaTooNew { found: 6, known: 4 }
    ));
    let message = "store has schema version 6, this program knows 4 at most";
    assert_eq!(refused.to_string(), message);
}

#[test]
fn a_migration_that_fails_leaves_nothing_of_itself() {
    let server = postgres::shared();
    let database = server.database();
    // In the way of the second step.
    server.admin(&database, "CREATE TABLE audit_log (mine TEXT)");
    let config = config(server, &database);
    let refused = PostgresStore::open(&config).unwrap_err().to_string();
    assert_eq!(
        refused,
        "store could not migrate: relation \"audit_log\" already exists (42P07)"
    );
    let done = server.admin(&database, "SELECT version FROM tyr_schema");
    let left = "SELECT to_regclass('entity') IS NULL";
    assert_eq!((&*done, &*server.admin(&database, left)), ("1", "t"));
    server.admin(&database, "DROP TABLE audit_log");
    PostgresStore::open(&config).unwrap();
}
