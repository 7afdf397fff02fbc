//! A signed token (JWT, RFC 7519) that names a user.
//!
//! Promise: a name comes out only of a token that a known key signed, that is
//! meant for us and that is valid now; time is an argument. State: none.
//! Failure: a [`TokenProblem`], worded for the caller, who learns nothing of
//! the keys.

use std::sync::Arc;

use http::HeaderName;
use jsonwebtoken::{Validation, decode, decode_header};
use policy::Timestamp;
use serde_json::{Map, Value};

use super::jwks::Jwks;
use super::{NameProblem, name};

/// How far the clocks of the issuer and of the node may differ, in seconds.
const LEEWAY_S: f64 = 60.0;

/// Longest token in bytes.
const TOKEN_MAX: usize = 16 * 1024;

/// How users are read from tokens.
#[derive(Clone, Debug)]
pub struct TokenRule {
    /// The header that carries the token, with or without `Bearer` in front.
    /// `authorization` counts only beside `x-tyr-key`.
    pub header: HeaderName,
    /// What `iss` must be; `None` = any.
    pub issuer: Option<String>,
    /// One of these must be in `aud`; empty = any.
    pub audience: Vec<String>,
    /// The claim that names the user: a text at the token's top level.
    pub claim: String,
    /// The issuer's public keys.
    pub keys: Arc<Jwks>,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenProblem {
    /// No keys have been loaded yet; the same token may pass later.
    #[error("the keys that verify user tokens are not loaded yet")]
    KeysNotLoaded,
    /// Not a token, or one that asks for what we do not do.
    #[error("the user token is malformed")]
    Malformed,
    /// No key of that id, type and algorithm.
    #[error("the user token is signed with an unknown key or algorithm")]
    UnknownKey,
    /// Signed by somebody else, or changed.
    #[error("the signature of the user token is wrong")]
    BadSignature,
    /// Valid in the past, or without an end.
    #[error("the user token has expired or names no expiry")]
    Expired,
    /// Valid in the future.
    #[error("the user token is not valid yet")]
    NotYetValid,
    /// Another issuer.
    #[error("the issuer of the user token is not accepted")]
    WrongIssuer,
    /// Meant for somebody else.
    #[error("the user token is not meant for this gateway")]
    WrongAudience,
    /// The claim is absent or no name.
    #[error("the user token names no user: {0}")]
    NoName(NameProblem),
}

impl TokenRule {
    /// The user that a token names.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub(super) fn user(&self, token: &[u8], now: Timestamp) -> Result<Arc<str>, TokenProblem> {
        let claims = self.verified(token)?;
        judge_time(&claims, now.0 as f64 / 1_000.0)?;
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(TokenProblem::WrongIssuer);
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err(TokenProblem::WrongAudience);
        }
        let value = claims.get(&self.claim).and_then(Value::as_str);
        let value = value.ok_or(TokenProblem::NoName(NameProblem::NoText))?;
        name(value.as_bytes()).map_err(TokenProblem::NoName)
    }

    /// The claims of a token whose signature is right.
    fn verified(&self, token: &[u8]) -> Result<Map<String, Value>, TokenProblem> {
        if token.len() > TOKEN_MAX {
            return Err(TokenProblem::Malformed);
        }
        let header = decode_header(token).map_err(|_| TokenProblem::Malformed)?;
        // RFC 7515, section 4.1.11: what must be understood and is not.
        if header.crit.is_some() {
            return Err(TokenProblem::Malformed);
        }
        let keys = self.keys.current().ok_or(TokenProblem::KeysNotLoaded)?;
        let Some(key) = keys.find(header.kid.as_deref(), header.alg) else {
            if header.kid.as_deref().is_some_and(|id| !keys.knows(id)) {
                self.keys.ask();
            }
            return Err(TokenProblem::UnknownKey);
        };
        let mut validation = Validation::new(header.alg);
        // Claims are judged here, by our own clock.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let decoded = decode(token, key, &validation);
        decoded
            .map(|decoded| decoded.claims)
            .map_err(|_| TokenProblem::BadSignature)
    }

    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        let ours = |value: &Value| {
            let value = value.as_str();
            value.is_some_and(|value| self.audience.iter().any(|ours| ours == value))
        };
        match audience {
            _ if self.audience.is_empty() => true,
            Some(Value::Array(several)) => several.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        }
    }
}

fn judge_time(claims: &Map<String, Value>, now_s: f64) -> Result<(), TokenProblem> {
    let expires = claims.get("exp").and_then(Value::as_f64);
    if expires.is_none_or(|at| now_s >= at + LEEWAY_S) {
        return Err(TokenProblem::Expired);
    }
    match claims.get("nbf") {
        None | Some(Value::Null) => Ok(()),
        Some(from) if from.as_f64().is_some_and(|from| now_s + LEEWAY_S >= from) => Ok(()),
        Some(_) => Err(TokenProblem::NotYetValid),
    }
}
