mod alone;
mod apart;
mod asked;
mod clocks;
mod diagnosing;
mod fleet;
mod flushing;
mod hostile;
mod limited;
mod starts;
mod telling;
mod terms;

use policy::{CounterId, Timestamp};

use super::*;
use crate::config::TaskScope;
use crate::entity::Change;
use crate::message::{CellBatch, Frame, MessageId, Outcome, PROTOCOL_MAX, Revocation, WireCell};
use crate::view::DegradedReason;

const COUNTER: &str = "virtual_key/a/requests/1m/sliding";
const WALL: u64 = 1_800_000_000_000;

fn origin(node: u128, boot: u64) -> Origin {
    Origin {
        node: NodeKey(node),
        boot,
    }
}

fn task() -> Task {
    Task {
        name: "prices".to_owned(),
        every: Duration::from_secs(60),
        scope: TaskScope::Cluster,
        idempotent: false,
    }
}

fn change() -> Change {
    Change {
        at: Timestamp(1),
        actor: "ops".to_owned(),
        peer: "127.0.0.1".to_owned(),
        action: "revoke".to_owned(),
        kind: "virtual_key".to_owned(),
        name: "a".to_owned(),
        before: None,
        after: None,
    }
}

fn outcome(term: u64, at: u64) -> Outcome {
    Outcome {
        task: "prices".to_owned(),
        scope: "cluster".to_owned(),
        term,
        hash: Outcome::hash_of(b"{}"),
        at: Timestamp(at),
        body: Arc::from(*b"{}"),
    }
}

/// One core, its time and its counters.
struct Bench {
    core: Core,
    table: Arc<CounterTable>,
    ms: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// One that expects others.
    fn expecting() -> Self {
        Self::with(|config| config.seeds_expected = true)
    }

    fn with(change: impl FnOnce(&mut CoreConfig)) -> Self {
        let table = Arc::new(CounterTable::tracking());
        let mut config = CoreConfig {
            me: origin(1, 10),
            name: "a".to_owned(),
            cluster: "test".to_owned(),
            region: String::new(),
            zone: String::new(),
            gossip: SocketAddr::from(([127, 0, 0, 1], 1)),
            grpc_port: 2,
            build: "0".to_owned(),
            proto_max: PROTOCOL_MAX,
            caps: CAP_HOLDS,
            suspicion: Duration::from_secs(10),
            failure_threshold: 3,
            sync_interval: Duration::from_millis(100),
            partition: Partition::Share,
            forget_after: Duration::from_secs(600),
            tasks: vec![task()],
            seeds_expected: false,
            configured_nodes: 1,
        };
        change(&mut config);
        let now = Now {
            mono: Duration::ZERO,
            wall: Timestamp(WALL),
        };
        let core = Core::new(config, Arc::clone(&table), 7, now);
        Self { core, table, ms: 0 }
    }

    /// One whose store has answered.
    fn serving() -> Self {
        let mut bench = Self::new();
        bench.pass(100);
        bench.tell(Input::Store(StoreReply::LoadCells(Ok(Vec::new()))));
        bench.pass(200);
        assert!(bench.core.view(bench.now()).caught_up);
        bench
    }

    fn now(&self) -> Now {
        Now {
            mono: Duration::from_millis(self.ms),
            wall: Timestamp((WALL + self.ms).saturating_add_signed(self.core.offset())),
        }
    }

    fn tell(&mut self, input: Input) -> Vec<Effect> {
        self.core.handle(input, self.now());
        self.core.take_effects()
    }

    fn order(&mut self, command: Command) -> Vec<Effect> {
        self.tell(Input::Command(command))
    }

    fn pass(&mut self, ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        for _ in 0..ms / 10 {
            self.ms += 10;
            self.core.tick(self.now());
            effects.extend(self.core.take_effects());
        }
        effects
    }

    fn link(&mut self, link: u64, peer: Origin) -> Vec<Effect> {
        let mut hello = self.core.hello();
        hello.origin = peer;
        hello.name = format!("node-{}", peer.node.0);
        self.tell(Input::LinkUp { link, hello })
    }

    fn frame(&mut self, link: u64, frame: Frame) -> Vec<Effect> {
        let node = NodeKey(2);
        self.tell(Input::Frame { link, node, frame })
    }

