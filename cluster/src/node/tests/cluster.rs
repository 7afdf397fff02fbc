//! A node as a member of a cluster, with and without its store.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use policy::{CounterId, CounterTable};

use super::*;
use crate::config::Partition;
use crate::core::Incoming;
use crate::driver::NoNews;
use crate::node::opening::Kept;
use crate::testing::charge;
use crate::testing::postgres::{self, Postgres};

/// A lonely member, on ports that nobody else has.
fn lonely() -> ClusterConfig {
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let (gossip, grpc): (SocketAddr, SocketAddr) = (free(), free());
    ClusterConfig {
        name: "test".to_owned(),
        node_id: "one".to_owned(),
        region: "eu".to_owned(),
        zone: String::new(),
        secrets: Vec::new(),
        gossip_bind: gossip,
        gossip_advertise: gossip,
        grpc_bind: grpc,
        grpc_port: grpc.port(),
        peers: Vec::new(),
        suspicion: Duration::from_secs(10),
        failure_threshold: 3,
        dial_timeout: Duration::from_secs(10),
        sync_interval: Duration::from_millis(100),
        partition: Partition::Share,
        forget_after: Duration::from_secs(600),
        tls: None,
        protocol_max: 2,
        build: "test".to_owned(),
        tasks: Vec::new(),
        fatal: crate::testing::fatal,
    }
}

fn member(dir: &Path, server: &Postgres, database: &str) -> NodeConfig {
    let postgres = PostgresConfig::from_url(&server.url(database)).unwrap();
    NodeConfig {
        store: StoreConfig::Postgres(postgres),
        cluster: Some(lonely()),
        counters: Arc::new(CounterTable::tracking()),
        ..config(dir)
    }
}

const NOW: Timestamp = Timestamp(1_764_000_000_000);

/// A day's budget.
fn budget() -> CounterId {
    "virtual_key/demo/usd/1d/calendar".parse().unwrap()
}

/// Stores a request that cost so much of it.
fn settle(node: &Node, number: u64, amount: u64) {
    let id = budget();
    let mut used = charge(&id.to_string(), id.epoch(NOW), amount);
    used.expires_at = id.expires_at(id.epoch(NOW)).unwrap();
    node.recorder().record(UsageRecord {
        charges: vec![used],
        ..record(number)
    });
    node.recorder().flush().unwrap();
}

fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        thread::yield_now();
    }
}

#[test]
fn one_file_is_no_store_for_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let refused = NodeConfig {
        cluster: Some(lonely()),
        ..config(dir.path())
    };
    let refused = start(refused, clock(1)).unwrap_err();
    assert!(matches!(refused, StartError::ClusterOnOneFile), "{refused}");
    assert!(!dir.path().join("data").exists(), "nothing was touched");
}

#[test]
fn what_a_member_did_before_counts_as_an_origin_and_not_as_its_own() {
    let server = postgres::shared();
    let database = server.database();
    let dir = tempfile::tempdir().unwrap();
    let node = start(member(dir.path(), server, &database), clock(1_000)).unwrap();
    record_and_store(&node, 1..=4);
    let first = Origin {
        node: node.node_key(),
        boot: node.boot(),
    };
    assert!(node.cluster().is_some());
    node.stop();

    let node = start(member(dir.path(), server, &database), clock(2_000)).unwrap();
    assert_eq!(node.cells(), []);
    record_and_store(&node, 5..=6);
    let cells = node.store.cells_by_origin(Timestamp(0)).unwrap();
    let of = |origin| {
        let own = cells.iter().filter(|(of, _)| *of == origin);
        let own: Vec<Cell> = own.map(|(_, cell)| cell.clone()).collect();
        amount(&own, "requests")
    };
    assert_eq!(
        (
            of(first),
            of(Origin {
                boot: 2_000,
                ..first
            })
        ),
        (4, 2)
    );
    assert!(!node.degraded() && node.take_recovered().is_none());
    node.stop();
}

