//! Tests of `settle`: an account settles once, whichever way it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;

use cluster::{Node, NodeConfig, StoreConfig};
use policy::{CounterTable, Predictor, Verdict};
use tokio::sync::watch;

use super::super::demand;
use super::super::tokenizer::TokenCounter;
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
    rate_limits: [{requests: 2, every: 1h}, {tokens: 100000, every: 1h}]
"#;

const ASK: Ask = Ask {
    endpoint: Endpoint::ChatCompletions,
    prompt_bytes: 0,
    max_output_tokens: None,
    answers: 1,
    counted: None,
};

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
        on_reload: Box::new(|_| {}),
    });
    let started = started.expect("the configuration is sound");
    let data_dir = folder.path().join("data");
    let store = StoreConfig::Sqlite {
        path: data_dir.join("tyr.db"),
    };
    let config = NodeConfig {
        data_dir,
        store,
        take_over: false,
        audit: cluster::audit::AuditKey::keyless(),
        cluster: None,
        counters: Arc::new(CounterTable::new()),
    };
    let node = cluster::start(config, Arc::new(SystemClock)).expect("the node starts");
    let services = Arc::new(Services {
        live: started.live,
        clock: Arc::new(SystemClock),
        recorder: node.recorder(),
        metrics: Arc::new(Metrics::new()),
        readiness: Arc::new(Readiness::default()),
        predictor: Arc::new(Predictor::new()),
        tokens: TokenCounter::start().unwrap(),
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
        self.open_with(id, ASK)
    }

    fn open_with(&self, id: &str, ask: Ask) -> Account {
        let live = self.services.live.load_full();
        let key = live.policy.key_named("demo").expect("the key is there");
        let now = self.services.clock.now();
        let models = (0..live.policy.models().len() as u32).map(ModelId);
        let predictor = &self.services.predictor;
        let candidates = demand::candidates(&live.policy, predictor, "demo", &ask, models);
        let Verdict::Admit(admitted) = policy::admit(&live.policy, key, None, &candidates, now)
        else {
            panic!("there is room");
        };
        let call = Call {
            ask,
            caller: Identity {
                key: key.clone(),
                user: Some("ann".into()),
                user_scope: None,
            },
            model_requested: "m".to_owned(),
            stream: false,
            rule: Some("r".into()),
            clamp: None,
            candidates,
        };
        let started = (clock::monotonic(), now);
        let held = (admitted.reservation, admitted.chosen);
        Account::open(&self.services, &live, id, started, call, held)
    }

    /// Used and reserved requests of the key.
    fn standing(&self) -> (u64, u64) {
        self.standing_of(0)
    }

    /// Used and reserved tokens of the key.
    fn tokens(&self) -> (u64, u64) {
        self.standing_of(1)
    }

    fn standing_of(&self, limit: usize) -> (u64, u64) {
        let live = self.services.live.load_full();
        let key = live.policy.key_named("demo").expect("the key is there");
        let limits = &key.scope.as_ref().expect("it has limits").limits;
        let standing = limits[limit].standing(self.services.clock.now());
        (standing.used, standing.reserved)
    }

    fn ends(&self) -> Vec<EndReason> {
        self.services.recorder.flush().expect("the store takes it");
        let page = self.node.usage_log().recent(10, None, None);
        let records = page.expect("the store reads").records;
        records.iter().map(|record| record.end).collect()
    }
}

#[test]
fn a_panic_settles_what_was_held_and_leaves_one_record() {
    let world = world();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let mut account = world.open("r1");
        account.reach.any = true;
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
    account.reach.any = true;
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

/// An account whose provider has begun to stream.
fn streaming(world: &World) -> Account {
    let mut account = world.open("r1");
    account.attempt_begins(Served {
        live: account.live.clone(),
        model: ModelId(0),
        provider: "p".into(),
        credential: "main".into(),
    });
    account.meter = Some(Meter::for_stream(Endpoint::ChatCompletions, false));
    account
}

/// Lets `text` pass as one chunk of a chat stream.
fn pass(account: &mut Account, text: &str) {
    let chunk =
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
    let meter = account.meter.as_mut().expect("it streams");
    meter.on_events(chunk.into());
    account.top_up();
}

#[test]
fn a_stream_that_outgrows_its_prediction_holds_more() {
    let world = world();
    let mut account = streaming(&world);
    assert_eq!(world.tokens(), (0, 1024), "cold");
    pass(&mut account, &"a".repeat(3_900));
    assert_eq!(world.tokens(), (0, 975 + 256), "and on to the next look");
    pass(&mut account, &"a".repeat(400));
    assert_eq!(world.tokens(), (0, 975 + 256), "too little since");
    pass(&mut account, &"a".repeat(4_000));
    assert_eq!(world.tokens(), (0, 2_075 + 256));
    account.settle(EndReason::ClientGone);
    assert_eq!(world.tokens(), (2_075, 0), "what passed is booked");
}

#[test]
fn a_hold_does_not_grow_past_the_bound_of_the_answer() {
    let world = world();
    let bounded = Ask {
        max_output_tokens: Some(1_000),
        ..ASK
    };
    let mut account = streaming(&world);
    account.call.ask = bounded;
    pass(&mut account, &"a".repeat(3_900));
    assert_eq!(world.tokens(), (0, 1_024), "it was held at the start");
    pass(&mut account, &"a".repeat(3_900));
    assert_eq!(world.tokens(), (0, 1_950), "the provider went past it");
}

#[test]
fn answers_teach_the_length_of_the_next() {
    let world = world();
    for _ in 0..20 {
        let mut account = streaming(&world);
        let end = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":40}}\n\n\
                   data: [DONE]\n\n";
        let meter = account.meter.as_mut().expect("it streams");
        meter.on_events(end.into());
        account.reach = Reach::default();
        account.settle(EndReason::Success);
    }
    let predicted = world.services.predictor.predict("demo", "m");
    assert!(
        predicted.is_some_and(|tokens| (40..60).contains(&tokens)),
        "{predicted:?}"
    );
    drop(world.open("r2"));
    let account = world.open("r3");
    let held = account.reservation().expect("it is open").held_tokens();
    assert_eq!(Some(held.0), predicted);
}
