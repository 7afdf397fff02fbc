//! The keys of `encryption.keys` and what is derived from them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::upstream::Secret;

/// Fewest characters of a key's secret.
const LEAST_SECRET: usize = 32;

/// What working keys are derived for; each purpose has its own.
const STORED_SECRETS: &[u8] = b"tyr stored secrets v1";
const AUDIT_LOG: &[u8] = b"tyr audit log v1";

/// Keys that cannot be used. Nothing was taken over; the operator corrects
/// `encryption.keys`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// Two keys under one id: a sealed value would not say which of them opens it.
    #[error("encryption key '{id}' is given twice")]
    Twice {
        /// The id.
        id: String,
    },
    /// The secret is short enough to be guessed.
    #[error("the secret of encryption key '{id}' must have {LEAST_SECRET} or more characters")]
    Short {
        /// The key's id.
        id: String,
    },
}

/// A key for one purpose, derived from one of the ring. Wiped when dropped.
#[derive(Clone)]
pub struct WorkingKey {
    id: Arc<str>,
    bytes: Zeroizing<[u8; 32]>,
}

impl WorkingKey {
    fn derive(id: &str, secret: &Secret, purpose: &[u8]) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        // No salt: the secret is the same on all nodes and they have nothing else in common.
        Hkdf::<Sha256>::new(None, secret.expose().as_bytes())
            .expand(purpose, bytes.as_mut_slice())
            .expect("32 bytes are less than 255 blocks of SHA-256");
        WorkingKey {
            id: id.into(),
            bytes,
        }
    }

    /// The id of the key it was derived from.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key itself, for the algorithm that uses it.
    pub fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }
}

impl fmt::Debug for WorkingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkingKey({}, ***)", self.id)
    }
}

/// The keys of `encryption.keys`, in their order: the first seals, all open.
/// Without any, nothing can be sealed. Clones share nothing and cost little.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    sealing: Vec<WorkingKey>,
    auditing: Vec<WorkingKey>,
}

impl KeyRing {
    /// Derives the working keys of (id, secret) pairs; the secrets are not kept.
    pub fn new(keys: Vec<(String, Secret)>) -> Result<Self, KeyRingError> {
        let mut seen = BTreeSet::new();
        for (id, secret) in &keys {
            if !seen.insert(id) {
                return Err(KeyRingError::Twice { id: id.clone() });
            }
            if secret.expose().chars().count() < LEAST_SECRET {
                return Err(KeyRingError::Short { id: id.clone() });
            }
        }
        let derive = |purpose| {
            let keys = keys.iter();
            keys.map(move |(id, secret)| WorkingKey::derive(id, secret, purpose))
                .collect()
        };
        Ok(KeyRing {
            sealing: derive(STORED_SECRETS),
            auditing: derive(AUDIT_LOG),
        })
    }

    /// Whether there is no key, so that nothing can be sealed.
    pub fn is_empty(&self) -> bool {
        self.sealing.is_empty()
    }

    /// Whether a value that was sealed with key `id` can be opened.
    pub fn has(&self, id: &str) -> bool {
        self.opening(id).is_some()
    }

    /// The key that new rows of the audit log are signed with; `None` without keys.
    pub fn audit_key(&self) -> Option<&WorkingKey> {
        self.auditing.first()
    }

    /// All keys that rows of the audit log may have been signed with.
    pub fn audit_keys(&self) -> &[WorkingKey] {
        &self.auditing
    }

    /// The key that seals.
    pub(super) fn sealing(&self) -> Option<&WorkingKey> {
        self.sealing.first()
    }

    /// The key that opens what `id` sealed.
    pub(super) fn opening(&self, id: &str) -> Option<&WorkingKey> {
        self.sealing.iter().find(|key| key.id() == id)
    }
}
