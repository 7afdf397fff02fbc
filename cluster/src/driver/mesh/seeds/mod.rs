//! Addresses of other nodes to join by, from `host:port`, and how many nodes these are.
//!
//! Promise: a name is looked up again and again while the node runs, so that it finds nodes whose
//! addresses change. What a name meant last counts until it means something else.
//! Failure: a name that never meant anything counts as one other node, its address as unknown.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What `peers` mean.
#[derive(Debug)]
pub(super) struct Seeds {
    peers: Vec<String>,
    own: Own,
    /// What each meant when it was last looked up with success.
    known: BTreeMap<String, Vec<SocketAddr>>,
    /// A look-up is under way.
    looking: bool,
}

/// Where this node itself is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) advertised: SocketAddr,
    pub(super) bound: SocketAddr,
}

/// What was found for each of `peers`, in their order; `None` where a name means nothing now.
pub(super) type Found = Vec<Option<Vec<SocketAddr>>>;

/// What `peers` mean now, in all.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meant {
    /// Addresses of other nodes.
    pub(super) others: Vec<SocketAddr>,
    /// Names that never meant anything.
    pub(super) unknown: u64,
    /// This node's place among all that are named, if the others must count alike: it is named
    /// itself, or all are named by address.
    pub(super) rank: Option<u64>,
}

// === impl Own ===

impl Own {
    fn is(&self, address: SocketAddr) -> bool {
        let on_all = self.bound.ip().is_unspecified() && address.ip().is_loopback();
        address == self.advertised
            || address == self.bound
            || on_all && address.port() == self.bound.port()
    }
}

// === impl Seeds ===

impl Seeds {
    pub(super) fn new(peers: Vec<String>, own: Own) -> Self {
        Self {
            peers,
            own,
            known: BTreeMap::new(),
            looking: false,
        }
    }

    /// A look-up to be carried out, unless there is nobody to look for or one is under way.
    pub(super) fn look(&mut self) -> Option<impl Future<Output = Found> + Send + 'static> {
        if self.peers.is_empty() || self.looking {
            return None;
        }
        self.looking = true;
        Some(look_up(self.peers.clone()))
    }

    /// What the names mean, with what was found now.
    pub(super) fn take(&mut self, found: Found) -> Meant {
        self.looking = false;
        for (peer, found) in self.peers.iter().zip(found) {
            if let Some(addresses) = found {
                self.known.insert(peer.clone(), addresses);
            }
        }
        let of = |peer: &String| self.known.get(peer).cloned().unwrap_or_default();
        made_of(
            self.peers.iter().map(|peer| (peer.clone(), of(peer))),
            self.own,
        )
    }
}

/// One that means nothing now is said so in the log.
async fn look_up(peers: Vec<String>) -> Found {
    let mut found = Vec::with_capacity(peers.len());
    for peer in peers {
        found.push(match tokio::net::lookup_host(&peer).await {
            Ok(addresses) => Some(addresses.collect()),
            Err(error) => {
                tracing::warn!(peer, %error, "a peer's address cannot be looked up");
                None
            }
        });
    }
    found
}

/// Of names and what each means.
fn made_of(named: impl Iterator<Item = (String, Vec<SocketAddr>)>, own: Own) -> Meant {
    let named: Vec<_> = named.collect();
    let rank = rank(&named, own);
    let unknown = named.iter().filter(|(_, means)| means.is_empty()).count() as u64;
    let others = named.into_iter().flat_map(|(_, means)| means);
    let mut others: Vec<SocketAddr> = others.filter(|address| !own.is(*address)).collect();
    others.sort();
    others.dedup();
    Meant {
        others,
        unknown,
        rank,
    }
}

fn rank(found: &[(String, Vec<SocketAddr>)], own: Own) -> Option<u64> {
    let text = |name: &String| match name.parse::<SocketAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => name.clone(),
    };
    let is_own =
        |means: &[SocketAddr]| !means.is_empty() && means.iter().all(|address| own.is(*address));
    let mine = found.iter().find(|(_, means)| is_own(means));
    let all_by_address = || {
        found
            .iter()
            .all(|(name, _)| name.parse::<SocketAddr>().is_ok())
    };
    let mine = match mine {
        Some((name, _)) => text(name),
        None if all_by_address() => own.advertised.to_string(),
        None => return None,
    };
    let mut before: Vec<String> = found.iter().map(|(name, _)| text(name)).collect();
    before.retain(|name| *name < mine);
    before.sort();
    before.dedup();
    Some(before.len() as u64)
}

#[cfg(test)]
mod tests;
