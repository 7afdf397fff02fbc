//! The only wiring file: builds state and services, and says in which order
//! they start and stop.
//!
//! Start: configuration, store (with its counters) and cluster, data port,
//! admin port. A
//! process that takes over does all that can fail before it waits for the
//! sockets of the old one, and is silent on the admin port until it has them;
//! in a cluster it accepts on them once it knows what was counted.
//! Stop: readiness falls, the data port closes, requests end, the admin port
//! closes, the last records are committed.

mod admin;
mod catch_up;
mod cluster;
mod store;

pub(crate) use store::store_config;

pub(crate) use crate::config::catalogue::audit_key;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use ::cluster::{ClusterHandle, Node, NodeConfig};
use anyhow::Context;
use arc_swap::ArcSwap;
use pingora_core::listeners::{L4BufferSettings, ListenerConfig};
use pingora_core::server::configuration::{Opt, ServerConf};
use pingora_core::server::{RunArgs, Server};
use policy::{Clock, CounterTable, Predictor};
use tokio::sync::watch;

use crate::admin::{Degraded, Readiness};
use crate::clock::{NodeClock, ShiftedClock, SystemClock};
use crate::config::catalogue::Fleet;
use crate::config::{
    self, Catalogue, Environment, OnReload, Problem, References, Reloader, ReloaderParts, Started,
    Startup, Told,
};
use crate::edge::{
    Connections, DataService, EdgeApp, EdgeBounds, EdgeObserver, ListeningSockets, TlsIdentity,
};
use crate::peers::{Peers, PeersParts};
use crate::prices::{self, PriceDuties, PriceSync};
use crate::proxy::{Proxy, Services, TokenCounter};
use crate::sidecar::{self, Drain, Inheritance, Recovery, Sidecar, Watched};
use crate::state::Live;
use crate::telemetry::{self, LogFormat, Metrics};
use crate::upstream::ClientPool;
use crate::users;

use self::cluster::{OtherNodes, cluster_config};

