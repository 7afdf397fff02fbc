//! One link, the same on both sides once its stream is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proto::Message;
use proto::v1 as wire;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Streaming;

use super::room::Share;
use super::{GREETING, Happened, Links, MOST_QUEUED, QUEUED_FRAMES};
use crate::convert::{FRAME_BYTES, FrameError, Inbound, Outbound, weight};
use crate::data_dir::NodeKey;
use crate::message::{Frame, Hello};
use crate::transport::tls::PeerName;

/// A link that has come up.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) link: u64,
    pub(crate) hello: Hello,
    pub(crate) out: LinkOut,
}

/// The sending half. Dropping it ends the link.
#[derive(Debug)]
pub(crate) struct LinkOut {
    outbound: Outbound,
    queue: Queue,
    _stop: oneshot::Sender<()>,
}

/// A link cannot take a frame: it has ended, or is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsent;

/// Frames that wait to be sent.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    frames: mpsc::Sender<wire::Frame>,
    bytes: Arc<AtomicUsize>,
}

/// Why a link does not come up or ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the stream broke: {0}")]
    Stream(#[from] tonic::Status),
    #[error("a frame cannot be read: {0}")]
    Frame(#[from] FrameError),
    #[error("the other side did not say hello")]
    NoHello,
    #[error("the certificate is not that of '{0}'")]
    Certificate(String),
    #[error("'{0}' is of another cluster")]
    Cluster(String),
    #[error("'{0}' is not the node that was dialled")]
    OtherNode(String),
    #[error("'{0}' is this node itself")]
    Own(String),
    #[error("a node that has too many links already")]
    TooMany,
    #[error("its certificate is trusted no more")]
    Distrusted,
    #[error("'{name}' speaks protocols {min} to {max}")]
    Protocol { name: String, min: u8, max: u8 },
}

// === impl LinkOut ===

impl LinkOut {
    /// Queues a frame. One that is too large for any link is left out, and said so in the log.
    pub(crate) fn send(&mut self, frame: Frame) -> Result<(), Unsent> {
        for frame in self.outbound.write(frame) {
            self.queue.put(frame)?;
        }
        Ok(())
    }
}

// === impl Queue ===

impl Queue {
    /// The queue, and the stream of what is put into it.
    pub(super) fn new() -> (Self, impl Stream<Item = wire::Frame> + Send + 'static) {
        let (frames, queued) = mpsc::channel(QUEUED_FRAMES);
        let bytes = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&bytes);
        let taken = ReceiverStream::new(queued).map(move |frame: wire::Frame| {
            waiting.fetch_sub(frame.encoded_len(), Ordering::Relaxed);
            frame
        });
        (Self { frames, bytes }, taken)
    }

    fn put(&self, frame: wire::Frame) -> Result<(), Unsent> {
        let length = frame.encoded_len();
        if length > FRAME_BYTES {
            tracing::error!(bytes = length, "a frame is too large to be sent");
            return Ok(());
        }
        let waiting = self.bytes.fetch_add(length, Ordering::Relaxed);
        if waiting + length > MOST_QUEUED || self.frames.try_send(frame).is_err() {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            return Err(Unsent);
        }
        Ok(())
    }
}

/// Greets whoever is at the other end of the stream and then passes on what it says, until the link
/// ends. `dialled` is the node that this end called.
pub(super) async fn run(
    links: Links,
    peer: PeerName,
    dialled: Option<NodeKey>,
    mut frames: Streaming<wire::Frame>,
    queue: Queue,
) {
    let link = links.number();
    let (stop, stopped) = oneshot::channel();
    match begin(&links, &peer, dialled, &mut frames, &queue, stop).await {
        Ok((share, hello, out)) => {
            let node = hello.origin.node;
            tracing::debug!(link, node = hello.name, "link up");
            let up = Happened::Up(Up { link, hello, out });
            if links.happened.send(up).await.is_err() {
                return;
            }
            let reading = read(&links, &share, link, node, &mut frames);
            tokio::select! {
                result = reading => if let Err(error) = result {
                    tracing::debug!(link, %node, %error, "link broke");
                },
                _ = stopped => {}
                () = links.trust.ends_for(&peer) => {
                    tracing::info!(link, %node, "a link ends: its certificate is trusted no more");
                }
            }
            // Nobody to tell if the driver has gone.
            let _ = links.happened.send(Happened::Down { link, node }).await;
        }
        Err(error) => {
            tracing::warn!(%error, "a link was refused");
            if let Some(node) = dialled {
                let refused = false;
                let _ = links
                    .happened
                    .send(Happened::Failed { node, refused })
                    .await;
            }
        }
    }
}