    fn total(&self) -> u64 {
        let id: CounterId = COUNTER.parse().expect("a counter");
        self.table.counter(&id).total(self.now().wall)
    }

    /// A cell of the present sub-window.
    fn cell(&self, ver: u64, used: u64, held: u64) -> WireCell {
        let id: CounterId = COUNTER.parse().expect("a counter");
        let epoch = id.epoch(self.now().wall);
        WireCell {
            counter: COUNTER.into(),
            epoch,
            ver,
            used,
            held,
            expires_at: id.expires_at(epoch).expect("a window"),
        }
    }

    fn cells(&self, of: Origin, to_ver: u64, cells: Vec<WireCell>) -> Frame {
        Frame::Cells(CellBatch {
            origin: of,
            from_ver: 0,
            to_ver,
            head: to_ver,
            cells,
        })
    }
}

fn frames(effects: &[Effect]) -> Vec<&Frame> {
    let frames = effects.iter().filter_map(|effect| match effect {
        Effect::Frame { frame, .. } => Some(frame),
        _ => None,
    });
    frames.collect()
}

fn incoming(effects: &[Effect]) -> Vec<&Incoming> {
    let incoming = effects.iter().filter_map(|effect| match effect {
        Effect::Incoming(incoming) => Some(incoming),
        _ => None,
    });
    incoming.collect()
}

fn terms_taken(effects: &[Effect]) -> usize {
    let taken = effects.iter().filter(|effect| {
        matches!(effect, Effect::Store(StoreRequest::TakeTerm { task, .. }) if task == "prices")
    });
    taken.count()
}

fn row(result: Result<Option<u64>, ()>) -> Input {
    Input::Store(StoreReply::ReadTerm {
        scope: "cluster".to_owned(),
        task: "prices".to_owned(),
        result,
    })
}

fn term(result: Result<Option<u64>, ()>) -> Input {
    Input::Store(StoreReply::TakeTerm {
        scope: "cluster".to_owned(),
        task: "prices".to_owned(),
        result,
    })
}

fn duties(effects: &[Effect]) -> Vec<u64> {
    let terms = incoming(effects)
        .into_iter()
        .filter_map(|incoming| match incoming {
            Incoming::Duty { term, .. } => Some(*term),
            _ => None,
        });
    terms.collect()
}

#[test]
fn cells_of_others_count_once_whatever_comes_twice() {
    let mut bench = Bench::serving();
    let peer = origin(2, 20);
    let greeting = bench.link(5, peer);
    assert!(matches!(frames(&greeting)[0], Frame::Digest(_)));
    let batch = bench.cells(peer, 3, vec![bench.cell(3, 7, 2)]);
    bench.frame(5, batch.clone());
    assert_eq!(bench.total(), 9);
    bench.frame(5, batch);
    let late = bench.cells(peer, 1, vec![bench.cell(1, 5, 9)]);
    bench.frame(5, late);
    assert_eq!(bench.total(), 9);
    let acks = bench.pass(20);
    assert!(frames(&acks).contains(&&Frame::Ack(vec![(peer, 3)])));
    // Nobody else knows what this process counted.
    let own = bench.cells(origin(1, 10), 9, vec![bench.cell(9, 100, 0)]);
    bench.frame(5, own);
    assert_eq!(bench.total(), 9);
    // An earlier start of this node is another origin.
    let earlier = bench.cells(origin(1, 9), 4, vec![bench.cell(4, 10, 0)]);
    bench.frame(5, earlier);
    assert_eq!(bench.total(), 19);
    // It is gone by now, and so are its holds.
    bench.pass(100);
    let held = bench.cells(origin(1, 9), 5, vec![bench.cell(5, 10, 50)]);
    bench.frame(5, held);
    assert_eq!(bench.total(), 19);
}