#[test]
fn usage_files_of_earlier_boots_are_booked_under_their_own() {
    let mut server = Postgres::start(None);
    let database = server.database();
    let dir = tempfile::tempdir().unwrap();
    let node = start(member(dir.path(), &server, &database), clock(1_000)).unwrap();
    record_and_store(&node, 1..=2);
    server.stop();
    for number in 3..=5 {
        node.recorder().record(record(number));
    }
    while node.status().snapshot().records_written < 5 {
        thread::yield_now();
    }
    let me = node.node_key();
    node.stop();

    // Without the store, then with it.
    let node = start(member(dir.path(), &server, &database), clock(2_000)).unwrap();
    assert!(node.degraded() && node.cells().is_empty());
    node.recorder().record(record(6));
    server.resume();
    while node.degraded() {
        thread::yield_now();
    }
    assert_eq!(
        node.take_recovered(),
        None,
        "the cluster has it from the store"
    );
    node.recorder().flush().unwrap();
    let cells = node.store.cells_by_origin(Timestamp(0)).unwrap();
    let mut found: Vec<_> = cells
        .iter()
        .filter(|(_, cell)| cell.counter == "requests")
        .map(|(of, cell)| (of.node, of.boot, cell.amount))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [(me, 1_000, 5), (me, 2_000, 1)]);
    assert_exactly(&*node.store, 1..=6);
    node.stop();

    // Its own copy keeps them apart, too.
    let log = crate::settled::SettledLog::new(&dir.path().join("data"));
    let contents = log.take_up().unwrap();
    assert!(!contents.is_mixed());
    let mut kept: Vec<_> = contents
        .by_origin(Timestamp(0))
        .into_iter()
        .filter(|(_, cell)| cell.counter == "requests")
        .map(|(of, cell)| (of.node, of.boot, cell.amount))
        .collect();
    kept.sort_unstable();
    assert_eq!(kept, found);
}

#[test]
fn a_copy_that_does_not_tell_origins_apart_is_nothing_to_join_a_cluster_with() {
    let contents = |of| {
        let dir = tempfile::tempdir().unwrap();
        let log = crate::settled::SettledLog::new(dir.path());
        log.replace(&[], &[]);
        log.append(of, None, [&[charge("a", 1, 3)][..]]);
        log.take_up().unwrap()
    };
    let known = Known::kept(contents(origin(5, 1)), Timestamp(0)).hand_over();
    assert_eq!(known.cells().unwrap()[0].0, origin(5, 1));
    let mut mixed = Known::kept(contents(origin(0, 0)), Timestamp(0));
    assert_eq!(amount(&mixed.cells, "a"), 3, "enough for a node alone");
    assert!(matches!(mixed.hand_over(), Kept::Nothing));
}

#[test]
fn a_member_hears_of_what_others_write_and_revocations_reach_the_store() {
    let server = postgres::shared();
    let database = server.database();
    let dir = tempfile::tempdir().unwrap();
    let node = start(member(dir.path(), server, &database), clock(1_000)).unwrap();
    let handle = node.cluster().unwrap();
    let incoming = handle.incoming().unwrap();
    let postgres = PostgresConfig::from_url(&server.url(&database)).unwrap();
    let store = StoreConfig::Postgres(postgres);
    let other = open_store(&store).unwrap();
    let key = AuditKey::keyless();
    let made = other
        .write(&put("theirs"), &change("theirs"), &key)
        .unwrap();
    // The first may be of the listener's own beginning, before the write.
    let log = node.entities();
    let mut told = Vec::new();
    while told.is_empty() {
        match incoming.recv_timeout(Duration::from_secs(30)) {
            Ok(Incoming::Poll) => told = log.poll().unwrap(),
            Ok(other) => panic!("{other:?}"),
            Err(NoNews::Yet | NoNews::EverMore) => panic!("no word of it"),
        }
    }
    assert_eq!(told, made);
    assert_eq!(log.revision(), made[0].revision);

    // Told by a peer: on disk at once, and in the store without being asked for.
    assert!(log.adopt_revocation("00ff", &change("key")));
    while log.waiting_revocations() > 0 {
        thread::yield_now();
    }
    let names: Vec<String> = other
        .entities()
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(names, ["theirs", "00ff"]);
    node.stop();
}

