//! Who asks for the list and when, and what a new one changes.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use cluster::Outcome;
use policy::{Clock, CounterTable, ManualClock, Price, Timestamp};
use tempfile::TempDir;

use super::{AT, published};
use crate::config::{self, Environment, ReloaderParts, Started};
use crate::peers::Tasks;
use crate::prices::sync::Tries;
use crate::prices::{self, Fleet, Order, PriceBoard, PriceList, PriceSync, TASK};
use crate::state::Live;
use crate::telemetry::Metrics;
use crate::upstream::ClientPool;

/// A node whose one model has its price from a file.
struct World {
    folder: TempDir,
    live: Arc<ArcSwap<Live>>,
    clock: Arc<ManualClock>,
    sync: PriceSync,
}

/// A cluster that writes down what it is told.
#[derive(Default)]
struct Told {
    done: Mutex<Vec<Outcome>>,
    failed: Mutex<Vec<u64>>,
}

impl Fleet for Arc<Told> {
    fn done(&self, outcome: Outcome) {
        Fleet::done(&**self, outcome);
    }

    fn failed(&self, task: &str, term: u64) {
        Fleet::failed(&**self, task, term);
    }
}

impl Fleet for Told {
    fn done(&self, outcome: Outcome) {
        self.done.lock().expect("no panic holds it").push(outcome);
    }

    fn failed(&self, _task: &str, term: u64) {
        self.failed.lock().expect("no panic holds it").push(term);
    }
}

fn list(per_token: &str) -> String {
    format!(
        r#"{{"gpt": {{"litellm_provider": "openai", "input_cost_per_token": {per_token}, "output_cost_per_token": 0, "max_output_tokens": 77}}}}"#
    )
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let conf = format!(
            "version: 1\nserver: {{listen: 127.0.0.1:1}}\n\
             catalogue: {{source: {}, every: 1h}}\n\
             providers: [{{name: openai, kind: openai, base_url: https://a.example, keys: [{{name: k, value: sk-k}}]}}]\n\
             models: [{{name: gpt, provider: openai, price: catalogue}}, {{name: own, provider: openai, upstream_name: gpt, price: catalogue, max_output_tokens: 5}}]\n",
            folder.path().join("list.json").display()
        );
        let path = folder.path().join("tyr.yaml");
        fs::write(&path, conf).expect("a file");
        let clock = Arc::new(ManualClock::new(AT));
        let started = start(path, &clock);
        let sync = PriceSync {
            live: Arc::clone(&started.live),
            reloader: Arc::new(started.reloader),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            metrics: Arc::new(Metrics::new()),
            board: Arc::new(PriceBoard::default()),
            data_dir: folder.path().to_owned(),
        };
        World {
            folder,
            live: started.live,
            clock,
            sync,
        }
    }

    /// One look at this time, as a node that stands alone.
    async fn look(&self, tries: &mut Tries, at: Timestamp) {
        self.clock.set(at);
        self.sync.look(tries).await;
    }

    fn publish(&self, text: &str) {
        fs::write(self.folder.path().join("list.json"), text).expect("a file");
    }

    fn prices(&self) -> [(Price, Option<u64>); 2] {
        let live = self.live.load();
        [0, 1].map(|index| {
            let model = &live.policy.models()[index];
            (model.price, model.max_output_tokens)
        })
    }

    fn input(&self) -> Option<u64> {
        let price = self.prices()[0].0;
        price.is_known().then_some(price.input.0)
    }

    fn revision(&self) -> u64 {
        self.live.load().policy.revision()
    }
}

fn start(path: PathBuf, clock: &Arc<ManualClock>) -> Started {
    let parts = ReloaderParts {
        path,
        environment: Environment::of([].into(), PathBuf::new()),
        counters: Arc::new(CounterTable::new()),
        clients: Arc::new(ClientPool::new()),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        on_reload: Box::new(|_| {}),
    };
    config::start(parts).expect("the configuration is right")
}

#[test]
fn a_start_takes_the_last_good_list_or_the_file() {
    let world = World::new();
    world.sync.begin();
    assert_eq!(world.input(), None, "there is neither");
    assert_eq!(world.prices()[0].1, None);
    assert!(world.sync.board.state().error.is_some());
    world.publish(&list("2e-06"));
    world.sync.begin();
    assert_eq!(world.input(), Some(2_000_000_000));
    assert_eq!(world.prices()[0].1, Some(77));
    assert_eq!(world.prices()[1].1, Some(5), "what the file says wins");
    assert_eq!(world.revision(), 2);
    // The last good list is asked before the file.
    crate::prices::kept::keep(world.folder.path(), &published().to_bytes()).expect("kept");
    world.sync.begin();
    assert_eq!(world.input(), None, "that list does not have the model");
    assert_eq!(world.sync.board.state().models, 6);
    // A reload goes on with the list in use.
    world.sync.reloader.reload().expect("it is right");
    assert_eq!(world.live.load().pricing.list.len(), 6);
}

