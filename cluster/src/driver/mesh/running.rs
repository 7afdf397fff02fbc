//! The loop: one thing that happened at a time, then what the core makes of it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::links::OpenLinks;
use super::seeds::{Meant, Own, Seeds};
use super::sources::{Errand, Event, Inlets, Sources};
use super::{Mesh, Outlets};
use crate::config::ClusterConfig;
use crate::core::{
    Command, Core, CoreConfig, Diagnosis, Effect, ExchangeFailure, Incoming, Input, Now,
    ProbeOutcome,
};
use crate::driver::ClusterClock;
use crate::entity::EntityLog;
use crate::handle::Order;
use crate::message::{CAP_HOLDS, Frame};
use crate::node::StoreDesk;
use crate::origin::Origin;
use crate::transport::grpc::{FRAMES, Happened, Links, Room, dial, probe};
use crate::transport::seal::Sealer;
use crate::transport::socket::Sockets;
use crate::transport::tcp::{Asked, ask};
use crate::transport::traffic::Traffic;

/// How old a view may become.
const VIEW_EVERY: Duration = Duration::from_millis(100);

/// How soon after a view the next one is posted if there is news.
const NEWS_EVERY: Duration = Duration::from_millis(20);

/// For what was said last to leave this machine.
const GOODBYE: Duration = Duration::from_millis(300);

/// Tasks at a time, besides links: exchanges, dials, looks at ports. More fail at once.
const ERRANDS: usize = 256;

/// The state of the loop.
pub(super) struct Running {
    core: Core,
    clock: Arc<ClusterClock>,
    outlets: Outlets,
    desk: StoreDesk,
    entities: EntityLog,
    /// How far they were read when the core was last told.
    read: u64,
    seeds: Seeds,
    /// Other nodes that `peers` meant at most.
    most_others: u64,
    local: IpAddr,
    sealer: Sealer,
    traffic: Traffic,
    shared: Links,
    links: OpenLinks,
    errands: JoinSet<Errand>,
    asked: BTreeMap<u64, oneshot::Sender<Vec<u8>>>,
    questions: u64,
    diagnoses: BTreeMap<u64, SyncSender<Diagnosis>>,
    diagnosed: u64,
    /// What the driver itself has to tell the core, at the next tick.
    pending: VecDeque<Input>,
    posted: Duration,
    news: bool,
}

/// Everything is there: begins.
pub(super) fn begin(mesh: Mesh, sockets: Sockets) -> io::Result<(Running, Sources)> {
    let Mesh {
        parts,
        orders,
        sealer,
        trust,
        outlets,
        ..
    } = mesh;
    let config = parts.config;
    let advertised = reachable(config.gossip_advertise, sockets.datagrams.local_addr()?);
    let grpc_port = match config.grpc_port {
        0 => sockets.links.local_addr()?.port(),
        port => port,
    };
    let now = parts.clock.read();
    let core = core_config(&config, parts.me, advertised, grpc_port);
    let mut core = Core::new(core, parts.counters, rand::random(), now);
    if parts.starts_empty {
        core.start_empty();
    }
    let (happened, happenings) = mpsc::channel(FRAMES);
    let traffic = Traffic::default();
    let local = config.gossip_bind.ip();
    let shared = Links {
        trust,
        hello: core.hello(),
        local,
        dial_timeout: config.dial_timeout,
        happened,
        room: Room::default(),
        traffic: traffic.clone(),
        numbers: Arc::default(),
    };
    let inlets = Inlets {
        happened: happenings,
        replies: parts.replies,
        orders,
    };
    let sources = Sources::open(sockets, &sealer, parts.me, &shared, inlets)?;
    tracing::info!(%advertised, grpc_port, node = config.node_id, "cluster joined in");
    let bound = config.gossip_bind;
    let running = Running {
        core,
        clock: parts.clock,
        outlets,
        desk: parts.desk,
        entities: parts.entities,
        read: 0,
        seeds: Seeds::new(config.peers, Own { advertised, bound }),
        most_others: 0,
        local,
        sealer,
        links: OpenLinks::new(traffic.clone()),
        traffic,
        shared,
        errands: JoinSet::new(),
        asked: BTreeMap::new(),
        questions: 0,
        diagnoses: BTreeMap::new(),
        diagnosed: 0,
        pending: VecDeque::new(),
        posted: Duration::ZERO,
        news: true,
    };
    Ok((running, sources))
}

