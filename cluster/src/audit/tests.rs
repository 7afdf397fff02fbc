//! What was done to a log, and what its verification says.

use policy::Timestamp;

use super::*;
use crate::testing::change;

fn key(id: &str) -> AuditKey {
    AuditKey::from_secret(id, format!("the secret of {id}").as_bytes())
}

/// A log with one row for each key, named after its place, with revisions 10, 20, 30 …
fn log(keys: &[AuditKey]) -> (Vec<AuditRow>, Option<AuditHead>) {
    let (mut rows, mut head) = (Vec::new(), None);
    for (place, key) in (1..).zip(keys) {
        let mut change = change(&format!("name {place}"));
        change.before = Some(format!("{{\"old\":{place}}}"));
        let (row, next_head) = next(head.as_ref(), &change, place * 10, key).unwrap();
        rows.push(row);
        head = Some(next_head);
    }
    (rows, head)
}

fn keyed(rows: usize) -> (Vec<AuditRow>, Option<AuditHead>) {
    log(&vec![key("k1"); rows])
}

#[track_caller]
fn assert_broken(
    (rows, head): &(Vec<AuditRow>, Option<AuditHead>),
    keys: &[AuditKey],
    seq: u64,
    why: Breach,
) {
    let broken = verify(rows, head.as_ref(), keys).unwrap_err();
    assert_eq!(broken, Broken { seq, why });
}

#[test]
fn a_log_that_nobody_touched_is_whole() {
    assert_eq!(verify(&[], None, &[]).unwrap().rows, 0);
    let none = AuditKey::keyless();
    for (keys, keyless) in [
        (vec![none.clone()], 1),
        (
            vec![none.clone(), none.clone(), key("k1"), key("k2"), key("k1")],
            2,
        ),
        (vec![key("k1"); 5], 0),
    ] {
        let (rows, head) = log(&keys);
        let verified = verify(&rows, head.as_ref(), &[key("k2"), key("k1")]).unwrap();
        let last = rows.last().unwrap();
        assert_eq!(verified.rows, keys.len() as u64);
        assert_eq!((verified.keyless, verified.head), (keyless, last.hash));
        assert_eq!((rows[0].seq, rows[0].previous), (1, [0; 32]));
    }
}

/// The hash of a known row, computed by other means: what is hashed is part of the format.
#[test]
fn the_hashed_bytes_never_change() {
    let (row, head) = next(None, &change("ü"), 7, &AuditKey::keyless()).unwrap();
    assert_eq!(
        hex::encode(row.hash),
        "3d8c6e0e95c064efe759bbb5e37f70bcf11d7bab2a749ad737184dc66fd00502"
    );
    assert_eq!(
        hex::encode(head.mac),
        "dff7f7c945bd8b1ea12cbf5ff4cb0aa1bb78287846e3073f9eab65f0a0926bce"
    );
    let (row, _) = next(None, &change("ü"), 7, &key("k1")).unwrap();
    assert_eq!(
        hex::encode(row.hash),
        "9bab797702f93147c8b170da59a9ac688a2be175ca3ca96040450ff5aa263487"
    );
}

