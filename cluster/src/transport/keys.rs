//! The secrets of the cluster, and what is derived from them.
//!
//! Promise: one secret gives independent keys for datagrams, for exchanges and for the certificate
//! authority (HKDF-SHA256, one label each), and no derived key tells another. The first secret
//! seals; all of them open, so that a secret is rotated by adding it everywhere, moving it to the
//! front everywhere, and removing the old one everywhere. The ring is swapped whole; who holds the
//! old one finishes with it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use chacha20poly1305::aead::KeyInit;
use chacha20poly1305::{Key, XChaCha20Poly1305};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Most secrets at a time.
pub const MOST_SECRETS: usize = 4;

/// Fewest bytes of a secret. It is used as it is, so it has to be random.
pub const SHORTEST_SECRET: usize = 16;

/// What seals when no secret is configured and everything stays on this machine. It protects
/// nothing: whoever is on this machine may join.
const LOOPBACK_SECRET: &[u8] = b"tyr cluster on one machine without a secret";

/// The version of everything that is sealed.
pub(crate) const SEAL_VERSION: u8 = 1;

/// Why secrets cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Addresses of other machines are configured, and no secret. Configure one.
    #[error("cluster.secret is required unless every address is a loopback address")]
    Missing,
    /// A secret is so short that it could be guessed. Use a longer one.
    #[error("a cluster secret has at least {SHORTEST_SECRET} bytes")]
    TooShort,
    /// Remove those that no node uses any more.
    #[error("at most {MOST_SECRETS} cluster secrets at a time")]
    TooMany,
}

/// Names a secret on the wire and in figures; tells nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

/// What is sealed with a key, so that one kind is never taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Datagram,
    Exchange,
}

/// The cluster's name and its ring of keys. Cheap to clone; clones share the ring.
#[derive(Clone)]
pub(crate) struct Keys {
    cluster: Arc<str>,
    ring: Arc<ArcSwap<KeyRing>>,
}

/// Keys of all secrets, that of the first secret first; never empty.
pub(crate) struct KeyRing {
    derived: Vec<Derived>,
}

/// What one secret gives.
pub(crate) struct Derived {
    id: KeyId,
    datagram: XChaCha20Poly1305,
    exchange: XChaCha20Poly1305,
    authority: Zeroizing<[u8; 32]>,
}

// === impl Keys ===

impl Keys {
    /// Derives the keys of `secrets`. Without any, a well-known key is used, and only if all of
    /// `addresses` (binds, advertised ones, peers) are loopback addresses.
    pub(crate) fn new(
        cluster: &str,
        secrets: &[Vec<u8>],
        addresses: &[IpAddr],
    ) -> Result<Self, KeyError> {
        if secrets.is_empty()
            && !addresses
                .iter()
                .all(|address| address.to_canonical().is_loopback())
        {
            return Err(KeyError::Missing);
        }
        let ring = KeyRing::of(secrets)?;
        Ok(Self {
            cluster: cluster.into(),
            ring: Arc::new(ArcSwap::from_pointee(ring)),
        })
    }

    /// Uses `secrets` from now on. On an error, and for no secrets at all, the old ones stay.
    pub(crate) fn replace(&self, secrets: &[Vec<u8>]) -> Result<(), KeyError> {
        if secrets.is_empty() {
            return Err(KeyError::Missing);
        }
        self.ring.store(Arc::new(KeyRing::of(secrets)?));
        Ok(())
    }

    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(crate) fn ring(&self) -> Arc<KeyRing> {
        self.ring.load_full()
    }

    /// What is authenticated together with a sealed message: the version, what it is for, and the
    /// cluster's name; then whatever `more` binds it to.
    pub(crate) fn bound_to(&self, purpose: Purpose, more: &[u8]) -> Vec<u8> {
        let kind = match purpose {
            Purpose::Datagram => b'd',
            Purpose::Exchange => b'x',
        };
        let mut bytes = Vec::with_capacity(6 + self.cluster.len() + more.len());
        bytes.extend([SEAL_VERSION, kind]);
        // The length keeps a name and what follows it apart.
        bytes.extend((self.cluster.len() as u32).to_be_bytes());
        bytes.extend(self.cluster.as_bytes());
        bytes.extend(more);
        bytes
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("cluster", &self.cluster)
            .field("ids", &self.ring.load().ids())
            .finish_non_exhaustive()
    }
}

// === impl KeyRing ===

impl KeyRing {
    fn of(secrets: &[Vec<u8>]) -> Result<Self, KeyError> {
        if secrets.len() > MOST_SECRETS {
            return Err(KeyError::TooMany);
        }
        if secrets.iter().any(|secret| secret.len() < SHORTEST_SECRET) {
            return Err(KeyError::TooShort);
        }
        let derived = match secrets {
            [] => vec![Derived::of(LOOPBACK_SECRET)],
            secrets => secrets.iter().map(|secret| Derived::of(secret)).collect(),
        };
        Ok(Self { derived })
    }

    /// What seals.
    pub(crate) fn first(&self) -> &Derived {
        self.derived
            .first()
            .expect("a ring is never empty: `of` puts a key into it")
    }

    /// What opens messages that name `id`. Ids are short, so two secrets may share one.
    pub(crate) fn named(&self, id: KeyId) -> impl Iterator<Item = &Derived> {
        self.derived.iter().filter(move |derived| derived.id == id)
    }

    /// The first one seals.
    pub(crate) fn all(&self) -> &[Derived] {
        &self.derived
    }

    pub(crate) fn ids(&self) -> Vec<KeyId> {
        self.derived.iter().map(|derived| derived.id).collect()
    }
}

// === impl Derived ===

impl Derived {
    fn of(secret: &[u8]) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(b"tyr cluster 1"), secret);
        let expand = |label: &str, bytes: &mut [u8]| {
            hkdf.expand(label.as_bytes(), bytes).expect(
                "HKDF-SHA256 gives up to 8,160 bytes, and 32 are the most that is asked for",
            );
        };
        let cipher = |label: &str| {
            let mut key = Zeroizing::new([0; 32]);
            expand(label, key.as_mut_slice());
            XChaCha20Poly1305::new(&Key::from(*key))
        };
        let mut id = [0; 4];
        expand("id", &mut id);
        let mut authority = Zeroizing::new([0; 32]);
        expand("certificate authority", authority.as_mut_slice());
        Self {
            id: KeyId(id),
            datagram: cipher("datagram"),
            exchange: cipher("exchange"),
            authority,
        }
    }

    pub(crate) fn id(&self) -> KeyId {
        self.id
    }

    pub(crate) fn cipher(&self, purpose: Purpose) -> &XChaCha20Poly1305 {
        match purpose {
            Purpose::Datagram => &self.datagram,
            Purpose::Exchange => &self.exchange,
        }
    }

    /// The seed of the certificate authority's Ed25519 key.
    pub(crate) fn authority(&self) -> &[u8; 32] {
        &self.authority
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

// === impl KeyId ===

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
