//! The outermost layer of the data port: what a client may do to a connection
//! before, between and around its requests.
//!
//! Promise: every connection has a place or is closed at once; a request head
//! is whole within one deadline, sound and within its bounds before the proxy
//! sees any of it; an idle connection ends; a panic ends one connection. The
//! edge owns the connection counts and nothing else. A refused head is answered
//! in the caller's shape and the connection closed. Once its watch says that
//! the node leaves, what was begun is finished and nothing else is waited for.

mod connections;
mod head;
mod http2;
mod refusal;
mod service;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{ALPN, Ssl, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_proxy::{HttpProxy, ProxyHttp};
use tokio::time::{Instant, timeout, timeout_at};

pub use connections::{Connections, Exchange, Full, Place};
pub use head::{HeadFault, HeadJudge, HeadLimits, HeadVerdict, PREFACE, shape_of};
pub use service::{DataService, HandOverError, ListeningSockets};
pub use tls::{TlsError, TlsIdentity};

use stream::GuardedStream;

/// Largest head of a request in bytes.
pub const HEAD_MAX: usize = 64 * 1024;
/// Most headers of a request.
pub const HEADERS_MAX: usize = 100;
/// Longest path and query in bytes.
pub const URI_MAX: usize = 8 * 1024;

/// How long a connection without a request stays open once the node leaves:
/// its client, just connected or just answered, may have one on its way.
pub const LAST_CALL: Duration = Duration::from_millis(500);

/// What a client may do to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeBounds {
    /// Longest time from a head's first byte to its last; from the opening of
    /// the connection for the first one, TLS counted apart with the same time.
    pub header_timeout: Duration,
    /// Longest time between two requests.
    pub idle_timeout: Duration,
    /// Connections open at once.
    pub max_connections: usize,
    /// Connections open at once from one client: an IPv4 address or an IPv6 /64.
    pub max_connections_per_address: usize,
    /// Largest head.
    pub head: HeadLimits,
    /// HTTP/2 streams open at once on one connection.
    pub max_streams: u32,
}

impl Default for EdgeBounds {
    fn default() -> Self {
        EdgeBounds {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            max_connections: 20_000,
            max_connections_per_address: 20_000,
            head: HeadLimits {
                max_head: HEAD_MAX,
                max_headers: HEADERS_MAX,
                max_uri: URI_MAX,
            },
            max_streams: 100,
        }
    }
}

/// Is told what the edge turned away; must not block.
pub trait EdgeObserver: Send + Sync {
    /// A connection or a request was refused; `reason` is a constant of
    /// `Full::label`, `HeadFault::label` or `"tls_handshake"`.
    fn refused(&self, reason: &'static str);
}

/// For callers that do not count.
impl EdgeObserver for () {
    fn refused(&self, _: &'static str) {}
}

/// The data service: `inner` behind the edge.
pub struct EdgeApp<A> {
    inner: Arc<A>,
    bounds: EdgeBounds,
    connections: Arc<Connections>,
    observer: Arc<dyn EdgeObserver>,
    tls: Option<Acceptor>,
}

impl<A> fmt::Debug for EdgeApp<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeApp")
            .field("bounds", &self.bounds)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl<SV: ProxyHttp> EdgeApp<HttpProxy<SV>> {
    /// The edge around a proxy, whose server and HTTP/2 options it sets.
    pub fn around_proxy(
        mut proxy: HttpProxy<SV>,
        bounds: EdgeBounds,
        observer: Arc<dyn EdgeObserver>,
    ) -> Self {
        proxy.server_options = Some(http2::server_options(&bounds));
        proxy.h2_options = Some(http2::h2_options(&bounds));
        EdgeApp::new(proxy, bounds, observer)
    }
}

impl<A> EdgeApp<A> {
    /// The edge around any HTTP application; it must serve h2c itself.
    pub fn new(inner: A, bounds: EdgeBounds, observer: Arc<dyn EdgeObserver>) -> Self {
        let connections =
            Connections::new(bounds.max_connections, bounds.max_connections_per_address);
        EdgeApp {
            inner: Arc::new(inner),
            bounds,
            connections,
            observer,
            tls: None,
        }
    }

    /// Every connection begins with a TLS handshake. The listener itself must
    /// be a plain TCP one, so that handshakes are counted and timed here.
    #[must_use]
    pub fn with_tls(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.tls = Some(Acceptor::from_server_config(config));
        self
    }

    /// The counts of open connections, for metrics.
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }
}

/// How waiting for a head ended.
enum Ahead {
    Http1,
    Http2,
    Fault(HeadFault),
    Gone,
}

#[async_trait]
impl<A> ServerApp for EdgeApp<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let _place = match self.connections.enter(address(&stream)) {
            Ok(place) => place,
            Err(full) => {
                self.observer.refused(full.label());
                return None;
            }
        };
        if let Some(stream) = self.secure(stream).await {
            self.serve(stream, shutdown).await;
        }
        None
    }

    // `cleanup` stays empty. The proxy's own would drop requests that it has
    // not read yet; here connections end by the watch, request by request.
}

fn address(stream: &Stream) -> Option<IpAddr> {
    let digest = stream.get_socket_digest()?;
    Some(digest.peer_addr()?.as_inet()?.ip())
}

