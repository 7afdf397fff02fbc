//! The journal under faults: what is written is stored once, whatever fails in between.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use policy::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::data_dir::Entrance;
use crate::error::FlushError;
use crate::testing::{FlakyStore, assert_exactly, record};

mod crash;
mod handover;

/// Records that the store may take from memory: so few that it reads files, too.
const HANDED: usize = 6;

/// A folder and a store that outlive the nodes started on them.
struct Bench {
    dir: TempDir,
    store: FlakyStore,
    sizes: Sizes,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            store: FlakyStore::default(),
            sizes: Sizes::default(),
        }
    }

    fn assemble(&self) -> Parts {
        let data_dir = DataDir::open(self.dir.path(), Timestamp(1), Entrance::Alone).unwrap();
        let status = Arc::new(NodeStatus::new());
        let store = Arc::new(self.store.clone());
        let keeping = Keeping::default();
        let assembled = Parts::assemble(data_dir, store, keeping, status, self.sizes);
        assembled.unwrap().0
    }

    fn start(&self) -> Journal {
        Journal::spawn(self.assemble()).unwrap()
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut files: Vec<PathBuf> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().ends_with(ending))
            .collect();
        files.sort();
        files
    }

    fn assert_stored(&self, numbers: impl IntoIterator<Item = u64>) {
        assert_exactly(&*self.store.inner, numbers);
    }
}

fn record_all(recorder: &Recorder, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        recorder.record(record(number));
    }
}

#[test]
fn a_flush_means_stored_and_a_stop_leaves_no_files() {
    let bench = Bench::new();
    let journal = bench.start();
    let recorder = journal.recorder();
    record_all(&recorder, 1..=300);
    recorder.flush().unwrap();
    bench.assert_stored(1..=300);
    record_all(&recorder, 301..=310);
    let status = Arc::clone(recorder.status());
    journal.stop();
    bench.assert_stored(1..=310);
    assert_eq!(bench.files(".log"), [] as [PathBuf; 0]);
    let status = status.snapshot();
    assert_eq!(status.records_written, 310);
    assert_eq!(status.records_stored, 310);
    assert_eq!((status.queue_depth, status.waiting_bytes), (0, 0));
    assert_eq!((status.store_ok, status.journal_ok), (true, true));
    assert_eq!(status.last_error, None);
}

#[test]
fn what_the_store_missed_is_replayed_by_the_next_start() {
    let bench = Bench::new();
    let journal = bench.start();
    bench.store.set_down(true);
    record_all(&journal.recorder(), 1..=5);
    let refused = journal.recorder().flush().unwrap_err();
    assert!(matches!(refused, FlushError::NotStored { .. }), "{refused}");
    journal.stop();
    bench.assert_stored([]);
    assert_eq!(bench.files(".log").len(), 1);

    bench.store.set_down(false);
    let journal = bench.start();
    bench.assert_stored(1..=5);
    journal.stop();
    assert_eq!(bench.files(".log").len(), 0);
}

#[test]
fn a_start_is_refused_while_the_store_cannot_take_the_last_runs_usage() {
    let bench = Bench::new();
    let journal = bench.start();
    bench.store.set_down(true);
    record_all(&journal.recorder(), [1]);
    journal.stop();

    let data_dir = DataDir::open(bench.dir.path(), Timestamp(1), Entrance::Alone).unwrap();
    let store = Arc::new(bench.store.clone());
    let status = Arc::new(NodeStatus::new());
    let refused =
        Parts::assemble(data_dir, store, Keeping::default(), status, bench.sizes).map(|_| ());
    assert!(matches!(refused, Err(StartError::Replay(_))), "{refused:?}");

    bench.store.set_down(false);
    bench.start().stop();
    bench.assert_stored([1]);
}

