//! Addresses of other nodes to join by, from `host:port`.
//!
//! Promise: a name is looked up again and again while the node runs, so that it finds nodes whose
//! addresses change. What a name meant last counts until it means something else.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What `peers` mean.
#[derive(Debug)]
pub(super) struct Seeds {
    peers: Vec<String>,
    /// This node's own address, which is no seed.
    own: SocketAddr,
    /// What each meant when it was last looked up with success.
    known: BTreeMap<String, Vec<SocketAddr>>,
    /// A look-up is under way.
    looking: bool,
}

/// What was found for each of `peers`, in their order; `None` where a name means nothing now.
pub(super) type Found = Vec<Option<Vec<SocketAddr>>>;

impl Seeds {
    pub(super) fn new(peers: Vec<String>, own: SocketAddr) -> Self {
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

    /// All addresses that are to be tried now; `None`: nothing is known of any.
    pub(super) fn take(&mut self, found: Found) -> Option<Vec<SocketAddr>> {
        self.looking = false;
        for (peer, found) in self.peers.iter().zip(found) {
            if let Some(addresses) = found {
                self.known.insert(peer.clone(), addresses);
            }
        }
        if self.known.is_empty() {
            return None;
        }
        let mut all: Vec<SocketAddr> = self.known.values().flatten().copied().collect();
        all.retain(|address| *address != self.own);
        all.sort();
        all.dedup();
        Some(all)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn seeds(peers: &[&str]) -> Seeds {
        let peers = peers.iter().map(|&peer| peer.to_owned()).collect();
        Seeds::new(peers, address("127.0.0.1:10101"))
    }

    #[tokio::test]
    async fn the_own_address_and_what_means_nothing_are_left_out() {
        let peers = ["127.0.0.1:10101", "127.0.0.2:7", "no port", "[::1]:7"];
        let mut seeds = seeds(&peers);
        let found = seeds.look().unwrap().await;
        let expected = [address("127.0.0.2:7"), address("[::1]:7")];
        assert_eq!(seeds.take(found).unwrap(), expected);
        let mut nothing = self::seeds(&["no port"]);
        let found = nothing.look().unwrap().await;
        assert_eq!(nothing.take(found), None);
        assert!(self::seeds(&[]).look().is_none());
    }

    #[tokio::test]
    async fn a_name_follows_its_machine_and_is_kept_while_it_cannot_be_looked_up() {
        let mut seeds = seeds(&["one:7", "other:7"]);
        assert!(seeds.look().is_some());
        assert!(seeds.look().is_none(), "one at a time");
        let of = |text: &str| Some(vec![address(text)]);
        let (old, new, other) = ("10.0.0.1:7", "10.0.0.9:7", "10.0.0.2:7");
        let first = seeds.take(vec![of(old), of(other)]).unwrap();
        assert_eq!(first, [address(old), address(other)]);
        assert!(seeds.look().is_some());
        let moved = seeds.take(vec![of(new), None]).unwrap();
        assert_eq!(moved, [address(other), address(new)]);
        assert_eq!(seeds.take(vec![None, None]).unwrap(), moved);
    }
}
