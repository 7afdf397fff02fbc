use super::*;
use crate::store::sums;
use crate::testing::{EXPIRY, amount, charge, origin};

const NOW: Timestamp = Timestamp(1_000);

const ME: Origin = origin(1 << 100, 1);

fn cell(counter: &str, amount: u64) -> (Origin, Cell) {
    let cell = Cell {
        counter: counter.to_owned(),
        epoch: 1,
        amount,
        expires_at: EXPIRY,
    };
    (ME, cell)
}

fn mark(number: u64, to: u64) -> Option<Mark> {
    Some(Mark {
        boot: 1,
        number,
        to,
    })
}

fn cells(contents: Contents, now: Timestamp) -> Vec<Cell> {
    sums(&contents.by_origin(now))
}

fn taken_up(dir: &Path) -> Contents {
    SettledLog::new(dir).take_up().unwrap()
}

#[test]
fn what_was_appended_is_added_and_read_on_from_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let log = SettledLog::new(dir.path());
    log.append(ME, mark(1, 10), [&[charge("a", 1, 9)][..]]);
    assert!(!log.exists(), "nothing is kept before there is a beginning");
    log.replace(&[cell("a", 5), cell("b", 7)], &[]);
    let charges = [charge("a", 1, 2), charge("c", 1, 1)];
    log.append(ME, mark(1, 10), [&charges[..], &charges[..1]]);
    log.append(ME, mark(1, 30), [&[charge("b", 1, 1)][..]]);
    log.append(ME, None, [&[charge("b", 1, 10)][..]]);
    log.append_cells(ME, &[cell("c", 4).1]);

    let mut contents = taken_up(dir.path());
    assert_eq!(
        (
            contents.mark(1, 1),
            contents.mark(1, 2),
            contents.mark(2, 1)
        ),
        (30, 0, 0)
    );
    contents.add(ME, &[charge("a", 1, 100)]);
    let found = cells(contents, NOW);
    assert_eq!(
        (
            amount(&found, "a"),
            amount(&found, "b"),
            amount(&found, "c")
        ),
        (109, 18, 5)
    );
    // It is gone on with, and begun anew.
    let log = SettledLog::new(dir.path());
    log.go_on();
    log.append(ME, mark(2, 5), [&[charge("a", 1, 1)][..]]);
    let contents = taken_up(dir.path());
    assert_eq!((contents.mark(1, 2), contents.mark(1, 1)), (5, 30));
    assert_eq!(amount(&cells(contents, NOW), "a"), 10);
    log.replace(&[], &[]);
    let contents = taken_up(dir.path());
    assert_eq!((contents.mark(1, 1), cells(contents, NOW)), (0, vec![]));
}

#[test]
fn a_torn_end_takes_its_mark_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = SettledLog::new(dir.path());
    log.replace(&[cell("a", 5)], &[]);
    log.append(ME, mark(1, 10), [&[charge("a", 1, 2)][..]]);
    let whole = std::fs::read(dir.path().join(FILE)).unwrap();
    log.append(ME, mark(1, 20), [&[charge("a", 1, 4)][..]]);
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
            (mark, amount(&cells(contents, NOW), "a")),
            expected,
            "cut at {end}"
        );
        // What is appended after it counts.
        log.append(ME, None, [&[charge("a", 1, 100)][..]]);
        let contents = taken_up(dir.path());
        assert_eq!(amount(&cells(contents, NOW), "a"), expected.1 + 100);
    }
}

