//! Virtual keys: one at a time, rotated, revoked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use policy::{KeyHash, KeyRefusal, VirtualKey};

use super::world::{NOW, World, actor, json};
use crate::config::catalogue::{Kind, WriteRefusal};
use crate::upstream::Secret;

fn find(world: &World, value: &Secret) -> Result<Arc<VirtualKey>, KeyRefusal> {
    let hash = KeyHash::of(value.expose().as_bytes());
    let now = policy::Clock::now(&*world.clock);
    world.live().policy.authenticate(&hash, now).cloned()
}

#[test]
fn a_value_is_made_and_shown_once() {
    let world = World::new();
    let body = r#"{"name": "k", "team": "search", "providers": [{"name": "openai", "budgets": [{"limit_usd": 1, "every": "1d"}]}]}"#;
    let made = world
        .catalogue()
        .create(Kind::VirtualKey, json(body), &actor());
    let made = made.expect("it is right");
    let value = made.value.expect("it was made here");
    assert!(value.expose().starts_with("sk-tyr-"));
    let key = find(&world, &value).expect("it is known");
    assert_eq!(&*key.grants[0].provider, "openai");
    let scope = key.grants[0].scope.as_ref().expect("it has limits");
    assert_eq!(&*scope.entity, "k/openai");
    assert_eq!(made.shown.body["sha256"], "***");
    let everything = format!(
        "{:?} {:?} {:?}",
        world.shelf.entities(),
        world.shelf.changes(),
        world.live()
    );
    assert!(!everything.contains(value.expose()));
    let hash = hex::encode(KeyHash::of(value.expose().as_bytes()).0);
    assert!(!format!("{:?} {:?}", world.shelf.changes(), world.live()).contains(&hash));
    // What was read can be written: the value stays.
    let again = world
        .catalogue()
        .replace(Kind::VirtualKey, "k", made.shown.body, None, &actor())
        .expect("*** is unchanged");
    assert!(again.value.is_none());
    find(&world, &value).expect("it is still known");
    let restarted = World::of(super::world::FILE, Arc::clone(&world.shelf));
    find(&restarted, &value).expect("the store has it");
}

#[test]
fn a_callers_own_value_is_kept_as_a_hash() {
    let world = World::new();
    let body = r#"{"name": "k", "value": "sk-brought-along-0123"}"#;
    let made = world
        .catalogue()
        .create(Kind::VirtualKey, json(body), &actor());
    assert!(made.expect("it is right").value.is_none());
    let value = Secret::new("sk-brought-along-0123".to_owned());
    find(&world, &value).expect("it is known");
    let stored = format!("{:?}", world.shelf.entities());
    assert!(!stored.contains("sk-brought-along"), "{stored}");
}

