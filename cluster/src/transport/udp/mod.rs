//! Datagrams of gossip, sealed.
//!
//! Promise: what [`Datagrams::receive`] gives is authentic and new. Datagrams may be lost on the way
//! and when the socket's buffers are full; gossip lives with that.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use tokio::net::UdpSocket;

use super::keys::KeyId;
use super::seal::{OpenError, Opener, Sealer};
use super::traffic::Traffic;
use crate::origin::Origin;

/// Longest datagram that is looked at, in bytes: an Ethernet frame's worth.
const LONGEST: usize = 1_472;

/// Most content of a datagram, in bytes, so that with its seal it fits a packet.
pub(crate) const MOST_CONTENT: usize = LONGEST - super::seal::OVERHEAD;

/// The socket, and what has come over it.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: UdpSocket,
    sealer: Sealer,
    opener: Opener,
    traffic: Traffic,
    started: Instant,
    buffer: Box<[u8]>,
}

impl Datagrams {
    /// Has to be called within a runtime.
    pub(crate) fn new(
        socket: std::net::UdpSocket,
        sealer: Sealer,
        me: Origin,
        traffic: Traffic,
    ) -> io::Result<Self> {
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            opener: Opener::new(sealer.keys().clone(), me),
            sealer,
            traffic,
            started: Instant::now(),
            // One byte more, to tell one that is too long.
            buffer: vec![0; LONGEST + 1].into(),
        })
    }

    /// Seals `content` and sends it, or drops it if the system has no room.
    pub(crate) fn send(&self, to: SocketAddr, content: &[u8]) {
        if content.len() > MOST_CONTENT {
            tracing::error!(bytes = content.len(), "a datagram is too long to be sent");
            return;
        }
        let bytes = self.sealer.datagram(content);
        match self.socket.try_send_to(&bytes, self.as_of(to)) {
            Ok(sent) => self.traffic.gossip_sent(sent),
            Err(error) => tracing::debug!(%to, %error, "a datagram was dropped"),
        }
    }

    /// The same address as the socket can reach it: one that is bound to all addresses of IPv6
    /// speaks IPv4, too, with addresses of its own form.
    fn as_of(&self, to: SocketAddr) -> SocketAddr {
        match (to.ip(), self.socket.local_addr()) {
            (IpAddr::V4(ip), Ok(SocketAddr::V6(_))) => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), to.port())
            }
            _ => to,
        }
    }

    /// The next datagram that can be believed. May be dropped while it waits; nothing is lost then.
    pub(crate) async fn receive(&mut self) -> Bytes {
        loop {
            let (length, from) = match self.socket.recv_from(&mut self.buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // An answer of the network to something that was sent; the next call waits.
                    tracing::debug!(%error, "a datagram was not received");
                    continue;
                }
            };
            self.traffic.gossip_received(length);
            match self.open(from, length) {
                Ok(content) => return content,
                Err(OpenError::Own) => {}
                Err(error) => {
                    self.traffic.gossip_refused();
                    tracing::debug!(%from, %error, "a datagram was refused");
                }
            }
        }
    }

    fn open(&mut self, from: SocketAddr, length: usize) -> Result<Bytes, OpenError> {
        if length > LONGEST {
            return Err(OpenError::Malformed);
        }
        let now = self.started.elapsed();
        let source = from.ip().to_canonical();
        let opened = self.opener.open(source, &self.buffer[..length], now)?;
        Ok(opened.content.into())
    }

    /// How many nodes that were heard within a minute seal with each secret.
    pub(crate) fn keys_in_use(&self) -> Vec<(KeyId, usize)> {
        self.opener.keys_in_use(self.started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::origin;
    use crate::transport::keys::Keys;
    use crate::transport::socket::Sockets;

    fn bound_to(address: &str, node: u128) -> Datagrams {
        let keys = Keys::new("tyr", &[vec![1; 32]], &[]).unwrap();
        let (me, any) = (origin(node, 1), address.parse().unwrap());
        let socket = Sockets::bind(any, any).unwrap().datagrams;
        Datagrams::new(socket, Sealer::new(keys, me), me, Traffic::default()).unwrap()
    }

    async fn pass(from: &Datagrams, to: &mut Datagrams, host: &str) {
        let port = to.socket.local_addr().unwrap().port();
        // As it is for whoever has waited before: a send waits for nothing.
        from.socket.writable().await.unwrap();
        from.send(SocketAddr::new(host.parse().unwrap(), port), b"hello");
        let patience = std::time::Duration::from_secs(30);
        let received = tokio::time::timeout(patience, to.receive()).await;
        assert_eq!(received.expect("it comes"), b"hello"[..], "{host}");
    }

    #[tokio::test]
    async fn a_socket_of_both_families_reaches_both_and_is_reached() {
        let mut both = bound_to("[::]:0", 1);
        let (mut four, mut six) = (bound_to("127.0.0.1:0", 2), bound_to("[::1]:0", 3));
        pass(&both, &mut four, "127.0.0.1").await;
        pass(&four, &mut both, "127.0.0.1").await;
        pass(&both, &mut six, "::1").await;
        pass(&six, &mut both, "::1").await;
    }
}