/// Runs a node until it is told to stop.
pub fn serve(conf: &Path, upgrade: bool) -> ExitCode {
    match run(conf, upgrade) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tyr: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Validates a configuration and prints all that is wrong with it.
pub fn check(conf: &Path, resolve: bool) -> ExitCode {
    let environment = Environment::of_process();
    let references = match resolve {
        true => References::Resolve(&environment),
        false => References::Skip,
    };
    let judged = config::load(conf).and_then(|document| config::check(&document, references));
    let (problems, code) = match judged {
        Ok(warnings) => (warnings, ExitCode::SUCCESS),
        Err(problems) => (problems, ExitCode::FAILURE),
    };
    let kind = if code == ExitCode::SUCCESS {
        "warning: "
    } else {
        ""
    };
    let mut out = std::io::stdout().lock();
    for problem in &problems {
        // A reader that left wants no more lines.
        if writeln!(out, "{kind}{problem}").is_err() {
            break;
        }
    }
    code
}

/// Prints the JSON Schema of the YAML.
pub fn schema() -> ExitCode {
    match std::io::stdout()
        .lock()
        .write_all(config::schema_text().as_bytes())
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Bytes of a connection's write buffer.
const SHORT_ANSWER: usize = 4096;

/// What is built once and lives as long as the process.
struct Parts {
    live: Arc<ArcSwap<Live>>,
    services: Arc<Services>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    clock: Arc<dyn Clock>,
    predictor: Arc<Predictor>,
    reloader: Arc<Reloader>,
    catalogue: Arc<Catalogue>,
    startup: Startup,
    node: Arc<Node>,
    node_id: Arc<str>,
    /// The other nodes; `None` where the node stands alone.
    cluster: Option<ClusterHandle>,
    counters: Arc<CounterTable>,
    prices: PriceSync,
    /// Whether the store was away at the start and has not been read since.
    store_pending: Arc<AtomicBool>,
    /// In a process that took over, until it is given to the sidecar.
    inheritance: Option<Inheritance>,
    tls: Option<Arc<TlsIdentity>>,
    /// Says `true` when requests that still run are out of time.
    cut: watch::Sender<bool>,
}

impl Parts {
    /// What the sidecar looks at; the inheritance is given once.
    fn watched(&mut self) -> Watched {
        Watched {
            reloader: self.reloader.clone(),
            catalogue: self.catalogue.clone(),
            tls: self.tls.clone(),
            inheritance: self.inheritance.take(),
            recovery: Recovery {
                node: self.node.clone(),
                counters: self.cluster.is_none().then(|| self.counters.clone()),
                pending: self.store_pending.clone(),
            },
        }
    }
}

impl Parts {
    /// What is kept fresh beside the configuration's files, and the way to it
    /// from the cluster.
    fn beside(
        &self,
    ) -> (
        impl Future<Output = ()> + Send + 'static,
        Option<PriceDuties>,
    ) {
        let users = users::tend(self.live.clone(), self.counters.clone(), self.clock.clone());
        let (duties, orders) = self.cluster.clone().map(prices::duties).unzip();
        let prices = self.prices.clone().tend(orders);
        let both = async {
            tokio::join!(users, prices);
        };
        (both, duties)
    }
}

/// The data port's server and what its end needs.
struct DataPort {
    server: Server,
    connections: Arc<Connections>,
    sockets: ListeningSockets,
    leave: watch::Sender<bool>,
}

fn run(conf: &Path, upgrade: bool) -> anyhow::Result<()> {
    let format = match std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        true => LogFormat::Text,
        false => LogFormat::Json,
    };
    // Kept to the very end: dropping it writes what is queued.
    let _lines = telemetry::init(None, format).context("logging")?;
    // All TLS of the process uses one provider; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut parts = build(conf, upgrade)?;
    let (stop, stopped) = watch::channel(false);
    let (close_admin, admin_closed) = watch::channel(false);
    let admin_port =
        crate::admin::bind(parts.startup.admin_listen).context("server.admin_listen")?;
    let (beside, duties) = parts.beside();
    let side = Sidecar::start(parts.watched(), beside, stopped)?;
    let peers = listen_to_peers(&parts, duties, stop.subscribe())?;
    let caught_up = catch_up::serve_when_caught_up(&parts, stop.subscribe())?;
    let mut data = data_port(&parts, upgrade)?;
    let drain = Drain {
        readiness: parts.readiness.clone(),
        metrics: parts.metrics.clone(),
        connections: data.connections,
        sockets: data.sockets,
        upgrade_socket: upgrade_socket(&parts.startup),
        grace: parts.startup.drain_grace,
        leave: data.leave,
        cut: parts.cut.clone(),
        close_admin: close_admin.clone(),
        cluster: parts.cluster.clone(),
    };
    if upgrade {
        tracing::info!(socket = %drain.upgrade_socket.display(),
            "waiting for the listening sockets: send SIGQUIT to the old process now");
    }
    // With `upgrade` this waits, and ends the process if nothing comes.
    data.server.bootstrap();
    // Sockets that were taken over are open already.
    parts.readiness.set_ready(upgrade);
    let admin = match upgrade {
        true => catch_up::take_over(&parts, admin_port, admin_closed)?,
        false => self::admin::serve(&parts, admin_port, admin_closed)?,
    };
    let ready = sidecar::announce_when_listening(&parts.startup.listen, parts.readiness.clone())?;
    tracing::info!(listen = ?parts.startup.listen, admin = %parts.startup.admin_listen,
        version = env!("CARGO_PKG_VERSION"), "tyr starts");
    data.server.run(RunArgs {
        shutdown_signal: Box::new(drain),
    });
    sidecar::wait_until_settled(&parts.metrics);
    stop.send_replace(true);
    close_admin.send_replace(true);
    catch_up::join(caught_up.into_iter().chain([ready]));
    side.join();
    if let Some(peers) = peers {
        peers.join();
    }
    admin.join();
    match Arc::into_inner(parts.node) {
        Some(node) => node.stop(),
        None => tracing::error!(
            "the node is still in use: what is queued is taken up at the next start"
        ),
    }
    tracing::info!("tyr has stopped");
    Ok(())
}

/// The first configuration, and what it was read with.
struct Begun {
    started: Started,
    time: Arc<NodeClock>,
    metrics: Arc<Metrics>,
    counters: Arc<CounterTable>,
    readiness: Arc<Readiness>,
}

fn begin(conf: &Path) -> anyhow::Result<Begun> {
    let time = Arc::new(NodeClock::new(wall_clock()?));
    let clock: Arc<dyn Clock> = time.clone();
    let metrics = Arc::new(Metrics::new());
    telemetry::count_panics(metrics.clone());
    // Only for others it matters which counts have changed.
    let counters = Arc::new(match config::asks_for_cluster(conf) {
        true => CounterTable::tracking(),
        false => CounterTable::new(),
    });
    let readiness = Arc::new(Readiness::default());
    let started = config::start(ReloaderParts {
        path: conf.to_owned(),
        environment: Environment::of_process(),
        counters: counters.clone(),
        clients: Arc::new(ClientPool::new()),
        clock: clock.clone(),
        on_reload: on_reload(metrics.clone(), readiness.clone(), clock.clone()),
    });
    let started = started.map_err(|problems| anyhow::anyhow!(lines(&problems)))?;
    for warning in &started.warnings {
        tracing::warn!(problem = %warning, "configuration");
    }
    Ok(Begun {
        started,
        time,
        metrics,
        counters,
        readiness,
    })
}

fn build(conf: &Path, upgrade: bool) -> anyhow::Result<Parts> {
    let Begun {
        started,
        time,
        metrics,
        counters,
        readiness,
    } = begin(conf)?;
    let mut node = start_node(&started, upgrade, &counters, &time)?;
    let clock: Arc<dyn Clock> = time;
    let cluster = node.cluster();
    // Known before anybody asks whether the node is ready.
    readiness.set_catching_up(cluster.is_some());
    let startup = started.startup;
    let node_id = startup.node_id.clone();
    sidecar::clear_upgrade_socket(&upgrade_socket(&startup));
    let store_pending = Arc::new(AtomicBool::new(node.degraded()));
    // None in a cluster, which counts what it settles like that of any other.
    let inheritance = node.predecessor().map(|predecessor| Inheritance {
        predecessor,
        counters: counters.clone(),
    });
    let tls = match &startup.tls {
        Some(tls) => Some(TlsIdentity::load(&tls.cert, &tls.key).context("server.tls")?),
        None => None,
    };
    let reloader = Arc::new(started.reloader);
    let prices = PriceSync::begun(
        &startup.data_dir,
        &started.live,
        &reloader,
        &clock,
        &metrics,
    );
    let (cut, is_cut) = watch::channel(false);
    let predictor = Arc::new(Predictor::new());
    let services = Arc::new(Services {
        live: started.live.clone(),
        clock: clock.clone(),
        recorder: node.recorder(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        predictor: predictor.clone(),
        tokens: TokenCounter::start().context("the threads that count tokens")?,
        held_bytes: AtomicU64::new(0),
        cut: is_cut,
    });
    Ok(Parts {
        live: started.live,
        services,
        metrics,
        readiness,
        clock,
        predictor,
        reloader,
        prices,
        catalogue: started.catalogue,
        node_id: node_id.into(),
        cluster,
        counters,
        store_pending,
        startup,
        node: Arc::new(node),
        inheritance,
        tls,
        cut,
    })
}

/// Starts the node, and lets everything that its store has run: all before
/// the data port opens.
fn start_node(
    started: &Started,
    upgrade: bool,
    counters: &Arc<CounterTable>,
    time: &NodeClock,
) -> anyhow::Result<Node> {
    let startup = &started.startup;
    let settings = startup.cluster.as_ref();
    let prices = started.live.load().pricing.source.clone();
    let tasks: Vec<_> = prices
        .map(|prices| prices::task(&prices))
        .into_iter()
        .collect();
    let cluster = settings.map(|settings| cluster_config(settings, &startup.node_id, tasks));
    let node = ::cluster::start(
        NodeConfig {
            data_dir: startup.data_dir.clone(),
            take_over: upgrade,
            audit: audit_key(&started.ring),
            store: store_config(&startup.store, &Environment::of_process())?,
            cluster: cluster.transpose()?,
            counters: counters.clone(),
        },
        time.wall(),
    )
    .context("the node's store")?;
    counters.restore(&node.cells());
    let fleet = node.cluster().map(|handle| -> Arc<dyn Fleet> {
        time.follow(handle.clock());
        let secrets = settings.map(|settings| settings.secrets.clone());
        Arc::new(OtherNodes::new(handle, secrets.unwrap_or_default()))
    });
    let entities = node.entities();
    let loaded = entities.loaded();
    let opened = started.catalogue.open(Arc::new(entities), loaded, fleet);
    opened.map_err(|problems| anyhow::anyhow!(lines(&problems)))?;
    Ok(node)
}

/// The machine's clock. `TYR_CLOCK_OFFSET_MS` shifts it, to try what a node with
/// a wrong clock does.
fn wall_clock() -> anyhow::Result<Arc<dyn Clock>> {
    let Ok(text) = std::env::var("TYR_CLOCK_OFFSET_MS") else {
        return Ok(Arc::new(SystemClock));
    };
    let by = text
        .parse()
        .context("TYR_CLOCK_OFFSET_MS is not a number of milliseconds")?;
    tracing::warn!(
        by,
        "the clock of this node is shifted by TYR_CLOCK_OFFSET_MS"
    );
    Ok(Arc::new(ShiftedClock { by }))
}

/// Listens to the other nodes, if there are any.
fn listen_to_peers(
    parts: &Parts,
    duties: Option<PriceDuties>,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<Option<Peers>> {
    let Some((handle, duties)) = parts.cluster.as_ref().zip(duties) else {
        return Ok(None);
    };
    let incoming = handle.incoming().context("the cluster's news")?;
    let parts = PeersParts {
        incoming,
        catalogue: parts.catalogue.clone(),
        tasks: Box::new(duties),
    };
    Ok(Some(Peers::start(parts, stopped)?))
}

/// Tells metrics and readiness of each configuration, before it runs.
fn on_reload(metrics: Arc<Metrics>, readiness: Arc<Readiness>, clock: Arc<dyn Clock>) -> OnReload {
    Box::new(move |told| {
        if let Told::Reloaded(live) | Told::Written(live) = told {
            let rules = live.policy.rules().iter();
            let rules = rules.map(|rule| &*rule.spec().name);
            metrics.governance().configure_rules(rules);
            let models = live.policy.models().iter();
            let unpriced = models.clone().filter(|model| !model.price.is_known());
            metrics.prices().configure(unpriced.count());
            metrics.configure(models.map(|model| {
                let provider = live.policy.provider(model.provider);
                (provider.name.as_ref(), model.name.as_ref())
            }));
        }
        let revision = match told {
            Told::Reloaded(live) => Ok(live.policy.revision()),
            Told::Refused => Err(()),
            // The file is as it was, in use or refused.
            Told::Written(_) => return,
        };
        readiness.set_degraded(Degraded::Configuration, revision.is_err());
        metrics.reload(revision, clock.now());
    })
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    format!("the configuration has problems\n{}", lines.join("\n"))
}

/// The data port, not open yet; whatever can fail has been done.
fn data_port(parts: &Parts, upgrade: bool) -> anyhow::Result<DataPort> {
    let startup = &parts.startup;
    let conf = ServerConf {
        threads: startup.threads.unwrap_or_else(cores),
        // One runtime a thread: cheaper for each request than stealing tasks,
        // and a large body on one thread does not slow the others.
        work_stealing: false,
        upgrade_sock: upgrade_socket(startup).display().to_string(),
        // `sidecar::Drain` does all the waiting there is.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let opt = Opt {
        upgrade,
        ..Opt::default()
    };
    let mut server = Server::new_with_opt_and_conf(Some(opt), conf);
    let proxy =
        pingora_proxy::http_proxy(&server.configuration, Proxy::new(parts.services.clone()));
    let observer = Arc::new(Observer(parts.metrics.clone()));
    let mut app = EdgeApp::around_proxy(proxy, bounds(startup), observer);
    let connections = app.connections();
    let counted = connections.clone();
    parts.metrics.watch_connections(move || counted.open());
    if let Some(tls) = &parts.tls {
        app = app.with_tls(tls.server_config().context("server.tls")?);
    }
    let (leave, leaving) = watch::channel(false);
    let mut service = DataService::new(app, leaving);
    for address in &startup.listen {
        // Room for a head and a short body, so that both leave in one packet.
        let buffer = L4BufferSettings::default().write(SHORT_ANSWER);
        service.add_listener(ListenerConfig::tcp(address.to_string()).l4_buffer(buffer));
    }
    let sockets = service.sockets();
    server.add_service(service);
    Ok(DataPort {
        server,
        connections,
        sockets,
        leave,
    })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn upgrade_socket(startup: &Startup) -> PathBuf {
    match &startup.upgrade_socket {
        Some(path) => path.clone(),
        None => startup.data_dir.join("upgrade.sock"),
    }
}

fn bounds(startup: &Startup) -> EdgeBounds {
    EdgeBounds {
        header_timeout: startup.header_timeout,
        idle_timeout: startup.idle_timeout,
        max_connections: startup.max_connections,
        max_connections_per_address: startup.max_connections_per_address,
        ..EdgeBounds::default()
    }
}

struct Observer(Arc<Metrics>);

impl EdgeObserver for Observer {
    fn refused(&self, reason: &'static str) {
        self.0.connection_refused(reason);
    }
}
