//! Real drivers on loopback sockets, each on a thread of its own.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::thread::{self, JoinHandle};

use policy::{Cell, CounterId, ManualClock, Timestamp};

use super::*;
use crate::audit::AuditKey;
use crate::config::Partition;
use crate::core::{Incoming, MemberState};
use crate::entity::Entity;
use crate::handle::ClusterHandle;
use crate::node::DeskParts;
use crate::status::NodeStatus;
use crate::store::Store;
use crate::testing::{FlakyStore, change, origin};
use crate::view::{AppliedOn, ClusterView};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

const NOW: Timestamp = Timestamp(1_764_000_000_000);

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Member {
    handle: ClusterHandle,
    counters: Arc<CounterTable>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

pub(in crate::driver) fn config(name: &str, secrets: &[u8], peers: &[SocketAddr]) -> ClusterConfig {
    ClusterConfig {
        name: "cluster-of-tests".to_owned(),
        node_id: name.to_owned(),
        region: "eu".to_owned(),
        zone: String::new(),
        secrets: secrets.iter().map(|&secret| vec![secret; 32]).collect(),
        gossip_bind: ANY,
        gossip_advertise: ANY,
        grpc_bind: ANY,
        grpc_port: 0,
        peers: peers.iter().map(SocketAddr::to_string).collect(),
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

/// All that a driver is made of; `node` is the node's number.
pub(in crate::driver) fn parts(
    store: &FlakyStore,
    node: u128,
    config: ClusterConfig,
) -> (MeshParts, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(store.clone());
    let clock = Arc::new(ClusterClock::new(Arc::new(ManualClock::new(NOW))));
    let me = origin(node, 1);
    let entities = EntityLog::open(Arc::clone(&store), AuditKey::keyless(), dir.path()).unwrap();
    let (replies, answers) = mpsc::channel(64);
    let desk = DeskParts {
        store,
        entities: entities.clone(),
        status: Arc::new(NodeStatus::new()),
        clock: Arc::clone(&clock) as Arc<dyn policy::Clock>,
        me,
        name: config.node_id.clone(),
        region: config.region.clone(),
        kept: None,
        fatal: config.fatal,
    };
    let parts = MeshParts {
        config,
        me,
        counters: Arc::new(CounterTable::tracking()),
        clock,
        entities,
        desk: StoreDesk::start(desk, replies).unwrap(),
        replies: answers,
        follows: false,
        starts_empty: false,
    };
    (parts, dir)
}

impl Member {
    fn start(store: &FlakyStore, node: u128, config: ClusterConfig) -> Self {
        let (parts, dir) = parts(store, node, config);
        let counters = Arc::clone(&parts.counters);
        let (mesh, handle) = Mesh::open(parts).unwrap();
        let address = mesh.gossip_address().unwrap();
        let (stop, thread) = run(mesh);
        Self {
            handle,
            counters,
            address,
            stop: Some(stop),
            thread: Some(thread),
            _dir: dir,
        }
    }

    /// Ends as a node does that stops.
    fn stop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }

    #[track_caller]
    fn sees(&self, what: &str, enough: impl Fn(&ClusterView) -> bool) {
        let seen = self.handle.wait_view(PATIENCE, enough);
        assert!(seen, "{what}: {:?}", self.handle.view());
    }

    /// Waits until a link to each of `names` is up.
    #[track_caller]
    fn is_linked_to(&self, names: &[&str]) {
        self.sees("links", |view| {
            let linked = |name: &&str| {
                let mut members = view.members.iter();
                members.any(|member| {
                    member.node == **name && member.state == MemberState::Up && member.link_up
                })
            };
            names.iter().all(linked)
        });
    }
}

fn run(mesh: Mesh) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let desk = runtime.block_on(mesh.run(stopped));
        runtime.shutdown_background();
        desk.expect("it keeps its sockets").stop();
    });
    (stop, thread)
}

fn counter() -> CounterId {
    "virtual_key/demo/requests/1d/calendar".parse().unwrap()
}

/// Counts `amount` as done by a node itself.
fn count(counters: &CounterTable, amount: u64) {
    let id = counter();
    let epoch = id.epoch(NOW);
    let unknown = counters.raise(&[Cell {
        counter: id.to_string(),
        epoch,
        amount,
        expires_at: id.expires_at(epoch).unwrap(),
    }]);
    assert_eq!(unknown, 0);
}

fn total(counters: &CounterTable) -> u64 {
    counters.counter(&counter()).total(NOW)
}

/// Waits, by views, for what shows in no view.
#[track_caller]
fn wait_until(member: &Member, what: &str, done: impl Fn() -> bool) {
    member.sees(what, |_| done());
}