#[test]
fn a_store_that_fails_for_a_while_gets_everything_once() {
    let bench = Bench::new();
    let journal = bench.start();
    let recorder = journal.recorder();
    bench.store.refuse.store(3, Ordering::SeqCst);
    bench.store.lose_answer.store(2, Ordering::SeqCst);
    let mut next = 0;
    let mut failures = 0;
    loop {
        record_all(&recorder, next + 1..=next + 10);
        next += 10;
        match recorder.flush() {
            Ok(()) => break,
            Err(_) => failures += 1,
        }
        assert!(!recorder.status().store_ok());
    }
    assert!((1..=5).contains(&failures), "{failures} flushes failed");
    assert!(recorder.status().store_ok());
    bench.assert_stored(1..=next);
    let error = recorder.status().snapshot().last_error;
    assert!(error.is_some_and(|error| error.contains("the store is down")));
    journal.stop();
}

#[test]
fn the_store_recovers_without_being_asked() {
    let bench = Bench::new();
    let journal = bench.start();
    bench.store.refuse.store(1, Ordering::SeqCst);
    let recorder = journal.recorder();
    record_all(&recorder, 1..=3);
    // Either the first try was refused, or this one is; the next comes after a pause by itself.
    while recorder.status().snapshot().records_stored < 3 {
        thread::yield_now();
    }
    bench.assert_stored(1..=3);
    journal.stop();
}

#[test]
fn a_full_queue_makes_callers_write_for_themselves() {
    let mut bench = Bench::new();
    bench.sizes.queue = 2;
    let parts = bench.assemble();
    let recorder = parts.recorder.clone();
    record_all(&recorder, 1..=7);
    let status = recorder.status().snapshot();
    assert_eq!((status.queue_depth, status.records_overflowed), (2, 5));
    assert_eq!(bench.files(".log").len(), 1, "one segment for all of them");

    let journal = Journal::spawn(parts).unwrap();
    recorder.flush().unwrap();
    bench.assert_stored(1..=7);
    assert_eq!(recorder.status().snapshot().records_written, 7);
    journal.stop();
    assert_eq!(bench.files(".log").len(), 0);
}

#[test]
fn many_callers_over_a_tiny_queue_lose_nothing() {
    let mut bench = Bench::new();
    bench.sizes.queue = 1;
    bench.sizes.segment_bytes = 2_000;
    let journal = bench.start();
    thread::scope(|scope| {
        for caller in 0..4_u64 {
            let recorder = journal.recorder();
            scope.spawn(move || record_all(&recorder, caller * 100..caller * 100 + 100));
        }
    });
    journal.recorder().flush().unwrap();
    bench.assert_stored(0..400);
    journal.stop();
    assert_eq!(bench.files(".log").len(), 0);
}

#[test]
fn the_threads_end_with_the_last_recorder() {
    let bench = Bench::new();
    let Journal { recorder, threads } = bench.start();
    let other = recorder.clone();
    record_all(&recorder, [1]);
    drop(recorder);
    record_all(&other, [2]);
    drop(other);
    for thread in threads {
        thread.join().unwrap();
    }
    bench.assert_stored([1, 2]);
    assert_eq!(bench.files(".log").len(), 0);
}

#[test]
fn a_record_after_the_end_is_there_at_the_next_start() {
    let bench = Bench::new();
    let journal = bench.start();
    let late = journal.recorder();
    journal.stop();
    record_all(&late, [1, 2]);
    assert_eq!(late.flush(), Err(FlushError::Stopped));
    drop(late);
    bench.start().stop();
    bench.assert_stored([1, 2]);
}

#[test]
fn the_folder_stays_locked_while_a_recorder_lives() {
    let bench = Bench::new();
    let journal = bench.start();
    let late = journal.recorder();
    journal.stop();
    let refused = DataDir::open(bench.dir.path(), Timestamp(1), Entrance::Alone).unwrap_err();
    assert!(matches!(refused, StartError::Locked { .. }));
    drop(late);
    DataDir::open(bench.dir.path(), Timestamp(1), Entrance::Alone).unwrap();
}

