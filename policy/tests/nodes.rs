//! Several nodes behind one set of limits, through the public interface alone:
//! what a node decides, tells and hears.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::{
    Actual, Admitted, AllowList, BaseParts, Candidate, CounterTable, Demand, Dialect, Enforcement,
    Fleet, Grant, KeyHash, Limit, Mode, Model, ModelId, OnTight, Price, Provider, ProviderId,
    Rejection, RejectionKind, Scope, ScopeKind, Snapshot, Standing, Timestamp, TokenRatio, Tokens,
    Unit, Verdict, VirtualKey, WindowKind, admit,
};

const NOW: Timestamp = Timestamp(1_795_380_200_000);

struct Node {
    table: CounterTable,
    snapshot: Snapshot,
    key: Arc<VirtualKey>,
    /// What it told the others, by counter and epoch.
    told: BTreeMap<(Arc<str>, i64), u64>,
}

fn limit(table: &CounterTable, unit: Unit, amount: u64, enforcement: Enforcement) -> Limit {
    let id = policy::CounterId {
        scope: ScopeKind::VirtualKey,
        entity: "demo".into(),
        unit,
        period: (unit != Unit::Concurrent).then(|| "1m".parse().expect("a period")),
        window: WindowKind::Sliding,
        name: None,
        generation: 0,
    };
    Limit {
        amount,
        enforcement,
        counter: table.counter(&id),
        id,
        shadow: false,
        on_tight: OnTight::Refuse,
        overridden: None,
    }
}

// === impl Node ===

impl Node {
    fn new(limits: &[(Unit, u64, Enforcement)]) -> Self {
        let table = CounterTable::tracking();
        let limits = limits
            .iter()
            .map(|(unit, amount, enforcement)| limit(&table, *unit, *amount, *enforcement));
        let scope = Scope {
            kind: ScopeKind::VirtualKey,
            entity: "demo".into(),
            limits: limits.collect(),
        };
        let key = VirtualKey {
            name: "demo".into(),
            hash: KeyHash::of(b"demo"),
            retiring: Vec::new(),
            team: None,
            customer: None,
            grants: vec![Grant {
                provider: "openai".into(),
                models: AllowList::all(),
                weight: 1,
                scope: None,
            }],
            scope: Some(Arc::new(scope)),
            active: true,
            not_before: None,
            expires_at: None,
        };
        let parts = BaseParts {
            providers: vec![Provider {
                name: "openai".into(),
                dialect: Dialect::OpenAi,
                credentials: Vec::new(),
                max_retries: 2,
                region: None,
                scope: None,
            }],
            models: vec![Model {
                name: "gpt".into(),
                provider: ProviderId(0),
                upstream_name: "gpt".into(),
                price: Price::FREE,
                max_output_tokens: None,
                estimate: Arc::new(TokenRatio::new()),
                scope: None,
            }],
            ..BaseParts::default()
        };
        let snapshot = Snapshot::new(1, parts, [key]);
        let key = Arc::clone(snapshot.key_named("demo").expect("it was just put there"));
        Self {
            table,
            snapshot,
            key,
            told: BTreeMap::new(),
        }
    }

    fn ask(&self, tokens: u64) -> Result<Admitted, Box<Rejection>> {
        let candidate = Candidate {
            model: ModelId(0),
            demand: Demand {
                tokens: Tokens(tokens),
                strict_tokens: Tokens(tokens),
                ..Demand::default()
            },
        };
        match admit(&self.snapshot, &self.key, None, &[candidate], NOW) {
            Verdict::Admit(admitted) => Ok(admitted),
            Verdict::Reject(rejection) => Err(Box::new(rejection)),
        }
    }

    /// Runs a request to its end; whether it was admitted.
    fn run(&self, tokens: u64) -> bool {
        let actual = Actual {
            requests: 1,
            tokens: Tokens(tokens),
            ..Actual::default()
        };
        let admitted = self.ask(tokens);
        admitted.is_ok_and(|admitted| {
            let _ = admitted.reservation.settle(&actual, NOW);
            true
        })
    }

    fn tell(&mut self, other: &Self) {
        for counter in self.table.take_changed(100) {
            let mut held = 0;
            counter.own(NOW, |cell| {
                let amount = cell.used + cell.held;
                held += cell.held;
                let place = (Arc::clone(counter.text()), cell.epoch);
                let before = self.told.insert(place, amount).unwrap_or(0);
                let theirs = other.table.counter(counter.id());
                theirs.change_remote(cell.epoch, before, amount, NOW);
            });
            other.table.counter(counter.id()).set_remote_held(held);
            counter.note_published();
        }
    }

