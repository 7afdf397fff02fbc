//! One sealed value: `sealed:v1:<key id>:<base64url of nonce and ciphertext>`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use rand::RngExt;
use zeroize::Zeroizing;

use super::ring::{KeyRing, WorkingKey};
use crate::upstream::Secret;

const PREFIX: &str = "sealed:v1:";
const NONCE: usize = 24;
const TAG: usize = 16;

/// The cell a value belongs to. A sealed value opens there and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Store word of the entity's kind: `provider`.
    pub kind: &'a str,
    /// The entity's name.
    pub name: &'a str,
    /// Where in the entity: `keys/main/value`.
    pub field: &'a str,
}

/// A value was not sealed, and nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The operator sets `encryption.keys`.
    #[error("there is no encryption key to seal it with")]
    NoKey,
    /// The caller sent a text of the form that only this process writes, and
    /// it is none of this cell.
    #[error("it has the form of a sealed value of another place")]
    Foreign,
    /// The value exceeds what one message of the cipher can hold, 256 GiB.
    #[error("it is too long")]
    TooLong,
}

/// A stored value cannot be used. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The operator adds the key to `encryption.keys`.
    #[error("it is sealed with encryption key '{id}', which is not configured")]
    UnknownKey {
        /// The missing key's id.
        id: String,
    },
    /// The value was altered, belongs to another cell, or the key of that id
    /// is not the one that sealed it: the cipher cannot tell which.
    #[error("it was altered or moved, or encryption key '{id}' is not the one it was sealed with")]
    Tampered {
        /// The id of the key that the value names.
        id: String,
    },
    /// Not of the form that sealing writes.
    #[error("it is not a sealed value")]
    Malformed,
}

/// Whether a text has the form of a sealed value.
pub fn is_sealed(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// The id of the key that sealed a value; `None` when it is not sealed.
pub fn key_id(text: &str) -> Option<&str> {
    split(text).map(|(id, _)| id)
}

/// Ids may hold colons; the base64 alphabet does not.
fn split(text: &str) -> Option<(&str, &str)> {
    let (id, payload) = text.strip_prefix(PREFIX)?.rsplit_once(':')?;
    (!id.is_empty()).then_some((id, payload))
}

/// What the cipher authenticates beside the value. Each part carries its
/// length, so no two cells share a text.
fn associated(id: &str, place: &Place<'_>) -> Vec<u8> {
    let mut bytes = PREFIX.as_bytes().to_vec();
    for part in [id, place.kind, place.name, place.field] {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

fn cipher(key: &WorkingKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.expose().into())
}

impl KeyRing {
    /// Seals `plain` with the first key for this cell. No two results are equal.
    pub fn seal(&self, plain: &str, place: &Place<'_>) -> Result<String, SealError> {
        let key = self.sealing().ok_or(SealError::NoKey)?;
        // 24 random bytes do not repeat within the life of any key.
        let nonce: [u8; NONCE] = rand::rng().random();
        let payload = Payload {
            msg: plain.as_bytes(),
            aad: &associated(key.id(), place),
        };
        let ciphertext = cipher(key)
            .encrypt(&nonce.into(), payload)
            .map_err(|_| SealError::TooLong)?;
        let mut bytes = nonce.to_vec();
        bytes.extend(ciphertext);
        let id = key.id();
        Ok(format!("{PREFIX}{id}:{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Opens what was sealed for this cell, by whichever key its text names.
    pub fn open(&self, text: &str, place: &Place<'_>) -> Result<Secret, OpenError> {
        let (id, payload) = split(text).ok_or(OpenError::Malformed)?;
        let bytes = URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| OpenError::Malformed)?;
        let (nonce, ciphertext) = bytes
            .split_first_chunk::<NONCE>()
            .ok_or(OpenError::Malformed)?;
        if ciphertext.len() < TAG {
            return Err(OpenError::Malformed);
        }
        let id = || id.to_owned();
        let key = self
            .opening(&id())
            .ok_or_else(|| OpenError::UnknownKey { id: id() })?;
        let payload = Payload {
            msg: ciphertext,
            aad: &associated(key.id(), place),
        };
        let plain = cipher(key)
            .decrypt(nonce.into(), payload)
            .map(Zeroizing::new)
            .map_err(|_| OpenError::Tampered { id: id() })?;
        // Only texts are sealed, and what opens is what was sealed.
        let plain = std::str::from_utf8(&plain).map_err(|_| OpenError::Malformed)?;
        Ok(Secret::new(plain.to_owned()))
    }
}
