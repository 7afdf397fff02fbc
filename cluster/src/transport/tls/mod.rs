//! Who may be at the other end of a link: mutual TLS, with certificates made of the cluster's secret
//! or the operator's own.
//!
//! Promise: a link comes up only between nodes whose certificates chain to an authority that both
//! trust and name this cluster; whoever dials also knows which node it wants. Both sides check. A link
//! ends once this node trusts the authority no more that stood for the other side
//! ([`Trust::ends_for`]); links that another authority stands for go on.
//! TLS 1.3 only, nothing is resumed, so every link is checked anew. [`Trust`] owns what is used; it
//! is swapped whole, and each handshake takes what is there.
//!
//! Without files of the operator, every node makes the authority of each secret by itself (Ed25519;
//! the key is derived from the secret, so the secret alone is the trust) and, at its start, a
//! certificate of its own from the first one, which lives as long as the process. It has no useful
//! end of validity: a node whose clock is wrong must still be heard to be put right.

mod authority;
mod files;
mod peer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use tokio::sync::watch;

use self::peer::{Called, Callers};
pub(crate) use self::peer::{PeerName, uri_of};
use super::keys::Keys;
use crate::config::TlsFiles;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the operator's cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A file holds no certificate, or no private key, or one that does not fit the other.
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: String },
    /// The operator's certificate is not that of this node.
    #[error("the certificate in {path} names {found}, this node needs the URI {expected}")]
    Name {
        path: PathBuf,
        found: String,
        expected: String,
    },
    /// The library refused something that this node made itself.
    #[error("cannot make a certificate: {0}")]
    Made(String),
}

/// Certificates of this node, and those it trusts. Clones share them.
#[derive(Clone)]
pub(crate) struct Trust {
    shared: Arc<Shared>,
}

struct Shared {
    keys: Keys,
    node: String,
    files: Option<TlsFiles>,
    provider: Arc<CryptoProvider>,
    material: ArcSwap<Material>,
    /// Rung after each swap.
    swapped: watch::Sender<()>,
}

/// What handshakes use.
pub(super) struct Material {
    roots: Arc<RootCertStore>,
    own: Arc<CertifiedKey>,
    /// The files that it was made of, to see a change.
    read: Option<files::Contents>,
}

// === impl Trust ===

impl Trust {
    /// Reads `files`, or makes certificates of `keys` for the node called `node`.
    pub(crate) fn new(keys: Keys, node: &str, files: Option<TlsFiles>) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let material = match &files {
            None => authority::material(&keys, node, &provider)?,
            Some(files) => {
                let contents = files::read(files)?;
                let expected = uri_of(keys.cluster(), node);
                files::material(files, contents, &expected, &provider)?
            }
        };
        let shared = Arc::new(Shared {
            keys,
            node: node.to_owned(),
            files,
            provider,
            material: ArcSwap::from_pointee(material),
            swapped: watch::Sender::new(()),
        });
        Ok(Self { shared })
    }

    /// Makes certificates anew after the secrets changed.
    pub(crate) fn renew(&self) {
        let shared = &self.shared;
        if shared.files.is_some() {
            return;
        }
        match authority::material(&shared.keys, &shared.node, &shared.provider) {
            Ok(material) => self.swap(material),
            Err(error) => tracing::error!(%error, "links stay with the certificates as they were"),
        }
    }

    /// Reads the operator's files, and uses them if they changed. Blocks for the disk. What cannot
    /// be used is logged, and the old ones stay.
    pub(crate) fn read_again(&self) {
        let shared = &self.shared;
        let Some(files) = &shared.files else { return };
        let fresh = files::read(files).and_then(|contents| {
            if shared.material.load().read.as_ref() == Some(&contents) {
                return Ok(None);
            }
            let expected = uri_of(shared.keys.cluster(), &shared.node);
            files::material(files, contents, &expected, &shared.provider).map(Some)
        });
        match fresh {
            Ok(None) => {}
            Ok(Some(material)) => {
                self.swap(material);
                tracing::info!("certificates of the cluster were read again");
            }
            Err(error) => {
                tracing::warn!(%error, "certificates of the cluster stay as they were");
            }
        }
    }

    fn swap(&self, material: Material) {
        self.shared.material.store(Arc::new(material));
        self.shared.swapped.send_replace(());
    }

    /// Waits until `peer`, whose certificates were trusted when it showed them, no longer is; for
    /// ever, if it stays so. May be dropped while it waits.
    pub(crate) async fn ends_for(&self, peer: &PeerName) {
        let mut swapped = self.shared.swapped.subscribe();
        while self.trusts(peer) {
            if swapped.changed().await.is_err() {
                // Nobody can swap any more.
                std::future::pending().await
            }
        }
    }

    fn trusts(&self, peer: &PeerName) -> bool {
        let algorithms = self.shared.provider.signature_verification_algorithms;
        let roots = Arc::clone(&self.shared.material.load().roots);
        match self.callers(&roots) {
            Ok(callers) => peer.is_of(&roots, &*callers, algorithms),
            Err(error) => {
                tracing::error!(%error, "certificates of a link cannot be checked");
                false
            }
        }
    }

    fn callers(&self, roots: &Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let provider = Arc::clone(&self.shared.provider);
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider)
            .build()
            .map_err(|error| TlsError::Made(error.to_string()))
    }

    /// To dial the node called `node`, and nobody else.
    pub(crate) fn client(&self, node: &str) -> Result<Arc<ClientConfig>, TlsError> {
        let (shared, material) = (&self.shared, self.shared.material.load());
        let called = Called::new(
            Arc::clone(&material.roots),
            uri_of(shared.keys.cluster(), node),
            shared.provider.signature_verification_algorithms,
        );
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&shared.provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(made)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(called))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&material.own))));
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// To be dialled by any node of the cluster.
    pub(crate) fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let (shared, material) = (&self.shared, self.shared.material.load());
        let chain = self.callers(&material.roots)?;
        let callers = Callers::new(chain, shared.keys.cluster());
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&shared.provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(made)?
            .with_client_cert_verifier(Arc::new(callers))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&material.own))));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

fn made(error: rustls::Error) -> TlsError {
    TlsError::Made(error.to_string())
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("node", &self.shared.node)
            .field("files", &self.shared.files)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