#[test]
fn two_nodes_find_each_other_share_what_they_count_and_part() {
    let store = FlakyStore::default();
    let mut a = Member::start(&store, 1, config("node-a", &[1], &[]));
    let mut b = Member::start(&store, 2, config("node-b", &[1], &[a.address]));
    a.is_linked_to(&["node-b"]);
    b.is_linked_to(&["node-a"]);
    a.sees("caught up", |view| view.caught_up);
    b.sees("caught up", |view| view.caught_up);
    assert!(a.handle.is_caught_up() && b.handle.is_caught_up());

    count(&a.counters, 5);
    wait_until(&b, "cells of a", || total(&b.counters) == 5);
    count(&b.counters, 7);
    wait_until(&a, "cells of b", || total(&a.counters) == 12);
    wait_until(&b, "both", || total(&b.counters) == 12);

    let figures = a.handle.view().figures.clone();
    assert!(figures.gossip_packets_sent > 0 && figures.link_bytes_sent > 0);
    assert_eq!(figures.link_frames_dropped, 0);

    a.stop();
    b.sees("a has left", |view| {
        let mut members = view.members.iter();
        members.all(|member| member.node != "node-a" || member.state == MemberState::Left)
    });
    assert_eq!(total(&b.counters), 12, "what it did remains");
    b.stop();
}

#[test]
fn news_go_to_the_others_and_what_came_of_them_comes_back() {
    let store = FlakyStore::default();
    let mut a = Member::start(&store, 1, config("node-a", &[1], &[]));
    let mut b = Member::start(&store, 2, config("node-b", &[1], &[a.address]));
    a.is_linked_to(&["node-b"]);
    let at_b = b.handle.incoming().unwrap();
    assert!(b.handle.incoming().is_none());
    let next = |wanted: fn(&Incoming) -> bool| {
        loop {
            let news = at_b.recv_timeout(PATIENCE).expect("news");
            if wanted(&news) {
                return news;
            }
        }
    };

    a.handle.revoke("abcd", &change("demo"));
    let revoked = next(|news| matches!(news, Incoming::Revoked { .. }));
    let Incoming::Revoked { hash, .. } = revoked else {
        panic!()
    };
    b.handle.revocation_applied(&hash);
    let on_both = AppliedOn { on: 2, of: 2 };
    assert_eq!(a.handle.wait_revoked("abcd", PATIENCE), on_both);

    let entity = Entity {
        kind: "virtual_key".to_owned(),
        name: "demo".to_owned(),
        revision: 1,
        body: Some("{}".into()),
        changed_at: NOW,
    };
    a.handle.announce(vec![entity]);
    next(|news| matches!(news, Incoming::Poll));
    a.handle.applied(1);
    let one = a.handle.wait_applied(1, Duration::ZERO);
    assert!(one.on <= 1);
    b.handle.applied(1);
    assert_eq!(a.handle.wait_applied(1, PATIENCE), on_both);

    let findings: Vec<_> = a.handle.diagnose().iter().collect();
    for channel in ["udp", "tcp", "grpc"] {
        let mut of_b = findings.iter().filter(|found| found.node == "node-b");
        let found = of_b.find(|found| found.check == channel).expect(channel);
        assert!(found.ok && found.took.is_some(), "{found:?}");
    }
    a.stop();
    b.stop();
    assert_eq!(a.handle.diagnose().iter().count(), 0, "after the end");
}

#[test]
fn a_node_without_the_secret_is_not_let_in_and_reads_nothing() {
    let store = FlakyStore::default();
    let mut a = Member::start(&store, 1, config("node-a", &[1], &[]));
    let mut stranger = Member::start(&store, 3, config("stranger", &[2], &[a.address]));
    a.sees("attempts", |view| view.figures.gossip_packets_refused > 1);
    for member in [&a, &stranger] {
        assert!(member.handle.view().members.len() <= 1);
    }
    a.stop();
    stranger.stop();
}

#[test]
fn what_is_asked_of_a_peer_shows_nothing_to_who_only_listens() {
    let listener = TcpListener::bind(ANY).unwrap();
    let store = FlakyStore::default();
    let peers = [listener.local_addr().unwrap()];
    let mut a = Member::start(&store, 1, config("node-a", &[1], &peers));
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(&[7; 32]).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut question = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut question).unwrap();
    let shows = |text: &[u8]| question.windows(text.len()).any(|part| part == text);
    assert!(question.len() > 60 && !shows(b"node-a") && !shows(b"cluster-of-tests"));
    a.stop();
}

#[test]
fn secrets_are_rotated_while_nodes_run() {
    let store = FlakyStore::default();
    let mut a = Member::start(&store, 1, config("node-a", &[1], &[]));
    let mut b = Member::start(&store, 2, config("node-b", &[1], &[a.address]));
    a.is_linked_to(&["node-b"]);
    let [old, new] = [1, 2].map(|secret| vec![secret; 32]);
    for secrets in [vec![old.clone(), new.clone()], vec![new.clone(), old]] {
        a.handle.set_secrets(secrets.clone()).unwrap();
        b.handle.set_secrets(secrets).unwrap();
    }
    a.sees("both use the new one", |view| {
        let used = &view.figures.secrets_in_use;
        used.len() == 1 && view.figures.secret == Some(used[0].0) && used[0].1 == 1
    });
    let mut c = Member::start(&store, 3, config("node-c", &[2], &[a.address]));
    c.is_linked_to(&["node-a", "node-b"]);
    // The link of a and b came up with the old one, those of c with the new one.
    let lost = |member: &Member| member.handle.view().figures.links_down;
    assert_eq!([lost(&a), lost(&b), lost(&c)], [0, 0, 0]);
    a.handle.set_secrets(vec![new.clone()]).unwrap();
    b.handle.set_secrets(vec![new]).unwrap();
    for (member, other) in [(&a, "node-b"), (&b, "node-a")] {
        member.sees("the old link's end", |view| view.figures.links_down == 1);
        member.is_linked_to(&[other, "node-c"]);
    }
    assert_eq!(lost(&c), 0);
    count(&a.counters, 5);
    wait_until(&b, "cells over the new link", || total(&b.counters) == 5);
    for member in [&mut a, &mut b, &mut c] {
        member.stop();
    }
}

