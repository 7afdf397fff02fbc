//! Writing, polling and revoking, over a store that comes and goes.

mod peers;

use std::sync::atomic::Ordering;

use tempfile::TempDir;

use super::*;
use crate::entity::{Expect, REVOCATION};
use crate::testing::{FlakyStore, change, entity_write};

/// A store and the folders of two nodes.
struct Bench {
    store: FlakyStore,
    dirs: [TempDir; 2],
}

impl Bench {
    fn new() -> Self {
        Self {
            store: FlakyStore::default(),
            dirs: [(); 2].map(|()| tempfile::tempdir().unwrap()),
        }
    }

    fn open(&self, node: usize) -> EntityLog {
        let store = Arc::new(self.store.clone());
        EntityLog::open(store, AuditKey::keyless(), self.dirs[node].path()).unwrap()
    }

    fn open_last_good(&self, node: usize) -> EntityLog {
        let store = Arc::new(self.store.clone());
        let key = AuditKey::keyless();
        EntityLog::open_last_good(store, key, self.dirs[node].path()).unwrap()
    }

    /// Names in the audit log, which is whole.
    fn audit(&self) -> Vec<String> {
        audit::verify_store(&self.store, &[]).unwrap();
        let rows = self.store.audit_rows(0, 1_000).unwrap();
        rows.into_iter().map(|row| row.change.name).collect()
    }
}

fn put(log: &EntityLog, name: &str, body: Option<&str>) -> u64 {
    let writes = [entity_write(name, Expect::Any, body)];
    log.write(&writes, &change(name)).unwrap()[0].revision
}

/// Names, with `-` before those that are deleted.
fn names(entities: Vec<Entity>) -> Vec<String> {
    let name = |entity: Entity| match entity.body {
        Some(_) => entity.name,
        None => format!("-{}", entity.name),
    };
    entities.into_iter().map(name).collect()
}

/// Whoever loads many entities reads for some time.
#[test]
fn what_was_deleted_between_two_pages_is_not_loaded() {
    let bench = Bench::new();
    for first in [0, PAGE / 2, PAGE] {
        let names = (first..first + PAGE / 2).map(|number| format!("team {number}"));
        let writes: Vec<_> = names
            .map(|name| entity_write(&name, Expect::Absent, Some("{}")))
            .collect();
        let key = AuditKey::keyless();
        let written = bench.store.write_entities(&writes, &change("many"), &key);
        written.unwrap();
    }
    *bench.store.delete_next.lock().unwrap() = Some("team 7".to_owned());
    let log = bench.open(0);
    let loaded = names(log.loaded());
    assert!(!loaded.contains(&"team 7".to_owned()), "it was deleted");
    assert_eq!(loaded.len(), PAGE as usize / 2 * 3 - 1);
    // No poll would ever say so.
    assert_eq!(names(log.poll().unwrap()), [""; 0]);
    assert_eq!(bench.open_last_good(1).loaded(), []);
    assert_eq!(bench.open_last_good(0).loaded().len(), loaded.len());
}

#[test]
fn what_others_wrote_is_told_once_and_nothing_of_ones_own() {
    let bench = Bench::new();
    let [one, two] = [bench.open(0), bench.open(1)];
    assert_eq!(names(one.poll().unwrap()), [""; 0]);
    put(&one, "a", Some("1"));
    put(&two, "b", Some("2"));
    put(&one, "c", Some("3"));
    assert_eq!(names(two.poll().unwrap()), ["a", "c"]);
    assert_eq!(names(two.poll().unwrap()), [""; 0]);
    assert_eq!(names(one.poll().unwrap()), ["b"]);

    // What it wrote itself is news again once somebody else has changed it.
    put(&one, "b", Some("4"));
    put(&two, "a", None);
    put(&two, "b", Some("5"));
    assert_eq!(names(one.poll().unwrap()), ["-a", "b"]);
    assert_eq!(names(two.poll().unwrap()), [""; 0], "its own is newer");
    assert_eq!(lock(&one.shared.seen).own.len(), 0);
    assert_eq!(names(bench.open(0).loaded()), ["c", "b"]);
}

