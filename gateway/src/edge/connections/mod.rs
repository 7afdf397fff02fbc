//! Counts the open connections, in all and by client, and those that are in
//! the middle of an HTTP/1 exchange.
//!
//! Promise: never more than the configured number at once, in all or from one
//! client, whatever the order of opening and closing; a connection's place is
//! given back when it ends, by a panic too. Owner: the edge; memory is bounded
//! by the number of open connections.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of different clients rarely meet at one lock.
const SHARDS: usize = 64;

/// The places for connections.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    max_per_client: usize,
    open: AtomicUsize,
    exchanges: AtomicUsize,
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
}

/// Why a connection gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Full {
    /// All places are taken.
    Everywhere,
    /// This client has its share.
    ForClient,
}

impl Full {
    /// A short constant for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Full::Everywhere => "max_connections",
            Full::ForClient => "max_connections_per_address",
        }
    }
}

/// One connection's place; given back when dropped.
#[must_use = "the place is given back at once"]
#[derive(Debug)]
pub struct Place {
    of: Arc<Connections>,
    client: Option<IpAddr>,
}

/// One HTTP/1 exchange under way; over when dropped.
#[must_use = "the exchange is over at once"]
#[derive(Debug)]
pub struct Exchange<'a>(&'a AtomicUsize);

impl Connections {
    /// `max` places in all, `max_per_client` for one client.
    pub fn new(max: usize, max_per_client: usize) -> Arc<Self> {
        Arc::new(Connections {
            max,
            max_per_client,
            open: AtomicUsize::new(0),
            exchanges: AtomicUsize::new(0),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        })
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// HTTP/1 exchanges under way, from the first byte of a request's head to
    /// the last one of its answer.
    pub fn exchanges(&self) -> usize {
        self.exchanges.load(Ordering::Acquire)
    }

    /// Counts an exchange as under way.
    pub(super) fn exchange(&self) -> Exchange<'_> {
        self.exchanges.fetch_add(1, Ordering::AcqRel);
        Exchange(&self.exchanges)
    }

    /// Takes a place for a connection from `address`; one without an address
    /// (a Unix socket) counts in all only.
    pub fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Place, Full> {
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < self.max).then_some(open + 1)
            })
            .map_err(|_| Full::Everywhere)?;
        // From here on dropping `place` gives back what was taken so far.
        let mut place = Place {
            of: Arc::clone(self),
            client: None,
        };
        if let Some(client) = address.map(client) {
            if !self.enter_client(client) {
                return Err(Full::ForClient);
            }
            place.client = Some(client);
        }
        Ok(place)
    }

    fn enter_client(&self, client: IpAddr) -> bool {
        let mut counts = self.lock(&client);
        let count = counts.entry(client).or_insert(0);
        if *count < self.max_per_client {
            *count += 1;
            return true;
        }
        if *count == 0 {
            counts.remove(&client);
        }
        false
    }

    fn leave_client(&self, client: &IpAddr) {
        let mut counts = self.lock(client);
        match counts.get_mut(client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(client)),
        }
    }

    fn lock(&self, client: &IpAddr) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        let shard = self.hasher.hash_one(client) as usize % SHARDS;
        // Counts are changed in single steps; a panic cannot leave half a change.
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(client) = &self.client {
            self.of.leave_client(client);
        }
        self.of.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What counts as one client: an IPv4 address, or the /64 network that an IPv6
/// client usually has to itself.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests;
