//! The listener of the admin port, on a thread and a runtime of its own.
//!
//! Owns the thread "tyr-admin". Bounded everywhere: connections, heads, the
//! time of a head, of a call and of a connection. The address can be bound by
//! two processes, so that a new one is up before the old one goes. Failure
//! answer: what cannot be bound or started is an error before anything runs; a
//! broken connection ends alone.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower_service::Service;

use super::answer::Failure;
use super::auth::Peer;

const BACKLOG: i32 = 256;
const MAX_CONNECTIONS: usize = 256;
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;
/// Also how long an idle connection stays; above the usual scrape interval.
const HEAD_PATIENCE: Duration = Duration::from_secs(20);
/// The longest call is a reload of a large configuration.
const CALL_PATIENCE: Duration = Duration::from_secs(60);
/// After this a connection ends with the call that it is in.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
/// For the call that a connection is in when it has to end.
const LAST_CALL_PATIENCE: Duration = Duration::from_secs(5);
/// The pause after an accept that failed, as when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the admin port did not come up. Nothing runs; the operator acts.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, not ours, or forbidden.
    #[error("cannot listen on {address} for the admin port")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The listener, its thread or its runtime could not be started.
    #[error("cannot start the admin port")]
    Start(#[source] io::Error),
}

/// The running admin port.
#[derive(Debug)]
pub struct AdminServer {
    thread: JoinHandle<()>,
}

impl AdminServer {
    /// Waits until the port has closed; send `true` on the watch before.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the thread of the admin port ended in a panic");
        }
    }
}

/// Takes `address` so that another process of ours may hold it too. Nobody can
/// connect to it before `serve`.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(TcpListener::from(socket))
    };
    listener().map_err(|source| ServeError::Bind { address, source })
}

/// Serves until `shutdown` says `true` or its sender is gone, then lets the
/// calls that run end, for five seconds at most.
pub fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: watch::Receiver<bool>,
) -> Result<AdminServer, ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // One change, one reload, two reads of the store, three that wait for
        // the other nodes, one diagnosis, and those that wait for nobody.
        .max_blocking_threads(12)
        .thread_name("tyr-admin-io")
        .build()
        .map_err(ServeError::Start)?;
    SockRef::from(&listener)
        .listen(BACKLOG)
        .map_err(ServeError::Start)?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener).map_err(ServeError::Start)?
    };
    let thread = std::thread::Builder::new()
        .name("tyr-admin".to_owned())
        .spawn(move || {
            runtime.block_on(accept(listener, router, shutdown));
            // A reload that is still running must not hold up the exit.
            runtime.shutdown_background();
        })
        .map_err(ServeError::Start)?;
    Ok(AdminServer { thread })
}

async fn accept(
    listener: tokio::net::TcpListener,
    router: Router,
    shutdown: watch::Receiver<bool>,
) {
    let mut stop = shutdown.clone();
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&free).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(ended) = connections.join_next() => note_panic(ended),
            (permit, accepted) = next => match accepted {
                Ok((stream, peer)) => {
                    let connection = connection(stream, peer, router.clone(), shutdown.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin port could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        note_panic(ended);
    }
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection of the admin port ended in a panic");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| call(router.clone(), peer, request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    // What goes wrong with one connection concerns its client alone.
    tokio::select! {
        _ = served.as_mut() => return,
        _ = shutdown.wait_for(|stop| *stop) => {}
        () = tokio::time::sleep(CONNECTION_LIFE) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_CALL_PATIENCE, served).await;
}

async fn call(
    mut router: Router,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Peer(peer.ip()));
    match tokio::time::timeout(CALL_PATIENCE, router.call(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = "the call took too long; what it began goes on";
            Ok(Failure::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message).into_response())
        }
    }
}
