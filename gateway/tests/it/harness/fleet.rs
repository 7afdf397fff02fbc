//! Several nodes as one cluster, each in a network namespace of its own, with one Postgres and one
//! provider that all of them reach.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::client::Ask;
use super::conf::{Conf, KEY, OTHER_KEY, key};
use super::database::Database;
use super::fault::{Gossip, Relay, Weather};
use super::mock::Mock;
use super::network::Network;
use super::node::{Node, Place};
use super::wait::within;

/// Shared by the nodes of all tests.
pub const SECRET: &str = "the-secret-of-the-cluster-in-tests-0001";

const GOSSIP: u16 = 10_101;
const GRPC: u16 = 10_102;
const DATA: u16 = 8_080;
const ADMIN: u16 = 9_090;

/// Longest time in which a fleet may become whole on a busy machine.
pub const WHOLE: Duration = Duration::from_secs(60);

/// What a fleet is made of. Nodes end before what they stand on: fields drop in this order.
pub struct Fleet {
    pub nodes: Vec<Node>,
    pub sky: Vec<Gossip>,
    _relays: Vec<Relay>,
    pub network: Network,
    pub mock: Mock,
    pub database: Database,
    pub plan: Plan,
}

/// How nodes are configured.
pub struct Plan {
    /// What the providers, keys and limits are, given the provider's address as nodes see it.
    pub conf: Box<dyn Fn(SocketAddr) -> Conf>,
    /// What nodes reach besides, on the port that it has here.
    pub also: Vec<SocketAddr>,
    /// Lines under `cluster:` besides the usual ones.
    pub cluster: Vec<String>,
    /// More such lines of one node each; nodes beyond the list: none.
    pub own: Vec<String>,
    /// Whom each node lists in `peers`; nodes beyond the list: all others.
    pub seeds: Vec<Vec<usize>>,
    /// Whether datagrams pass a proxy with weather.
    pub weather: bool,
    /// The seed of the weather.
    pub seed: u64,
    pub mock: Vec<&'static str>,
    /// How far the wall clock of each node is ahead, in milliseconds; nodes beyond the list: not.
    pub clocks: Vec<i64>,
    /// What nodes run at first; `None`: the program under test.
    pub program: Option<PathBuf>,
}

/// The team of both keys; its limits are far away and count everything.
pub const TEAM: &str = "all";

impl Plan {
    /// Two keys; the demo key has these limits. What both use together is counted by their team.
    pub fn limited(lines: &str) -> Self {
        let lines = lines.to_owned();
        Self {
            conf: Box::new(move |mock| counting(Conf::for_upstream(mock), &lines)),
            also: Vec::new(),
            cluster: Vec::new(),
            own: Vec::new(),
            seeds: Vec::new(),
            weather: false,
            seed: 1,
            mock: vec!["--no-record"],
            clocks: Vec::new(),
            program: None,
        }
    }
}

/// The same with the demo key limited by `lines`, and both keys in [`TEAM`].
pub fn counting(mut conf: Conf, lines: &str) -> Conf {
    conf.teams = format!(
        "  - {{name: {TEAM}, rate_limits: [{{requests: 100000000, every: 1d}}, {{tokens: 100000000000, every: 1d}}], \
         budgets: [{{limit_usd: 1000000, every: 1Y}}]}}\n"
    );
    let team = format!("team: {TEAM}\n");
    conf.keys = key("demo", KEY, &(team.clone() + lines)) + &key("other", OTHER_KEY, &team);
    conf
}

impl Fleet {
    /// `count` nodes that know each other and are ready.
    pub fn start(count: usize, plan: Plan) -> Self {
        let mut fleet = Self::prepare(count, plan);
        for node in 0..count {
            let started = fleet.launch(node);
            fleet.nodes.push(started);
        }
        fleet.await_whole();
        fleet
    }

    /// Everything but the nodes.
    pub fn prepare(count: usize, plan: Plan) -> Self {
        let database = Database::start();
        let mock = Mock::with(&plan.mock);
        let network = Network::new(count);
        let outside = network.outside();
        let relay = |to: SocketAddr| Relay::start((outside, to.port()).into(), to);
        let postgres = SocketAddr::from(([127, 0, 0, 1], database.server.port()));
        let mut relays = vec![relay(mock.address), relay(postgres)];
        relays.extend(plan.also.iter().copied().map(relay));
        let sky = (0..count).filter(|_| plan.weather).map(|node| {
            let (at, behind) = (network.proxy(node), network.address(node));
            let seed = plan
                .seed
                .wrapping_mul(0x9e37_79b9)
                .wrapping_add(node as u64);
            Gossip::start(at, behind, [GOSSIP, GRPC], seed)
        });
        let sky = sky.collect();
        Self {
            nodes: Vec::new(),
            sky,
            _relays: relays,
            network,
            mock,
            database,
            plan,
        }
    }

