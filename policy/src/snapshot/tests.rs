use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::testing::{NOW, World, key};

fn hash(value: u8) -> KeyHash {
    KeyHash::of(&[value])
}

fn at(millis: u64) -> Timestamp {
    Timestamp(millis)
}

#[test]
fn keys_are_accepted_by_state_and_time() {
    let plain = || key("demo");
    check(plain(), "demo", 5, Ok("demo"));
    check(plain(), "Demo", 5, Err(KeyRefusal::Unknown));
    let inactive = VirtualKey {
        active: false,
        ..plain()
    };
    check(inactive.clone(), "demo", 5, Err(KeyRefusal::Inactive));
    let from = at(10);
    let later = VirtualKey {
        not_before: Some(from),
        ..plain()
    };
    check(
        later.clone(),
        "demo",
        9,
        Err(KeyRefusal::NotYetValid { from }),
    );
    check(later, "demo", 10, Ok("demo"));
    let expiring = VirtualKey {
        expires_at: Some(at(10)),
        ..inactive
    };
    check(expiring.clone(), "demo", 9, Err(KeyRefusal::Inactive));
    check(
        expiring,
        "demo",
        10,
        Err(KeyRefusal::Expired { at: at(10) }),
    );
    let rotated = VirtualKey {
        retiring: vec![
            (KeyHash::of(b"old"), at(10)),
            (KeyHash::of(b"older"), at(5)),
            (KeyHash::of(b"demo"), at(1)),
        ],
        ..plain()
    };
    for (value, now, expected) in [
        ("demo", 9, Ok("demo")),
        ("old", 9, Ok("demo")),
        ("old", 10, Err(KeyRefusal::Unknown)),
        ("older", 4, Ok("demo")),
        ("older", 5, Err(KeyRefusal::Unknown)),
    ] {
        check(rotated.clone(), value, now, expected);
    }
}

/// A gateway with one key takes `value` like this.
#[track_caller]
fn check(key: VirtualKey, value: &str, now: u64, expected: Result<&str, KeyRefusal>) {
    let snapshot = Snapshot::new(1, BaseParts::default(), [key]);
    let found = snapshot.authenticate(&KeyHash::of(value.as_bytes()), at(now));
    assert_eq!(found.map(|key| &*key.name), expected, "{value} at {now}");
}

#[test]
fn a_revoked_value_stays_refused() {
    let old = KeyHash::of(b"old");
    let rotated = VirtualKey {
        retiring: vec![(old, at(10))],
        ..key("demo")
    };
    let current = rotated.hash;
    let empty = Snapshot::default();
    let snapshot = empty.with_key(1, rotated.clone()).with_revoked(2, old);
    let state = |snapshot: &Snapshot, hash| snapshot.authenticate(hash, at(1)).err();
    assert_eq!(state(&snapshot, &old), Some(KeyRefusal::Revoked));
    assert_eq!(state(&snapshot, &current), None);
    // The value in force stands for the whole key.
    let snapshot = empty.with_revoked(1, current).with_key(2, rotated.clone());
    assert_eq!(state(&snapshot, &current), Some(KeyRefusal::Revoked));
    assert_eq!(state(&snapshot, &old), Some(KeyRefusal::Revoked));
    assert!(snapshot.is_revoked(&current) && !snapshot.is_revoked(&old));
    // Without its key, and on another base, too.
    let gone = snapshot
        .without_key(3, "demo")
        .with_base(4, BaseParts::default());
    assert_eq!(state(&gone, &current), Some(KeyRefusal::Revoked));
    assert_eq!(state(&gone, &old), Some(KeyRefusal::Unknown));
    // A new value brings the key back.
    let value = hash(9);
    let renewed = VirtualKey {
        hash: value,
        retiring: vec![(current, at(10))],
        ..rotated
    };
    let snapshot = snapshot.with_key(5, renewed);
    assert_eq!(state(&snapshot, &value), None);
    assert_eq!(state(&snapshot, &current), Some(KeyRefusal::Revoked));
    let snapshot = snapshot.without_revoked(6, &current);
    assert_eq!(state(&snapshot, &current), None);
    assert_eq!(snapshot.revision(), 6);
}

#[test]
fn a_snapshot_is_not_changed_by_the_next() {
    let first = Snapshot::new(7, BaseParts::default(), [key("a"), key("b")]);
    let second = first
        .with_key(
            8,
            VirtualKey {
                hash: hash(1),
                ..key("a")
            },
        )
        .without_key(9, "b");
    assert_eq!((first.revision(), second.revision()), (7, 9));
    assert_eq!((first.key_count(), second.key_count()), (2, 1));
    assert!(first.key(&KeyHash::of(b"a")).is_some());
    assert!(first.key(&hash(1)).is_none());
    assert!(second.key(&KeyHash::of(b"a")).is_none());
    assert_eq!(&*second.key(&hash(1)).unwrap().name, "a");
}

