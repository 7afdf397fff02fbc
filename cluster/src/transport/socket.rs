//! Sockets of the cluster: bound where the configuration says, and dialled from there.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// The two sockets of gossip, on one port, and that of links; not yet part of a runtime.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) datagrams: UdpSocket,
    pub(crate) exchanges: TcpListener,
    pub(crate) links: TcpListener,
}

impl Sockets {
    /// Binds all three or none. Port 0 is any free one.
    pub(crate) fn bind(gossip: SocketAddr, links: SocketAddr) -> io::Result<Self> {
        let (datagrams, exchanges) = both(gossip)?;
        let links = tcp(links)?;
        Ok(Self {
            datagrams,
            exchanges,
            links,
        })
    }
}

/// A port that is free for the one may be taken for the other, so any free one is tried for a while.
fn both(gossip: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    const TRIES: usize = 16;
    let mut last = io::ErrorKind::AddrInUse.into();
    for _ in 0..TRIES {
        let exchanges = tcp(gossip)?;
        match udp(exchanges.local_addr()?) {
            Ok(datagrams) => return Ok((datagrams, exchanges)),
            Err(error) if gossip.port() == 0 => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    // Not SO_REUSEADDR: for datagrams it would let a second process take them away.
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of the process before may still linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connects to `to` from `local`, unless that is unspecified or of another family.
pub(crate) async fn connect(local: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if !local.is_unspecified() && local.is_ipv4() == to.is_ipv4() {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
