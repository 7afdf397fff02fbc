//! Where things come in, one at a time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::seeds::Found;
use crate::core::{ExchangeFailure, ProbeOutcome, StoreReply, TICK};
use crate::data_dir::NodeKey;
use crate::handle::Order;
use crate::origin::Origin;
use crate::transport::grpc::{Happened, Links, serve as serve_links};
use crate::transport::seal::Sealer;
use crate::transport::socket::Sockets;
use crate::transport::tcp::{Asked, serve as serve_exchanges};
use crate::transport::udp::Datagrams;

/// How often names of peers are looked up, and certificates of the operator read.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Questions of other nodes that wait for their turn.
const QUESTIONS: usize = 16;

/// Everything that the loop waits for.
pub(super) struct Sources {
    pub(super) datagrams: Datagrams,
    questions: mpsc::Receiver<Asked>,
    happened: mpsc::Receiver<Happened>,
    replies: mpsc::Receiver<StoreReply>,
    orders: mpsc::Receiver<Order>,
    ticks: Interval,
    looks: Interval,
    /// Tasks that accept. They end with this value, and with them what was accepted.
    accepting: JoinSet<()>,
    /// Dropped, it lets other ends know that this one closes.
    _serving: oneshot::Sender<()>,
}

/// What comes in from the rest of this node.
pub(super) struct Inlets {
    pub(super) happened: mpsc::Receiver<Happened>,
    pub(super) replies: mpsc::Receiver<StoreReply>,
    pub(super) orders: mpsc::Receiver<Order>,
}

/// One thing that happened.
pub(super) enum Event {
    Tick,
    /// It is time to look at names and files again.
    Look,
    Datagram(Bytes),
    Question(Asked),
    Link(Happened),
    Reply(StoreReply),
    Order(Order),
    Errand(Errand),
    /// Nobody gives orders any more.
    End,
    /// Nothing is accepted any more.
    Lost,
}

/// What a task that was sent out brings back.
pub(super) enum Errand {
    Answered {
        to: SocketAddr,
        result: Result<Bytes, ExchangeFailure>,
    },
    Probed {
        node: NodeKey,
        outcome: ProbeOutcome,
    },
    Seeds(Found),
    /// It has told by other ways what there was to tell.
    Done,
}

impl Sources {
    /// Begins to accept. Has to be called within a runtime.
    pub(super) fn open(
        sockets: Sockets,
        sealer: &Sealer,
        me: Origin,
        links: &Links,
        inlets: Inlets,
    ) -> io::Result<Self> {
        let traffic = links.traffic.clone();
        let exchanges = TcpListener::from_std(sockets.exchanges)?;
        let door = TcpListener::from_std(sockets.links)?;
        let (asked, questions) = mpsc::channel(QUESTIONS);
        let (serving, stopped) = oneshot::channel();
        let mut accepting = JoinSet::new();
        accepting.spawn(serve_exchanges(
            exchanges,
            sealer.clone(),
            asked,
            traffic.clone(),
        ));
        accepting.spawn(serve_links(door, links.clone(), stopped));
        let every = |period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        Ok(Self {
            datagrams: Datagrams::new(sockets.datagrams, sealer.clone(), me, traffic)?,
            questions,
            happened: inlets.happened,
            replies: inlets.replies,
            orders: inlets.orders,
            ticks: every(TICK),
            looks: every(LOOK_EVERY),
            accepting,
            _serving: serving,
        })
    }

    /// Waits for the next thing; may be dropped while it waits.
    pub(super) async fn next(&mut self, errands: &mut JoinSet<Errand>) -> Event {
        loop {
            return tokio::select! {
                _ = self.ticks.tick() => Event::Tick,
                _ = self.looks.tick() => Event::Look,
                content = self.datagrams.receive() => Event::Datagram(content),
                Some(asked) = self.questions.recv() => Event::Question(asked),
                Some(happened) = self.happened.recv() => Event::Link(happened),
                Some(reply) = self.replies.recv() => Event::Reply(reply),
                // Each accepts for ever.
                Some(_) = self.accepting.join_next() => Event::Lost,
                order = self.orders.recv() => order.map_or(Event::End, Event::Order),
                Some(ended) = errands.join_next() => match ended {
                    Ok(errand) => Event::Errand(errand),
                    Err(error) => {
                        tracing::error!(%error, "a task of the cluster panicked");
                        continue;
                    }
                },
            };
        }
    }
}
