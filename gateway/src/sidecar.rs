//! The threads beside the data plane, and the way the process ends.
//!
//! `Sidecar` watches files and SIGHUP on a thread of its own, and in a process
//! that took over counts what the old one goes on settling. `Drain` turns
//! signals into the end of the server: SIGTERM and SIGINT let requests end
//! first, SIGQUIT hands the listening sockets to a new process before. A request
//! that was begun ends well within the grace, or is told that it is cut.
//!
//! A hand-over, in order: the new process has read everything and waits at the
//! upgrade socket; the old one sends its sockets, and both accept for five
//! seconds; the new one opens its admin port, the old one closes its own; the
//! old one serves what it has begun, for `drain_grace` at most, and ends.
//! In a cluster the old one leaves it with the sending of its sockets, as the new
//! one needs the ports, and tells peers and store all it has counted. The new one
//! accepts once it has that from them, usually within a second: until then
//! the old one serves, and later, connections wait unaccepted.
//! Meanwhile the limits of the new process count what the old one has settled,
//! at most a second late, but not what its open requests hold; the old one
//! does not see what the new one admits. A hand-over can so admit more than a
//! limit says: what was in flight, and what came to the old one in the seconds
//! in which both accept.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cluster::{ClusterHandle, Node, Predecessor};
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use policy::CounterTable;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::Readiness;
use crate::clock;
use crate::config::catalogue::Actor;
use crate::config::{Catalogue, Looked, Reloader};
use crate::edge::{Connections, ListeningSockets, TlsIdentity};
use crate::telemetry::Metrics;

/// How often files are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// How long a load balancer has to see that the node is not ready any more,
/// before the end is near enough to count requests.
const NOTICE: Duration = Duration::from_secs(1);

/// How often a drain looks whether requests are still in flight.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Longest wait for requests that were cut.
const SETTLE_WAIT: Duration = Duration::from_secs(5);

/// Longest wait for the data port to open, and the pause between two looks.
const LISTEN_WAIT: Duration = Duration::from_secs(30);
const LISTEN_LOOK: Duration = Duration::from_millis(10);

/// Longest wait for a new process to stand at the upgrade socket.
const SUCCESSOR_WAIT: Duration = Duration::from_secs(30);

/// From the sending of the sockets to the closing of the admin port. A new
/// process looks for them once a second, and opens its own port then.
const ADMIN_OVERLAP: Duration = Duration::from_secs(2);

/// How long after a hand-over connections move to the new process with their
/// next answer, before those that are left end.
const MOVE: Duration = Duration::from_secs(2);

/// How long a drain without requests waits for connections to end by themselves.
const LINGER: Duration = Duration::from_secs(1);

/// How long requests that are cut have to tell their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the old process settles while it drains.
#[derive(Debug)]
pub struct Inheritance {
    /// The old process.
    pub predecessor: Predecessor,
    /// Where its usage counts.
    pub counters: Arc<CounterTable>,
}

impl Inheritance {
    /// Counts what was settled since the last time; `false` when that was all.
    fn take(&mut self) -> bool {
        match self.predecessor.settled() {
            Ok(cells) => {
                self.counters.restore(&cells);
            }
            Err(error) => {
                tracing::warn!(%error, "usage of the old process is not counted yet");
            }
        }
        let ended = self.predecessor.has_ended();
        if ended {
            tracing::info!("all usage of the old process is counted");
        }
        !ended
    }
}

/// What the store had when it was away at the start.
#[derive(Debug)]
pub struct Recovery {
    /// Knows when the store is back.
    pub node: Arc<Node>,
    /// Where its cells count; `None` in a cluster, which counts them by itself.
    pub counters: Option<Arc<CounterTable>>,
    /// Whether it is not known yet; for `/readyz`.
    pub pending: Arc<AtomicBool>,
}

/// What is looked at each second.
#[derive(Debug)]
pub struct Watched {
    /// Reads the files again when they change.
    pub reloader: Arc<Reloader>,
    /// Takes over what other processes write.
    pub catalogue: Arc<Catalogue>,
    /// The data port's certificate.
    pub tls: Option<Arc<TlsIdentity>>,
    /// In a process that took over and stands alone.
    pub inheritance: Option<Inheritance>,
    /// After a start without the store.
    pub recovery: Recovery,
}

/// The thread `tyr-config`.
#[derive(Debug)]
pub struct Sidecar {
    thread: JoinHandle<()>,
}

impl Sidecar {
    /// Watches until `stopped` says so; `beside` (users and prices) runs with it.
    pub fn start(
        watched: Watched,
        beside: impl Future<Output = ()> + Send + 'static,
        stopped: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // Registered here, so that no SIGHUP after the start ends the process.
        let hangup = {
            let _inside = runtime.enter();
            signal(SignalKind::hangup())?
        };
        let thread = thread::Builder::new()
            .name("tyr-config".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = watch_all(watched, hangup, stopped) => {}
                        () = beside => {}
                    }
                });
            })?;
        Ok(Sidecar { thread })
    }

    /// Waits for the thread's end.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the thread that watches the configuration ended in a panic");
        }
    }
}

