//! The folder's small files, and who may work on it when.

use super::*;

fn open(path: &Path, now: u64) -> Result<DataDir, StartError> {
    DataDir::open(path, Timestamp(now), Entrance::Alone)
}

fn take_over(path: &Path, now: u64) -> Result<DataDir, StartError> {
    DataDir::open(path, Timestamp(now), Entrance::TakeOver)
}

#[test]
fn key_stays_and_boot_grows_even_when_the_clock_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/data");
    let first = open(&path, 5_000).unwrap();
    assert_eq!(first.boot(), 5_000);
    let key = first.node_key();
    drop(first);

    let second = open(&path, 4_000).unwrap();
    assert_eq!(second.boot(), 5_001);
    assert_eq!(second.node_key(), key);
    assert_eq!(key.to_string().len(), 32);
}

#[test]
fn a_second_holder_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let _held = open(dir.path(), 1).unwrap();
    let refused = open(dir.path(), 2).unwrap_err();
    assert!(matches!(refused, StartError::Locked { .. }));
    let text = refused.to_string();
    assert!(text.contains("each node needs its own data_dir"), "{text}");
}

#[test]
fn a_damaged_file_is_named() {
    for (name, content) in [(NODE_KEY, "abc"), (BOOT, "soon")] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), content).unwrap();
        let refused = open(dir.path(), 1).unwrap_err();
        assert!(refused.to_string().contains(name), "{refused}");
    }
}

#[test]
fn a_successor_works_beside_its_predecessor_and_then_alone() {
    let dir = tempfile::tempdir().unwrap();
    let old = open(dir.path(), 10).unwrap();
    assert_eq!(old.predecessor(), None);
    let new = take_over(dir.path(), 5).unwrap();
    assert_eq!((new.boot(), new.predecessor()), (11, Some(10)));
    assert_eq!(new.node_key(), old.node_key());
    assert!(!new.has_folder().unwrap());

    let refused = take_over(dir.path(), 5).unwrap_err();
    assert!(refused.to_string().contains("upgrade"), "{refused}");
    let refused = open(dir.path(), 5).unwrap_err();
    assert!(matches!(refused, StartError::Locked { .. }), "{refused}");

    drop(old);
    let refused = open(dir.path(), 5).unwrap_err();
    assert!(matches!(refused, StartError::Locked { .. }), "{refused}");
    assert!(new.has_folder().unwrap());
    assert!(take_over(dir.path(), 5).is_err(), "it is still busy");
    new.admit_next();
    let third = take_over(dir.path(), 5).unwrap();
    assert_eq!((third.boot(), third.predecessor()), (12, Some(11)));
}

#[test]
fn a_successor_that_dies_leaves_the_way_free() {
    let dir = tempfile::tempdir().unwrap();
    let old = open(dir.path(), 10).unwrap();
    drop(take_over(dir.path(), 10).unwrap());
    let new = take_over(dir.path(), 10).unwrap();
    assert_eq!((new.boot(), new.predecessor()), (12, Some(10)));
    drop(old);
    drop(new);
    assert_eq!(open(dir.path(), 10).unwrap().boot(), 13);
}

#[test]
fn with_nobody_there_a_successor_is_an_ordinary_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), 10).unwrap());
    let alone = take_over(dir.path(), 20).unwrap();
    assert_eq!((alone.boot(), alone.predecessor()), (20, None));
    assert!(alone.has_folder().unwrap());
    assert_eq!(take_over(dir.path(), 30).unwrap().predecessor(), Some(20));
}

#[test]
fn a_lock_without_a_name_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let old = open(dir.path(), 10).unwrap();
    std::fs::write(dir.path().join(LOCK), "").unwrap();
    let refused = take_over(dir.path(), 11).unwrap_err();
    assert!(matches!(refused, StartError::Damaged { .. }), "{refused}");
    drop(old);
}