/// Gives the link its place and greets, unless the other side is not trusted or has too many links.
async fn begin(
    links: &Links,
    peer: &PeerName,
    dialled: Option<NodeKey>,
    frames: &mut Streaming<wire::Frame>,
    queue: &Queue,
    stop: oneshot::Sender<()>,
) -> Result<(Share, Hello, LinkOut), LinkError> {
    let share = links.room.enter(peer).ok_or(LinkError::TooMany)?;
    let (hello, out) = tokio::select! {
        // Before anything is said.
        biased;
        () = links.trust.ends_for(peer) => return Err(LinkError::Distrusted),
        greeted = greet(links, peer, dialled, frames, queue, stop) => greeted?,
    };
    Ok((share, hello, out))
}

async fn greet(
    links: &Links,
    peer: &PeerName,
    dialled: Option<NodeKey>,
    frames: &mut Streaming<wire::Frame>,
    queue: &Queue,
    stop: oneshot::Sender<()>,
) -> Result<(Hello, LinkOut), LinkError> {
    let own = &links.hello;
    for frame in Outbound::new(own.proto_max).write(Frame::Hello(own.clone())) {
        queue.put(frame).map_err(|Unsent| LinkError::NoHello)?;
    }
    let first = timeout(GREETING, frames.message()).await;
    let first = first.map_err(|_| LinkError::NoHello)??;
    let first = first.ok_or(LinkError::NoHello)?;
    let Some(Frame::Hello(hello)) = Inbound::default().read(first)? else {
        return Err(LinkError::NoHello);
    };
    let protocol = acceptable(own, peer, dialled, &hello)?;
    let out = LinkOut {
        outbound: Outbound::new(protocol),
        queue: queue.clone(),
        _stop: stop,
    };
    Ok((hello, out))
}

/// The newest protocol that both speak, if the link may come up.
fn acceptable(
    own: &Hello,
    peer: &PeerName,
    dialled: Option<NodeKey>,
    hello: &Hello,
) -> Result<u8, LinkError> {
    let name = || hello.name.clone();
    if hello.cluster != own.cluster {
        return Err(LinkError::Cluster(name()));
    }
    if !peer.is(&own.cluster, &hello.name) {
        return Err(LinkError::Certificate(name()));
    }
    if hello.origin.node == own.origin.node {
        return Err(LinkError::Own(name()));
    }
    if dialled.is_some_and(|node| node != hello.origin.node) {
        return Err(LinkError::OtherNode(name()));
    }
    let common = own.proto_max.min(hello.proto_max);
    if common < own.proto_min.max(hello.proto_min) {
        return Err(LinkError::Protocol {
            name: name(),
            min: hello.proto_min,
            max: hello.proto_max,
        });
    }
    Ok(common)
}

async fn read(
    links: &Links,
    share: &Share,
    link: u64,
    node: NodeKey,
    frames: &mut Streaming<wire::Frame>,
) -> Result<(), LinkError> {
    let mut inbound = Inbound::default();
    while let Some(frame) = frames.message().await? {
        let weight = weight(&frame);
        let Some(frame) = inbound.read(frame)? else {
            continue;
        };
        let happened = Happened::Frame {
            link,
            node,
            frame,
            room: share.take(weight).await,
        };
        if links.happened.send(happened).await.is_err() {
            break;
        }
    }
    Ok(())
}