#[test]
fn cells_of_counters_that_this_version_does_not_know_are_passed_on() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    let cell = WireCell {
        counter: "of/the/future".into(),
        expires_at: Timestamp(WALL + 3_600_000),
        ..bench.cell(2, 1, 0)
    };
    let batch = bench.cells(origin(3, 30), 2, vec![cell.clone()]);
    bench.frame(5, batch);
    bench.pass(3_000);
    bench.tell(Input::LinkDown {
        link: 5,
        node: NodeKey(2),
    });
    bench.link(6, origin(2, 21));
    bench.frame(6, Frame::Digest(Vec::new()));
    let sent = bench.pass(50);
    let passed_on = frames(&sent)
        .into_iter()
        .any(|frame| matches!(frame, Frame::Cells(batch) if batch.cells == [cell.clone()]));
    assert!(passed_on, "{sent:?}");
    assert!(frames(&sent).contains(&&Frame::CaughtUp));
}

#[test]
fn only_the_holder_of_a_term_has_the_duty() {
    let mut bench = Bench::serving();
    let asked = bench.pass(5_000);
    assert_eq!(terms_taken(&asked), 1, "once, until the store answers");
    assert_eq!(duties(&asked), Vec::<u64>::new());
    bench.tell(term(Ok(None)));
    assert_eq!(duties(&bench.pass(1_000)), Vec::<u64>::new());
    let asked = bench.pass(7_000);
    assert_eq!(terms_taken(&asked), 1);
    bench.tell(term(Ok(Some(5))));
    assert_eq!(duties(&bench.pass(1_000)), [5]);
    let late = bench.order(Command::TaskDone(outcome(4, 1)));
    assert!(late.is_empty(), "of a term that this node does not hold");
    let done = bench.order(Command::TaskDone(outcome(5, 1)));
    assert!(matches!(
        &done[..],
        [Effect::Store(StoreRequest::SaveOutcome(_))]
    ));
    assert_eq!(bench.core.view(bench.now()).terms.len(), 1);
    // Renewals go unanswered: the lease ends, and nothing is done any more.
    let after = bench.pass(120_000);
    assert_eq!(duties(&after), Vec::<u64>::new());
    assert_eq!(bench.core.view(bench.now()).terms.len(), 0);
}

#[test]
fn outcomes_of_smaller_terms_are_dropped() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    bench.frame(5, Frame::Outcome(outcome(6, 10)));
    let told = bench.tell(row(Ok(Some(6))));
    assert_eq!(incoming(&told), [&Incoming::Outcome(outcome(6, 10))]);
    for stale in [outcome(5, 99), outcome(6, 10), outcome(6, 9)] {
        assert_eq!(
            incoming(&bench.frame(5, Frame::Outcome(stale))),
            Vec::<&Incoming>::new()
        );
    }
    let newer = bench.frame(5, Frame::Outcome(outcome(6, 11)));
    assert_eq!(incoming(&newer).len(), 1);
    assert_eq!(bench.core.view(bench.now()).figures.outcomes_stale, 1);
}

#[test]
fn a_revocation_is_answered_when_it_is_in_force() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    let revocations = |id, hashes: &[&str]| Frame::Revocations {
        id: MessageId(id),
        revocations: hashes
            .iter()
            .map(|hash| Revocation {
                hash: (*hash).to_owned(),
                change: change(),
            })
            .collect(),
    };
    let told = bench.frame(5, revocations(1, &["x", "y"]));
    assert_eq!(incoming(&told).len(), 2);
    assert!(frames(&told).is_empty());
    let applied = |hash: &str| Command::RevocationApplied {
        hash: hash.to_owned(),
    };
    assert!(bench.order(applied("x")).is_empty());
    let answer = bench.order(applied("y"));
    assert_eq!(frames(&answer), [&Frame::Received(MessageId(1))]);
    // Again, by whatever way: nothing to do, but an answer.
    let again = bench.frame(5, revocations(2, &["y"]));
    assert_eq!(incoming(&again), Vec::<&Incoming>::new());
    assert_eq!(frames(&again), [&Frame::Received(MessageId(2))]);
}