#[test]
fn nodes_find_each_other_over_ipv6_and_wherever_a_name_moves() {
    let store = FlakyStore::default();
    let any = SocketAddr::new("::1".parse().unwrap(), 0);
    let over_six = |name: &str, peers: &[SocketAddr]| ClusterConfig {
        gossip_bind: any,
        gossip_advertise: any,
        grpc_bind: any,
        ..config(name, &[1], peers)
    };
    let mut a = Member::start(&store, 1, over_six("node-a", &[]));
    assert!(a.address.is_ipv6());
    let mut b = Member::start(&store, 2, over_six("node-b", &[a.address]));
    a.is_linked_to(&["node-b"]);
    b.is_linked_to(&["node-a"]);
    count(&a.counters, 5);
    wait_until(&b, "cells of a", || total(&b.counters) == 5);
    let view = b.handle.view();
    assert!(view.members.iter().all(|member| member.address.is_ipv6()));

    // Where its name pointed first nobody is.
    let nobody = TcpListener::bind(any).unwrap().local_addr().unwrap();
    let mut c = Member::start(&store, 3, over_six("node-c", &[nobody]));
    c.sees("it is alone", |view| view.caught_up);
    c.handle.seeds_moved(vec![a.address]);
    c.is_linked_to(&["node-a", "node-b"]);
    for member in [&mut a, &mut b, &mut c] {
        member.stop();
    }
}

#[test]
fn addresses_that_are_taken_fail_the_start_or_are_waited_for() {
    let store = FlakyStore::default();
    let taken = Sockets::bind(ANY, ANY).unwrap();
    let mut taken_config = config("node-a", &[1], &[]);
    taken_config.gossip_bind = taken.datagrams.local_addr().unwrap();
    taken_config.grpc_bind = taken.links.local_addr().unwrap();
    let (alone, _dir) = parts(&store, 1, taken_config.clone());
    assert!(matches!(Mesh::open(alone), Err(ClusterError::Bind { .. })));

    let (mut follower, _dir) = parts(&store, 1, taken_config.clone());
    follower.follows = true;
    let (mesh, handle) = Mesh::open(follower).unwrap();
    assert_eq!(mesh.gossip_address(), None);
    let (stop, thread) = run(mesh);
    assert_eq!(*handle.view(), ClusterView::default());
    drop(taken);
    assert!(handle.wait_view(PATIENCE, |view| view.node == "node-a"));
    handle.leave();
    thread.join().unwrap();
    drop(stop);
    Sockets::bind(taken_config.gossip_bind, taken_config.grpc_bind).unwrap();
}

#[test]
fn without_a_secret_everything_has_to_stay_on_this_machine() {
    let store = FlakyStore::default();
    for peer in ["10.0.0.1:10101", "somewhere:10101"] {
        let mut open = config("node-a", &[], &[]);
        open.peers = vec![peer.to_owned()];
        let (parts, _dir) = parts(&store, 1, open);
        let refused = Mesh::open(parts).unwrap_err();
        assert!(matches!(refused, ClusterError::Keys(KeyError::Missing)));
    }
    let mut a = Member::start(&store, 1, config("node-a", &[], &[]));
    let mut b = Member::start(&store, 2, config("node-b", &[], &[a.address]));
    a.is_linked_to(&["node-b"]);
    a.stop();
    b.stop();
}

#[test]
fn a_revocation_for_which_orders_have_no_room_is_not_lost() {
    let store = FlakyStore::default();
    let (parts, _dir) = parts(&store, 1, config("node-a", &[1], &[]));
    let (mesh, handle) = Mesh::open(parts).unwrap();
    // Nobody takes them yet.
    for revision in 0..5_000 {
        handle.applied(revision);
    }
    for hash in ["aa", "bb"] {
        handle.revoke(hash, &crate::testing::change(hash));
        handle.revocation_applied(hash);
    }
    let (stop, thread) = run(mesh);
    let known = |view: &ClusterView| {
        let mut hashes = ["aa", "bb"].iter();
        hashes.all(|hash| view.revocations.get(*hash).is_some_and(|of| of.on == 1))
    };
    assert!(handle.wait_view(PATIENCE, known));
    drop(stop);
    thread.join().unwrap();
}
