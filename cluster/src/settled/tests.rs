use super::*;
use crate::testing::{EXPIRY, amount, charge};

const NOW: Timestamp = Timestamp(1_000);

fn cell(counter: &str, amount: u64) -> Cell {
    Cell {
        counter: counter.to_owned(),
        epoch: 1,
        amount,
        expires_at: EXPIRY,
    }
}

fn mark(number: u64, to: u64) -> Option<Mark> {
    Some(Mark {
        boot: 1,
        number,
        to,
    })
}

fn taken_up(dir: &Path) -> Contents {
    SettledLog::new(dir).take_up().unwrap()
}

#[test]
fn what_was_appended_is_added_and_read_on_from_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let log = SettledLog::new(dir.path());
    log.append(mark(1, 10), [&[charge("a", 1, 9)][..]]);
    assert!(!log.exists(), "nothing is kept before there is a beginning");
    log.replace(&[cell("a", 5), cell("b", 7)], &[]);
    let charges = [charge("a", 1, 2), charge("c", 1, 1)];
    log.append(mark(1, 10), [&charges[..], &charges[..1]]);
    log.append(mark(1, 30), [&[charge("b", 1, 1)][..]]);
    log.append(None, [&[charge("b", 1, 10)][..]]);
    log.append_cells(&[cell("c", 4)]);

    let mut contents = taken_up(dir.path());
    assert_eq!(
        (
            contents.mark(1, 1),
            contents.mark(1, 2),
            contents.mark(2, 1)
        ),
        (30, 0, 0)
    );
    contents.add(&[charge("a", 1, 100)]);
    let cells = contents.cells(NOW);
    assert_eq!(
        (
            amount(&cells, "a"),
            amount(&cells, "b"),
            amount(&cells, "c")
        ),
        (109, 18, 5)
    );
    // It is gone on with, and begun anew.
    let log = SettledLog::new(dir.path());
    log.go_on();
    log.append(mark(2, 5), [&[charge("a", 1, 1)][..]]);
    let contents = taken_up(dir.path());
    assert_eq!((contents.mark(1, 2), contents.mark(1, 1)), (5, 30));
    assert_eq!(amount(&contents.cells(NOW), "a"), 10);
    log.replace(&[], &[]);
    let contents = taken_up(dir.path());
    assert_eq!((contents.mark(1, 1), contents.cells(NOW)), (0, vec![]));
}

#[test]
fn a_torn_end_takes_its_mark_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = SettledLog::new(dir.path());
    log.replace(&[cell("a", 5)], &[]);
    log.append(mark(1, 10), [&[charge("a", 1, 2)][..]]);
    let whole = std::fs::read(dir.path().join(FILE)).unwrap();
    log.append(mark(1, 20), [&[charge("a", 1, 4)][..]]);
    let all = std::fs::read(dir.path().join(FILE)).unwrap();
    for end in whole.len()..=all.len() {
        std::fs::write(dir.path().join(FILE), &all[..end]).unwrap();
        let log = SettledLog::new(dir.path());
        let contents = log.take_up().unwrap();
        let expected = match end >= all.len() - 1 {
            true => (20, 11),
            false => (10, 7),
        };
        let mark = contents.mark(1, 1);
        assert_eq!(
            (mark, amount(&contents.cells(NOW), "a")),
            expected,
            "cut at {end}"
        );
        // What is appended after it counts.
        log.append(None, [&[charge("a", 1, 100)][..]]);
        let contents = taken_up(dir.path());
        assert_eq!(amount(&contents.cells(NOW), "a"), expected.1 + 100);
    }
}

#[test]
fn it_is_made_small_and_keeps_what_matters() {
    let dir = tempfile::tempdir().unwrap();
    let log = SettledLog::new(dir.path());
    let mut old = cell("old", 3);
    old.expires_at = NOW;
    log.replace(&[old, cell("a", 0)], &[]);
    let length = || std::fs::metadata(dir.path().join(FILE)).unwrap().len();
    log.compact(NOW, |_, _| true);
    let long = "x".repeat(1_000);
    for number in 0..1_200 {
        log.append(
            mark(number % 3, number),
            [&[charge("a", 1, 1), charge(&long, 1, 1)][..]],
        );
    }
    assert!(length() > SMALL);
    log.compact(NOW, |_, number| number != 1);
    assert!(length() < 2_000, "{}", length());
    log.append(mark(2, 5_000), [&[charge("a", 1, 1)][..]]);
    let contents = taken_up(dir.path());
    assert_eq!(
        [0, 1, 2].map(|number| contents.mark(1, number)),
        [1_197, 0, 5_000]
    );
    let cells = contents.cells(Timestamp(0));
    assert_eq!((amount(&cells, "a"), amount(&cells, "old")), (1_201, 0));
}

#[test]
fn one_that_lacks_something_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let log = SettledLog::new(dir.path());
    log.replace(&[cell("a", 5)], &[]);
    // As on a full disk.
    log.lock().file = Some(File::open(dir.path().join(FILE)).unwrap());
    log.append(mark(1, 10), [&[charge("a", 1, 2)][..]]);
    assert!(log.is_broken() && !log.exists());
    log.append(mark(1, 20), [&[charge("a", 1, 2)][..]]);
    assert!(!log.exists());
    log.replace(&[cell("a", 9)], &[mark(3, 8).unwrap()]);
    assert!(!log.is_broken());
    let contents = taken_up(dir.path());
    assert_eq!(contents.mark(1, 3), 8);
    assert_eq!(amount(&contents.cells(NOW), "a"), 9);
}

/// The old process of an upgrade goes on for a while.
#[test]
fn the_log_of_a_successor_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let old = SettledLog::new(dir.path());
    old.replace(&[cell("a", 1)], &[]);
    let new = SettledLog::new(dir.path());
    new.replace(&[cell("a", 5)], &[]);
    let long = "x".repeat(1_000);
    for number in 0..1_200 {
        old.append(mark(1, number), [&[charge(&long, 1, 1)][..]]);
    }
    old.compact(NOW, |_, _| true);
    new.append(mark(2, 9), [&[charge("a", 1, 2)][..]]);
    assert_eq!(amount(&taken_up(dir.path()).cells(NOW), "a"), 7);

    let old = SettledLog::new(dir.path());
    old.go_on();
    new.replace(&[cell("a", 20)], &[]);
    old.settle(&mut old.lock(), Err(io::ErrorKind::StorageFull.into()));
    assert!(!old.is_broken());
    assert_eq!(amount(&taken_up(dir.path()).cells(NOW), "a"), 20);
}