/// Two members on one database, each other's seeds, that ran before with equal boots.
#[test]
fn two_members_count_each_others_and_their_own_earlier_usage_once() {
    let server = postgres::shared();
    let database = server.database();
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut configs = dirs
        .each_ref()
        .map(|dir| member(dir.path(), server, &database));
    let peers = configs.each_ref().map(|config| {
        let cluster = config.cluster.as_ref().unwrap();
        cluster.gossip_advertise.to_string()
    });
    for (config, name) in configs.iter_mut().zip(["one", "two"]) {
        let cluster = config.cluster.as_mut().unwrap();
        cluster.node_id = name.to_owned();
        cluster.peers = peers.to_vec();
    }
    // A day's budget, used in an earlier boot: alone and without a cluster.
    let (id, now) = (budget(), NOW);
    for (number, config) in (1..).zip(&configs) {
        let alone = NodeConfig {
            cluster: None,
            ..config.clone()
        };
        let node = start(alone, clock(now.0 - 9)).unwrap();
        settle(&node, number, number * 10);
        node.stop();
    }
    let tables = configs
        .each_ref()
        .map(|config| Arc::clone(&config.counters));
    let counts = configs
        .each_ref()
        .map(|config| config.counters.counter(&id));
    let nodes = configs.map(|config| start(config, clock(now.0)).unwrap());
    assert_eq!(nodes[0].boot(), nodes[1].boot());
    let handles = nodes.each_ref().map(|node| node.cluster().unwrap());
    until("both are caught up", || {
        handles.iter().all(ClusterHandle::is_caught_up)
    });
    let totals = || counts.each_ref().map(|count| count.total(now));
    until("both count what was used", || totals() == [30, 30]);
    // Each counts its own, which the other hears of and the store gets.
    for (table, amount) in tables.iter().zip([1, 2]) {
        table.restore(&[Cell {
            counter: id.to_string(),
            epoch: id.epoch(now),
            amount,
            expires_at: id.expires_at(id.epoch(now)).unwrap(),
        }]);
    }
    until("both count all", || totals() == [33, 33]);
    let kept = || {
        let cells = nodes[0].store.cells_by_origin(Timestamp(0)).unwrap();
        let mut amounts: Vec<u64> = cells.iter().map(|(_, cell)| cell.amount).collect();
        amounts.sort_unstable();
        amounts
    };
    until("the store has it", || kept() == [1, 2, 10, 20]);

    let written = nodes[0].entities().write(&put("a"), &change("a")).unwrap();
    handles[0].announce(written.clone());
    until("the other has it", || {
        nodes[1].entities().poll().is_ok_and(|page| page == written)
    });
    for node in nodes {
        node.stop();
    }
}

/// The old process drains while the new one serves: what it still settles counts there.
#[test]
fn a_successor_in_a_cluster_counts_what_the_old_process_settles() {
    let server = postgres::shared();
    let database = server.database();
    let dir = tempfile::tempdir().unwrap();
    let config = member(dir.path(), server, &database);
    let (id, now) = (budget(), NOW);
    let old = start(config.clone(), clock(now.0)).unwrap();
    settle(&old, 1, 10);
    let counters = Arc::new(CounterTable::tracking());
    let count = counters.counter(&id);
    let successor = NodeConfig {
        take_over: true,
        counters,
        ..config
    };
    let mut new = start(successor, clock(now.0)).unwrap();
    assert!(new.predecessor().is_none() && new.cells().is_empty());
    assert_eq!(old.boot() + 1, new.boot());
    old.cluster().unwrap().leave();
    until("what was settled before counts", || count.total(now) == 10);
    settle(&old, 2, 5);
    until("what it settles counts", || count.total(now) == 15);
    settle(&old, 3, 7);
    old.stop();
    until("all that it settled counts", || count.total(now) == 22);
    until("it has gone", || !new.status().taking_over());
    assert_eq!(count.own_total(now), 0);
    new.stop();
}

#[test]
fn without_the_store_a_member_counts_what_it_kept() {
    let mut server = Postgres::start(None);
    let database = server.database();
    let dir = tempfile::tempdir().unwrap();
    let start_at = |server: &Postgres, later: u64| {
        let config = member(dir.path(), server, &database);
        let count = config.counters.counter(&budget());
        (start(config, clock(NOW.0 + later)).unwrap(), count)
    };
    let (node, _) = start_at(&server, 0);
    settle(&node, 1, 10);
    node.stop();
    server.stop();
    let (node, count) = start_at(&server, 1);
    assert!(node.degraded());
    until("what it kept counts", || count.total(NOW) == 10);
    node.stop();
    server.resume();
    let (node, count) = start_at(&server, 2);
    until("what the store has counts", || count.total(NOW) == 10);
    node.stop();
}

#[test]
fn a_member_without_an_earlier_run_starts_while_the_store_is_away_and_is_not_ready() {
    let mut server = Postgres::start(None);
    let database = server.database();
    let dir = tempfile::tempdir().unwrap();
    server.stop();
    // Twice: what the first start leaves is no earlier run.
    for boot in [1_000, 2_000] {
        let node = start(member(dir.path(), &server, &database), clock(boot)).unwrap();
        let handle = node.cluster().unwrap();
        assert!(node.degraded());
        // Longer than one waits that has kept something.
        let served = handle.wait_view(Duration::from_secs(11), |view| view.caught_up);
        assert!(!served, "{:?}", handle.view());
        if boot == 2_000 {
            server.resume();
            // The store has the counts; somebody polls the entities.
            until("the node is ready", || {
                if node.entities().poll().is_ok() {
                    handle.applied(node.entities().revision());
                }
                handle.is_caught_up()
            });
        }
        node.stop();
    }
}
