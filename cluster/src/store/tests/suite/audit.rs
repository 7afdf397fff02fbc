//! The audit log as part of each write, over any store.

use std::thread;

use super::Factory;
use crate::audit::{AuditKey, verify};
use crate::entity::Expect;
use crate::error::{StoreError, WriteError};
use crate::store::Store;
use crate::testing::{change, entity_write};

fn key() -> AuditKey {
    AuditKey::from_secret("k1", b"a secret of the audit log")
}

/// The number of rows of a log that is whole.
fn rows(store: &dyn Store, keys: &[AuditKey]) -> u64 {
    let head = store.audit_head().unwrap();
    let rows = store.audit_rows(0, u32::MAX).unwrap();
    verify(&rows, head.as_ref(), keys).unwrap().rows
}

pub(crate) fn each_change_leaves_one_row(stores: Factory<'_>) {
    let [store, other] = stores();
    assert_eq!(store.audit_head().unwrap(), None);
    assert_eq!(rows(&*store, &[]), 0);
    let keyless = AuditKey::keyless();
    let writes = ["a", "b"].map(|name| entity_write(name, Expect::Absent, Some("{}")));
    let first = store
        .write_entities(&writes, &change("a"), &keyless)
        .unwrap();
    let second = other.record_change(&change("b"), &key()).unwrap();
    let delete = [entity_write("a", Expect::Any, None)];
    let third = store.write_entities(&delete, &change("c"), &key()).unwrap();

    let kept = other.audit_rows(0, 10).unwrap();
    assert_eq!(kept, [first.row, second, third.row]);
    let told: Vec<_> = kept
        .iter()
        .map(|row| {
            (
                row.seq,
                row.revision,
                row.change.name.as_str(),
                row.key_id.as_deref(),
            )
        })
        .collect();
    let k1 = Some("k1");
    assert_eq!(told, [(1, 1, "a", None), (2, 1, "b", k1), (3, 2, "c", k1)]);
    assert_eq!(rows(&*store, &[key()]), 3);
    let head = store.audit_head().unwrap().unwrap();
    assert_eq!((head.seq, head.hash), (3, kept[2].hash));
}

pub(crate) fn a_refused_write_leaves_no_row(stores: Factory<'_>) {
    let [store, _] = &stores();
    store.record_change(&change("a"), &key()).unwrap();
    let writes = [
        entity_write("a", Expect::Absent, Some("{}")),
        entity_write("b", Expect::Revision(1), Some("{}")),
    ];
    store
        .write_entities(&writes, &change("b"), &key())
        .unwrap_err();
    assert_eq!(rows(&**store, &[key()]), 1);
    store.record_change(&change("c"), &key()).unwrap();
    assert_eq!(rows(&**store, &[key()]), 2);
}

pub(crate) fn rows_are_read_page_by_page(stores: Factory<'_>) {
    let [store, _] = &stores();
    for name in ["a", "b", "c", "d", "e"] {
        store.record_change(&change(name), &key()).unwrap();
    }
    let page = |after, most| -> Vec<String> {
        let rows = store.audit_rows(after, most).unwrap();
        rows.into_iter().map(|row| row.change.name).collect()
    };
    assert_eq!(page(0, 2), ["a", "b"]);
    assert_eq!(page(2, 2), ["c", "d"]);
    assert_eq!(page(4, 2), ["e"]);
    assert_eq!(page(5, 2), [""; 0]);
    assert_eq!(page(0, 0), [""; 0]);
}

pub(crate) fn a_log_with_a_key_is_not_continued_without(stores: Factory<'_>) {
    let [store, _] = &stores();
    store.record_change(&change("a"), &key()).unwrap();
    let writes = [entity_write("a", Expect::Absent, Some("{}"))];
    let refused = store
        .write_entities(&writes, &change("b"), &AuditKey::keyless())
        .unwrap_err();
    let WriteError::Store(StoreError::AuditKeyMissing { known }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(known, "k1");
    assert_eq!(store.entities_since(0, 9).unwrap(), []);
    let next = AuditKey::from_secret("k2", b"another");
    store.write_entities(&writes, &change("b"), &next).unwrap();
    assert_eq!(rows(&**store, &[key(), next]), 2);
}

pub(crate) fn two_writers_make_one_chain(stores: Factory<'_>) {
    let stores = stores();
    thread::scope(|scope| {
        for store in &stores {
            scope.spawn(move || {
                for number in 0..30 {
                    let change = change(&number.to_string());
                    store.record_change(&change, &key()).unwrap();
                }
            });
        }
    });
    assert_eq!(rows(&*stores[0], &[key()]), 60);
}
