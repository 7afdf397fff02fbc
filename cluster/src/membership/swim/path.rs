//! The way to each peer: UDP, or TCP where UDP does not get through.
//!
//! Promise: a peer that can be reached over TCP is probed and told everything, whatever happens to
//! datagrams. UDP is tried again each minute. Owner of the measured loss of probes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Direct probes in a row without an answer after which a peer's packets go over TCP.
const MISSES: u32 = 3;
/// How often UDP is tried while TCP is used.
const RETRY: Duration = Duration::from_secs(60);
/// Exchanges with one peer that may be unanswered at a time.
const OUTSTANDING: usize = 4;
/// After this an exchange is taken for lost, answer or not.
const LOST: Duration = Duration::from_secs(10);
/// Probes that the loss is measured on.
const WINDOW: u32 = 64;
/// Below this many probes the loss is not known.
const ENOUGH: u32 = 16;

/// The way to one peer.
#[derive(Debug, Default)]
struct Path {
    missed: u32,
    /// Misses that count as loss once the peer is known to live.
    unexplained: u32,
    /// While its packets go over TCP: when UDP is tried next.
    wrapped_until: Option<Duration>,
    outstanding: Vec<Duration>,
}

/// How a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Udp,
    Tcp,
    Both,
}

#[derive(Debug, Default)]
pub(super) struct Paths {
    by_addr: BTreeMap<SocketAddr, Path>,
    /// The last probes, newest first: a bit is set for a lost one.
    lost: u64,
    probes: u32,
}

impl Paths {
    pub(super) fn way(&mut self, to: SocketAddr, is_probe: bool, now: Duration) -> Way {
        match self
            .by_addr
            .get_mut(&to)
            .map(|path| &mut path.wrapped_until)
        {
            Some(Some(until)) if is_probe && now >= *until => {
                *until = now + RETRY;
                Way::Both
            }
            Some(Some(_)) => Way::Tcp,
            _ => Way::Udp,
        }
    }

    /// Whether one more exchange may be asked for there; then it counts.
    pub(super) fn begin_exchange(&mut self, to: SocketAddr, now: Duration) -> bool {
        let outstanding = &mut self.by_addr.entry(to).or_default().outstanding;
        outstanding.retain(|since| now < *since + LOST);
        let free = outstanding.len() < OUTSTANDING;
        if free {
            outstanding.push(now);
        }
        free
    }

    /// An exchange has ended. Where TCP fails, UDP is the better guess again.
    pub(super) fn end_exchange(&mut self, to: SocketAddr, failed: bool) {
        let Some(path) = self.by_addr.get_mut(&to) else {
            return;
        };
        if !path.outstanding.is_empty() {
            path.outstanding.remove(0);
        }
        if failed {
            path.wrapped_until = None;
        }
    }

    /// A direct probe by UDP has no answer yet where others answer.
    pub(super) fn missed(&mut self, to: SocketAddr) {
        let path = self.by_addr.entry(to).or_default();
        path.missed = path.missed.saturating_add(1);
        path.unexplained = path.unexplained.saturating_add(1);
    }

    /// A direct probe by UDP was answered by UDP.
    pub(super) fn answered(&mut self, from: SocketAddr) {
        let path = self.by_addr.entry(from).or_default();
        path.missed = 0;
        path.wrapped_until = None;
        self.record(false);
    }

    /// The peer lives, so what it did not answer was lost. Answers how many that were.
    pub(super) fn heard(&mut self, from: SocketAddr, by_tcp: bool, now: Duration) -> u32 {
        let Some(path) = self.by_addr.get_mut(&from) else {
            return 0;
        };
        let lost = std::mem::take(&mut path.unexplained);
        if path.wrapped_until.is_some() {
            return 0;
        }
        if by_tcp && path.missed >= MISSES {
            path.wrapped_until = Some(now + RETRY);
        }
        for _ in 0..lost {
            self.record(true);
        }
        lost
    }

    fn record(&mut self, lost: bool) {
        self.lost = self.lost << 1 | u64::from(lost);
        self.probes = (self.probes + 1).min(WINDOW);
    }

    /// Whether more than 5 % of the probes are lost; until enough were made, it is taken to be so.
    pub(super) fn lossy(&self) -> bool {
        self.probes < ENOUGH || self.lost.count_ones() * 20 > self.probes
    }

    pub(super) fn wrapped(&self) -> usize {
        self.by_addr
            .values()
            .filter(|path| path.wrapped_until.is_some())
            .count()
    }

    /// Forgets addresses that nobody uses.
    pub(super) fn keep(&mut self, used: impl Fn(SocketAddr) -> bool, now: Duration) {
        self.by_addr.retain(|addr, path| {
            path.outstanding.retain(|since| now < *since + LOST);
            used(*addr) || !path.outstanding.is_empty()
        });
    }
}