#[tokio::test]
async fn a_node_alone_asks_once_per_interval_and_when_the_file_changes() {
    let world = World::new();
    let mut tries = Tries::default();
    let state = || world.sync.board.state();
    world.publish(&list("1e-06"));
    let at = |millis| Timestamp(AT.0 + millis);
    world.look(&mut tries, AT).await;
    assert_eq!(world.input(), Some(1_000_000_000));
    assert_eq!((state().tried_at, world.revision()), (Some(AT), 2));
    // Nothing is due; time alone makes it so.
    world.look(&mut tries, at(3_599_999)).await;
    assert_eq!(state().tried_at, Some(AT));
    world.look(&mut tries, at(3_600_000)).await;
    assert_eq!(state().fetched_at, Some(at(3_600_000)));
    assert_eq!(world.revision(), 2, "no price has changed");
    // What is no list leaves the price, and is not read again for a while.
    world.publish("{}");
    world.look(&mut tries, at(3_601_000)).await;
    assert!(state().error.is_some());
    assert_eq!(world.input(), Some(1_000_000_000));
    world.look(&mut tries, at(3_602_000)).await;
    assert_eq!(state().tried_at, Some(at(3_601_000)));
    world.publish(&list("0.000003"));
    world.look(&mut tries, at(3_602_000)).await;
    assert_eq!(world.input(), Some(3_000_000_000));
    assert_eq!((state().error, world.revision()), (None, 3));
    let kept = crate::prices::kept::last_good(world.folder.path()).expect("it was kept");
    assert_eq!(kept, *world.live.load().pricing.list);
    // After the interval a source that fails is asked once a minute.
    fs::remove_file(world.folder.path().join("list.json")).expect("it is there");
    let due = 3_602_000 + 3_600_000;
    for (after, expected) in [(0, 0), (59_999, 0), (60_000, 60_000), (119_999, 60_000)] {
        world.look(&mut tries, at(due + after)).await;
        assert_eq!(state().tried_at, Some(at(due + expected)), "{after}");
    }
    assert_eq!(world.input(), Some(3_000_000_000));
}

#[tokio::test]
async fn in_a_cluster_who_has_the_duty_asks_for_all() {
    let world = World::new();
    world.publish(&list("1e-06"));
    let (told, mut tries) = (Told::default(), Tries::default());
    let done = || told.done.lock().expect("held shortly").clone();
    let failed = || told.failed.lock().expect("held shortly").clone();
    let duty = |term| Order::Duty {
        scope: "cluster".to_owned(),
        term,
    };
    world.sync.obey(&mut tries, &told, duty(7)).await;
    let outcome = done().remove(0);
    assert_eq!(
        (&*outcome.task, &*outcome.scope, outcome.term),
        (TASK, "cluster", 7)
    );
    assert_eq!(world.input(), Some(1_000_000_000));
    // What came of it is right on another node, which asks nobody.
    let other = World::new();
    let mut of_other = Tries::default();
    let received = Order::Outcome(outcome.clone());
    other.sync.obey(&mut of_other, &told, received).await;
    assert_eq!(other.input(), Some(1_000_000_000));
    assert_eq!(other.sync.board.state().tried_at, None);
    // A body that is no list changes nothing.
    let broken = Order::Outcome(Outcome {
        body: b"{}".to_vec().into(),
        ..outcome
    });
    other.sync.obey(&mut of_other, &told, broken).await;
    assert!(other.sync.board.state().error.is_some());
    assert_eq!(other.input(), Some(1_000_000_000));
    // A duty that came to nothing is told of.
    world.publish("[]");
    world.sync.obey(&mut tries, &told, duty(8)).await;
    assert_eq!((failed(), done().len()), (vec![8], 1));
    assert_eq!(world.input(), Some(1_000_000_000));
}

#[test]
fn orders_that_cannot_wait_come_to_nothing() {
    let told = Arc::new(Told::default());
    let (duties, (_fleet, mut taken)) = prices::duties(Arc::clone(&told));
    duties.duty("other", "cluster", 3);
    for term in 10..20 {
        duties.duty(TASK, "cluster", term);
    }
    assert_eq!(*told.failed.lock().expect("held shortly"), [3, 18, 19]);
    let first = taken.try_recv().expect("it waits");
    assert!(matches!(first, Order::Duty { term: 10, .. }));
}

#[test]
fn an_older_list_of_the_same_source_changes_nothing() {
    let newer = published().seen_again(Timestamp(AT.0 + 1));
    assert!(newer.is_newer_than(&published()));
    assert!(!published().is_newer_than(&newer));
    assert!(!published().is_newer_than(&published()));
    assert!(!PriceList::default().is_newer_than(&published()));
}