#[test]
fn a_rotated_value_is_accepted_for_its_grace() {
    let world = World::new();
    let catalogue = world.catalogue();
    let create = |name: &str| {
        let body = json(&format!(r#"{{"name": "{name}"}}"#));
        let made = catalogue.create(Kind::VirtualKey, body, &actor());
        made.expect("it is right").value.expect("it was made here")
    };
    let first = create("k");
    let grace = Duration::from_secs(60);
    let rotated = catalogue
        .rotate("k", grace, &actor())
        .expect("it is of the API");
    assert_eq!(rotated.shown.body["retiring"][0]["sha256"], "***");
    let second = rotated.value.expect("it was made here");
    let written = catalogue.replace(Kind::VirtualKey, "k", rotated.shown.body, None, &actor());
    written.expect("what was read can be written");
    find(&world, &first).expect("within its grace");
    find(&world, &second).expect("the new one");
    // The clock shows whole milliseconds: it may have been almost one later.
    world.clock.set(NOW.plus(grace));
    find(&world, &first).expect("not a moment less than its grace");
    world
        .clock
        .set(NOW.plus(grace).plus(Duration::from_millis(1)));
    assert_eq!(
        find(&world, &first).expect_err("its time is over"),
        KeyRefusal::Unknown
    );
    let third = catalogue
        .rotate("k", Duration::ZERO, &actor())
        .expect("it is of the API");
    assert_eq!(
        find(&world, &second).expect_err("no grace"),
        KeyRefusal::Unknown
    );
    find(&world, &third.value.expect("made here")).expect("the newest one");
    let refused = catalogue.rotate("filed", grace, &actor());
    assert!(
        matches!(refused, Err(WriteRefusal::FileOwned { place }) if place.ends_with("t.yaml:10"))
    );
    assert!(matches!(
        catalogue.rotate("none", grace, &actor()),
        Err(WriteRefusal::NotFound)
    ));
}

#[test]
fn a_revoked_key_is_refused_with_or_without_the_store() {
    let world = World::new();
    let catalogue = world.catalogue();
    let value = catalogue
        .create(Kind::VirtualKey, json(r#"{"name": "k"}"#), &actor())
        .expect("it is right")
        .value
        .expect("it was made here");
    let filed = Secret::new("sk-tyr-of-the-file-0".to_owned());
    assert!(
        catalogue
            .revoke("k", &actor())
            .expect("it is there")
            .persisted
    );
    world.shelf.away.store(true, Ordering::SeqCst);
    assert!(
        !catalogue
            .revoke("filed", &actor())
            .expect("it is there")
            .persisted
    );
    for value in [&value, &filed] {
        assert_eq!(
            find(&world, value).expect_err("refused"),
            KeyRefusal::Revoked
        );
    }
    world.reload(super::world::FILE).expect("it is right");
    assert_eq!(
        find(&world, &filed).expect_err("refused"),
        KeyRefusal::Revoked
    );
    assert_eq!(
        catalogue.revoke("none", &actor()),
        Err(WriteRefusal::NotFound)
    );
    world.shelf.away.store(false, Ordering::SeqCst);
    let restarted = World::of(super::world::FILE, Arc::clone(&world.shelf));
    assert_eq!(
        find(&restarted, &value).expect_err("refused"),
        KeyRefusal::Revoked
    );
}

#[test]
fn one_key_changed_leaves_ten_thousand_alone() {
    let world = World::new();
    for index in 0..10_000 {
        let body = format!(
            r#"{{"name": "k{index}", "sha256": "{index:064x}", "team": "search", "rate_limits": [{{"requests": 5, "every": "1m"}}]}}"#
        );
        world
            .shelf
            .elsewhere("virtual_key", &format!("k{index}"), Some(&body));
    }
    world.catalogue().poll();
    let before = world.live();
    assert_eq!(before.policy.key_count(), 10_001);
    let body = json(&format!(
        r#"{{"name": "k7", "sha256": "{:064x}", "active": false}}"#,
        7
    ));
    world
        .catalogue()
        .replace(Kind::VirtualKey, "k7", body, None, &actor())
        .expect_err("the shelf never had it: the store decides");
    world
        .catalogue()
        .create(Kind::VirtualKey, json(r#"{"name": "new"}"#), &actor())
        .expect("it is right");
    let after = world.live();
    for key in before.policy.keys() {
        let same = after.policy.key_named(&key.name).expect("it is there");
        assert!(Arc::ptr_eq(key, same), "{}", key.name);
    }
    assert!(Arc::ptr_eq(&before.upstreams, &after.upstreams));
    assert!(Arc::ptr_eq(&before.redacted, &after.redacted));
    // A change of the base leaves the keys alone as well.
    world
        .catalogue()
        .create(Kind::Customer, json(r#"{"name": "big"}"#), &actor())
        .expect("it is right");
    let last = world.live();
    let key =
        |live: &crate::state::Live| live.policy.key_named("k7").cloned().expect("it is there");
    assert!(Arc::ptr_eq(&key(&before), &key(&last)));
}

#[test]
fn a_key_is_refused_at_once_and_stays_so_while_a_write_waits_for_the_store() {
    let world = World::new();
    let filed = Secret::new("sk-tyr-of-the-file-0".to_owned());
    find(&world, &filed).expect("it is of the file");
    let (catalogue, live) = (
        Arc::clone(&world.started.catalogue),
        Arc::clone(&world.started.live),
    );
    let during = move || {
        // The write holds the lock here, and what it lets run is made already.
        catalogue.refuse("filed", &actor());
        let hash = KeyHash::of(b"sk-tyr-of-the-file-0");
        let found = live.load().policy.authenticate(&hash, NOW).cloned();
        assert_eq!(found.expect_err("refused at once"), KeyRefusal::Revoked);
    };
    *world.shelf.during.lock().expect("no panic") = Some(Box::new(during));
    let team = json(r#"{"name": "late"}"#);
    let made = world.catalogue().create(Kind::Team, team, &actor());
    made.expect("it is right");
    let still = find(&world, &filed).expect_err("the write does not give it back");
    assert_eq!(still, KeyRefusal::Revoked);
}

#[test]
fn a_revocation_finds_the_value_that_a_rotation_makes_meanwhile() {
    let world = World::new();
    let catalogue = world.catalogue();
    let made = catalogue.create(Kind::VirtualKey, json(r#"{"name": "k"}"#), &actor());
    made.expect("it is right");
    let (sent, revoked) = std::sync::mpsc::sync_channel(1);
    let other = Arc::clone(&world.started.catalogue);
    let live = Arc::clone(&world.started.live);
    let during = move || {
        let thread = std::thread::spawn(move || other.revoke("k", &actor()));
        let hash = |live: &crate::state::Live| live.policy.key_named("k").map(|key| key.hash);
        let hash = hash(&live.load()).expect("it is there");
        // The rotation goes on once the revocation has begun.
        while live.load().policy.authenticate(&hash, NOW).is_ok() {
            std::thread::yield_now();
        }
        sent.send(thread).expect("the test waits for it");
    };
    *world.shelf.during.lock().expect("no panic") = Some(Box::new(during));
    let rotated = catalogue.rotate("k", Duration::ZERO, &actor());
    let value = rotated.expect("it is of the API").value.expect("made here");
    let thread = revoked.recv().expect("it was begun");
    let revoked = thread.join().expect("no panic").expect("it is there");
    assert!(revoked.persisted);
    assert_eq!(
        find(&world, &value).expect_err("refused"),
        KeyRefusal::Revoked
    );
}
