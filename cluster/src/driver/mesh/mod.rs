//! The driver of a cluster: what the core wants done is done here, and what happens is told it.
//!
//! Promise: everything takes its turn on the thread `tyr-cluster`, and nothing there waits for the
//! disk, the store or another node: what has to wait is a task or a thread of its own, of which
//! there are boundedly many. The core owns what is known of the cluster; here are the sockets, the
//! links, and who waits for which answer.
//! Failure: a link that cannot take a frame ends and is made anew. Addresses that are taken fail
//! the start or, after a process that is about to go, are tried until they are free.

mod links;
mod running;
mod seeds;
mod sources;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use policy::CounterTable;
use tokio::sync::{mpsc, oneshot};

use super::{ClusterClock, Inbox};
use crate::config::ClusterConfig;
use crate::core::StoreReply;
use crate::entity::EntityLog;
use crate::handle::{Board, ClusterHandle, Order};
use crate::node::StoreDesk;
use crate::origin::Origin;
use crate::transport::keys::{KeyError, Keys};
use crate::transport::seal::Sealer;
use crate::transport::socket::Sockets;
use crate::transport::tls::{TlsError, Trust};

/// How often it is tried to bind addresses that a process still has which is about to go.
const BIND_EVERY: Duration = Duration::from_millis(100);

/// Why a node cannot take part in a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The operator configures other secrets.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The operator gives the node other certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operator frees the addresses, or configures others.
    #[error("cannot bind {gossip} (gossip) and {links} (gRPC): {source}")]
    Bind {
        gossip: SocketAddr,
        links: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// What a driver of a cluster is made of.
#[derive(Debug)]
pub(crate) struct MeshParts {
    pub(crate) config: ClusterConfig,
    pub(crate) me: Origin,
    pub(crate) counters: Arc<CounterTable>,
    /// The node's own clock.
    pub(crate) clock: Arc<ClusterClock>,
    pub(crate) entities: EntityLog,
    pub(crate) desk: StoreDesk,
    pub(crate) replies: mpsc::Receiver<StoreReply>,
    /// Whether another process may still have the addresses, and is about to go.
    pub(crate) follows: bool,
    /// Whether the node knows nothing, so that it must not serve before somebody has told it.
    pub(crate) starts_empty: bool,
}

/// A driver that is ready to run.
#[derive(Debug)]
pub(crate) struct Mesh {
    parts: MeshParts,
    orders: mpsc::Receiver<Order>,
    sealer: Sealer,
    trust: Trust,
    sockets: Option<Sockets>,
    outlets: Outlets,
}

/// Where the rest of the process looks. Closed when the driver ends, however it does.
#[derive(Debug)]
struct Outlets {
    board: Arc<Board>,
    inbox: Arc<Inbox>,
}

impl Mesh {
    /// Derives keys, makes certificates and binds the addresses; nothing is sent yet.
    pub(crate) fn open(parts: MeshParts) -> Result<(Self, ClusterHandle), ClusterError> {
        let config = &parts.config;
        let addresses = [
            config.gossip_bind,
            config.gossip_advertise,
            config.grpc_bind,
        ];
        let mut addresses: Vec<_> = addresses.iter().map(SocketAddr::ip).collect();
        for peer in &config.peers {
            addresses.push(address_of(peer));
        }
        let keys = Keys::new(&config.name, &config.secrets, &addresses)?;
        let trust = Trust::new(keys.clone(), &config.node_id, config.tls.clone())?;
        let sockets = match Sockets::bind(config.gossip_bind, config.grpc_bind) {
            Ok(sockets) => Some(sockets),
            Err(error) if parts.follows && error.kind() == io::ErrorKind::AddrInUse => None,
            Err(source) => {
                return Err(ClusterError::Bind {
                    gossip: config.gossip_bind,
                    links: config.grpc_bind,
                    source,
                });
            }
        };
        let outlets = Outlets {
            board: Arc::default(),
            inbox: Arc::default(),
        };
        let (handle, orders) = ClusterHandle::new(
            Arc::clone(&outlets.board),
            Arc::clone(&outlets.inbox),
            Arc::clone(&parts.clock),
            keys.clone(),
            trust.clone(),
        );
        let mesh = Self {
            sealer: Sealer::new(keys, parts.me),
            parts,
            orders,
            trust,
            sockets,
            outlets,
        };
        Ok((mesh, handle))
    }

    /// Takes part until it is told to go, or `stopped`, and then says goodbye. Gives back what has
    /// to be waited for by somebody who may block. With an error it lost its sockets.
    pub(crate) async fn run(mut self, mut stopped: oneshot::Receiver<()>) -> io::Result<StoreDesk> {
        let sockets = tokio::select! {
            sockets = self.bind() => sockets,
            _ = &mut stopped => return Ok(self.parts.desk),
        };
        let (running, sources) = running::begin(self, sockets)?;
        running.run(sources, stopped).await
    }

    /// What ends the process if this ends otherwise than by leaving.
    pub(super) fn fatal(&self) -> fn(&str) {
        self.parts.config.fatal
    }

    /// Where this node's gossip is reached, if its addresses are bound.
    #[cfg(test)]
    pub(crate) fn gossip_address(&self) -> Option<SocketAddr> {
        self.sockets.as_ref()?.datagrams.local_addr().ok()
    }

    /// The sockets, once they are free.
    async fn bind(&mut self) -> Sockets {
        let mut tries = tokio::time::interval(BIND_EVERY);
        loop {
            if let Some(sockets) = self.sockets.take() {
                return sockets;
            }
            tries.tick().await;
            let config = &self.parts.config;
            match Sockets::bind(config.gossip_bind, config.grpc_bind) {
                Ok(sockets) => self.sockets = Some(sockets),
                Err(error) => tracing::debug!(%error, "addresses of the cluster are not free yet"),
            }
        }
    }
}

/// Where a `host:port` is. A name may mean any machine, save the one that means this one.
fn address_of(peer: &str) -> IpAddr {
    if let Ok(address) = peer.parse::<SocketAddr>() {
        return address.ip();
    }
    let host = peer.rsplit_once(':').map_or(peer, |(host, _)| host);
    if host.eq_ignore_ascii_case("localhost") {
        return Ipv4Addr::LOCALHOST.into();
    }
    // One of IPv6 may stand without its brackets.
    host.parse().unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

impl Drop for Outlets {
    fn drop(&mut self) {
        self.board.close();
        self.inbox.close();
    }
}

#[cfg(test)]
pub(super) mod tests;
