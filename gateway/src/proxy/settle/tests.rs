//! Tests of `settle`: an account settles once, whichever way it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;

use cluster::{Node, NodeConfig, StoreConfig};
use policy::{CounterTable, Demand, Verdict};
use tokio::sync::watch;

use super::*;
use crate::admin::Readiness;
use crate::clock::{self, SystemClock};
use crate::config::{self, Environment, ReloaderParts};
use crate::telemetry::Metrics;
use crate::upstream::ClientPool;

const CONF: &str = r#"
version: 1
providers:
  - name: p
    kind: openai
    base_url: https://provider.example/v1
    keys: [{name: main, value: provider-secret}]
models: [{name: m, provider: p, price: {input: 1, output: 1}}]
virtual_keys:
  - name: demo
    value: sk-tyr-demo-0000000000000000
    providers: [{name: p}]
    rate_limits: [{requests: 2, every: 1h}]
"#;

struct World {
    services: Arc<Services>,
    node: Node,
    _folder: tempfile::TempDir,
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tyr.yaml");
    std::fs::write(&path, CONF).unwrap();
    let started = config::start(ReloaderParts {
        path,
        environment: Environment::of_process(),
        counters: Arc::new(CounterTable::new()),
        clients: Arc::new(ClientPool::new()),
        clock: Arc::new(SystemClock),
        on_reload: Box::new(|_, _| {}),
    });
    let started = started.expect("the configuration is sound");
    let data_dir = folder.path().join("data");
    let store = StoreConfig::Sqlite {
        path: data_dir.join("tyr.db"),
    };
    let config = NodeConfig {
        audit: cluster::audit::AuditKey::keyless(),
        data_dir,
        store,
        take_over: false,
    };
    let node = cluster::start(config, Arc::new(SystemClock)).expect("the node starts");
    let services = Arc::new(Services {
        live: started.live,
        clock: Arc::new(SystemClock),
        recorder: node.recorder(),
        metrics: Arc::new(Metrics::new()),
        readiness: Arc::new(Readiness::default()),
        held_bytes: AtomicU64::new(0),
        cut: watch::channel(false).1,
    });
    World {
        services,
        node,
        _folder: folder,
    }
}

impl World {
    fn open(&self, id: &str) -> Account {
        let live = self.services.live.load_full();
        let key = live.policy.key_named("demo").expect("the key is there");
        let now = self.services.clock.now();
        let Verdict::Admit(reservation) = policy::admit(&key.scopes, &Demand::default(), now)
        else {
            panic!("there is room");
        };
        let call = Call {
            endpoint: Endpoint::ChatCompletions,
            key: key.clone(),
            model_requested: "m".to_owned(),
            stream: false,
            prompt_bytes: 0,
            prompt_estimate: Tokens::ZERO,
        };
        let started = (clock::monotonic(), now);
        Account::open(&self.services, id, started, call, reservation)
    }

    /// Used and reserved requests of the key.
    fn standing(&self) -> (u64, u64) {
        let live = self.services.live.load_full();
        let key = live.policy.key_named("demo").expect("the key is there");
        let standing = key.scopes[0].limits[0].standing(self.services.clock.now());
        (standing.used, standing.reserved)
    }

    fn ends(&self) -> Vec<EndReason> {
        self.services.recorder.flush().expect("the store takes it");
        let records = self
            .node
            .usage_log()
            .recent(10, None, None)
            .expect("the store reads");
        records.records.iter().map(|record| record.end).collect()
    }
}

#[test]
fn a_panic_settles_what_was_held_and_leaves_one_record() {
    let world = world();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let mut account = world.open("r1");
        account.reached = true;
        account.end = EndReason::Panic;
        assert_eq!(world.standing(), (0, 1));
        panic!("a fault of ours");
    }));
    assert!(ended.is_err());
    assert_eq!(
        world.standing(),
        (1, 0),
        "the request counts, nothing is held"
    );
    assert_eq!(world.ends(), [EndReason::Panic]);
}

#[test]
fn only_the_first_settlement_counts() {
    let world = world();
    let mut account = world.open("r1");
    account.reached = true;
    account.settle(EndReason::Success);
    account.settle(EndReason::ClientGone);
    drop(account);
    assert_eq!(world.standing(), (1, 0));
    assert_eq!(world.ends(), [EndReason::Success]);
}

#[test]
fn a_request_that_reached_no_provider_gives_its_place_back() {
    let world = world();
    drop(world.open("r1"));
    assert_eq!(world.standing(), (0, 0));
    assert_eq!(world.ends(), [EndReason::Shutdown]);
}
