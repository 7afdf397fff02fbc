//! One simulated machine: its clock, its address, and the process that runs on it, if one does.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use policy::{CounterTable, Reservation, Timestamp};

use super::clock::{BEGIN, NodeClock};
use super::database::Client;
use super::ledger::Held;
use super::links::Life;
use super::load::{Gateway, Load, Request};
use super::shelf::{Entities, Shelf};
use super::world::Event;
use crate::config::{Partition, Task, TaskScope};
use crate::core::{Core, CoreConfig, Now, StoreRequest};
use crate::data_dir::NodeKey;
use crate::message::{CAP_HOLDS, PROTOCOL_MAX};
use crate::origin::Origin;

/// How long a change of a counter waits to be sent at most, near its limit.
pub(super) const SYNC: Duration = Duration::from_millis(100);

const GOSSIP_PORT: u16 = 10_101;
const LINK_PORT: u16 = 10_102;

/// Requests that wait for a process that stands still; more are refused by its kernel.
const MOST_WAITING: usize = 64;

/// Datagrams that wait for it.
const MOST_DATAGRAMS: usize = 256;

/// One machine.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) key: NodeKey,
    pub(super) name: String,
    pub(super) region: String,
    pub(super) addr: SocketAddr,
    pub(super) clock: NodeClock,
    pub(super) old: bool,
    /// Whether nothing answers for it, not even its kernel.
    pub(super) host_gone: bool,
    pub(super) lives: Life,
    last_boot: u64,
    /// What its last process added to its clock.
    pub(super) last_offset: i64,
    /// The entities that its last process kept on its disk, and up to which revision.
    pub(super) kept: (Entities, u64),
    pub(super) process: Option<Process>,
}

/// One run of the gateway.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) life: Life,
    pub(super) origin: Origin,
    pub(super) started: Duration,
    pub(super) core: Core,
    pub(super) table: Arc<CounterTable>,
    pub(super) gateway: Gateway,
    pub(super) open: BTreeMap<u64, Open>,
    /// Takes no new requests.
    pub(super) draining: bool,
    /// How far it has come with leaving.
    pub(super) leaving: u8,
    /// Since when it serves.
    pub(super) ready_at: Option<Duration>,
    /// Since when it stands still, and what waits meanwhile.
    pub(super) paused: Option<Duration>,
    pub(super) waiting: Vec<Event>,
    /// When it last went on after that.
    pub(super) woke_at: Option<Duration>,
    pub(super) store: VecDeque<StoreRequest>,
    pub(super) store_busy: bool,
    /// Revocations in force, by hash.
    pub(super) revoked: BTreeMap<String, Duration>,
    /// Newest term of an outcome, by task and scope.
    pub(super) terms: BTreeMap<(String, String), u64>,
    pub(super) shelf: Shelf,
    /// What it settled lately: when, on which account, how much.
    pub(super) recent: VecDeque<(Duration, usize, u64)>,
    /// When the newest of its cells that somebody else has were sent.
    pub(super) told_at: Duration,
    /// By node: when the newest frame it got from there was sent.
    pub(super) heard: Vec<Duration>,
    /// What the database had when it started: account, epoch, amount.
    pub(super) at_start: Vec<(usize, i64, u64)>,
}

/// One request being served.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) reservation: Reservation,
    pub(super) held: Vec<Held>,
    pub(super) request: Request,
}

// === impl Node ===

impl Node {
    pub(super) fn new(number: usize, clock: NodeClock, old: bool, key: NodeKey) -> Self {
        Self {
            key,
            name: format!("node-{number:03}"),
            region: ["east", "west"][number % 2].to_owned(),
            addr: address(number),
            clock,
            old,
            host_gone: false,
            lives: 0,
            last_boot: 0,
            last_offset: 0,
            kept: Default::default(),
            process: None,
        }
    }

