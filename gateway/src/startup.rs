//! The only wiring file: builds state and services, and says in which order
//! they start and stop.
//!
//! Start: configuration, store (with its counters), data port, admin port. A
//! process that takes over does all that can fail before it waits for the
//! sockets of the old one, and is silent on the admin port until it has them.
//! Stop: readiness falls, the data port closes, requests end, the admin port
//! closes, the last records are committed.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context;
use arc_swap::ArcSwap;
use cluster::{Node, NodeConfig, StatusSnapshot, StoreConfig, UsageLog};
use pingora_core::listeners::{L4BufferSettings, ListenerConfig};
use pingora_core::server::configuration::{Opt, ServerConf};
use pingora_core::server::{RunArgs, Server};
use policy::{Clock, CounterTable};
use tokio::sync::watch;

use crate::admin::{
    self, AdminState, Degraded, Readiness, ReloadProblem, UsagePage, UsageReader, UsageUnavailable,
};
use crate::clock::SystemClock;
use crate::config::{
    self, Environment, OnReload, Problem, References, Reloader, ReloaderParts, Startup,
};
use crate::edge::{
    Connections, DataService, EdgeApp, EdgeBounds, EdgeObserver, ListeningSockets, TlsIdentity,
};
use crate::proxy::{Proxy, Services};
use crate::sidecar::{self, Drain, Inheritance, Sidecar};
use crate::state::Live;
use crate::telemetry::metrics::UsageStatus;
use crate::telemetry::{self, LogFormat, Metrics};
use crate::upstream::ClientPool;

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
    reloader: Arc<Reloader>,
    startup: Startup,
    node: Node,
    /// In a process that took over, until it is given to the sidecar.
    inheritance: Option<Inheritance>,
    tls: Option<Arc<TlsIdentity>>,
    /// Says `true` when requests that still run are out of time.
    cut: watch::Sender<bool>,
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
    let admin_port = admin::bind(parts.startup.admin_listen).context("server.admin_listen")?;
    let side = Sidecar::start(
        parts.reloader.clone(),
        parts.tls.clone(),
        parts.inheritance.take(),
        stopped,
    )?;
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
    };
    if upgrade {
        tracing::info!(socket = %drain.upgrade_socket.display(),
            "waiting for the listening sockets: send SIGQUIT to the old process now");
    }
    // With `upgrade` this waits, and ends the process if nothing comes.
    data.server.bootstrap();
    // Sockets that were taken over are open already.
    parts.readiness.set_ready(upgrade);
    let admin = serve_admin(&parts, admin_port, admin_closed)?;
    let ready = sidecar::announce_when_listening(&parts.startup.listen, parts.readiness.clone())?;
    tracing::info!(listen = ?parts.startup.listen, admin = %parts.startup.admin_listen,
        version = env!("CARGO_PKG_VERSION"), "tyr starts");
    data.server.run(RunArgs {
        shutdown_signal: Box::new(drain),
    });
    sidecar::wait_until_settled(&parts.metrics);
    stop.send_replace(true);
    close_admin.send_replace(true);
    if ready.join().is_err() {
        tracing::error!("the thread that waits for the data port ended in a panic");
    }
    side.join();
    admin.join();
    parts.node.stop();
    tracing::info!("tyr has stopped");
    Ok(())
}

fn build(conf: &Path, upgrade: bool) -> anyhow::Result<Parts> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new());
    telemetry::count_panics(metrics.clone());
    let counters = Arc::new(CounterTable::new());
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
    let startup = started.startup;
    let mut node = cluster::start(
        NodeConfig {
            audit: cluster::audit::AuditKey::keyless(),
            data_dir: startup.data_dir.clone(),
            take_over: upgrade,
            store: StoreConfig::Sqlite {
                path: startup.store_path.clone(),
            },
        },
        clock.clone(),
    )
    .context("the node's store")?;
    counters.restore(&node.cells());
    sidecar::clear_upgrade_socket(&upgrade_socket(&startup));
    let inheritance = node.predecessor().map(|predecessor| Inheritance {
        predecessor,
        counters,
    });
    let tls = match &startup.tls {
        Some(tls) => Some(TlsIdentity::load(&tls.cert, &tls.key).context("server.tls")?),
        None => None,
    };
    let (cut, is_cut) = watch::channel(false);
    let services = Arc::new(Services {
        live: started.live.clone(),
        clock: clock.clone(),
        recorder: node.recorder(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        held_bytes: AtomicU64::new(0),
        cut: is_cut,
    });
    Ok(Parts {
        live: started.live,
        services,
        metrics,
        readiness,
        clock,
        reloader: Arc::new(started.reloader),
        startup,
        node,
        inheritance,
        tls,
        cut,
    })
}

