//! The node's place in its cluster, as the file describes it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};

use ::cluster::{
    Change, ClusterConfig, ClusterHandle, ConfigurationMark, Entity, PROTOCOL_MAX, Partition, Task,
    TlsFiles,
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
    })
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
    /// As they were told last. Held for a comparison.
    secrets: Mutex<Vec<SecretText>>,
}

impl OtherNodes {
    pub(super) fn new(handle: ClusterHandle, secrets: Vec<SecretText>) -> Self {
        OtherNodes {
            handle,
            secrets: Mutex::new(secrets),
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
        let mut known = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == secrets {
            return;
        }
        match self.handle.set_secrets(bytes_of(secrets)) {
            Ok(()) => tracing::info!(accepted = secrets.len(), "the cluster's secrets changed"),
            Err(error) => tracing::error!(%error, "the cluster's secrets stay as they were"),
        }
        *known = secrets.to_vec();
    }
}