#[test]
fn revocations_are_told_to_whoever_comes_until_the_store_has_them() {
    let mut bench = Bench::serving();
    let told = |effects: &[Effect]| -> Vec<String> {
        let lists = frames(effects).into_iter().filter_map(|frame| match frame {
            Frame::Revocations { revocations, .. } => Some(revocations),
            _ => None,
        });
        lists
            .flatten()
            .map(|revocation| revocation.hash.clone())
            .collect()
    };
    for hash in ["x", "y"] {
        bench.order(Command::Revoke {
            hash: hash.to_owned(),
            change: change(),
        });
    }
    let first = bench.link(5, origin(2, 20));
    assert_eq!(told(&first), ["x", "y"]);
    bench.tell(Input::LinkDown {
        link: 5,
        node: NodeKey(2),
    });
    for hash in ["x", "y"] {
        bench.order(Command::RevocationPersisted {
            hash: hash.to_owned(),
        });
    }
    for number in 0..499 {
        bench.order(Command::Revoke {
            hash: format!("later-{number}"),
            change: change(),
        });
    }
    let second = bench.link(6, origin(2, 20));
    assert_eq!(told(&second).len(), 500);
    assert!(told(&second).contains(&"y".to_owned()));
    let now = bench.order(Command::Revoke {
        hash: "z".to_owned(),
        change: change(),
    });
    assert_eq!(told(&now), ["z"]);
}

#[test]
fn a_node_serves_only_after_what_was_counted_before_is_known() {
    let mut bench = Bench::new();
    bench.pass(5_000);
    assert!(!bench.core.view(bench.now()).caught_up);
    let stored = vec![(origin(1, 9), bench.cell(0, 30, 0))];
    bench.tell(Input::Store(StoreReply::LoadCells(Ok(stored))));
    bench.pass(100);
    assert!(bench.core.view(bench.now()).caught_up);
    assert_eq!(bench.total(), 30);

    let mut alone = Bench::new();
    alone.tell(Input::Store(StoreReply::LoadCells(Err(()))));
    alone.pass(9_900);
    assert!(!alone.core.view(alone.now()).caught_up);
    alone.pass(200);
    let view = alone.core.view(alone.now());
    assert!(view.caught_up);
    let words: Vec<&str> = view.degraded.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(words, ["peers", "store"]);
}

#[test]
fn strangers_and_earlier_starts_get_no_link() {
    let mut bench = Bench::serving();
    let refused = |effects: &[Effect], link: u64| {
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::CloseLink { link: closed } if *closed == link))
    };
    let mut hello = bench.core.hello();
    hello.origin = origin(2, 20);
    hello.cluster = "another".to_owned();
    assert!(refused(&bench.tell(Input::LinkUp { link: 1, hello }), 1));
    assert!(refused(&bench.link(2, origin(1, 99)), 2));
    bench.link(3, origin(2, 20));
    assert!(refused(&bench.link(4, origin(2, 19)), 4));
    let later = bench.link(5, origin(2, 21));
    assert!(refused(&later, 3) && !refused(&later, 5));
    assert!(
        bench
            .frame(
                3,
                Frame::Ping {
                    number: 1,
                    sent: Duration::ZERO
                }
            )
            .is_empty()
    );
    let pong = bench.frame(
        5,
        Frame::Ping {
            number: 1,
            sent: Duration::ZERO,
        },
    );
    assert!(matches!(frames(&pong)[..], [Frame::Pong { number: 1, .. }]));
}

#[test]
fn what_the_store_does_not_take_is_given_to_it_again() {
    let mut bench = Bench::serving();
    bench.link(5, origin(2, 20));
    // A dead process's cells: this node alone is left to flush them.
    let batch = bench.cells(origin(3, 30), 2, vec![bench.cell(2, 4, 0)]);
    bench.frame(5, batch);
    bench.tell(Input::LinkDown {
        link: 5,
        node: NodeKey(2),
    });
    let flushed = |effects: &[Effect]| {
        let cells = effects.iter().filter_map(|effect| match effect {
            Effect::Store(StoreRequest::FlushCells(cells)) => Some(cells.clone()),
            _ => None,
        });
        cells.collect::<Vec<_>>()
    };
    let first = flushed(&bench.pass(2_000));
    assert_eq!((first.len(), first[0][0].1.used), (1, 4));
    let failed = StoreReply::FlushCells {
        cells: first[0].clone(),
        result: Err(()),
    };
    bench.tell(Input::Store(failed));
    assert_eq!(bench.core.view(bench.now()).figures.unflushed, 1);
    let again = flushed(&bench.pass(2_000));
    assert_eq!(again, first);
    let done = StoreReply::FlushCells {
        cells: again[0].clone(),
        result: Ok(()),
    };
    bench.tell(Input::Store(done));
    assert!(flushed(&bench.pass(5_000)).is_empty());
}
