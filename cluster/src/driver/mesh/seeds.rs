//! Addresses of other nodes to join by, from `host:port`.

use std::net::SocketAddr;

/// What `peers` mean now, without `own`; names are looked up. One that means nothing now is left
/// out, and said so in the log.
pub(super) async fn look_up(peers: Vec<String>, own: SocketAddr) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for peer in peers {
        match tokio::net::lookup_host(&peer).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => tracing::warn!(peer, %error, "a peer's address cannot be looked up"),
        }
    }
    found.retain(|address| *address != own);
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_own_address_and_what_means_nothing_are_left_out() {
        let own: SocketAddr = "127.0.0.1:10101".parse().unwrap();
        let peers = ["127.0.0.1:10101", "127.0.0.2:7", "no port", "127.0.0.2:7"];
        let found = look_up(peers.map(str::to_owned).to_vec(), own).await;
        assert_eq!(found, ["127.0.0.2:7".parse().unwrap()]);
    }
}