/// Tells metrics and readiness of each configuration, before it runs.
fn on_reload(metrics: Arc<Metrics>, readiness: Arc<Readiness>, clock: Arc<dyn Clock>) -> OnReload {
    Box::new(move |live, revision| {
        if let Some(live) = live {
            let models = live.policy.models.iter();
            metrics.configure(models.map(|model| {
                let provider = live.policy.provider(model.provider);
                (provider.name.as_ref(), model.name.as_ref())
            }));
        }
        readiness.set_degraded(Degraded::Configuration, live.is_none());
        metrics.reload(live.map(|_| revision).ok_or(()), clock.now());
    })
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    format!("the configuration has problems\n{}", lines.join("\n"))
}

fn serve_admin(
    parts: &Parts,
    listener: TcpListener,
    closed: watch::Receiver<bool>,
) -> anyhow::Result<admin::AdminServer> {
    let reloader = parts.reloader.clone();
    let tls = parts.tls.clone();
    let status = parts.node.status();
    let state = AdminState {
        live: parts.live.clone(),
        metrics: parts.metrics.clone(),
        clock: parts.clock.clone(),
        readiness: parts.readiness.clone(),
        reload: Arc::new(move || {
            let reloaded = reloader.reload();
            sidecar::reload_tls(tls.as_deref());
            match reloaded {
                Ok(reloaded) => Ok(reloaded.revision),
                Err(problems) => Err(problems.iter().map(reload_problem).collect()),
            }
        }),
        store_status: Arc::new(move || usage_status(&status.snapshot())),
        usage: Some(Arc::new(Records(parts.node.usage_log()))),
    };
    let router = admin::router(state);
    admin::serve(listener, router, closed).context("the admin port")
}

fn reload_problem(problem: &Problem) -> ReloadProblem {
    ReloadProblem {
        file: problem.file.display().to_string(),
        line: problem.line,
        path: problem.path.clone(),
        message: problem.message.clone(),
    }
}

fn usage_status(status: &StatusSnapshot) -> UsageStatus {
    UsageStatus {
        store_ok: status.store_ok,
        journal_ok: status.journal_ok,
        written: status.records_written,
        stored: status.records_stored,
        overflowed: status.records_overflowed,
        lost: status.records_lost,
        queue_depth: status.queue_depth,
        waiting_bytes: status.waiting_bytes,
    }
}

/// Usage records as the admin port shows them.
struct Records(UsageLog);

impl Records {
    fn value(record: &cluster::UsageRecord) -> Result<serde_json::Value, UsageUnavailable> {
        serde_json::to_value(record).map_err(|error| UsageUnavailable {
            reason: error.to_string(),
        })
    }
}

impl UsageReader for Records {
    fn record(&self, request_id: &str) -> Result<Option<serde_json::Value>, UsageUnavailable> {
        let found = self.0.usage(request_id).map_err(|error| UsageUnavailable {
            reason: error.to_string(),
        })?;
        found.as_ref().map(Self::value).transpose()
    }

    fn recent(&self, page: &UsagePage) -> Result<Vec<serde_json::Value>, UsageUnavailable> {
        let limit = u32::try_from(page.limit).unwrap_or(u32::MAX);
        let found = self
            .0
            .recent(limit, None, None)
            .map_err(|error| UsageUnavailable {
                reason: error.to_string(),
            })?;
        found.records.iter().map(Self::value).collect()
    }
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
