//! What other nodes push, and what they are told.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use cluster::audit::AuditKey;
use cluster::{Change, ConfigurationMark, Entity, EntityLog, Node, NodeConfig, StoreConfig};
use policy::{CounterTable, KeyHash, KeyRefusal, ManualClock};
use tempfile::TempDir;

use super::world::{FILE, NOW, Shelf, World, actor, json};
use crate::config::catalogue::{Class, Fleet, Kind, Ledger};
use crate::config::file::SecretText;
use crate::state::Live;

/// One class of entities: its name, two bodies that differ, and whether what
/// runs has it.
struct Case {
    class: Class,
    name: &'static str,
    bodies: [&'static str; 2],
    runs: fn(&Live) -> bool,
}

const HASH: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const LIMIT: &str = "virtual_key/filed/requests/1m/sliding";

fn limit_of_file(live: &Live) -> policy::Limit {
    let key = live.policy.key_named("filed").expect("it is of the file");
    key.scope.as_ref().expect("it has a limit").limits[0].clone()
}

#[rustfmt::skip] // one class a line, as far as it goes
fn cases() -> Vec<Case> {
    let of = |class, name, bodies, runs| Case { class, name, bodies, runs };
    vec![
        of(Class::Of(Kind::Customer), "c", [r#"{"name":"c"}"#, r#"{"name":"c","budgets":[{"limit_usd":"1","every":"1d"}]}"#],
            |live| live.policy.customer("c").is_some()),
        of(Class::Of(Kind::Team), "t", [r#"{"name":"t"}"#, r#"{"name":"t","customer":"acme"}"#],
            |live| live.policy.team("t").is_some()),
        of(Class::Of(Kind::Provider), "p", [
            r#"{"name":"p","kind":"openai","base_url":"https://b.example","keys":[{"name":"k","value":"sk-b"}]}"#,
            r#"{"name":"p","kind":"openai","base_url":"https://c.example","keys":[{"name":"k","value":"sk-b"}]}"#,
        ], |live| live.policy.provider_named("p").is_some()),
        of(Class::Of(Kind::Model), "openai/m", [
            r#"{"name":"m","provider":"openai","price":"free"}"#,
            r#"{"name":"m","provider":"openai","price":{"input":"1","output":"2"}}"#,
        ], |live| live.policy.model_of("openai", "m").is_some()),
        of(Class::Of(Kind::VirtualKey), "k", [
            r#"{"name":"k","sha256":"1111111111111111111111111111111111111111111111111111111111111112"}"#,
            r#"{"name":"k","team":"search","sha256":"1111111111111111111111111111111111111111111111111111111111111112"}"#,
        ], |live| live.policy.key_named("k").is_some()),
        of(Class::Of(Kind::RoutingRule), "r", [
            r#"{"name":"r","when":"true","targets":[{"provider":"openai","model":"gpt","weight":1}]}"#,
            r#"{"name":"r","when":"false","targets":[{"provider":"openai","model":"gpt","weight":1}]}"#,
        ], |live| live.policy.rules().iter().any(|rule| &*rule.spec().name == "r")),
        of(Class::Of(Kind::AdminToken), "a", [
            r#"{"name":"a","role":"viewer","sha256":"1111111111111111111111111111111111111111111111111111111111111113"}"#,
            r#"{"name":"a","role":"admin","sha256":"1111111111111111111111111111111111111111111111111111111111111113"}"#,
        ], |live| live.admin.tokens.iter().any(|token| &*token.name == "a")),
        of(Class::Of(Kind::Role), "desk", [
            r#"{"name":"desk","permissions":[{"resource":"teams","operations":["read"]}]}"#,
            r#"{"name":"desk","permissions":[{"resource":"teams","operations":["*"]}]}"#,
        ], |live| live.entries.stored(Kind::Role, "desk").is_some()),
        of(Class::Of(Kind::LimitOverride), LIMIT, [
            r#"{"limit":"virtual_key/filed/requests/1m/sliding","amount":3}"#,
            r#"{"limit":"virtual_key/filed/requests/1m/sliding","amount":4}"#,
        ], |live| limit_of_file(live).overridden.is_some()),
        of(Class::LimitReset, LIMIT, [r#"{"generation":1}"#, r#"{"generation":2}"#],
            |live| limit_of_file(live).id.generation > 0),
        of(Class::Revocation, HASH, ["{}", r#"{"by":"another"}"#], |live| {
            live.policy.authenticate(&KeyHash([0x11; 32]), NOW).err() == Some(KeyRefusal::Revoked)
        }),
    ]
}

/// What a peer sends of one entity.
fn entity(case: &Case, revision: u64, body: Option<&str>) -> Entity {
    Entity {
        kind: case.class.store_word().to_owned(),
        name: case.name.to_owned(),
        revision,
        body: body.map(Into::into),
        changed_at: NOW,
    }
}

/// Where the entity stands: the body it runs with, if it runs.
#[track_caller]
fn stands(world: &World, case: &Case, expected: Option<&str>) -> Arc<Live> {
    let live = world.live();
    let stored = live.entries.stored(case.class, case.name);
    let word = case.class.store_word();
    assert_eq!(stored.map(|stored| &*stored.body), expected, "{word}");
    assert_eq!((case.runs)(&live), expected.is_some(), "{word}");
    live
}

#[test]
fn every_class_is_in_the_table() {
    let covered: Vec<&str> = cases().iter().map(|case| case.class.store_word()).collect();
    let all: Vec<&str> = Class::all().map(Class::store_word).collect();
    assert_eq!(covered, all);
}

#[test]
fn every_kind_comes_from_a_peer_once_and_in_any_order() {
    for case in cases() {
        let world = World::new();
        let [one, two] = case.bodies.map(Some);
        let push = |revision, body: Option<&str>| {
            world.shelf.pushed(entity(&case, revision, body));
            world.catalogue().poll();
        };
        stands(&world, &case, None);
        push(10, one);
        stands(&world, &case, one);
        push(11, two);
        let replaced = stands(&world, &case, two);
        // Again, and an older one late: nothing happens at all.
        push(11, two);
        push(10, one);
        assert!(Arc::ptr_eq(&replaced, &stands(&world, &case, two)));
        push(12, None);
        let gone = stands(&world, &case, None);
        push(12, None);
        push(11, two);
        assert!(Arc::ptr_eq(&gone, &stands(&world, &case, None)));
        // A new one of the name is news.
        push(13, one);
        stands(&world, &case, one);
    }
}

/// A node whose entity log is the real one.
fn real(folder: &TempDir) -> (Node, EntityLog) {
    let data_dir = folder.path().join("data");
    let config = NodeConfig {
        store: StoreConfig::Sqlite {
            path: data_dir.join("tyr.db"),
        },
        data_dir,
        take_over: false,
        audit: AuditKey::keyless(),
        cluster: None,
        counters: Arc::new(CounterTable::new()),
    };
    let node = cluster::start(config, Arc::new(ManualClock::new(NOW))).expect("the node starts");
    let log = node.entities();
    (node, log)
}

#[test]
fn every_kind_passes_through_the_log_as_a_peer_offers_it() {
    let folder = TempDir::new().expect("a folder");
    let (node, log) = real(&folder);
    let fleet = Arc::new(Told::default());
    let world = World::with(
        FILE,
        Arc::default(),
        Arc::new(log.clone()),
        Some(fleet.clone()),
    );
    let mut at = 0;
    for case in cases() {
        let [one, two] = case.bodies.map(Some);
        let offer = |after, body| {
            let taken = log.offer(after, vec![entity(&case, after + 1, body)]);
            world.catalogue().poll();
            taken
        };
        assert!(offer(at, one));
        stands(&world, &case, one);
        assert!(!offer(at, one), "the same again is no news");
        // The next but one waits for the next.
        assert!(offer(at + 2, None));
        stands(&world, &case, one);
        assert!(offer(at + 1, two));
        stands(&world, &case, None);
        at += 3;
        assert_eq!(fleet.applied(), Some(at));
    }
    drop(world);
    drop(log);
    node.stop();
}

/// What the other nodes were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    said: Mutex<Vec<String>>,
    applied: Mutex<Vec<u64>>,
    marks: Mutex<Vec<ConfigurationMark>>,
}

impl Told {
    fn say(&self, text: String) {
        self.said.lock().expect("no panic").push(text);
    }

    fn said(&self) -> Vec<String> {
        std::mem::take(&mut *self.said.lock().expect("no panic"))
    }

    fn applied(&self) -> Option<u64> {
        self.applied.lock().expect("no panic").last().copied()
    }
}

impl Fleet for Told {
    fn announce(&self, entities: Vec<Entity>) {
        for entity in entities {
            self.say(format!(
                "{} {}@{}",
                entity.kind, entity.name, entity.revision
            ));
        }
    }

    fn revoke(&self, hash: &str, change: &Change) {
        self.say(format!("revoke {} by {}", &hash[..8], change.actor));
    }

    fn revocation_applied(&self, hash: &str) {
        self.say(format!("applied {}", &hash[..8]));
    }

    fn applied(&self, revision: u64) {
        self.applied.lock().expect("no panic").push(revision);
    }

    fn set_configuration(&self, mark: ConfigurationMark) {
        self.marks.lock().expect("no panic").push(mark);
    }

    fn set_secrets(&self, _secrets: &[SecretText]) {}
}

fn in_cluster() -> (World, Arc<Told>) {
    let (shelf, fleet) = (Arc::<Shelf>::default(), Arc::new(Told::default()));
    let ledger = Arc::clone(&shelf) as Arc<dyn Ledger>;
    (World::with(FILE, shelf, ledger, Some(fleet.clone())), fleet)
}

fn revocation() -> Change {
    Change {
        at: NOW,
        actor: "ops".to_owned(),
        peer: "10.0.0.2".to_owned(),
        action: "revoke".to_owned(),
        kind: "virtual_key".to_owned(),
        name: "filed".to_owned(),
        before: None,
        after: None,
    }
}

#[test]
fn others_are_told_of_a_write_once_it_runs_and_of_the_file() {
    let (world, fleet) = in_cluster();
    assert_eq!(fleet.marks.lock().expect("no panic").len(), 1);
    assert_eq!(fleet.applied(), Some(0));
    let catalogue = world.catalogue();
    let team = || json(r#"{"name": "late"}"#);
    catalogue
        .create(Kind::Team, team(), &actor())
        .expect("it is right");
    assert_eq!(fleet.said(), ["team late@1"]);
    assert_eq!(fleet.applied(), Some(1));
    let gone = catalogue.delete(Kind::Team, "late", None, &actor());
    assert_eq!(gone, Ok(2));
    assert_eq!(fleet.said(), ["team late@2"]);
    // A write that the store refuses is no news.
    world.shelf.away.store(true, Ordering::SeqCst);
    let refused = catalogue.create(Kind::Team, team(), &actor());
    refused.expect_err("the store is away");
    assert_eq!((fleet.said(), fleet.applied()), (Vec::new(), Some(2)));
    world
        .reload(&FILE.replace("requests: 5", "requests: 6"))
        .expect("it is right");
    let marks = fleet.marks.lock().expect("no panic");
    assert_eq!(marks.len(), 2);
    assert_ne!(marks[0].hash, marks[1].hash);
}

#[test]
fn a_revocation_of_this_node_is_told_before_the_store_is_asked() {
    let (world, fleet) = in_cluster();
    let (catalogue, told) = (Arc::clone(&world.started.catalogue), Arc::clone(&fleet));
    let during = move || {
        // A write holds the lock and the store: the others hear of it even so.
        catalogue.refuse("filed", &actor());
        let said = told.said();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("revoke ") && said[0].ends_with(" by ops"));
    };
    *world.shelf.during.lock().expect("no panic") = Some(Box::new(during));
    let team = json(r#"{"name": "late"}"#);
    let made = world.catalogue().create(Kind::Team, team, &actor());
    made.expect("it is right");
}

#[test]
fn a_revocation_of_a_peer_is_in_force_while_a_write_hangs() {
    let (world, fleet) = in_cluster();
    let hash = KeyHash::of(b"sk-tyr-of-the-file-0");
    let text = hex::encode(hash.0);
    let refused = |live: &Live| live.policy.authenticate(&hash, NOW).err();
    assert_eq!(refused(&world.live()), None);
    let (catalogue, live) = (
        Arc::clone(&world.started.catalogue),
        Arc::clone(&world.started.live),
    );
    let (told, heard) = (Arc::clone(&fleet), text.clone());
    let during = move || {
        // The lock of all changes is held by a write that waits for the store.
        catalogue.adopt(&heard, &revocation());
        let found = live.load().policy.authenticate(&hash, NOW).err();
        assert_eq!(found, Some(KeyRefusal::Revoked));
        assert_eq!(told.said(), [format!("applied {}", &heard[..8])]);
    };
    *world.shelf.during.lock().expect("no panic") = Some(Box::new(during));
    let team = json(r#"{"name": "late"}"#);
    let made = world.catalogue().create(Kind::Team, team, &actor());
    made.expect("it is right");
    assert_eq!(refused(&world.live()), Some(KeyRefusal::Revoked));
    assert_eq!(world.shelf.adopted(), [text.as_str()]);
    // It is a part of what runs from the next look on, and outlives a reload.
    world.catalogue().poll();
    let stored = world
        .live()
        .entries
        .stored(Class::Revocation, &text)
        .cloned();
    assert!(stored.is_some());
    world.reload(FILE).expect("it is right");
    assert_eq!(refused(&world.live()), Some(KeyRefusal::Revoked));
    // Told again it changes nothing, and is said to be in force again.
    let before = world.live();
    world.catalogue().adopt(&text, &revocation());
    assert!(Arc::ptr_eq(&before, &world.live()));
    world.catalogue().adopt("no hash", &revocation());
    assert!(Arc::ptr_eq(&before, &world.live()));
}

#[test]
fn what_does_not_fit_here_is_not_said_to_be_in_force() {
    let (world, fleet) = in_cluster();
    let case = |name, body| Entity {
        kind: "team".to_owned(),
        name,
        revision: 7,
        body,
        changed_at: NOW,
    };
    let dangling = r#"{"name": "x", "customer": "nobody"}"#;
    world
        .shelf
        .pushed(case("x".to_owned(), Some(dangling.into())));
    world.catalogue().poll();
    assert!(world.live().misfit.is_some());
    assert_eq!(fleet.applied(), Some(0));
    // A write of this node brings it no nearer.
    let key = json(r#"{"name": "late"}"#);
    let made = world.catalogue().create(Kind::VirtualKey, key, &actor());
    made.expect("it is right");
    assert!(world.live().misfit.is_some());
    assert_eq!(fleet.applied(), Some(0));
}

#[test]
fn what_is_read_and_does_not_run_yet_is_not_said_to_be_in_force() {
    let (world, fleet) = in_cluster();
    let (catalogue, shelf) = (
        Arc::clone(&world.started.catalogue),
        Arc::clone(&world.shelf),
    );
    let polls: Arc<Mutex<Option<std::thread::JoinHandle<()>>>> = Arc::default();
    let polling = Arc::clone(&polls);
    let during = move || {
        // The write that has the lock waits for the store, and meanwhile a poll reads.
        shelf.elsewhere("team", "theirs", Some(r#"{"name": "theirs"}"#));
        let poll = std::thread::spawn(move || catalogue.poll());
        while !shelf.is_read() {
            std::thread::yield_now();
        }
        *polling.lock().expect("no panic") = Some(poll);
    };
    *world.shelf.during.lock().expect("no panic") = Some(Box::new(during));
    let team = json(r#"{"name": "late"}"#);
    let made = world.catalogue().create(Kind::Team, team, &actor());
    made.expect("it is right");
    let poll = polls.lock().expect("no panic").take();
    poll.expect("it began").join().expect("no panic");
    assert!(world.live().policy.team("theirs").is_some());
    // Once, by the poll: the write came before that ran.
    assert_eq!(*fleet.applied.lock().expect("no panic"), [0, 2]);
}

#[test]
fn what_a_peer_sent_is_said_to_be_in_force_though_the_store_is_away() {
    let (world, fleet) = in_cluster();
    world.shelf.away.store(true, Ordering::SeqCst);
    let team = &cases()[1];
    world.shelf.sent(entity(team, 1, Some(team.bodies[0])));
    world.catalogue().poll();
    stands(&world, team, Some(team.bodies[0]));
    assert_eq!(fleet.applied(), Some(1));
}