/// `advertised`, with the port that was bound if any free one was to be.
fn reachable(mut advertised: SocketAddr, bound: SocketAddr) -> SocketAddr {
    if advertised.port() == 0 {
        advertised.set_port(bound.port());
    }
    advertised
}

fn core_config(
    config: &ClusterConfig,
    me: Origin,
    gossip: SocketAddr,
    grpc_port: u16,
) -> CoreConfig {
    CoreConfig {
        me,
        name: config.node_id.clone(),
        cluster: config.name.clone(),
        region: config.region.clone(),
        zone: config.zone.clone(),
        gossip,
        grpc_port,
        build: config.build.clone(),
        proto_max: config.protocol_max,
        caps: if config.protocol_max >= 2 {
            CAP_HOLDS
        } else {
            0
        },
        suspicion: config.suspicion,
        failure_threshold: config.failure_threshold,
        sync_interval: config.sync_interval,
        partition: config.partition,
        forget_after: config.forget_after,
        tasks: config.tasks.clone(),
        seeds_expected: configured_nodes(config) > 1,
        configured_nodes: configured_nodes(config),
    }
}

/// This node and every other that the configuration names, before names were looked up.
fn configured_nodes(config: &ClusterConfig) -> u64 {
    let own = [config.gossip_bind, config.gossip_advertise];
    let is_other = |peer: &&String| {
        let address = peer.parse::<SocketAddr>();
        address.map_or(true, |address| !own.contains(&address))
    };
    config.peers.iter().filter(is_other).count() as u64 + 1
}

// === impl Running ===

impl Running {
    /// Runs until it is told to go or `stopped`, then says goodbye. With an error nobody can reach
    /// this node any more.
    pub(super) async fn run(
        mut self,
        mut sources: Sources,
        mut stopped: oneshot::Receiver<()>,
    ) -> io::Result<StoreDesk> {
        loop {
            let event = tokio::select! {
                event = sources.next(&mut self.errands) => event,
                _ = &mut stopped => break,
            };
            match event {
                Event::End | Event::Order(Order::Command(Command::Leave)) => break,
                Event::Lost => return Err(io::Error::other("a task that accepts has ended")),
                event => self.take_in(event, &sources),
            }
        }
        self.tell(Input::Command(Command::Leave));
        self.carry_out(&sources);
        let until = tokio::time::Instant::now() + GOODBYE;
        while let Ok(event) = tokio::time::timeout_at(until, sources.next(&mut self.errands)).await
        {
            self.take_in(event, &sources);
        }
        self.post(&sources);
        tracing::info!("cluster left");
        Ok(self.desk)
    }

    fn take_in(&mut self, event: Event, sources: &Sources) {
        match event {
            Event::Tick => self.tick(sources),
            Event::Look => self.look(),
            Event::Datagram(bytes) => self.tell_quietly(Input::Datagram(bytes)),
            Event::Question(asked) => self.question(asked),
            Event::Link(happened) => self.link(happened),
            Event::Reply(reply) => self.tell(Input::Store(reply)),
            Event::Order(Order::Command(command)) => self.tell(Input::Command(command)),
            Event::Order(Order::Diagnose(found)) => self.diagnose(found),
            #[cfg(test)]
            Event::Order(Order::Call(function)) => function(),
            Event::Errand(errand) => self.returned(errand),
            Event::End | Event::Lost => {}
        }
        self.carry_out(sources);
    }