async fn watch_all(mut watched: Watched, mut hangup: Signal, mut stopped: watch::Receiver<bool>) {
    let mut tick = interval(WATCH_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let news = watched.catalogue.news();
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = news.notified() => watched.catalogue.poll(),
            _ = hangup.recv() => {
                // The outcome is logged and counted where it is decided.
                if watched.reloader.reload().is_ok() {
                    watched.note_reload("SIGHUP");
                }
                reload_tls(watched.tls.as_deref());
            }
            _ = tick.tick() => watched.look(),
        }
    }
}

impl Watched {
    /// Everything that is due each second. Blocks on files and on the store.
    fn look(&mut self) {
        let inheritance = self.inheritance.take();
        self.inheritance = inheritance.and_then(|mut left| left.take().then_some(left));
        if matches!(self.reloader.check_now(), Looked::Reloaded(_)) {
            reload_tls(self.tls.as_deref());
            self.note_reload("file change");
        }
        self.catalogue.poll();
        self.recovery.look();
    }

    fn note_reload(&self, actor: &str) {
        let actor = Actor {
            name: actor.to_owned(),
            peer: String::new(),
        };
        if let Err(error) = self.catalogue.note("reload", &actor) {
            tracing::warn!(%error, "a reload is not in the audit trail");
        }
    }
}

impl Recovery {
    fn look(&self) {
        if let Some(cells) = self.node.take_recovered()
            && let Some(counters) = &self.counters
        {
            let cells_read = cells.len();
            counters.raise(&cells);
            tracing::info!(cells_read, "the store is back: limits count what it has");
        }
        self.pending.store(self.node.degraded(), Ordering::Release);
    }
}

/// Reads the certificate again, if there is one.
pub fn reload_tls(tls: Option<&TlsIdentity>) {
    if let Some(Err(error)) = tls.map(TlsIdentity::reload) {
        tracing::error!(%error, "the certificate could not be read again; the old one stays");
    }
}

/// Sets the node ready once its data port takes connections.
pub fn announce_when_listening(
    listen: &[SocketAddr],
    readiness: Arc<Readiness>,
) -> io::Result<JoinHandle<()>> {
    let targets: Vec<SocketAddr> = listen.iter().map(|address| reachable(*address)).collect();
    thread::Builder::new()
        .name("tyr-ready".to_owned())
        .spawn(move || {
            let start = clock::monotonic();
            for target in targets {
                while TcpStream::connect_timeout(&target, LISTEN_WAIT).is_err() {
                    if start.elapsed() > LISTEN_WAIT {
                        tracing::error!(%target, "the data port does not open");
                        return;
                    }
                    thread::sleep(LISTEN_LOOK);
                }
            }
            readiness.set_ready(true);
            tracing::info!("ready");
        })
}

/// An address under which a listener on `address` can be reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Waits until requests that were cut have settled. Their tasks are dropped
/// by the data port's threads, which nobody else waits for.
pub fn wait_until_settled(metrics: &Metrics) {
    let start = clock::monotonic();
    while metrics.in_flight_now() > 0 {
        if start.elapsed() > SETTLE_WAIT {
            let left = metrics.in_flight_now();
            tracing::error!(left, "requests that were cut did not settle in time");
            return;
        }
        thread::sleep(LISTEN_LOOK);
    }
}

/// The end of the server.
#[derive(Debug)]
pub struct Drain {
    /// Falls first.
    pub readiness: Arc<Readiness>,
    /// Knows how many requests are in flight.
    pub metrics: Arc<Metrics>,
    /// The data port's connections.
    pub connections: Arc<Connections>,
    /// The data port's sockets.
    pub sockets: ListeningSockets,
    /// Where a new process waits for them.
    pub upgrade_socket: PathBuf,
    /// Longest time that requests have to end.
    pub grace: Duration,
    /// Ends the data port: nothing new is taken, what was begun goes on.
    pub leave: watch::Sender<bool>,
    /// Tells the requests that are left that their time is over.
    pub cut: watch::Sender<bool>,
    /// Closes the admin port once the sockets have gone to a new process: from
    /// then on the new one speaks for the node.
    pub close_admin: watch::Sender<bool>,
    /// The other nodes, which are told that this one goes.
    pub cluster: Option<ClusterHandle>,
}

/// How the node was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// It stops, after a notice of this length.
    Stop(Duration),
    /// A new process has its sockets.
    HandedOver,
}

