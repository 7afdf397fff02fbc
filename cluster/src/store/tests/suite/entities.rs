//! Entities, their revisions and tombstones, over any store.

use std::collections::BTreeSet;
use std::thread;

use policy::Timestamp;

use super::Factory;
use crate::audit::AuditKey;
use crate::entity::{Entity, EntityWrite, Expect};
use crate::error::WriteError;
use crate::store::Store;
use crate::testing::{change, entity_write};

/// Writes one entity; its revision.
fn write(store: &dyn Store, name: &str, expect: Expect, body: Option<&str>) -> u64 {
    try_write(store, name, expect, body).unwrap()
}

fn try_write(
    store: &dyn Store,
    name: &str,
    expect: Expect,
    body: Option<&str>,
) -> Result<u64, WriteError> {
    let writes = [entity_write(name, expect, body)];
    let written = store.write_entities(&writes, &change(name), &AuditKey::keyless())?;
    assert_eq!(written.entities.len(), 1);
    Ok(written.entities[0].revision)
}

/// The revision that a stale write found.
fn stale<T: std::fmt::Debug>(result: Result<T, WriteError>) -> Option<u64> {
    match result {
        Err(WriteError::Stale { found }) => found,
        other => panic!("expected a stale write, got {other:?}"),
    }
}

fn all(store: &dyn Store) -> Vec<Entity> {
    store.entities_since(0, 1_000).unwrap()
}

pub(crate) fn an_entity_is_made_replaced_and_deleted(stores: Factory<'_>) {
    let [store, other] = stores();
    assert_eq!(all(&*store), []);
    assert_eq!(write(&*store, "a", Expect::Absent, Some("{}")), 1);
    assert_eq!(write(&*store, "b", Expect::Any, Some("{\"x\":1}")), 2);
    assert_eq!(write(&*other, "a", Expect::Revision(1), Some("[]")), 3);
    let entity = |name: &str, revision, body: Option<&str>| Entity {
        kind: "team".to_owned(),
        name: name.to_owned(),
        revision,
        body: body.map(Into::into),
        changed_at: change(name).at,
    };
    let b = entity("b", 2, Some("{\"x\":1}"));
    assert_eq!(all(&*store), [b.clone(), entity("a", 3, Some("[]"))]);

    assert_eq!(write(&*store, "a", Expect::Revision(3), None), 4);
    assert_eq!(all(&*other), [b, entity("a", 4, None)], "a tombstone stays");
    assert_eq!(other.entities_since(3, 10).unwrap(), [entity("a", 4, None)]);
    assert_eq!(other.entities_since(4, 10).unwrap(), []);

    assert_eq!(write(&*store, "a", Expect::Absent, Some("{}")), 5);
    assert_eq!(store.entities_since(4, 10).unwrap().len(), 1);
}

pub(crate) fn what_is_not_as_expected_is_stale(stores: Factory<'_>) {
    let [store, _] = &stores();
    let store = &**store;
    let nobody = try_write(store, "a", Expect::Revision(1), Some("{}"));
    assert_eq!(stale(nobody), None);
    for expect in [Expect::Any, Expect::Absent, Expect::Revision(1)] {
        assert_eq!(
            stale(try_write(store, "a", expect, None)),
            None,
            "{expect:?}"
        );
    }
    assert_eq!(write(store, "a", Expect::Absent, Some("{}")), 1);
    assert_eq!(
        stale(try_write(store, "a", Expect::Absent, Some("{}"))),
        Some(1)
    );
    assert_eq!(stale(try_write(store, "a", Expect::Absent, None)), Some(1));
    let old = try_write(store, "a", Expect::Revision(7), Some("[]"));
    assert_eq!(stale(old), Some(1));
    assert_eq!(all(store)[0].body.as_deref(), Some("{}"));

    assert_eq!(write(store, "a", Expect::Any, None), 2);
    let deleted = try_write(store, "a", Expect::Revision(2), Some("{}"));
    assert_eq!(stale(deleted), None, "a tombstone is not there");
    assert_eq!(stale(try_write(store, "a", Expect::Any, None)), None);
    assert_eq!(
        all(store)[0].revision,
        2,
        "no refused write drew a revision"
    );
}

