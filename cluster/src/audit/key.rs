//! What the hashes of the chain are made with.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// A key of the audit log with its name, or the absence of one. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AuditKey {
    /// What rows are made with.
    current: Option<Keyed>,
    /// What the log may end with as it is found.
    former: Vec<Keyed>,
}

#[derive(Clone, PartialEq, Eq)]
struct Keyed {
    id: String,
    secret: Vec<u8>,
}

impl AuditKey {
    /// A key. `secret` is used for nothing else: derive it from the operator's secret by a purpose
    /// of its own. `id` is stored with each row and names the key to verify with.
    pub fn from_secret(id: impl Into<String>, secret: &[u8]) -> Self {
        let id = id.into();
        let secret = secret.to_owned();
        Self {
            current: Some(Keyed { id, secret }),
            former: Vec::new(),
        }
    }

    /// No key: hashes that anybody can make.
    pub fn keyless() -> Self {
        Self {
            current: None,
            former: Vec::new(),
        }
    }

    /// With the keys before this one, by which the end of a log is judged that this one is to go on
    /// with.
    #[must_use]
    pub fn with_former(mut self, keys: impl IntoIterator<Item = Self>) -> Self {
        self.former
            .extend(keys.into_iter().filter_map(|key| key.current));
        self
    }

    /// The key's name; `None` without a key.
    pub fn id(&self) -> Option<&str> {
        self.current.as_ref().map(|keyed| keyed.id.as_str())
    }

    /// The one of this name, among the former ones too. `None`: it is not known.
    pub(super) fn of(&self, id: Option<&str>) -> Option<Self> {
        let Some(id) = id else {
            return Some(Self::keyless());
        };
        let keyed = self.current.iter().chain(&self.former);
        let found = keyed.into_iter().find(|keyed| keyed.id == id)?;
        Some(Self::from_secret(id, &found.secret))
    }

    /// HMAC-SHA256 with a key, SHA-256 without.
    pub(super) fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        match &self.current {
            Some(keyed) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(&keyed.secret)
                    .expect("HMAC takes a key of any length");
                mac.update(bytes);
                mac.finalize().into_bytes().into()
            }
            None => Sha256::digest(bytes).into(),
        }
    }

    /// Whether `digest` is that of `bytes`, compared in constant time.
    pub(super) fn agrees(&self, bytes: &[u8], digest: &[u8; 32]) -> bool {
        match &self.current {
            Some(keyed) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(&keyed.secret)
                    .expect("HMAC takes a key of any length");
                mac.update(bytes);
                mac.verify_slice(digest).is_ok()
            }
            None => self.digest(bytes) == *digest,
        }
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditKey({})", self.id().unwrap_or("keyless"))
    }
}