#[test]
fn the_base_is_found_by_name() {
    let world = World::new(&[("team", &["1 concurrent"]), ("gpt", &["1 concurrent"])]);
    let snapshot = &world.snapshot;
    assert_eq!(snapshot.provider_named("azure"), Some(ProviderId(1)));
    assert_eq!(snapshot.provider_named("Azure"), None);
    assert_eq!(snapshot.model_of("azure", "gpt"), Some(ModelId(1)));
    assert_eq!(snapshot.model_of("openai", "mini"), None);
    assert_eq!(snapshot.model_of("other", "gpt"), None);
    assert!(snapshot.bare_model_scope("gpt").is_some());
    assert!(snapshot.bare_model_scope("mini").is_none());
    assert!(snapshot.team("red").unwrap().scope.is_some());
    assert!(snapshot.customer("acme").unwrap().scope.is_none());
    assert!(snapshot.team("acme").is_none());
    assert_eq!(
        snapshot.customer_of(&world.key).map(|name| &**name),
        Some("acme")
    );
    assert!(snapshot.global().is_none() && snapshot.users().is_none());
    assert_eq!(snapshot.providers().len(), 2);
    assert_eq!(snapshot.models().len(), 3);
    // A base without them leaves the key with nothing.
    let bare = snapshot.with_base(2, BaseParts::default());
    assert!(bare.authenticate(&world.key.hash, NOW).is_ok());
    assert_eq!(bare.customer_of(&world.key), None);
}

/// A change of the keys.
#[derive(Clone, Debug)]
enum Change {
    /// Name, value, retiring values.
    Put(u8, u8, Vec<u8>),
    Remove(u8),
    Revoke(u8),
    Pardon(u8),
    Rebase,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    // Few names and values, so that they meet.
    let change = prop_oneof![
        6 => (0_u8..12, 0_u8..20, prop::collection::vec(0_u8..20, 0..3))
            .prop_map(|(name, value, retiring)| Change::Put(name, value, retiring)),
        3 => (0_u8..12).prop_map(Change::Remove),
        1 => (0_u8..20).prop_map(Change::Revoke),
        1 => (0_u8..20).prop_map(Change::Pardon),
        1 => Just(Change::Rebase),
    ];
    prop::collection::vec(change, 1..30)
}

/// The same keys in plain maps.
#[derive(Clone, Debug, Default)]
struct Model {
    /// Name to value and retiring values.
    keys: BTreeMap<String, (u8, Vec<u8>)>,
    /// Value to the name that it was last put with.
    owners: BTreeMap<u8, String>,
    revoked: BTreeSet<u8>,
}

impl Model {
    fn remove(&mut self, name: &str) {
        self.keys.remove(name);
        self.owners.retain(|_, owner| owner != name);
    }

    fn take(&mut self, change: &Change) {
        match change {
            Change::Put(name, value, retiring) => {
                let name = format!("k{name}");
                self.remove(&name);
                for value in retiring.iter().chain([value]) {
                    self.owners.insert(*value, name.clone());
                }
                self.keys.insert(name, (*value, retiring.clone()));
            }
            Change::Remove(name) => self.remove(&format!("k{name}")),
            Change::Revoke(value) => {
                self.revoked.insert(*value);
            }
            Change::Pardon(value) => {
                self.revoked.remove(value);
            }
            Change::Rebase => {}
        }
    }

    fn authenticate(&self, value: u8) -> Result<&str, KeyRefusal> {
        if self.revoked.contains(&value) {
            return Err(KeyRefusal::Revoked);
        }
        let name = self.owners.get(&value).ok_or(KeyRefusal::Unknown)?;
        if self.revoked.contains(&self.keys[name].0) {
            return Err(KeyRefusal::Revoked);
        }
        Ok(name)
    }
}

fn changed(snapshot: &Snapshot, revision: u64, change: &Change) -> Snapshot {
    match change {
        Change::Put(name, value, retiring) => {
            let put = VirtualKey {
                hash: hash(*value),
                retiring: retiring
                    .iter()
                    .map(|value| (hash(*value), at(10)))
                    .collect(),
                ..key(&format!("k{name}"))
            };
            snapshot.with_key(revision, put)
        }
        Change::Remove(name) => snapshot.without_key(revision, &format!("k{name}")),
        Change::Revoke(value) => snapshot.with_revoked(revision, hash(*value)),
        Change::Pardon(value) => snapshot.without_revoked(revision, &hash(*value)),
        Change::Rebase => snapshot.with_base(revision, BaseParts::default()),
    }
}

fn compare(snapshot: &Snapshot, model: &Model) {
    let names: Vec<&str> = snapshot.keys().map(|key| &*key.name).collect();
    let expected: Vec<&str> = model.keys.keys().map(String::as_str).collect();
    assert_eq!(names, expected);
    assert_eq!(snapshot.key_count(), expected.len());
    for (position, name) in expected.iter().enumerate() {
        let after: Vec<&str> = snapshot
            .keys_after(Some(name))
            .map(|key| &*key.name)
            .collect();
        assert_eq!(after, expected[position + 1..]);
        assert_eq!(
            snapshot.key_named(name).unwrap().hash,
            hash(model.keys[*name].0)
        );
    }
    for value in 0..20 {
        let found = snapshot.authenticate(&hash(value), at(1));
        assert_eq!(
            found.map(|key| &*key.name),
            model.authenticate(value),
            "{value}"
        );
        // The map by hash leads to the key of that name, never to an old one.
        if let Some(key) = snapshot.key(&hash(value)) {
            assert!(Arc::ptr_eq(key, snapshot.key_named(&key.name).unwrap()));
        }
    }
}

proptest! {
    #[test]
    fn persistent_maps_do_what_plain_maps_do(changes in changes()) {
        let mut snapshot = Snapshot::default();
        let mut model = Model::default();
        let mut history = Vec::new();
        for (revision, change) in (1..).zip(&changes) {
            history.push((snapshot.clone(), model.clone()));
            snapshot = changed(&snapshot, revision, change);
            model.take(change);
            prop_assert_eq!(snapshot.revision(), revision);
            compare(&snapshot, &model);
        }
        // Whoever still holds an earlier one sees what it was.
        for (snapshot, model) in &history {
            compare(snapshot, model);
        }
    }
}
