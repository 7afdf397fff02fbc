//! The node's place in its cluster, as the file describes it.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::cluster::{
    Change, ClusterConfig, ClusterHandle, ConfigurationMark, Entity, KeyError, PROTOCOL_MAX,
    Partition, Task, TlsFiles,
};
use anyhow::Context;

use crate::config::ClusterSettings;
use crate::config::catalogue::Fleet;
use crate::config::file::{self, SecretText};

/// What the node is told of its cluster.
pub(super) fn cluster_config(
    settings: &ClusterSettings,
    node_id: &str,
    tasks: Vec<Task>,
) -> anyhow::Result<ClusterConfig> {
    let bound = settings.gossip.ip();
    let advertised = match settings.advertise {
        Some(ip) => ip,
        None if bound.is_unspecified() => of_default_route(bound)
            .context("this machine has no default route: set `cluster.gossip.advertise`")?,
        None => bound,
    };
    Ok(ClusterConfig {
        name: settings.name.clone(),
        node_id: node_id.to_owned(),
        region: settings.region.clone(),
        zone: settings.zone.clone().unwrap_or_default(),
        secrets: bytes_of(&settings.secrets),
        gossip_bind: settings.gossip,
        gossip_advertise: SocketAddr::new(advertised, settings.gossip.port()),
        grpc_bind: settings.grpc,
        grpc_port: settings.grpc.port(),
        peers: settings.peers.clone(),
        suspicion: settings.suspicion,
        failure_threshold: settings.failure_threshold,
        dial_timeout: settings.dial_timeout,
        sync_interval: settings.sync_interval,
        partition: match settings.partition {
            file::Partition::Share => Partition::Share,
            file::Partition::Available => Partition::Available,
        },
        forget_after: settings.forget_after,
        tls: settings.tls.as_ref().map(|tls| TlsFiles {
            ca: tls.ca.clone(),
            cert: tls.cert.clone(),
            key: tls.key.clone(),
        }),
        protocol_max: settings.protocol_max.unwrap_or(PROTOCOL_MAX),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        tasks,
        fatal,
    })
}

/// For the last log lines to be written: an abort waits for nobody.
const LAST_LINES: Duration = Duration::from_millis(250);

/// Ends the process, for whoever supervises it to start it anew: better no
/// node than one that admits what no other knows of. What was settled is in
/// `data_dir` and is taken up by the next start.
fn fatal(why: &str) {
    tracing::error!(why, "the node cannot go on, and ends");
    let _ = writeln!(std::io::stderr(), "tyr: the node cannot go on: {why}");
    let until = crate::clock::monotonic() + LAST_LINES;
    while crate::clock::monotonic() < until {
        std::thread::park_timeout(LAST_LINES);
    }
    std::process::abort();
}

fn bytes_of(secrets: &[SecretText]) -> Vec<Vec<u8>> {
    let secrets = secrets.iter();
    secrets
        .map(|secret| secret.0.clone().into_bytes())
        .collect()
}

/// This machine's address on its default route. Nothing is sent: to connect a
/// datagram socket only chooses the way.
fn of_default_route(unspecified: IpAddr) -> std::io::Result<IpAddr> {
    // Addresses that are reserved for examples.
    let far: IpAddr = match unspecified {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(unspecified, 0))?;
    socket.connect(SocketAddr::new(far, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// The other nodes, as the configuration tells them what has changed.
#[derive(Debug)]
pub(super) struct OtherNodes {
    handle: ClusterHandle,
    secrets: SecretsInUse,
}

/// The secrets that the cluster took last. Held for the time of a change.
#[derive(Debug)]
struct SecretsInUse(Mutex<Vec<SecretText>>);

impl SecretsInUse {
    /// Has `take` use these, if they are others; those that it refuses are
    /// given again with the next configuration, and told of again.
    fn change(
        &self,
        secrets: &[SecretText],
        take: impl FnOnce(Vec<Vec<u8>>) -> Result<(), KeyError>,
    ) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == secrets {
            return;
        }
        match take(bytes_of(secrets)) {
            Ok(()) => {
                tracing::info!(accepted = secrets.len(), "the cluster's secrets changed");
                *known = secrets.to_vec();
            }
            Err(error) => tracing::error!(%error, "the cluster's secrets stay as they were"),
        }
    }
}

impl OtherNodes {
    pub(super) fn new(handle: ClusterHandle, secrets: Vec<SecretText>) -> Self {
        OtherNodes {
            handle,
            secrets: SecretsInUse(Mutex::new(secrets)),
        }
    }
}

impl Fleet for OtherNodes {
    fn announce(&self, entities: Vec<Entity>) {
        self.handle.announce(entities);
    }

    fn revoke(&self, hash: &str, change: &Change) {
        self.handle.revoke(hash, change);
    }

    fn revocation_applied(&self, hash: &str) {
        self.handle.revocation_applied(hash);
    }

    fn applied(&self, revision: u64) {
        self.handle.applied(revision);
    }

    fn set_configuration(&self, mark: ConfigurationMark) {
        self.handle.set_configuration(mark);
    }

    fn set_secrets(&self, secrets: &[SecretText]) {
        self.secrets
            .change(secrets, |bytes| self.handle.set_secrets(bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn secrets_that_are_refused_are_given_again_and_others_are_not() {
        let secret = |text: &str| vec![SecretText(text.to_owned())];
        let secrets = SecretsInUse(Mutex::new(secret("old")));
        let mut given = Vec::new();
        let mut change = |to: &[SecretText], answer| {
            secrets.change(to, |bytes| {
                given.push(bytes);
                answer
            });
        };
        let refused = Err(KeyError::TooShort);
        change(&secret("old"), Ok(()));
        change(&secret("short"), refused);
        change(&secret("short"), refused);
        change(&secret("old"), Ok(()));
        change(&secret("new"), Ok(()));
        change(&secret("new"), Ok(()));
        let bytes = |text: &str| vec![text.as_bytes().to_vec()];
        assert_eq!(given, [bytes("short"), bytes("short"), bytes("new")]);
    }

    /// Not a test: what the test below runs in a process of its own.
    #[test]
    #[ignore = "ends the process"]
    fn that_is_lost() {
        fatal("on purpose");
    }

    #[test]
    fn what_must_not_go_on_ends_the_process_and_says_why() {
        let this = std::env::current_exe().expect("the program of this test");
        let name = "startup::cluster::tests::that_is_lost";
        let mut child = Command::new(this);
        child.args([name, "--exact", "--ignored", "--nocapture"]);
        let ended = child.output().expect("it runs");
        assert_eq!(ended.status.code(), None, "by a signal: {ended:?}");
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(told.contains("cannot go on: on purpose"), "{told}");
    }
}