#[test]
fn a_poll_is_bounded_and_goes_on_where_it_ended() {
    let bench = Bench::new();
    let [one, two] = [bench.open(0), bench.open(1)];
    let page = u64::from(PAGE);
    let writes = |from: u64, to: u64| -> Vec<EntityWrite> {
        let names = (from..to).map(|number| format!("{number:05}"));
        names
            .map(|name| entity_write(&name, Expect::Any, Some("{}")))
            .collect()
    };
    for (from, to) in [(0, page - 1), (page - 1, page + 1), (page + 1, page + 2)] {
        two.write(&writes(from, to), &change("many")).unwrap();
    }
    assert_eq!(one.poll().unwrap().len() as u64, page + 1);
    assert_eq!(one.poll().unwrap().len(), 1);
    assert_eq!(one.poll().unwrap().len(), 0);

    // A page of its own writes only is passed over.
    one.write(&writes(0, page), &change("own")).unwrap();
    put(&two, "last", Some("{}"));
    assert_eq!(names(one.poll().unwrap()), ["last"]);
    assert_eq!(bench.open(0).loaded().len() as u64, page + 3);
}

#[test]
fn a_write_whose_answer_was_lost_is_told_by_the_poll() {
    let bench = Bench::new();
    let log = bench.open(0);
    bench.store.lose_answer.store(1, Ordering::SeqCst);
    let writes = [entity_write("a", Expect::Absent, Some("{}"))];
    let lost = log.write(&writes, &change("a")).unwrap_err();
    assert!(matches!(lost, WriteError::Store(_)), "{lost}");
    assert_eq!(names(log.poll().unwrap()), ["a"]);
    assert_eq!(names(log.poll().unwrap()), [""; 0]);
}

#[test]
fn without_the_store_the_last_good_entities_are_there() {
    let bench = Bench::new();
    let [one, two] = [bench.open(0), bench.open(1)];
    put(&one, "a", Some("1"));
    put(&one, "gone", Some("2"));
    put(&two, "b", Some("3"));
    put(&one, "own", Some("4"));
    put(&one, "gone", None);
    one.poll().unwrap();
    put(&two, "unseen", Some("5"));
    put(&two, "a", Some("6"));
    // Written after what it has not seen: must not hide that.
    put(&one, "late", Some("7"));
    drop(one);

    bench.store.set_down(true);
    let degraded = bench.open_last_good(0);
    let mut loaded = degraded.loaded();
    assert_eq!(degraded.loaded(), [], "given once");
    loaded.sort_by(|one, other| one.name.cmp(&other.name));
    let bodies: Vec<_> = loaded.iter().map(|entity| entity.body.as_deref()).collect();
    assert_eq!(bodies, [Some("1"), Some("3"), Some("7"), Some("4")]);
    degraded.poll().unwrap_err();

    bench.store.set_down(false);
    assert_eq!(names(degraded.poll().unwrap()), ["unseen", "a", "late"]);
    assert_eq!(names(degraded.poll().unwrap()), [""; 0]);
    drop(degraded);
    bench.store.set_down(true);
    let mut again = names(bench.open_last_good(0).loaded());
    again.sort();
    assert_eq!(again, ["a", "b", "late", "own", "unseen"]);
}

#[test]
fn a_start_with_the_store_corrects_the_last_good_file() {
    let bench = Bench::new();
    let log = bench.open(0);
    put(&log, "a", Some("1"));
    drop(log);
    let path = LastGood::file(bench.dirs[0].path());
    std::fs::write(&path, "rubbish\n").unwrap();
    bench.open(0);
    bench.store.set_down(true);
    assert_eq!(names(bench.open_last_good(0).loaded()), ["a"]);
}

#[test]
fn a_last_good_file_that_failed_never_claims_to_be_complete() {
    let bench = Bench::new();
    let [one, two] = [bench.open(0), bench.open(1)];
    let path = LastGood::file(bench.dirs[0].path());
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    put(&two, "a", Some("1"));
    assert_eq!(names(one.poll().unwrap()), ["a"], "the node goes on");
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, kept).unwrap();
    put(&two, "b", Some("1"));
    one.poll().unwrap();
    drop(one);

    let degraded = bench.open_last_good(0);
    assert_eq!(names(degraded.loaded()), ["b"]);
    assert_eq!(names(degraded.poll().unwrap()), ["a", "b"]);
}

