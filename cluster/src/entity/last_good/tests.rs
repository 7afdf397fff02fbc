//! The file under kills, damage and growth.

use proptest::prelude::*;

use super::*;
use crate::testing::change;

fn entity(name: &str, revision: u64, body: Option<&str>) -> Entity {
    Entity {
        kind: "team".to_owned(),
        name: name.to_owned(),
        revision,
        body: body.map(Into::into),
        changed_at: policy::Timestamp(revision * 1_000),
    }
}

/// What the file says after these lines.
fn folded(lines: &[Line]) -> Contents {
    let mut contents = Contents::default();
    lines.iter().cloned().for_each(|line| contents.take(line));
    contents
}

fn some_lines() -> Vec<Line> {
    vec![
        Line::Entity(entity("a", 1, Some("{\"x\": \"é\\n\"}"))),
        Line::Seen(1),
        Line::Pending("00ff".to_owned(), change("k")),
        Line::Entity(entity("a", 2, None)),
        Line::Entity(entity("b", 2, Some("{ }\n"))),
        Line::Brought("00ff".to_owned()),
        Line::Pending("11ff".to_owned(), change("l")),
        Line::Seen(2),
    ]
}

#[test]
fn what_was_appended_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = LastGood::new(dir.path());
    assert_eq!(file.read().unwrap(), Contents::default());
    for lines in some_lines().chunks(3) {
        file.append(lines).unwrap();
    }
    let contents = LastGood::new(dir.path()).read().unwrap();
    assert_eq!(contents, folded(&some_lines()));
    assert_eq!((contents.seen, contents.damaged), (2, 0));
    let bodies: Vec<_> = contents
        .entities
        .values()
        .map(|e| e.body.as_deref())
        .collect();
    assert_eq!(bodies, [None, Some("{ }\n")]);
    assert!(contents.pending.keys().eq(["11ff"]));
    assert_eq!(file.pending().unwrap(), contents.pending);
}

#[test]
fn an_older_line_does_not_undo_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    // As when two processes share the folder.
    let [old, new] = [(); 2].map(|()| LastGood::new(dir.path()));
    new.append(&[Line::Entity(entity("a", 5, None)), Line::Seen(5)])
        .unwrap();
    old.append(&[Line::Entity(entity("a", 4, Some("{}"))), Line::Seen(4)])
        .unwrap();
    let contents = new.read().unwrap();
    assert_eq!(contents.seen, 5);
    let entities: Vec<_> = contents.entities.into_values().collect();
    assert_eq!(entities, [entity("a", 5, None)]);
}

#[test]
fn a_file_cut_anywhere_gives_a_prefix_and_grows_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = LastGood::new(dir.path());
    let lines = some_lines();
    file.append(&lines).unwrap();
    let path = LastGood::file(dir.path());
    let whole = std::fs::read(&path).unwrap();
    let more = Line::Entity(entity("z", 9, Some("9")));
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let complete = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
        let torn = cut > 0 && whole[cut - 1] != b'\n';
        let mut expected = folded(&lines[..complete]);
        expected.damaged = u64::from(torn);
        assert_eq!(file.read().unwrap(), expected, "cut at {cut}");

        file.append(std::slice::from_ref(&more)).unwrap();
        expected.take(more.clone());
        expected.damaged = 0;
        assert_eq!(file.read().unwrap(), expected, "appended after {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_read_without_harm(
        flips in prop::collection::vec((0_usize..4_000, 1_u8..), 0..6),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        at in 0_usize..4_000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let file = LastGood::new(dir.path());
        let lines = some_lines();
        file.append(&lines).unwrap();
        let path = LastGood::file(dir.path());
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, flip) in flips {
            let at = at % bytes.len();
            bytes[at] ^= flip;
        }
        let at = at % (bytes.len() + 1);
        bytes.splice(at..at, noise);
        std::fs::write(&path, &bytes).unwrap();
        let contents = file.read().unwrap();
        for entity in contents.entities.values() {
            prop_assert!(lines.contains(&Line::Entity(entity.clone())));
        }
        prop_assert!(contents.seen <= 2);
        file.append(&[Line::Seen(7)]).unwrap();
        prop_assert_eq!(file.read().unwrap().seen, 7);
    }
}

#[test]
fn what_is_out_of_date_is_left_out_when_it_is_most() {
    let dir = tempfile::tempdir().unwrap();
    let file = LastGood::new(dir.path());
    file.append(&[Line::Pending("aa".to_owned(), change("k"))])
        .unwrap();
    let path = LastGood::file(dir.path());
    let mut longest = 0;
    for first in (1..5_000_u64).step_by(100) {
        let lines = (first..first + 100).flat_map(|revision| {
            let name = (revision % 10).to_string();
            let entity = entity(&name, revision, Some("{}"));
            [Line::Entity(entity), Line::Seen(revision)]
        });
        file.append(&lines.collect::<Vec<_>>()).unwrap();
        longest = longest.max(std::fs::metadata(&path).unwrap().len());
    }
    assert!(longest < 300_000, "{longest} bytes");
    let contents = file.read().unwrap();
    assert_eq!((contents.seen, contents.entities.len()), (5_000, 10));
    assert!(contents.pending.contains_key("aa"));
    assert!(!dir.path().join(ASIDE).exists());
}

#[test]
fn a_replacement_keeps_what_waits_for_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let file = LastGood::new(dir.path());
    file.append(&some_lines()).unwrap();
    // A kill while it was written last time.
    std::fs::write(dir.path().join(ASIDE), "half a li").unwrap();
    let now = [entity("c", 7, Some("{}")), entity("d", 8, None)];
    file.replace(&now, 9).unwrap();
    let contents = file.read().unwrap();
    assert!(contents.entities.into_values().eq(now));
    assert_eq!((contents.seen, contents.damaged), (9, 0));
    assert!(contents.pending.keys().eq(["11ff"]));
}

#[test]
fn nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let file = LastGood::new(dir.path());
    let mode = || {
        let file = std::fs::metadata(LastGood::file(dir.path())).unwrap();
        file.permissions().mode() & 0o777
    };
    file.append(&[Line::Seen(1)]).unwrap();
    assert_eq!(mode(), 0o600);
    file.replace(&[], 1).unwrap();
    assert_eq!(mode(), 0o600);
}

#[test]
fn a_line_too_long_to_be_read_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = LastGood::new(dir.path());
    let body = "x".repeat(LINE_BYTES as usize);
    let refused = file.append(&[Line::Entity(entity("a", 1, Some(&body)))]);
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(file.read().unwrap(), Contents::default());
}