    fn now(&self) -> Now {
        self.clock.read()
    }

    /// Tells the core something that shows in the view.
    fn tell(&mut self, input: Input) {
        self.news = true;
        self.tell_quietly(input);
    }

    fn tell_quietly(&mut self, input: Input) {
        let now = self.now();
        self.core.handle(input, now);
        self.clock.follow(now, self.core.offset());
    }

    fn tick(&mut self, sources: &Sources) {
        for input in std::mem::take(&mut self.pending) {
            self.tell(input);
        }
        let revision = self.entities.revision();
        if std::mem::replace(&mut self.read, revision) != revision {
            self.tell_quietly(Input::EntitiesRead { revision });
        }
        for command in self.outlets.board.take_late() {
            self.tell(Input::Command(command));
        }
        let now = self.now();
        self.core.tick(now);
        self.clock.follow(now, self.core.offset());
        let age = now.mono.saturating_sub(self.posted);
        if age >= VIEW_EVERY || self.news && age >= NEWS_EVERY {
            self.post(sources);
        }
    }

    fn post(&mut self, sources: &Sources) {
        let now = self.now();
        let mut view = self.core.view(now);
        self.traffic.fill(&mut view.figures);
        view.figures.secret = Some(self.sealer.keys().ring().first().id());
        view.figures.secrets_in_use = sources.datagrams.keys_in_use();
        self.outlets.board.post(view);
        self.posted = now.mono;
        self.news = false;
    }

    /// Looks up peers, and reads certificates again.
    fn look(&mut self) {
        let trust = self.shared.trust.clone();
        self.errands.spawn_blocking(move || {
            trust.read_again();
            Errand::Done
        });
        if let Some(looking) = self.seeds.look() {
            self.errands.spawn(async { Errand::Seeds(looking.await) });
        }
    }

    fn question(&mut self, Asked { content, answer }: Asked) {
        // Those that got no answer in time are gone.
        self.asked.retain(|_, answer| !answer.is_closed());
        self.questions += 1;
        self.asked.insert(self.questions, answer);
        self.tell_quietly(Input::ExchangeAsked {
            exchange: self.questions,
            bytes: content,
        });
    }

    fn diagnose(&mut self, found: SyncSender<Diagnosis>) {
        self.diagnosed += 1;
        let id = self.diagnosed;
        self.diagnoses.insert(id, found);
        self.tell(Input::Command(Command::Diagnose { id }));
    }

    fn link(&mut self, happened: Happened) {
        match happened {
            Happened::Up(up) => {
                let (link, hello) = (up.link, up.hello.clone());
                self.links.open(up);
                self.tell(Input::LinkUp { link, hello });
            }
            Happened::Frame {
                link,
                node,
                frame,
                room: _taken,
            } if self.links.is_open(link) => {
                let quiet = is_quiet(&frame);
                let input = Input::Frame { link, node, frame };
                match quiet {
                    true => self.tell_quietly(input),
                    false => self.tell(input),
                }
            }
            Happened::Frame { .. } => {}
            Happened::Down { link, node } => {
                if self.links.close(link).is_some() {
                    self.tell(Input::LinkDown { link, node });
                }
            }
            Happened::Failed { node, refused } => {
                self.links.dial_ended(node);
                self.tell(Input::DialFailed { node, refused });
            }
        }
    }

    fn returned(&mut self, errand: Errand) {
        match errand {
            Errand::Answered { to, result } => {
                self.tell_quietly(Input::ExchangeAnswered { to, result });
            }
            Errand::Probed { node, outcome } => self.tell(Input::Probed { node, outcome }),
            Errand::Seeds(found) => {
                let meant = self.seeds.take(found);
                self.seeds_came(meant);
            }
            Errand::Done => {}
        }
    }