#[test]
fn a_revocation_is_in_the_store_at_once_if_that_is_there() {
    let bench = Bench::new();
    let [one, two] = [bench.open(0), bench.open(1)];
    for _ in 0..2 {
        let revoked = one.revoke("00ff", &change("key")).unwrap();
        assert_eq!(revoked, Persisted(true));
    }
    assert_eq!((bench.audit().len(), one.waiting_revocations()), (1, 0));
    assert_eq!(names(one.poll().unwrap()), [""; 0], "it knows");
    let told = two.poll().unwrap();
    assert_eq!(
        (told[0].kind.as_str(), told[0].name.as_str()),
        (REVOCATION, "00ff")
    );

    // Taken back by another node, then made again: both are news.
    let mut write = entity_write("00ff", Expect::Any, None);
    write.kind = REVOCATION.to_owned();
    two.write(&[write], &change("key")).unwrap();
    assert_eq!(names(one.poll().unwrap()), ["-00ff"]);
    two.revoke("00ff", &change("key")).unwrap();
    assert_eq!(names(one.poll().unwrap()), ["00ff"]);
}

#[test]
fn a_revocation_survives_the_stores_absence_and_comes_to_it_once() {
    let bench = Bench::new();
    let log = bench.open(0);
    bench.store.set_down(true);
    for _ in 0..2 {
        let revoked = log.revoke("00ff", &change("key")).unwrap();
        assert_eq!(revoked, Persisted(false));
    }
    log.bring_revocations().unwrap_err();
    assert_eq!(log.waiting_revocations(), 1);
    drop(log);

    let log = bench.open_last_good(0);
    let loaded = log.loaded();
    assert_eq!(
        (loaded[0].kind.as_str(), loaded[0].revision),
        (REVOCATION, 0)
    );
    assert_eq!(names(loaded), ["00ff"]);
    bench.store.set_down(false);
    bench.store.lose_answer.store(1, Ordering::SeqCst);
    log.bring_revocations().unwrap_err();
    assert_eq!(log.waiting_revocations(), 1, "it cannot know");
    log.bring_revocations().unwrap();
    log.bring_revocations().unwrap();
    assert_eq!(
        (log.waiting_revocations(), bench.audit()),
        (0, vec!["key".to_owned()])
    );
    // Killed before the next poll, and started without the store.
    assert_eq!(names(bench.open_last_good(0).loaded()), ["00ff"]);
    assert_eq!(names(log.poll().unwrap()), [""; 0]);
    drop(log);
    assert_eq!(names(bench.open(0).loaded()), ["00ff"]);
    assert_eq!(bench.open(0).waiting_revocations(), 0);
}

#[test]
fn a_revocation_that_neither_takes_is_an_error_and_still_brought_later() {
    let bench = Bench::new();
    let log = bench.open(0);
    let path = LastGood::file(bench.dirs[0].path());
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    bench.store.set_down(true);
    for _ in 0..2 {
        let refused = log.revoke("00ff", &change("key")).unwrap_err();
        assert!(matches!(refused, WriteError::Store(_)), "{refused}");
    }
    std::fs::remove_dir(&path).unwrap();
    assert_eq!(
        log.revoke("00ff", &change("key")).unwrap(),
        Persisted(false)
    );
    bench.store.set_down(false);
    log.bring_revocations().unwrap();
    assert_eq!(bench.audit(), ["key"]);
}

#[test]
fn two_nodes_revoke_the_same_key_once() {
    let bench = Bench::new();
    let [one, two] = [bench.open(0), bench.open(1)];
    bench.store.set_down(true);
    for log in [&one, &two] {
        assert_eq!(
            log.revoke("00ff", &change("key")).unwrap(),
            Persisted(false)
        );
    }
    bench.store.set_down(false);
    for log in [&one, &two] {
        log.bring_revocations().unwrap();
    }
    assert_eq!(bench.audit(), ["key"]);
    assert_eq!(two.poll().unwrap(), []);
}
