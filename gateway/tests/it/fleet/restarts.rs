//! All nodes restarted one after the other, also from an older protocol to the newest.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{alone, used};
use crate::harness::client::{Ask, Connection};
use crate::harness::fleet::{Plan, chat, members};
use crate::harness::wait::within;
use crate::harness::{Fleet, eventually};

/// A balancer with clients: each request goes to the next node that is ready and takes
/// the connection. What was
/// begun is never tried again.
struct Balanced {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Balanced {
    fn start(to: Vec<[SocketAddr; 2]>, clients: usize, ask: &Ask) -> Self {
        let (stop, good, refused): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>) =
            Default::default();
        let threads = (0..clients).map(|client| {
            let (stop, good, refused) =
                (Arc::clone(&stop), Arc::clone(&good), Arc::clone(&refused));
            let (to, ask) = (to.clone(), ask.clone());
            std::thread::spawn(move || {
                let mut faults = Vec::new();
                let mut turn = client;
                while !stop.load(Ordering::SeqCst) {
                    within(Duration::from_millis(10), || None::<()>);
                    turn += 1;
                    let open = (0..to.len()).find_map(|next| open(to[(turn + next) % to.len()]));
                    let answer = open.and_then(|mut open| open.try_exchange(&ask));
                    match answer.map(|answer| (answer.status(), answer.text())) {
                        Some((200, _)) => good.fetch_add(1, Ordering::SeqCst),
                        Some((429, _)) => refused.fetch_add(1, Ordering::SeqCst),
                        other => {
                            faults.push(format!("{other:?}"));
                            0
                        }
                    };
                }
                faults
            })
        });
        let threads = threads.collect();
        Self {
            stop,
            good,
            refused,
            threads,
        }
    }

    fn stop(self) -> (u64, u64, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let faults = self
            .threads
            .into_iter()
            .flat_map(|client| client.join().expect("a client"));
        let faults = faults.collect();
        (
            self.good.load(Ordering::SeqCst),
            self.refused.load(Ordering::SeqCst),
            faults,
        )
    }
}

/// A connection to a node that wants traffic; it says so a second before it takes none.
fn open([data, admin]: [SocketAddr; 2]) -> Option<Connection> {
    let ready = Connection::try_open(admin).ok()?;
    let answer = { ready }.try_exchange(&Ask::get("/readyz"))?;
    (answer.status() == 200).then_some(())?;
    Connection::try_open(data).ok()
}

/// Ends each node and starts it again, one after the other.
fn roll(fleet: &mut Fleet) {
    for index in 0..fleet.nodes.len() {
        let node = &mut fleet.nodes[index];
        node.process.signal("TERM");
        let ended = node.process.wait(Duration::from_secs(40));
        assert!(
            ended.is_some_and(|status| status.success()),
            "{}",
            node.process.log()
        );
        node.start_again();
        fleet.await_whole();
    }
}

#[test]
fn a_rolling_restart_hands_out_no_fresh_budget_and_fails_no_request() {
    let _alone = alone();
    let mut fleet = Fleet::start(
        3,
        Plan::limited("rate_limits: [{requests: 300, every: 1d}]"),
    );
    let to = fleet
        .nodes
        .iter()
        .map(|node| [node.data, node.admin])
        .collect();
    let clients = Balanced::start(to, 4, &chat(2));
    roll(&mut fleet);
    let (good, refused, faults) = clients.stop();
    assert!(faults.is_empty(), "{faults:?}");
    assert!(refused > 0, "the limit was reached: {good} good");
    println!("a rolling restart of three: {good} of 300 let through, {refused} refused");
    let told = fleet
        .nodes
        .iter()
        .map(|node| super::bound(node, "requests"))
        .max()
        .unwrap_or(0);
    assert!((299..=300 + told.min(3)).contains(&good), "{good} of 300");
    for node in &fleet.nodes {
        let known = within(Duration::from_secs(60), || {
            (used(node, "requests") == good).then_some(())
        });
        assert!(
            known.is_some(),
            "{good} answers, counted {}",
            used(node, "requests")
        );
    }
}

#[test]
fn nodes_of_an_older_protocol_are_replaced_one_by_one() {
    let _alone = alone();
    let mut plan = Plan::limited("rate_limits: [{requests: 1000000, every: 1d}]");
    plan.cluster = vec!["protocol_max: 1".into()];
    let mut fleet = Fleet::start(3, plan);
    let protocols = |fleet: &Fleet| -> Vec<u64> {
        members(&fleet.nodes[0])
            .iter()
            .filter_map(|member| member["protocol"].as_u64())
            .collect()
    };
    eventually("all speak the older one", || {
        (protocols(&fleet) == [1, 1, 1]).then_some(())
    });
    let to = fleet
        .nodes
        .iter()
        .map(|node| [node.data, node.admin])
        .collect();
    let clients = Balanced::start(to, 4, &chat(2));
    fleet.plan.cluster.clear();
    for index in 0..3 {
        fleet.nodes[index].write_conf(&fleet.conf_of(index));
    }
    roll(&mut fleet);
    let (good, _, faults) = clients.stop();
    assert!(faults.is_empty(), "{faults:?}");
    // What an ended process told nobody comes from the store, seconds later.
    let settled = within(Duration::from_secs(60), || {
        let same = |node| used(node, "requests") == good;
        (protocols(&fleet) == [2, 2, 2] && fleet.nodes.iter().all(same)).then_some(())
    });
    let seen: Vec<u64> = fleet
        .nodes
        .iter()
        .map(|node| used(node, "requests"))
        .collect();
    let told = protocols(&fleet);
    assert!(
        settled.is_some(),
        "{good} answers, counted {seen:?}, protocols {told:?}"
    );
}
