//! Dialling other nodes.

use std::future::{Ready, ready};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use proto::v1::peer_client::PeerClient;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Endpoint;
use tower_service::Service;

use super::io::Counted;
use super::link::{Queue, run};
use super::{CONNECTION_WINDOW, Happened, Links, PING, SILENCE, STREAM_WINDOW};
use crate::convert::FRAME_BYTES;
use crate::core::ProbeOutcome;
use crate::data_dir::NodeKey;
use crate::transport::socket::connect;
use crate::transport::tls::PeerName;

/// How long a port that is only looked at has to answer.
const PROBE: Duration = Duration::from_secs(1);

/// No name is sent or checked by it: a certificate names its node by URI.
const NO_NAME: &str = "tyr";

/// Dials the node `node` called `name` at `to` and, if it is there, runs the link until its end.
pub(crate) async fn dial(links: Links, node: NodeKey, name: String, to: SocketAddr) {
    let (queue, frames) = Queue::new();
    let opening = async {
        let stream = secured(&links, &name, to).await?;
        let peer = PeerName::of(stream.get_ref().1.peer_certificates())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let connector = Given(Some(TokioIo::new(stream)));
        let channel = endpoint().connect_with_connector(connector).await;
        let mut client = PeerClient::new(channel.map_err(io::Error::other)?)
            .max_decoding_message_size(FRAME_BYTES)
            .max_encoding_message_size(FRAME_BYTES);
        let answer = client.sync(frames).await.map_err(io::Error::other)?;
        Ok((peer, answer.into_inner()))
    };
    let opened: Result<io::Result<_>, _> = timeout(links.dial_timeout, opening).await;
    match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok((peer, frames)) => run(links, peer, Some(node), frames, queue).await,
        Err(error) => {
            let refused = error.kind() == io::ErrorKind::ConnectionRefused;
            tracing::debug!(%node, name, %to, refused, %error, "no link came of a dial");
            // Nobody to tell if the driver has gone.
            let _ = links
                .happened
                .send(Happened::Failed { node, refused })
                .await;
        }
    }
}

async fn secured(links: &Links, name: &str, to: SocketAddr) -> io::Result<TlsStream<Counted>> {
    let config = links.trust.client(name).map_err(io::Error::other)?;
    let stream = connect(links.local, to).await?;
    let server = ServerName::try_from(NO_NAME).map_err(io::Error::other)?;
    let counted = Counted::new(stream, links.traffic.clone());
    TlsConnector::from(config).connect(server, counted).await
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://tyr")
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(SILENCE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

/// What is said to a port that is looked at. It is no greeting of TLS, so a process that lives answers
/// with an alert, or ends the connection.
const HALLO: &[u8] = b"tyr: are you there?\r\n";

/// Whether anybody lives behind `to`. The kernel takes connections for a process that stands still,
/// too: only what the process itself does with one counts.
pub(crate) async fn probe(local: IpAddr, to: SocketAddr) -> ProbeOutcome {
    let asking = async {
        let mut stream = connect(local, to).await?;
        // Whoever has ended the connection is there.
        if stream.write_all(HALLO).await.is_ok() {
            let _ = stream.read(&mut [0; 16]).await;
        }
        Ok::<_, io::Error>(())
    };
    match timeout(PROBE, asking).await {
        Ok(Ok(())) => ProbeOutcome::Open,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => ProbeOutcome::Refused,
        Ok(Err(_)) | Err(_) => ProbeOutcome::Silent,
    }
}

/// Gives a connection that is there already, once: a link is never mended behind the driver's back.
struct Given(Option<TokioIo<TlsStream<Counted>>>);

impl Service<Uri> for Given {
    type Response = TokioIo<TlsStream<Counted>>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        ready(
            self.0
                .take()
                .ok_or_else(|| io::ErrorKind::NotConnected.into()),
        )
    }
}
