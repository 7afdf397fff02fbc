//! Sealed messages: who sent them is certain, and nobody else can read them.
//!
//! Promise: what [`Opener::open`] returns was sealed by a node that has one of the secrets, for this
//! cluster and this purpose, unchanged, and was not returned before. Each [`Sealer`] numbers its
//! messages; each [`Opener`] owns what it has seen of every sender. A message that is refused
//! changes nothing but a figure. Bytes of any kind are refused, never a panic.
//!
//! A sealed message: version (1 byte), key id (4), nonce (24), then encrypted with
//! XChaCha20-Poly1305: the sender's node key (16), its boot (8), a number (8), the content; the tag
//! (16) ends it.

mod replay;
mod sources;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chacha20poly1305::XNonce;
use chacha20poly1305::aead::{Aead, Payload};

pub(crate) use self::replay::Senders;
pub(crate) use self::sources::BadSources;
use super::keys::{KeyId, Keys, Purpose, SEAL_VERSION};
use crate::data_dir::NodeKey;
use crate::origin::Origin;

const NONCE: usize = 24;
const TAG: usize = 16;
/// Version, key id and nonce.
const OPEN_PART: usize = 1 + 4 + NONCE;
/// The sender and the number of the message.
const SENDER_PART: usize = 16 + 8 + 8;

/// What sealing adds to a message, in bytes.
pub(crate) const OVERHEAD: usize = OPEN_PART + SENDER_PART + TAG;

/// The nonce of a sealed message. Fresh for each one.
pub(crate) type Nonce = [u8; NONCE];

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// Its source has sent so many bad ones in this second that this one was not looked at.
    #[error("too many bad messages of this source")]
    Limited,
    /// It is too short, or of another version.
    #[error("not a sealed message of this version")]
    Malformed,
    /// It was sealed with a secret that this node does not have.
    #[error("sealed with an unknown key")]
    UnknownKey,
    /// It was changed, or sealed for another cluster or purpose, or with another secret.
    #[error("not authentic")]
    NotAuthentic,
    /// It came before, or is so old that this cannot be known.
    #[error("came before")]
    Replayed,
    /// Its sender has been started again since.
    #[error("of an earlier start of its sender")]
    EarlierBoot,
    /// This process sent it.
    #[error("sent by this node itself")]
    Own,
}

/// Seals messages of this node. Clones number their messages together.
#[derive(Clone, Debug)]
pub(crate) struct Sealer {
    keys: Keys,
    me: Origin,
    sent: Arc<AtomicU64>,
}

/// Opens datagrams.
#[derive(Debug)]
pub(crate) struct Opener {
    keys: Keys,
    me: Origin,
    senders: Senders,
    sources: BadSources,
}

/// An authentic message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) sender: Origin,
    pub(crate) number: u64,
    pub(crate) key: KeyId,
    pub(crate) nonce: Nonce,
    pub(crate) content: Vec<u8>,
}

// === impl Sealer ===

impl Sealer {
    pub(crate) fn new(keys: Keys, me: Origin) -> Self {
        Self {
            keys,
            me,
            sent: Arc::default(),
        }
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) fn datagram(&self, content: &[u8]) -> Vec<u8> {
        self.seal(Purpose::Datagram, &[], content).0
    }

    /// Seals `content` with the first secret, so that it opens only together with `bound`. Also
    /// returns the nonce, to which an answer can be bound.
    pub(crate) fn seal(&self, purpose: Purpose, bound: &[u8], content: &[u8]) -> (Vec<u8>, Nonce) {
        let number = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let mut plain = Vec::with_capacity(SENDER_PART + content.len() + TAG);
        plain.extend(self.me.node.0.to_be_bytes());
        plain.extend(self.me.boot.to_be_bytes());
        plain.extend(number.to_be_bytes());
        plain.extend(content);
        let nonce: Nonce = rand::random();
        let ring = self.keys.ring();
        let key = ring.first();
        let sealed = key
            .cipher(purpose)
            .encrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: &plain,
                    aad: &self.keys.bound_to(purpose, bound),
                },
            )
            .expect("the cipher takes up to 256 GiB, and a message has at most a MiB");
        let mut bytes = Vec::with_capacity(OPEN_PART + sealed.len());
        bytes.push(SEAL_VERSION);
        bytes.extend(key.id().0);
        bytes.extend(nonce);
        bytes.extend(sealed);
        (bytes, nonce)
    }
}

/// Opens one message with whichever secret it names. Knows nothing of replays: `bound` has to make
/// sure of that, or [`Opener`].
pub(crate) fn open(
    keys: &Keys,
    purpose: Purpose,
    bound: &[u8],
    bytes: &[u8],
) -> Result<Opened, OpenError> {
    if bytes.len() < OVERHEAD {
        return Err(OpenError::Malformed);
    }
    let (&version, rest) = bytes.split_first().ok_or(OpenError::Malformed)?;
    let (&id, rest) = rest.split_first_chunk().ok_or(OpenError::Malformed)?;
    let (&nonce, sealed) = rest.split_first_chunk().ok_or(OpenError::Malformed)?;
    if version != SEAL_VERSION {
        return Err(OpenError::Malformed);
    }
    let (ring, key) = (keys.ring(), KeyId(id));
    let aad = keys.bound_to(purpose, bound);
    let mut known = false;
    let plain = ring.named(key).find_map(|derived| {
        known = true;
        let payload = Payload {
            msg: sealed,
            aad: &aad,
        };
        let cipher = derived.cipher(purpose);
        cipher.decrypt(&XNonce::from(nonce), payload).ok()
    });
    let mut plain = plain.ok_or(match known {
        true => OpenError::NotAuthentic,
        false => OpenError::UnknownKey,
    })?;
    let (sender, number) = sender_of(&plain).ok_or(OpenError::Malformed)?;
    plain.drain(..SENDER_PART);
    Ok(Opened {
        sender,
        number,
        key,
        nonce,
        content: plain,
    })
}

fn sender_of(plain: &[u8]) -> Option<(Origin, u64)> {
    let (node, rest) = plain.split_first_chunk()?;
    let (boot, rest) = rest.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    let node = NodeKey(u128::from_be_bytes(*node));
    let boot = u64::from_be_bytes(*boot);
    Some((Origin { node, boot }, u64::from_be_bytes(*number)))
}

// === impl Opener ===

impl Opener {
    pub(crate) fn new(keys: Keys, me: Origin) -> Self {
        Self {
            keys,
            me,
            senders: Senders::default(),
            sources: BadSources::default(),
        }
    }

    /// Opens a datagram that came from `source` at `now` since the start.
    pub(crate) fn open(
        &mut self,
        source: IpAddr,
        bytes: &[u8],
        now: Duration,
    ) -> Result<Opened, OpenError> {
        if !self.sources.allows(source, now) {
            return Err(OpenError::Limited);
        }
        let opened = open(&self.keys, Purpose::Datagram, &[], bytes)
            .inspect_err(|_| self.sources.note_bad(source, now))?;
        if opened.sender == self.me {
            return Err(OpenError::Own);
        }
        match self.senders.admit(&opened, now) {
            Ok(()) => self.sources.note_good(source, now),
            Err(error) => {
                // To play one again costs its decryption, too.
                self.sources.note_bad(source, now);
                return Err(error);
            }
        }
        Ok(opened)
    }

    /// How many nodes that were heard within a minute seal with each key.
    pub(crate) fn keys_in_use(&self, now: Duration) -> Vec<(KeyId, usize)> {
        self.senders.keys_in_use(now)
    }
}

#[cfg(test)]
mod tests;
