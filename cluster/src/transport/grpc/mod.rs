//! Links: one gRPC stream per pair of nodes, both ways, over mutual TLS.
//!
//! Promise: a link comes up only after each side has said hello, with the name in its certificate,
//! for this cluster, in a protocol that both speak. Its frames come in order. It ends when either
//! side ends it, when the other is silent for [`SILENCE`] (HTTP/2 pings each [`PING`]), when a frame
//! cannot be read or is larger than [`FRAME_BYTES`], or when more than [`MOST_QUEUED`] bytes wait
//! to be sent: then the other side is too slow, and what it missed is told anew over the next link.
//!
//! Reading waits for the driver to take what was read, by bytes and each node for itself ([`Room`]), so
//! that a flood stays with its sender. A link also ends as soon as this node no longer trusts the
//! certificates that the other side showed.
//!
//! [`FRAME_BYTES`]: crate::convert::FRAME_BYTES

mod client;
mod io;
mod link;
mod room;
mod server;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

pub(crate) use self::client::{dial, probe};
pub(crate) use self::link::{LinkOut, Up};
pub(crate) use self::room::{FRAMES, Room, Taken};
pub(crate) use self::server::serve;
use super::tls::Trust;
use super::traffic::Traffic;
use crate::convert::FRAME_BYTES;
use crate::data_dir::NodeKey;
use crate::message::{Frame, Hello};

/// How often the other side of an idle connection is asked whether it is there.
const PING: Duration = Duration::from_secs(1);

/// How long it may take to answer that.
const SILENCE: Duration = Duration::from_secs(3);

/// For the TLS handshake, and for the other side's hello.
const GREETING: Duration = Duration::from_secs(5);

/// Most bytes of frames that wait to be sent over one link: two of the largest.
const MOST_QUEUED: usize = 2 * FRAME_BYTES;

/// Most frames that wait to be sent over one link.
const QUEUED_FRAMES: usize = 8_192;

/// What HTTP/2 may have under way, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;

/// What happens on links, for the driver.
#[derive(Debug)]
pub(crate) enum Happened {
    Up(Up),
    Frame {
        link: u64,
        node: NodeKey,
        frame: Frame,
        /// To be dropped once the frame was taken.
        room: Taken,
    },
    Down {
        link: u64,
        node: NodeKey,
    },
    /// No link came of a dial.
    Failed {
        node: NodeKey,
        refused: bool,
    },
}

/// What all links of this node share.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    pub(crate) trust: Trust,
    /// What this node says first.
    pub(crate) hello: Hello,
    /// Where connections are made from.
    pub(crate) local: IpAddr,
    pub(crate) dial_timeout: Duration,
    pub(crate) happened: mpsc::Sender<Happened>,
    /// For what waits in it.
    pub(crate) room: Room,
    pub(crate) traffic: Traffic,
    /// Numbers links; never gives one twice.
    pub(crate) numbers: Arc<AtomicU64>,
}

impl Links {
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[cfg(test)]
mod tests;
