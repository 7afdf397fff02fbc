//! The public keys of an issuer of tokens, from a JWK set (RFC 7517).
//!
//! Promise: a key verifies only the algorithms that belong to its own type, so
//! that no token can choose how it is read. Keys of unknown kinds are left
//! out; shared secrets always are. State: none. Failure: [`KeySetError`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// Most keys of one set.
const KEYS_MAX: usize = 256;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// Why a text is no usable set of keys; who publishes it has to act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not JSON, or without a list `keys`.
    #[error("it is not a JWK set: an object with a list `keys`")]
    Malformed,
    /// None of the keys can verify a token.
    #[error("it holds no public RSA, P-256, P-384 or Ed25519 key for signatures")]
    NoKey,
    /// More keys than are looked at.
    #[error("it holds more than {KEYS_MAX} keys")]
    TooMany,
}

/// Public keys by which tokens are verified; at least one.
#[derive(Clone, Debug)]
pub struct KeySet(Vec<PublicKey>);

#[derive(Clone, Debug)]
struct PublicKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl KeySet {
    /// Reads a JWK set.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let parsed: Value = serde_json::from_slice(text).map_err(|_| KeySetError::Malformed)?;
        let keys = parsed.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or(KeySetError::Malformed)?;
        if keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let usable: Vec<PublicKey> = keys.iter().filter_map(PublicKey::read).collect();
        match usable.is_empty() {
            true => Err(KeySetError::NoKey),
            false => Ok(KeySet(usable)),
        }
    }

    /// The key of a token. Without an id in the token there must be only one
    /// key that it could be.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let fits = |key: &&PublicKey| {
            key.algorithms.contains(&algorithm) && (id.is_none() || key.id.as_deref() == id)
        };
        let mut found = self.0.iter().filter(fits);
        let first = found.next()?;
        (id.is_some() || found.next().is_none()).then_some(&first.key)
    }

    /// Whether a key of that id is there, whatever it verifies.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref() == Some(id))
    }
}

impl PublicKey {
    fn read(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        let common = &jwk.common;
        let signs =
            !matches!(&common.public_key_use, Some(other) if *other != PublicKeyUse::Signature);
        let verifies = common
            .key_operations
            .as_ref()
            .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        if !signs || !verifies {
            return None;
        }
        let (mut algorithms, key) = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) => {
                let (n, e) = (integer(&rsa.n)?, integer(&rsa.e)?);
                (RSA.to_vec(), DecodingKey::from_rsa_raw_components(&n, &e))
            }
            AlgorithmParameters::EllipticCurve(point) => {
                let algorithm = match point.curve {
                    EllipticCurve::P256 => Algorithm::ES256,
                    EllipticCurve::P384 => Algorithm::ES384,
                    _ => return None,
                };
                let key = DecodingKey::from_ec_components(&point.x, &point.y).ok()?;
                (vec![algorithm], key)
            }
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                let key = DecodingKey::from_ed_components(&pair.x).ok()?;
                (vec![Algorithm::EdDSA], key)
            }
            _ => return None,
        };
        if let Some(only) = common.key_algorithm {
            algorithms.retain(|algorithm| format!("{algorithm:?}") == only.to_string());
        }
        (!algorithms.is_empty()).then(|| PublicKey {
            id: common.key_id.clone(),
            algorithms,
            key,
        })
    }
}

/// A big-endian number. Some issuers write a leading zero, which the verifier
/// does not take.
fn integer(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[first..].to_vec())
}