    /// Starts a process.
    pub(super) fn start(
        &mut self,
        load: &Load,
        nodes: usize,
        seed: u64,
        now: Duration,
    ) -> &mut Process {
        self.lives += 1;
        self.host_gone = false;
        self.last_boot = self.clock.wall(now).0.max(self.last_boot + 1);
        let origin = Origin {
            node: self.key,
            boot: self.last_boot,
        };
        let table = Arc::new(CounterTable::tracking());
        let gateway = Gateway::new(load, &table);
        let begin = Now {
            mono: Duration::ZERO,
            wall: self.clock.wall(now),
        };
        let core = Core::new(self.config(origin, nodes), Arc::clone(&table), seed, begin);
        self.process.insert(Process {
            life: self.lives,
            origin,
            started: now,
            core,
            table,
            gateway,
            open: BTreeMap::new(),
            draining: false,
            leaving: 0,
            ready_at: None,
            paused: None,
            waiting: Vec::new(),
            woke_at: None,
            store: VecDeque::new(),
            store_busy: false,
            revoked: BTreeMap::new(),
            terms: BTreeMap::new(),
            shelf: Shelf::default(),
            recent: VecDeque::new(),
            told_at: now,
            heard: vec![now; nodes],
            at_start: Vec::new(),
        })
    }

    fn config(&self, origin: Origin, nodes: usize) -> CoreConfig {
        CoreConfig {
            me: origin,
            name: self.name.clone(),
            cluster: "simulated".to_owned(),
            region: self.region.clone(),
            zone: String::new(),
            gossip: self.addr,
            grpc_port: LINK_PORT,
            build: "simulated".to_owned(),
            proto_max: if self.old {
                PROTOCOL_MAX - 1
            } else {
                PROTOCOL_MAX
            },
            caps: if self.old { 0 } else { CAP_HOLDS },
            suspicion: Duration::from_secs(10),
            failure_threshold: 3,
            sync_interval: SYNC,
            partition: Partition::Share,
            forget_after: Duration::from_secs(600),
            tasks: vec![
                task("prices", TaskScope::Cluster),
                task("models", TaskScope::Region),
            ],
            seeds_expected: true,
            configured_nodes: nodes as u64,
        }
    }

    pub(super) fn client(&self) -> Option<Client> {
        let process = self.process.as_ref()?;
        Some(Client {
            origin: process.origin,
            name: self.name.clone(),
            region: self.region.clone(),
        })
    }

    /// The process of this life.
    pub(super) fn living(&mut self, life: Life) -> Option<&mut Process> {
        self.process.as_mut().filter(|process| process.life == life)
    }

    /// The time as its process sees it: the wall clock with the core's offset.
    pub(super) fn time(&self, now: Duration) -> Now {
        let process = self.process.as_ref();
        let started = process.map_or(Duration::ZERO, |process| process.started);
        let offset = process.map_or(self.last_offset, |process| process.core.offset());
        Now {
            mono: self.clock.mono(now, started),
            wall: Timestamp(self.clock.wall(now).0.saturating_add_signed(offset)),
        }
    }

    /// Milliseconds by which its cluster time is ahead of the true time.
    pub(super) fn cluster_time_ahead(&self, now: Duration) -> i64 {
        let truth = BEGIN + u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.time(now).wall.0.cast_signed() - truth.cast_signed()
    }
}

// === impl Process ===

impl Process {
    /// Keeps what happens while it stands still, as far as a kernel would.
    pub(super) fn wait(&mut self, event: Event) {
        let most = match &event {
            Event::Arrival { .. } => MOST_WAITING,
            Event::Datagram { .. } => MOST_DATAGRAMS,
            _ => usize::MAX,
        };
        let kind = std::mem::discriminant(&event);
        let same = self
            .waiting
            .iter()
            .filter(|other| std::mem::discriminant(*other) == kind);
        if most == usize::MAX || same.count() < most {
            self.waiting.push(event);
        }
    }
}

fn task(name: &str, scope: TaskScope) -> Task {
    Task {
        name: name.to_owned(),
        every: Duration::from_secs(5),
        scope,
        idempotent: false,
    }
}

/// Where a node gossips.
pub(super) fn address(number: usize) -> SocketAddr {
    let [high, low] = u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, high, low)), GOSSIP_PORT)
}

/// The node at an address, whatever the port.
pub(super) fn at_address(addr: SocketAddr) -> Option<usize> {
    match addr.ip() {
        IpAddr::V4(ip) if ip.octets()[0] == 10 => Some(usize::from(u16::from_be_bytes([
            ip.octets()[2],
            ip.octets()[3],
        ]))),
        _ => None,
    }
}
