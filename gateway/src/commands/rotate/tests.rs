//! Rotation against a real store.

use std::thread;

use cluster::audit::AuditKey;
use cluster::{StoreConfig, open_store};

use super::*;
use crate::upstream::Secret;

const CANARY: &str = "sk-canary-of-rotation";

fn ring(keys: &[(&str, char)]) -> KeyRing {
    let secret = |letter: char| Secret::new(letter.to_string().repeat(32));
    let keys = keys.iter();
    let keys = keys.map(|(id, letter)| ((*id).to_owned(), secret(*letter)));
    KeyRing::new(keys.collect()).expect("the keys are right")
}

fn old() -> KeyRing {
    ring(&[("k1", 'a')])
}

fn both() -> KeyRing {
    ring(&[("k2", 'b'), ("k1", 'a')])
}

struct World {
    folder: tempfile::TempDir,
    store: OpenStore,
}

fn world() -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tyr.db");
    let store = open_store(&StoreConfig::Sqlite { path }).expect("it opens");
    World { folder, store }
}

fn body(round: u64) -> Value {
    json!({"kind": "openai", "round": round, "keys": [{"name": "main", "value": CANARY}]})
}

/// Writes a provider, sealed by `ring`; `false` when somebody was faster.
fn put(store: &OpenStore, ring: &KeyRing, name: &str, expect: Expect, mut body: Value) -> bool {
    ring.seal_body("provider", name, &mut body)
        .expect("there is a key");
    let write = EntityWrite {
        kind: "provider".to_owned(),
        name: name.to_owned(),
        expect,
        body: Some(body.to_string()),
    };
    let change = Change {
        at: Timestamp(1),
        actor: "test".to_owned(),
        peer: "test".to_owned(),
        action: "replace".to_owned(),
        kind: "provider".to_owned(),
        name: name.to_owned(),
        before: None,
        after: None,
    };
    match store.write(&[write], &change, &audit_key(ring)) {
        Ok(_) => true,
        Err(WriteError::Stale { .. }) => false,
        Err(WriteError::Store(error)) => panic!("{error}"),
    }
}

fn find(store: &OpenStore, name: &str) -> Entity {
    let all = store.entities().expect("it reads");
    let found = all.into_iter().find(|entity| entity.name == name);
    found.expect("it is there")
}

fn parsed(entity: &Entity) -> Value {
    serde_json::from_str(entity.body.as_deref().expect("it was not deleted")).expect("JSON")
}

fn audit_keys(ring: &KeyRing) -> Vec<AuditKey> {
    let keys = ring.audit_keys().iter();
    keys.map(|key| AuditKey::from_secret(key.id(), key.expose()))
        .collect()
}

#[test]
fn every_secret_moves_to_the_first_key() {
    let World {
        store,
        folder: _folder,
    } = world();
    for name in ["openai", "anthropic"] {
        assert!(put(&store, &old(), name, Expect::Absent, body(0)));
    }
    let done = rotate(&store, &both(), Timestamp(2)).expect("the store is there");
    assert_eq!((done.resealed, done.current, done.failed), (2, 0, vec![]));
    let again = rotate(&store, &both(), Timestamp(3)).expect("the store is there");
    assert_eq!(
        (again.resealed, again.current),
        (0, 2),
        "it may be run again"
    );
    for name in ["openai", "anthropic"] {
        let mut found = parsed(&find(&store, name));
        assert_eq!(key_ids("provider", &found), ["k2".to_owned()].into());
        ring(&[("k2", 'b')])
            .open_body("provider", name, &mut found)
            .expect("the old key is not needed any more");
        assert_eq!(found, body(0));
    }
    let rows = store.audit(0, 100).expect("it reads");
    let row = &rows.last().expect("there are rows").change;
    assert_eq!(row.action, "rotate_keys");
    assert_eq!(row.before.as_deref(), Some(r#"{"encryption_keys":["k1"]}"#));
    assert_eq!(row.after.as_deref(), Some(r#"{"encryption_keys":["k2"]}"#));
    let verified = store.verify_audit(&audit_keys(&both()));
    assert_eq!(verified.expect("it is whole").rows, 4);
}

#[test]
fn a_missing_key_is_named_and_the_rest_is_done() {
    let World { store, folder } = world();
    assert!(put(&store, &old(), "openai", Expect::Absent, body(0)));
    assert!(put(
        &store,
        &ring(&[("k0", 'z')]),
        "azure",
        Expect::Absent,
        body(0)
    ));
    let done = rotate(&store, &both(), Timestamp(2)).expect("the store is there");
    assert_eq!(done.resealed, 1);
    assert_eq!(
        done.failed,
        [
            "provider 'azure', keys/main/value: it is sealed with encryption key 'k0', \
          which is not configured"
        ]
    );
    let opened = Opened {
        store,
        ring: both(),
    };
    let error = rotated(&opened).expect_err("one is left");
    let text = error.to_string();
    assert!(
        text.contains("0 entities anew, 1 already") && text.contains("'k0'"),
        "{text}"
    );
    drop(folder);
}

#[test]
fn what_holds_no_secret_is_left_alone() {
    let World {
        store,
        folder: _folder,
    } = world();
    let bare = json!({"kind": "openai", "keys": []});
    assert!(put(&store, &old(), "openai", Expect::Absent, bare));
    let before = find(&store, "openai");
    let done = rotate(&store, &both(), Timestamp(2)).expect("the store is there");
    assert_eq!(done, Rotated::default());
    assert_eq!(find(&store, "openai"), before);
}

#[test]
fn without_a_key_nothing_is_done() {
    let World {
        store,
        folder: _folder,
    } = world();
    assert!(put(&store, &old(), "openai", Expect::Absent, body(0)));
    let ring = KeyRing::default();
    let error = rotated(&Opened { store, ring }).expect_err("there is no key");
    assert!(error.to_string().contains("encryption.keys"), "{error}");
}

/// A node that still seals with the old key changes the provider all the time:
/// no change of it may be lost, and in the end all is sealed with the new one.
#[test]
fn changes_made_meanwhile_are_kept() {
    const ROUNDS: u64 = 200;
    let World {
        store,
        folder: _folder,
    } = world();
    assert!(put(&store, &old(), "openai", Expect::Absent, body(0)));
    let node = store.clone();
    let writer = thread::spawn(move || {
        let ring = ring(&[("k1", 'a'), ("k2", 'b')]);
        let mut round = 1;
        while round <= ROUNDS {
            let found = find(&node, "openai");
            assert_eq!(
                parsed(&found)["round"],
                round - 1,
                "the last change is there"
            );
            let expect = Expect::Revision(found.revision);
            round += u64::from(put(&node, &ring, "openai", expect, body(round)));
        }
    });
    while !writer.is_finished() {
        rotate(&store, &both(), Timestamp(2)).expect("the store is there");
    }
    writer.join().expect("no change was lost");
    let done = rotate(&store, &both(), Timestamp(3)).expect("the store is there");
    assert!(done.failed.is_empty(), "{:?}", done.failed);
    let found = parsed(&find(&store, "openai"));
    assert_eq!(found["round"], ROUNDS);
    assert_eq!(key_ids("provider", &found), ["k2".to_owned()].into());
    let verified = store.verify_audit(&audit_keys(&both()));
    verified.expect("the chain is whole");
}