pub(crate) fn every_write_of_a_transaction_is_done_or_none(stores: Factory<'_>) {
    let [store, _] = &stores();
    let store = &**store;
    write(store, "old", Expect::Absent, Some("{}"));
    let mut writes = vec![
        entity_write("a", Expect::Absent, Some("1")),
        entity_write("old", Expect::Revision(1), None),
        entity_write("b", Expect::Revision(9), Some("2")),
    ];
    let key = AuditKey::keyless();
    assert_eq!(
        stale(store.write_entities(&writes, &change("a"), &key)),
        None
    );
    assert_eq!(all(store).len(), 1);
    assert_eq!(all(store)[0].revision, 1);

    writes[2].expect = Expect::Absent;
    let written = store.write_entities(&writes, &change("a"), &key).unwrap();
    let told: Vec<_> = written
        .entities
        .iter()
        .map(|entity| {
            (
                entity.name.as_str(),
                entity.revision,
                entity.body.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [("a", 2, Some("1")), ("old", 2, None), ("b", 2, Some("2"))]
    );
    let mut kept = written.entities;
    kept.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(all(store), kept);
}

pub(crate) fn texts_come_back_byte_for_byte(stores: Factory<'_>) {
    let [store, other] = stores();
    let body = "{ \"b\" :1.50,\n\"a\":\"\\u0000 Ünï'; DROP TABLE entity\", \"b\":2 }";
    let name = "ü'\"; -- \u{202e}";
    let mut write = entity_write(name, Expect::Absent, Some(body));
    write.kind = "model".to_owned();
    let mut change = change(name);
    change.before = Some(body.to_owned());
    change.after = None;
    change.peer = "[::1]:9".to_owned();
    let written = store
        .write_entities(&[write], &change, &AuditKey::keyless())
        .unwrap();
    assert_eq!(all(&*other), written.entities);
    assert_eq!(
        other.audit_rows(0, 9).unwrap(),
        std::slice::from_ref(&written.row)
    );
    assert_eq!(written.row.change, change);

    change.at = Timestamp(u64::MAX);
    let late = store.record_change(&change, &AuditKey::keyless()).unwrap();
    assert_eq!(
        other.audit_rows(1, 9).unwrap(),
        [late],
        "what is hashed is what is kept"
    );
}

pub(crate) fn a_page_never_cuts_a_revision(stores: Factory<'_>) {
    let [store, _] = &stores();
    for size in [1, 3, 1, 2] {
        let writes: Vec<EntityWrite> = (0..size)
            .map(|number| entity_write(&format!("{size}-{number}"), Expect::Any, Some("{}")))
            .collect();
        let change = change("many");
        store
            .write_entities(&writes, &change, &AuditKey::keyless())
            .unwrap();
    }
    // What was written alone first was replaced by the third.
    let lengths = |most| {
        let (mut after, mut lengths) = (0, Vec::new());
        loop {
            let page = store.entities_since(after, most).unwrap();
            let Some(last) = page.last() else {
                return lengths;
            };
            after = last.revision;
            lengths.push(page.len());
        }
    };
    assert_eq!(lengths(0), [3, 1, 2]);
    assert_eq!(lengths(1), [3, 1, 2]);
    assert_eq!(lengths(3), [3, 3]);
    assert_eq!(lengths(4), [4, 2]);
    assert_eq!(lengths(5), [6]);
    assert_eq!(lengths(6), [6]);
    assert_eq!(lengths(u32::MAX), [6]);
}

/// A reader beside two writers: what it has read by revision is never added to behind its back.
pub(crate) fn two_writers_draw_revisions_in_order(stores: Factory<'_>) {
    const WRITES: u64 = 40;
    let stores = stores();
    let (mut after, mut seen) = (0, BTreeSet::new());
    thread::scope(|scope| {
        let writers: Vec<_> = ["x", "y"]
            .iter()
            .zip(&stores)
            .map(|(prefix, store)| {
                scope.spawn(move || {
                    let name = |number| format!("{prefix}{number}");
                    let revisions: Vec<u64> = (0..WRITES)
                        .map(|number| write(&**store, &name(number), Expect::Absent, Some("{}")))
                        .collect();
                    assert!(revisions.is_sorted());
                })
            })
            .collect();
        loop {
            let finished = writers.iter().all(|writer| writer.is_finished());
            let page = stores[0].entities_since(after, 7).unwrap();
            if finished && page.is_empty() {
                break;
            }
            for entity in page {
                assert!(entity.revision > after);
                after = entity.revision;
                assert!(seen.insert(entity.name));
            }
        }
    });
    assert_eq!((seen.len() as u64, after), (2 * WRITES, 2 * WRITES));
}

pub(crate) fn only_one_of_two_writers_wins(stores: Factory<'_>) {
    let stores = stores();
    let first = write(&*stores[0], "a", Expect::Absent, Some("{}"));
    for revision in first..first + 20 {
        let won: Vec<u64> = thread::scope(|scope| {
            let writers: Vec<_> = stores
                .iter()
                .map(|store| {
                    let expect = Expect::Revision(revision);
                    scope.spawn(move || try_write(&**store, "a", expect, Some("[]")))
                })
                .collect();
            let results = writers.into_iter().map(|writer| writer.join().unwrap());
            results.filter_map(Result::ok).collect()
        });
        assert_eq!(won, [revision + 1]);
    }
}
