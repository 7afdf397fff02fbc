//! Connections, routes, and the way of one request from its head to its answer.
//!
//! Promise: one task per connection, HTTP/1.1 and HTTP/2 with prior knowledge on the same port;
//! a request's failure ends that request only.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::faults::Chance;
use crate::routes;
use crate::sse::MockBody;
use crate::stats::Stats;

/// What all requests of one mock share when they do not say otherwise.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time before the head of an answer.
    pub ttft: Duration,
    /// Time between two output tokens of a stream.
    pub token_interval: Duration,
    /// Output tokens of an answer.
    pub tokens: u64,
    /// Share of requests, 0 to 1, that fail with `error_status`.
    pub error_rate: f64,
    pub error_status: u16,
    /// Start of the random numbers behind `error_rate`.
    pub seed: u64,
    /// Directives that hold for every request.
    pub directives: String,
    /// Models listed besides the usual ones.
    pub models: Vec<String>,
    /// Keep headers, hashes and bodies of the last 256 requests.
    pub record: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ttft: Duration::ZERO,
            token_interval: Duration::ZERO,
            tokens: 20,
            error_rate: 0.0,
            error_status: 500,
            seed: 1,
            directives: String::new(),
            models: Vec::new(),
            record: true,
        }
    }
}

/// What every connection needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub options: Options,
    pub stats: Arc<Stats>,
    pub chance: Chance,
}

impl Shared {
    fn new(options: Options) -> Self {
        Self {
            stats: Stats::new(options.record),
            chance: Chance::new(options.error_rate, options.error_status, options.seed),
            options,
        }
    }
}

/// Serves `listener` until the future is dropped. Every worker of a mock calls this on its own.
pub async fn serve(listener: TcpListener, mock: Mock) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, Arc::clone(&mock.shared)));
            }
            // Out of descriptors or a connection that died in the backlog: neither is ours to fix.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One mock provider: its options and all it counts. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Mock {
    shared: Arc<Shared>,
}

impl Mock {
    /// A mock that has served nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            shared: Arc::new(Shared::new(options)),
        }
    }

    /// Binds a free port of the loopback interface and serves it in the background of the current
    /// runtime, as long as that lives.
    pub async fn start(options: Options) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(serve(listener, Self::new(options)));
        Ok(address)
    }
}

/// A connection's own switch: what a request uses to break the TCP connection under itself.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    reset: AtomicBool,
    wake: Notify,
}

impl Wire {
    /// Resets the TCP connection (no effect for an HTTP/2 stream, which has no wire of its own).
    pub(crate) fn reset(&self) {
        self.reset.store(true, Relaxed);
        self.wake.notify_one();
    }
}

/// The socket. When the wire is to be reset, closing it sends RST instead of FIN.
struct Socket {
    stream: TcpStream,
    wire: Arc<Wire>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.wire.reset.load(Relaxed) {
            // A failure leaves an ordinary close: the test that wanted a reset will say so.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let counted = shared.stats.connection();
    let wire = Arc::new(Wire::default());
    let socket = Socket {
        stream,
        wire: Arc::clone(&wire),
    };
    let for_requests = Arc::clone(&wire);
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        let wire = if request.version() == Version::HTTP_2 {
            Arc::new(Wire::default())
        } else {
            Arc::clone(&for_requests)
        };
        async move { routes::answer(request, shared, wire).await }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let serving = builder.serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        // Errors here are clients that left or faults of our own making; both are in the stats.
        _ = serving => {}
        () = wire.wake.notified() => {}
    }
    drop(counted);
}

/// A good answer, or a stream broken on purpose; never a Rust error for the service.
pub(crate) type Answered = Result<Response<MockBody>, crate::sse::Broken>;