#[test]
fn every_altered_field_is_found() {
    type Alter = (&'static str, fn(&mut AuditRow));
    let alterations: [Alter; 13] = [
        ("at", |row| row.change.at = Timestamp(row.change.at.0 + 1)),
        ("actor", |row| row.change.actor.push('x')),
        ("peer", |row| row.change.peer.clear()),
        ("action", |row| row.change.action = "delete".to_owned()),
        ("kind", |row| row.change.kind = "role".to_owned()),
        ("name", |row| row.change.name = "another".to_owned()),
        ("before", |row| row.change.before = None),
        ("before empty", |row| {
            row.change.before = Some(String::new())
        }),
        ("after", |row| row.change.after = Some("{}".to_owned())),
        ("revision", |row| row.revision += 1),
        ("previous", |row| row.previous[31] ^= 1),
        ("hash", |row| row.hash[0] ^= 0x80),
        ("border of two fields", |row| {
            let last = row.change.actor.pop().unwrap();
            row.change.peer.insert(0, last);
        }),
    ];
    for key in [AuditKey::keyless(), key("k1")] {
        for (what, alter) in alterations {
            for place in 0..3 {
                let (mut rows, head) = log(&vec![key.clone(); 3]);
                alter(&mut rows[place]);
                let broken = verify(&rows, head.as_ref(), std::slice::from_ref(&key)).unwrap_err();
                let seq = place as u64 + 1;
                let why = Breach::Altered;
                assert_eq!(broken, Broken { seq, why }, "{what} of row {seq}");
            }
        }
    }
}

#[test]
fn a_row_that_is_gone_or_elsewhere_is_found() {
    let keys = [key("k1")];
    for removed in 1..5 {
        let mut log = keyed(5);
        log.0.remove(removed - 1);
        assert_broken(&log, &keys, removed as u64, Breach::Removed);
    }

    // Two rows that changed their places, as a database shows it: with each other's number.
    let mut swapped = keyed(5);
    swapped.0.swap(1, 3);
    (swapped.0[1].seq, swapped.0[3].seq) = (2, 4);
    assert_broken(&swapped, &keys, 2, Breach::Moved { from: 4 });

    let mut renumbered = keyed(5);
    renumbered.0.remove(2);
    renumbered.0[2].seq = 3;
    assert_broken(&renumbered, &keys, 3, Breach::Moved { from: 4 });

    let mut twice = keyed(3);
    twice.0.insert(1, twice.0[0].clone());
    assert_broken(&twice, &keys, 1, Breach::Unlinked);

    // A row of another log with the same key.
    let mut foreign = keyed(3);
    let mut other = change("foreign");
    other.actor = "mallory".to_owned();
    let (first, head) = next(None, &other, 10, &key("k1")).unwrap();
    let (second, _) = next(Some(&head), &other, 20, &key("k1")).unwrap();
    foreign.0[1] = second;
    assert_broken(&foreign, &keys, 2, Breach::Unlinked);
    foreign.0[0] = first;
    assert_broken(&foreign, &keys, 3, Breach::Unlinked);
}

#[test]
fn a_tail_that_was_cut_off_is_missed() {
    for key in [AuditKey::keyless(), key("k1")] {
        let keys = [key.clone()];
        for left in 0..5 {
            let mut log = log(&vec![key.clone(); 5]);
            log.0.truncate(left);
            let why = Breach::CutOff { last: 5 };
            assert_broken(&log, &keys, left as u64 + 1, why);
        }
    }
    let keys = [key("k1")];
    let (rows, head) = keyed(5);
    assert_broken(&(rows.clone(), None), &keys, 5, Breach::HeadRemoved);

    // A head made to fit what is left.
    let mut fitted = head.clone().unwrap();
    (fitted.seq, fitted.hash) = (3, rows[2].hash);
    let cut = (rows[..3].to_vec(), Some(fitted.clone()));
    assert_broken(&cut, &keys, 3, Breach::HeadAltered);
    fitted.key_id = None;
    fitted.mac = AuditKey::keyless().digest(&fitted.bytes());
    let cut = (rows[..3].to_vec(), Some(fitted));
    assert_broken(&cut, &keys, 3, Breach::HeadMismatch);

    // An old head beside newer rows.
    let (_, old) = keyed(4);
    assert_broken(&(rows, old), &keys, 5, Breach::HeadMismatch);
}

#[test]
fn keys_that_are_wrong_or_missing_are_told_from_alterations() {
    let mut log = log(&[key("k1"), key("k1"), key("k2")]);
    let wrong = AuditKey::from_secret("k1", b"something else");
    let why = Breach::WrongKey {
        key_id: "k1".to_owned(),
    };
    assert_broken(&log, &[wrong.clone(), key("k2")], 1, why.clone());
    let unknown = Breach::UnknownKey {
        key_id: "k2".to_owned(),
    };
    assert_broken(&log, &[key("k1")], 3, unknown.clone());
    let none = Breach::UnknownKey {
        key_id: "k1".to_owned(),
    };
    assert_broken(&log, &[], 1, none);

    // With no key proven it may be either.
    log.0[0].change.actor.clear();
    assert_broken(&log, &[key("k1"), key("k2")], 1, why);
    log.0.remove(2);
    let (_, head) = keyed(2);
    assert_broken(&(log.0, head), &[key("k1")], 1, Breach::Altered);

    let claimed = {
        let mut claimed = keyed(2);
        claimed.0[1].key_id = Some("k2".to_owned());
        claimed
    };
    assert_broken(&claimed, &[key("k1")], 2, unknown);
}

#[test]
fn rows_without_a_key_are_not_taken_after_rows_with_one() {
    let (mut rows, head) = keyed(2);
    let head = AuditHead {
        key_id: None,
        ..head.unwrap()
    };
    let none = AuditKey::keyless();
    let (forged, head) = next(Some(&head), &change("forged"), 30, &none).unwrap();
    rows.push(forged);
    assert_broken(&(rows, Some(head)), &[key("k1")], 3, Breach::Unkeyed);
}

#[test]
fn keys_are_not_printed() {
    let key = AuditKey::from_secret("k1", b"hunter2");
    assert_eq!(format!("{key:?}"), "AuditKey(k1)");
    assert_eq!(format!("{:?}", AuditKey::keyless()), "AuditKey(keyless)");
}