#[test]
fn damaged_lines_are_set_aside_and_the_rest_counts() {
    let bench = Bench::new();
    let mut lines = Vec::new();
    for number in 1..=4 {
        line::encode(&record(number), &mut lines);
    }
    let third = lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let third = third.map(|(at, _)| at + 1).nth(1).unwrap();
    lines[third + 40] ^= 1;
    let mut torn = Vec::new();
    line::encode(&record(5), &mut torn);
    lines.extend_from_slice(&torn[..torn.len() - 1]);
    std::fs::write(bench.dir.path().join("usage-1-1.log"), &lines).unwrap();

    let journal = bench.start();
    bench.assert_stored([1, 2, 4]);
    let status = journal.recorder().status().snapshot();
    assert_eq!((status.damaged_lines, status.records_stored), (2, 3));
    journal.stop();
    assert_eq!(bench.files(".log").len(), 0);
    let aside = bench.files(".damaged");
    assert_eq!(std::fs::read(&aside[0]).unwrap(), lines, "kept whole");
    bench.start().stop();
    bench.assert_stored([1, 2, 4]);
}

#[test]
fn a_full_disk_is_survived_as_long_as_the_store_takes_records() {
    let bench = Bench::new();
    let parts = bench.assemble();
    let folder = Arc::clone(&parts.recorder.shared.folder);
    let journal = Journal::spawn(parts).unwrap();
    let recorder = journal.recorder();
    record_all(&recorder, [1]);
    recorder.flush().unwrap();

    folder.room.store(100, Ordering::SeqCst);
    record_all(&recorder, 2..=6);
    recorder.flush().unwrap();
    bench.assert_stored(1..=6);
    let status = recorder.status().snapshot();
    assert!(!status.journal_ok && status.last_error.is_some());

    folder.room.store(u64::MAX, Ordering::SeqCst);
    record_all(&recorder, [7]);
    recorder.flush().unwrap();
    bench.assert_stored(1..=7);
    assert!(recorder.status().journal_ok());
    assert_eq!(recorder.status().snapshot().records_lost, 0);
    journal.stop();
    assert_eq!(bench.files(".log").len(), 0);
    assert_eq!(bench.files(".damaged").len(), 0);
}

#[test]
fn with_disk_and_store_away_memory_is_bounded_and_losses_are_counted() {
    let mut bench = Bench::new();
    bench.sizes.held = 10;
    let parts = bench.assemble();
    let folder = Arc::clone(&parts.recorder.shared.folder);
    let journal = Journal::spawn(parts).unwrap();
    let recorder = journal.recorder();
    bench.store.set_down(true);
    folder.room.store(0, Ordering::SeqCst);
    record_all(&recorder, 1..=10);
    recorder.flush().unwrap_err();
    record_all(&recorder, 11..=13);
    recorder.flush().unwrap_err();
    let status = recorder.status().snapshot();
    assert_eq!((status.records_held, status.records_lost), (10, 3));

    folder.room.store(u64::MAX, Ordering::SeqCst);
    recorder.flush().unwrap_err();
    assert_eq!(recorder.status().snapshot().records_held, 0, "on disk now");
    bench.store.set_down(false);
    recorder.flush().unwrap();
    journal.stop();
    assert_eq!(bench.store.inner.usage_count().unwrap(), 10);
}

#[test]
fn callers_survive_a_full_disk_too() {
    let mut bench = Bench::new();
    bench.sizes.queue = 1;
    let parts = bench.assemble();
    let recorder = parts.recorder.clone();
    let folder = Arc::clone(&recorder.shared.folder);
    record_all(&recorder, 1..=3);
    folder.room.store(9, Ordering::SeqCst);
    record_all(&recorder, 4..=5);
    folder.room.store(u64::MAX, Ordering::SeqCst);
    record_all(&recorder, 6..=6);
    let status = recorder.status().snapshot();
    assert_eq!((status.records_overflowed, status.records_held), (3, 2));
    Journal::spawn(parts).unwrap().stop();
    bench.assert_stored(1..=6);
}

#[test]
fn a_removed_file_is_no_reason_to_stop() {
    let bench = Bench::new();
    let journal = bench.start();
    bench.store.set_down(true);
    let recorder = journal.recorder();
    record_all(&recorder, [1]);
    recorder.flush().unwrap_err();
    std::fs::remove_file(&bench.files(".log")[0]).unwrap();
    bench.store.set_down(false);
    recorder.flush().unwrap();
    assert_eq!(recorder.status().snapshot().waiting_bytes, 0);
    journal.stop();
}
