//! Being dialled by other nodes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use proto::v1 as wire;
use proto::v1::peer_server::{Peer, PeerServer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::io::{Accepted, Counted};
use super::link::{Queue, run};
use super::{CONNECTION_WINDOW, GREETING, Links, PING, SILENCE, STREAM_WINDOW};
use crate::convert::FRAME_BYTES;
use crate::transport::guests::Guests;
use crate::transport::tls::PeerName;

/// Handshakes at a time, a quarter of them of one address; more connections are closed at once.
const HANDSHAKES: usize = 128;

/// Streams of one connection: the link, and the next one should both overlap.
const STREAMS: u32 = 4;

/// After accepting failed, which means that the system is out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts links until `stopped` is dropped, then tells the other ends that it closes.
pub(crate) async fn serve(listener: TcpListener, links: Links, stopped: oneshot::Receiver<()>) {
    let (accepted, connections) = mpsc::channel::<io::Result<Accepted>>(1);
    let service = PeerServer::new(Door {
        links: links.clone(),
    })
    .max_decoding_message_size(FRAME_BYTES)
    .max_encoding_message_size(FRAME_BYTES);
    let serving = Server::builder()
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(SILENCE))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .serve_with_incoming_shutdown(service, ReceiverStream::new(connections), async {
            // An error says that the other end was dropped, which is what is waited for.
            let _ = stopped.await;
        });
    tokio::select! {
        result = serving => if let Err(error) = result {
            tracing::error!(%error, "links can no longer be accepted");
        },
        () = accept(listener, links, accepted) => {}
    }
}

/// Shakes hands with whoever connects, for ever.
async fn accept(listener: TcpListener, links: Links, accepted: mpsc::Sender<io::Result<Accepted>>) {
    let mut shaking = Guests::new(HANDSHAKES);
    loop {
        tokio::select! {
            connection = listener.accept() => match connection {
                Ok((stream, from)) if shaking.has_room_for(from.ip()) => {
                    let shaking_hands = shake(links.clone(), stream, from, accepted.clone());
                    shaking.serve(from.ip(), shaking_hands);
                }
                Ok((_, from)) => tracing::debug!(%from, "too many connections shake hands"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a link");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = shaking.next() => {}
        }
    }
}

async fn shake(
    links: Links,
    stream: TcpStream,
    from: SocketAddr,
    accepted: mpsc::Sender<io::Result<Accepted>>,
) {
    let shaking = async {
        stream.set_nodelay(true)?;
        let config = links.trust.server().map_err(io::Error::other)?;
        let counted = Counted::new(stream, links.traffic.clone());
        let stream = TlsAcceptor::from(config).accept(counted).await?;
        let peer = PeerName::of(stream.get_ref().1.peer_certificates())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Accepted { stream, peer })
    };
    let shaken: Result<io::Result<_>, _> = timeout(GREETING, shaking).await;
    match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        // An error says that the server has ended.
        Ok(connection) => drop(accepted.send(Ok(connection)).await),
        Err(error) => {
            tracing::debug!(%from, %error, "a connection to the port of links was refused");
        }
    }
}

/// The service.
struct Door {
    links: Links,
}

type Frames = Pin<Box<dyn Stream<Item = Result<wire::Frame, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for Door {
    type SyncStream = Frames;

    async fn sync(
        &self,
        request: Request<Streaming<wire::Frame>>,
    ) -> Result<Response<Frames>, Status> {
        let peer = request.extensions().get::<PeerName>().cloned();
        let peer = peer.ok_or_else(|| Status::unauthenticated("no certificate"))?;
        let (queue, frames) = Queue::new();
        tokio::spawn(run(
            self.links.clone(),
            peer,
            None,
            request.into_inner(),
            queue,
        ));
        Ok(Response::new(Box::pin(frames.map(Ok))))
    }
}