#[async_trait]
impl ShutdownSignalWatch for Drain {
    async fn recv(&self) -> ShutdownSignal {
        let signals = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
            signal(SignalKind::quit()),
        );
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut quit)) = signals else {
            tracing::error!("signals cannot be received; the server stops");
            return ShutdownSignal::FastShutdown;
        };
        let mut look = interval(DRAIN_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quit_at = None;
        let farewell = loop {
            tokio::select! {
                _ = terminate.recv() => break Farewell::Stop(NOTICE),
                // A person at a terminal does not wait for a load balancer.
                _ = interrupt.recv() => break Farewell::Stop(Duration::ZERO),
                _ = quit.recv() => quit_at = Some(clock::monotonic()),
                _ = look.tick(), if quit_at.is_some() => {
                    if is_socket(&self.upgrade_socket) {
                        if self.hand_over().await {
                            break Farewell::HandedOver;
                        }
                        quit_at = None;
                    } else if quit_at.is_some_and(|at| at.elapsed() > SUCCESSOR_WAIT) {
                        tracing::error!(socket = %self.upgrade_socket.display(),
                            "SIGQUIT, but no new process waits for the sockets: this one goes on");
                        quit_at = None;
                    }
                }
            }
        };
        tokio::select! {
            () = self.part(farewell) => {}
            _ = interrupt.recv() => tracing::warn!("interrupted again: requests are cut"),
        }
        self.end().await;
        // Nothing is in flight, or its time is over: no further grace.
        ShutdownSignal::FastShutdown
    }
}

impl Drain {
    /// Gives the listening sockets to the new process; false if it did not
    /// take them, and nothing has changed.
    async fn hand_over(&self) -> bool {
        tracing::info!("SIGQUIT: the listening sockets go to the new process");
        let (sockets, path) = (self.sockets.clone(), self.upgrade_socket.clone());
        let problem = match tokio::task::spawn_blocking(move || sockets.hand_over(&path)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            problem,
            "the sockets could not be sent: this process goes on"
        );
        false
    }

    /// Everything is served until the notice is over; then nothing new, and
    /// what was begun has its grace.
    async fn part(&self, farewell: Farewell) {
        let asked = clock::monotonic();
        match farewell {
            Farewell::Stop(notice) => {
                self.readiness.start_draining();
                if let Some(cluster) = &self.cluster {
                    cluster.drain();
                }
                tracing::info!(in_flight = self.unfinished(), "draining");
                tokio::time::sleep(notice).await;
                self.leave.send_replace(true);
                self.finished(asked).await;
            }
            Farewell::HandedOver => {
                // The new process takes the node's place there as here.
                if let Some(cluster) = &self.cluster {
                    cluster.leave();
                }
                // The new process speaks for the node from here on.
                tokio::time::sleep(ADMIN_OVERLAP).await;
                self.close_admin.send_replace(true);
                // Last calls to the port do not hear of a node that drains.
                tokio::time::sleep(NOTICE).await;
                // Connections move to the new process with their next answer.
                self.readiness.start_draining();
                tokio::time::sleep(MOVE).await;
                self.leave.send_replace(true);
                tracing::info!(
                    in_flight = self.unfinished(),
                    "handed over: what has begun goes on"
                );
                self.finished(clock::monotonic()).await;
            }
        }
    }

    /// Waits until nothing is unfinished, or the grace since `start` is over.
    async fn finished(&self, start: Instant) {
        let mut look = interval(DRAIN_LOOK);
        let mut quiet = None;
        loop {
            look.tick().await;
            if self.unfinished() == 0 {
                // The last bytes of an answer over HTTP/2 leave after its
                // request has ended; the connection's end says that they did.
                let since = *quiet.get_or_insert_with(clock::monotonic);
                if self.connections.open() == 0 || since.elapsed() >= LINGER {
                    return;
                }
                continue;
            }
            quiet = None;
            if start.elapsed() >= self.grace {
                return;
            }
        }
    }

    /// Cuts the requests that are left, and gives them a moment to say so.
    async fn end(&self) {
        self.leave.send_replace(true);
        let cut = self.unfinished();
        if cut == 0 {
            return;
        }
        tracing::warn!(cut, "the grace is over: requests are cut");
        self.cut.send_replace(true);
        let start = clock::monotonic();
        let mut look = interval(DRAIN_LOOK);
        while start.elapsed() < LAST_WORDS {
            look.tick().await;
            if self.unfinished() == 0 && self.connections.open() == 0 {
                return;
            }
        }
    }

    /// Requests begun and not ended: also those whose head is not whole yet,
    /// and those whose answer is not sent yet.
    fn unfinished(&self) -> u64 {
        let exchanges = u64::try_from(self.connections.exchanges()).unwrap_or(u64::MAX);
        self.metrics.in_flight_now().max(exchanges)
    }
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|found| found.file_type().is_socket())
}

/// Removes the socket of a new process that died while it waited there: it
/// would look as if one did. Only for who has locked the node's folder.
pub fn clear_upgrade_socket(path: &Path) {
    if is_socket(path)
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove an old upgrade socket");
    }
}