    /// Starts the process of a node, without waiting.
    pub fn launch(&self, node: usize) -> Node {
        let own = self.network.address(node);
        Node::launch_at(
            &self.conf_of(node),
            (own, DATA).into(),
            (own, ADMIN).into(),
            Place {
                network: Some(self.network.name(node)),
                clock_ahead_ms: self.plan.clocks.get(node).copied().unwrap_or(0),
                program: self.plan.program.clone(),
            },
        )
    }

    /// The configuration of a node.
    pub fn conf_of(&self, node: usize) -> Conf {
        let outside = self.network.outside();
        let provider = SocketAddr::from((outside, self.mock.address.port()));
        let mut conf = self.database.store_of((self.plan.conf)(provider));
        let port = self.database.server.port();
        let (near, far) = (format!("127.0.0.1:{port}"), format!("{outside}:{port}"));
        conf.store = conf.store.replace(&near, &far) + "  tls: {mode: disable}\n";
        let seen_at = |node| match self.plan.weather {
            true => self.network.proxy(node),
            false => self.network.address(node),
        };
        let others = || (0..self.count()).filter(|peer| *peer != node).collect();
        let seeds = self.plan.seeds.get(node).cloned();
        let peers: Vec<String> = seeds
            .unwrap_or_else(others)
            .into_iter()
            .map(|peer| format!("\"{}:{GOSSIP}\"", seen_at(peer)))
            .collect();
        let mut cluster = format!(
            "cluster:\n  enabled: true\n  node_id: n{number}\n  secret: {SECRET}\n  peers: [{peers}]\n  \
             gossip: {{bind: {own}, advertise: {seen}, port: {GOSSIP}}}\n  grpc: {{bind: {own}, port: {GRPC}}}\n",
            number = node + 1,
            peers = peers.join(", "),
            own = self.network.address(node),
            seen = seen_at(node),
        );
        for line in self.plan.cluster.iter().chain(self.plan.own.get(node)) {
            cluster += &format!("  {line}\n");
        }
        conf.more += &cluster;
        conf
    }

    fn count(&self) -> usize {
        self.nodes.len().max(self.network.len())
    }

    /// Lets datagrams to all nodes have this weather.
    pub fn set_weather(&self, weather: Weather) {
        assert!(!self.sky.is_empty(), "this fleet has no weather");
        self.sky.iter().for_each(|gossip| gossip.set(weather));
    }

    /// Waits until each node is ready and sees all others as up.
    #[track_caller]
    pub fn await_whole(&self) {
        let whole = within(WHOLE, || {
            self.nodes
                .iter()
                .all(|node| node.readyz() == Some(200) && up_in(node).len() == self.nodes.len())
                .then_some(())
        });
        if whole.is_none() {
            for node in &self.nodes {
                let ready = node.readyz();
                let view = ready.map(|_| node.admin("GET", "/api/cluster").text());
                eprintln!("{ready:?} {view:?}\n{}", node.process.log());
            }
            panic!("the fleet is not whole after {WHOLE:?}");
        }
    }
}

/// A chat request of the demo key.
pub fn chat(tokens: u64) -> Ask {
    Ask::post(
        "/v1/chat/completions",
        &super::api::chat("gpt-4o-mini", tokens),
    )
    .bearer(KEY)
}

/// The members of the cluster as a node sees them, by name: the whole entries.
#[track_caller]
pub fn members(node: &Node) -> Vec<Value> {
    let view = node.shown("/api/cluster");
    view["members"]
        .as_array()
        .expect("a list of members")
        .clone()
}

/// The names of members that a node sees as up, itself included.
pub fn up_in(node: &Node) -> Vec<String> {
    let up = members(node);
    let up = up.iter().filter(|member| member["state"] == "up");
    up.filter_map(|member| member["node"].as_str().map(str::to_owned))
        .collect()
}

/// The state in which a node sees another; `None` when it does not know it.
pub fn state_of(node: &Node, name: &str) -> Option<String> {
    let members = members(node);
    let found = members.iter().find(|member| member["node"] == name)?;
    found["state"].as_str().map(str::to_owned)
}