    fn seeds_came(&mut self, seeds: Meant) {
        // Who cannot be looked up now is not gone.
        self.most_others = self.most_others.max(seeds.others.len() as u64);
        let others = self
            .most_others
            .max(seeds.others.len() as u64 + seeds.unknown);
        let (nodes, rank) = (others + 1, seeds.rank);
        self.tell(Input::Command(Command::SetConfigured { nodes, rank }));
        if !seeds.others.is_empty() || seeds.unknown == 0 {
            self.tell(Input::Command(Command::SetSeeds(seeds.others)));
        }
    }

    /// Does what the core wants done.
    fn carry_out(&mut self, sources: &Sources) {
        for effect in self.core.take_effects() {
            match effect {
                Effect::Datagram { to, bytes } => sources.datagrams.send(to, &bytes),
                Effect::Exchange { to, bytes } => self.exchange(to, bytes),
                Effect::AnswerExchange { exchange, bytes } => {
                    if let Some(answer) = self.asked.remove(&exchange) {
                        // Whoever asked may have gone.
                        let _ = answer.send(bytes);
                    }
                }
                Effect::Dial { node, name, addr } => {
                    if self.links.begin_dial(node) {
                        tokio::spawn(dial(self.shared.clone(), node, name, addr));
                    }
                }
                Effect::CloseLink { link } => {
                    let closed = self.links.close(link);
                    self.ended(closed);
                }
                Effect::Frame { link, frame } => {
                    let closed = self.links.send(link, frame);
                    self.ended(closed);
                }
                Effect::ProbeLink { node, addr } => self.probe(node, addr),
                Effect::Store(request) => {
                    if let Err(refused) = self.desk.ask(request) {
                        self.pending.push_back(Input::Store(*refused));
                    }
                }
                Effect::Offer { after, entities } => {
                    if self.entities.offer(after, entities) {
                        self.outlets.inbox.put(Incoming::Poll);
                    }
                }
                Effect::Incoming(news) => {
                    if !self.outlets.inbox.put(news) {
                        tracing::error!("news of the cluster is not taken: some was left out");
                    }
                }
                Effect::Diagnosed { id, diagnosis } => {
                    if let Some(found) = self.diagnoses.get(&id) {
                        // Whoever asked may have gone, or does not read.
                        let _ = found.try_send(diagnosis);
                    }
                }
                Effect::DiagnosisEnded { id } => drop(self.diagnoses.remove(&id)),
            }
        }
    }

    /// The core is told of a link's end at the next tick, so that it is not asked within its answer.
    fn ended(&mut self, closed: Option<(u64, crate::NodeKey)>) {
        if let Some((link, node)) = closed {
            self.pending.push_back(Input::LinkDown { link, node });
        }
    }

    fn exchange(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        if self.errands.len() >= ERRANDS {
            let result = Err(ExchangeFailure::NoRoom);
            self.pending
                .push_back(Input::ExchangeAnswered { to, result });
            return;
        }
        let (sealer, traffic, local) = (self.sealer.clone(), self.traffic.clone(), self.local);
        self.errands.spawn(async move {
            let result = ask(&sealer, local, to, &bytes, &traffic).await;
            Errand::Answered { to, result }
        });
    }

    fn probe(&mut self, node: crate::NodeKey, addr: SocketAddr) {
        if self.errands.len() >= ERRANDS {
            let outcome = ProbeOutcome::Silent;
            self.pending.push_back(Input::Probed { node, outcome });
            return;
        }
        let local = self.local;
        self.errands.spawn(async move {
            let outcome = probe(local, addr).await;
            Errand::Probed { node, outcome }
        });
    }
}

/// Frames that come all the time and change little that a view shows.
fn is_quiet(frame: &Frame) -> bool {
    matches!(
        frame,
        Frame::Cells(_)
            | Frame::Ack(_)
            | Frame::Digest(_)
            | Frame::Ping { .. }
            | Frame::Pong { .. }
            | Frame::Suspect { .. }
            | Frame::Verdict { .. }
    )
}
