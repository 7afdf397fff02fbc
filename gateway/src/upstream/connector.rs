//! Opens TCP connections to providers and judges where they go.
//!
//! Promise: a name is resolved once, every address is judged by the provider's
//! egress rule, and only an allowed address is dialled: nothing is resolved a
//! second time between judgement and connection. TCP and TLS together end
//! within the connect timeout. Owns no state; failures are `ConnectProblem`s
//! inside the client's error.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::egress::EgressRule;
use super::error::ConnectProblem;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// A quiet connection is probed after this time, so a path that a firewall has
/// forgotten is noticed during a long silence.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);

/// Dials the host of a URL under an egress rule.
#[derive(Clone, Debug)]
pub(super) struct TcpConnector {
    pub(super) rule: EgressRule,
    pub(super) timeout: Duration,
}

impl Service<Uri> for TcpConnector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectProblem;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let TcpConnector { rule, timeout } = *self;
        Box::pin(async move { connect(&target, rule, timeout).await.map(TokioIo::new) })
    }
}

async fn connect(
    target: &Uri,
    rule: EgressRule,
    limit: Duration,
) -> Result<TcpStream, ConnectProblem> {
    let deadline = Instant::now() + limit;
    let host = target.host().ok_or(ConnectProblem::NoHost)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = target.port_u16().unwrap_or_else(|| default_port(target));
    let addresses = resolve(host, port, rule).await?;

    let mut problem = None;
    let mut left = addresses.len() as u32;
    for address in addresses {
        // Each address gets its share of the time, so that a silent first one
        // leaves time for the next.
        let share = deadline.saturating_duration_since(Instant::now()) / left.max(1);
        left -= 1;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return tune(stream, address),
            Ok(Err(source)) => {
                let address = address.ip();
                problem = Some(ConnectProblem::Dial { address, source });
            }
            Err(_) => problem = Some(ConnectProblem::TimedOut { after: limit }),
        }
    }
    Err(problem.unwrap_or_else(|| ConnectProblem::NoAddress {
        host: host.to_owned(),
    }))
}

fn default_port(target: &Uri) -> u16 {
    match target.scheme_str() {
        Some("https") => 443,
        _ => 80,
    }
}

/// The allowed addresses of a host, in the resolver's order.
async fn resolve(
    host: &str,
    port: u16,
    rule: EgressRule,
) -> Result<Vec<SocketAddr>, ConnectProblem> {
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|source| {
            let host = host.to_owned();
            ConnectProblem::Unresolved { host, source }
        })?;
    let (allowed, denied): (Vec<_>, Vec<_>) = found.partition(|it| rule.allows(it.ip()));
    match denied.first() {
        Some(address) if allowed.is_empty() => Err(ConnectProblem::Denied {
            address: address.ip(),
        }),
        _ => Ok(allowed),
    }
}

fn tune(stream: TcpStream, address: SocketAddr) -> Result<TcpStream, ConnectProblem> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_AFTER / 3);
    stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(&stream).set_tcp_keepalive(&keepalive))
        .map_err(|source| {
            let address = address.ip();
            ConnectProblem::Dial { address, source }
        })?;
    Ok(stream)
}

/// Ends a connector's work, TLS included, at the connect timeout.
#[derive(Clone, Debug)]
pub(super) struct Bounded<C> {
    pub(super) inner: C,
    pub(super) timeout: Duration,
}

impl<C> Service<Uri> for Bounded<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let work = self.inner.call(target);
        let after = self.timeout;
        Box::pin(async move {
            match timeout(after, work).await {
                Ok(outcome) => outcome,
                Err(_) => Err(ConnectProblem::TimedOut { after }.into()),
            }
        })
    }
}