#[test]
fn it_is_made_small_and_keeps_what_matters() {
    let dir = tempfile::tempdir().unwrap();
    let log = SettledLog::new(dir.path());
    let mut old = cell("old", 3);
    old.1.expires_at = NOW;
    log.replace(&[old, cell("a", 0)], &[]);
    let length = || std::fs::metadata(dir.path().join(FILE)).unwrap().len();
    log.compact(NOW, |_, _| true);
    let long = "x".repeat(1_000);
    for number in 0..1_200 {
        log.append(
            ME,
            mark(number % 3, number),
            [&[charge("a", 1, 1), charge(&long, 1, 1)][..]],
        );
    }
    assert!(length() > SMALL);
    log.compact(NOW, |_, number| number != 1);
    assert!(length() < 2_000, "{}", length());
    log.append(ME, mark(2, 5_000), [&[charge("a", 1, 1)][..]]);
    let contents = taken_up(dir.path());
    assert_eq!(
        [0, 1, 2].map(|number| contents.mark(1, number)),
        [1_197, 0, 5_000]
    );
    let cells = cells(contents, Timestamp(0));
    assert_eq!((amount(&cells, "a"), amount(&cells, "old")), (1_201, 0));
}

#[test]
fn one_that_lacks_something_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let log = SettledLog::new(dir.path());
    log.replace(&[cell("a", 5)], &[]);
    // As on a full disk.
    log.lock().file = Some(File::open(dir.path().join(FILE)).unwrap());
    log.append(ME, mark(1, 10), [&[charge("a", 1, 2)][..]]);
    assert!(log.is_broken() && !log.exists());
    log.append(ME, mark(1, 20), [&[charge("a", 1, 2)][..]]);
    assert!(!log.exists());
    log.replace(&[cell("a", 9)], &[mark(3, 8).unwrap()]);
    assert!(!log.is_broken());
    let contents = taken_up(dir.path());
    assert_eq!(contents.mark(1, 3), 8);
    assert_eq!(amount(&cells(contents, NOW), "a"), 9);
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
        old.append(ME, mark(1, number), [&[charge(&long, 1, 1)][..]]);
    }
    old.compact(NOW, |_, _| true);
    new.append(ME, mark(2, 9), [&[charge("a", 1, 2)][..]]);
    assert_eq!(amount(&cells(taken_up(dir.path()), NOW), "a"), 7);

    let old = SettledLog::new(dir.path());
    old.go_on();
    new.replace(&[cell("a", 20)], &[]);
    old.settle(&mut old.lock(), Err(io::ErrorKind::StorageFull.into()));
    assert!(!old.is_broken());
    assert_eq!(amount(&cells(taken_up(dir.path()), NOW), "a"), 20);
}

#[test]
fn each_origin_keeps_what_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let log = SettledLog::new(dir.path());
    let theirs = origin(2, 1);
    log.replace(&[cell("a", 5), (theirs, cell("a", 7).1)], &[]);
    log.append(ME, mark(1, 10), [&[charge("a", 1, 2)][..]]);
    log.append(origin(2, 2), None, [&[charge("a", 1, 100)][..]]);
    log.compact(NOW, |_, _| true);
    let mut contents = taken_up(dir.path());
    contents.add(theirs, &[charge("a", 1, 1)]);
    assert!(!contents.is_mixed());
    let cells = contents.by_origin(NOW);
    let found: Vec<_> = cells.iter().map(|(of, cell)| (*of, cell.amount)).collect();
    assert_eq!(found, [(theirs, 8), (origin(2, 2), 100), (ME, 7)]);
}

#[test]
fn lines_of_the_program_before_are_of_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = Vec::new();
    let json = r#"{"cells":[{"counter":"a","epoch":1,"amount":5,"expires_at_ms":2000000000000}]}"#;
    frame::append(&mut text, |line| line.extend_from_slice(json.as_bytes()));
    std::fs::write(dir.path().join(FILE), text).unwrap();
    let log = SettledLog::new(dir.path());
    let contents = log.take_up().unwrap();
    assert!(contents.is_mixed());
    log.append(ME, None, [&[charge("a", 1, 2)][..]]);
    let contents = taken_up(dir.path());
    assert!(contents.is_mixed());
    assert_eq!(amount(&cells(contents, NOW), "a"), 7);
}