impl<A> EdgeApp<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    /// Does the TLS handshake, if one is due, within the deadline of a head.
    async fn secure(&self, stream: Stream) -> Option<Stream> {
        let Some(acceptor) = &self.tls else {
            return Some(stream);
        };
        let handshake = acceptor.tls_handshake(GuardedStream::new(stream));
        match timeout(self.bounds.header_timeout, Box::pin(handshake)).await {
            Ok(Ok(stream)) => Some(Box::new(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                self.observer.refused("tls_handshake");
                None
            }
            Err(_) => {
                tracing::debug!("TLS handshake took too long");
                self.observer.refused("tls_handshake");
                None
            }
        }
    }

    /// Serves one connection to its end.
    async fn serve(&self, stream: Stream, shutdown: &ShutdownWatch) {
        let mut watch = shutdown.clone();
        let mut stream = Box::new(GuardedStream::new(stream));
        let mut settings: Option<HttpPersistentSettings> = None;
        let opened = Instant::now();
        let mut first = true;
        loop {
            let wait = match first {
                true => self.bounds.header_timeout,
                false => self.bounds.idle_timeout,
            };
            if stream.ahead().is_empty() && !first_byte(&mut stream, wait, &mut watch).await {
                return;
            }
            let exchange = self.connections.exchange();
            let began = if first { opened } else { Instant::now() };
            match self.next_head(&mut stream, first, began).await {
                Ahead::Http1 => {}
                Ahead::Http2 => {
                    drop(exchange);
                    // Its own accept loop serves the connection to its end, and
                    // tells the client by GOAWAY when the node leaves.
                    ServerApp::process_new(&self.inner, stream, shutdown).await;
                    return;
                }
                Ahead::Fault(fault) => {
                    tracing::debug!(reason = fault.label(), "request head refused");
                    self.observer.refused(fault.label());
                    // Boxed: rare, and large beside what an idle connection needs.
                    Box::pin(refusal::refuse(&mut stream, fault)).await;
                    return;
                }
                Ahead::Gone => return,
            }
            first = false;
            let session = self.session(stream, settings.take(), shutdown);
            let Some(reused) = self.inner.process_new_http(session, shutdown).await else {
                return;
            };
            let (returned, kept) = reused.consume();
            settings = kept;
            match returned.into_any().downcast::<GuardedStream>() {
                Ok(guarded) => stream = guarded,
                Err(_) => return,
            }
        }
    }

    fn session(
        &self,
        stream: Box<GuardedStream>,
        settings: Option<HttpPersistentSettings>,
        shutdown: &ShutdownWatch,
    ) -> ServerSession {
        let mut session = ServerSession::new_http1(stream);
        match settings {
            Some(settings) => settings.apply_to_session(&mut session),
            None => {
                let limit = self
                    .inner
                    .server_options()
                    .and_then(|it| it.keepalive_request_limit);
                session.set_keepalive_reuses_remaining(limit);
                // The waiting between requests is timed here, not by the proxy:
                // any value means "keep the connection".
                session.set_keepalive(Some(self.bounds.idle_timeout.as_secs().max(1)));
            }
        }
        if *shutdown.borrow() {
            session.set_keepalive(None);
        }
        session
    }

    /// Reads until a whole head, sound and within its bounds, is there.
    async fn next_head(&self, stream: &mut GuardedStream, first: bool, began: Instant) -> Ahead {
        let http2 = matches!(stream.selected_alpn_proto(), Some(ALPN::H2));
        let work = async {
            match http2 {
                true => read_preface(stream).await,
                false => self.read_head(stream, first).await,
            }
        };
        match timeout_at(began + self.bounds.header_timeout, work).await {
            Ok(ahead) => ahead,
            Err(_) if http2 => Ahead::Gone,
            Err(_) => Ahead::Fault(HeadFault::TooSlow),
        }
    }

    async fn read_head(&self, stream: &mut GuardedStream, first: bool) -> Ahead {
        let mut judge = HeadJudge::new(self.bounds.head, first && self.tls.is_none());
        loop {
            match judge.judge(stream.ahead()) {
                HeadVerdict::Incomplete => {}
                HeadVerdict::Http1 { .. } => return Ahead::Http1,
                HeadVerdict::Preface => return Ahead::Http2,
                HeadVerdict::Refuse(fault) => return Ahead::Fault(fault),
            }
            match stream.read_ahead().await {
                Ok(0) | Err(_) => return Ahead::Gone,
                Ok(_) => {}
            }
        }
    }
}

/// Waits for the first byte of a head; false = the connection is over.
async fn first_byte(
    stream: &mut GuardedStream,
    limit: Duration,
    shutdown: &mut ShutdownWatch,
) -> bool {
    let before = tokio::select! {
        // A request that is already there is served in any case.
        biased;
        read = timeout(limit, stream.read_ahead()) => Some(read),
        _ = shutdown.wait_for(|stop| *stop) => None,
    };
    let read = match before {
        Some(read) => read,
        None => timeout(limit.min(LAST_CALL), stream.read_ahead()).await,
    };
    matches!(read, Ok(Ok(n)) if n > 0)
}

/// After ALPN chose HTTP/2 its preface has the same deadline as a head.
async fn read_preface(stream: &mut GuardedStream) -> Ahead {
    while stream.ahead().len() < PREFACE.len() {
        match stream.read_ahead().await {
            Ok(0) | Err(_) => return Ahead::Gone,
            Ok(_) => {}
        }
    }
    Ahead::Http2
}
