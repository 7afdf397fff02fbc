//! `cluster`: checked as far as it can be, refused where it would run.

use super::Checks;
use super::server::LEAST_KEY;
use crate::config::load::Document;
use crate::config::problem::FieldPath;
use crate::config::reference::References;

pub(super) fn cluster(checks: &mut Checks<'_>, document: &Document) {
    let cluster = &document.file.cluster;
    let at = FieldPath::root().key("cluster");
    if cluster.enabled {
        checks.problem(
            &at.key("enabled"),
            "clusters are not supported by this version of Tyr: set `enabled: false`",
        );
    }
    if cluster.discovery.enabled {
        checks.problem(
            &at.key("discovery").key("enabled"),
            "discovery is not supported by this version of Tyr: set `enabled: false`",
        );
    }
    // The cluster is off, so its secrets need not exist; literals must fit.
    let references = std::mem::replace(&mut checks.references, References::Skip);
    if let Some(secret) = &cluster.secret {
        checks.secret(&at.key("secret"), &secret.0, LEAST_KEY);
    }
    if let Some(token) = cluster
        .broker
        .as_ref()
        .and_then(|broker| broker.auth_token.as_ref())
    {
        checks.secret(&at.key("broker").key("auth_token"), &token.0, 1);
    }
    for (index, peer) in cluster.peers.iter().enumerate() {
        let at = at.key("peers").index(index);
        if let Some(peer) = checks.read(&at, &peer.0)
            && peer
                .rsplit_once(':')
                .is_none_or(|(_, port)| port.parse::<u16>().is_err())
        {
            checks.problem(&at, "expected `host:port`");
        }
    }
    checks.references = references;
    let threshold = at.key("gossip").key("config").key("success_threshold");
    if document.has(&threshold) {
        checks.warning(&threshold, "`success_threshold` does nothing");
    }
}