    fn standings(&self) -> Vec<Standing> {
        let limits = self.key.scope.iter().flat_map(|scope| &scope.limits);
        limits.map(|limit| limit.standing(NOW)).collect()
    }
}

#[test]
fn nodes_that_tell_each_other_hold_one_limit() {
    let limits = [
        (Unit::Requests, 10, Enforcement::Eventual),
        (Unit::Tokens, 1_000, Enforcement::Eventual),
        (Unit::Concurrent, 3, Enforcement::Eventual),
    ];
    let (mut one, mut two) = (Node::new(&limits), Node::new(&limits));
    let mut admitted = 0;
    for round in 0..20 {
        let node = if round % 3 == 0 { &one } else { &two };
        admitted += usize::from(node.run(10));
        one.tell(&two);
        two.tell(&one);
    }
    assert_eq!(admitted, 10);
    assert_eq!(one.standings(), two.standings());
    let standing = |node: &Node, index: usize| {
        let standing = node.standings().swap_remove(index);
        (standing.used, standing.reserved, standing.remaining)
    };
    assert_eq!(standing(&one, 0), (10, 0, 0));
    assert_eq!(standing(&one, 1), (100, 0, 900));
    assert_eq!(standing(&one, 2), (0, 0, 3));
}

#[test]
fn requests_in_flight_elsewhere_count() {
    let limits = [
        (Unit::Concurrent, 3, Enforcement::Eventual),
        (Unit::Tokens, 100, Enforcement::Eventual),
    ];
    let (mut one, two) = (Node::new(&limits), Node::new(&limits));
    let held: Vec<_> = (0..2)
        .map(|_| one.ask(30).expect("there is room"))
        .collect();
    one.tell(&two);
    let [flight, tokens] = <[Standing; 2]>::try_from(two.standings()).expect("two limits");
    assert_eq!((flight.used, flight.reserved, flight.remaining), (2, 0, 1));
    assert_eq!(
        (tokens.used, tokens.reserved, tokens.remaining),
        (0, 60, 40)
    );
    assert!(two.ask(41).is_err());
    let mine = two.ask(30).expect("there is room");
    assert!(two.ask(1).is_err());
    drop((held, mine));
    assert_eq!(two.standings()[0].remaining, 1);
}

#[test]
fn a_strict_limit_of_three_nodes_is_held_in_three_parts() {
    let limits = [(Unit::Tokens, 100, Enforcement::Strict)];
    let nodes: Vec<Node> = (0..3).map(|_| Node::new(&limits)).collect();
    for (rank, node) in (0..).zip(&nodes) {
        node.table.divide(3, rank);
    }
    let [standing] = <[Standing; 1]>::try_from(nodes[0].standings()).expect("one limit");
    assert_eq!(standing.mode, Mode::Divided);
    assert_eq!((standing.limit, standing.remaining), (100, 34));
    let rejection = nodes[1].ask(34).expect_err("its part is 33");
    assert!(
        matches!(rejection.kind, RejectionKind::TooLargeForLimit { max_tokens_that_fits } if max_tokens_that_fits == Some(33))
    );
    assert!(nodes[1].run(30));
    let rejection = nodes[1].ask(4).expect_err("three are left");
    assert_eq!(rejection.max_tokens_left, Some(3));
    let spent: u64 = nodes
        .iter()
        .map(|node| (0..50).filter(|_| node.run(1)).count() as u64)
        .sum();
    assert_eq!(spent + 30, 100);
}

#[test]
fn the_mode_and_its_bound_are_shown() {
    let node = Node::new(&[(Unit::Requests, 10, Enforcement::Eventual)]);
    assert_eq!(node.standings()[0].mode, Mode::Single);
    assert_eq!(node.standings()[0].overshoot_bound, None);
    assert!(node.run(1));
    let [counter] = <[_; 1]>::try_from(node.table.take_changed(9)).expect("one has changed");
    assert_eq!(counter.asked_limit(), Some((10, Enforcement::Eventual)));
    counter.set_fleet(Fleet {
        ceiling: 4,
        mode: Mode::GuardBand,
        overshoot_bound: Some(2),
        trigger: 2,
    });
    let standing = node.standings().remove(0);
    assert_eq!(
        (standing.mode, standing.overshoot_bound),
        (Mode::GuardBand, Some(2))
    );
    assert_eq!((standing.limit, standing.remaining), (10, 3));
    assert!(node.run(1) && !node.table.take_urgent());
    assert!(node.run(1) && node.table.take_urgent());
    assert!(node.run(1) && !node.run(1));
}
