//! Who calls: the virtual key and the user from the request's headers.
//!
//! `x-tyr-key` alone decides when it is there. Otherwise every header that may
//! carry a key must carry the same one: two different keys are refused, for a
//! guess which one was meant would be a way around a limit. Nothing is asked
//! of a store: a key that the snapshot does not have is unknown.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use policy::{KeyHash, KeyRefusal, Scope, Timestamp, VirtualKey};
use subtle::ConstantTimeEq;

use super::reject::{Reason, Refusal};
use crate::state::Live;
use crate::users::{TokenProblem, UserProblem};

/// The header that is a key whatever else the request carries.
pub(super) const OWN_HEADER: &str = "x-tyr-key";

/// The other headers in which clients send keys.
pub(super) const KEY_HEADERS: [&str; 4] =
    ["authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// When a client may come again whose token cannot be verified yet.
const KEYS_RETRY: Duration = Duration::from_secs(1);

/// Who calls.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub key: Arc<VirtualKey>,
    /// The end user behind the key, if one is told.
    pub user: Option<Arc<str>>,
    /// The limits of that user.
    pub user_scope: Option<Arc<Scope>>,
}

/// The caller, or the refusal that says what is wrong. Of a value that is no
/// key nothing is told but that.
pub(super) fn identify(
    live: &Live,
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    now: Timestamp,
) -> Result<Identity, Refusal> {
    let key = authenticate(live, headers, now)?;
    let own_key = present(headers, OWN_HEADER, HeaderValue::as_bytes).next();
    let user = live.users.identify(headers, peer, own_key.is_some(), now);
    let user = user.map_err(of_user)?;
    let user_scope = user
        .as_deref()
        .and_then(|user| live.policy.users()?.scope(user, now));
    Ok(Identity {
        key,
        user,
        user_scope,
    })
}

fn authenticate(
    live: &Live,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Arc<VirtualKey>, Refusal> {
    let hash = KeyHash::of(credential(headers)?);
    let found = live.policy.authenticate(&hash, now);
    found.cloned().map_err(|refusal| {
        let key = live.policy.key(&hash);
        let unresolved = key.and_then(|key| live.unresolved.get(&key.name));
        of_key(refusal, unresolved.map(|why| &**why))
    })
}

/// A value that gives no access any more is as good as none; one that gives
/// none now is known and forbidden.
pub(super) fn of_key(refusal: KeyRefusal, unresolved: Option<&str>) -> Refusal {
    match (refusal, unresolved) {
        (KeyRefusal::Inactive, Some(why)) => {
            let message = format!("the virtual key cannot be used on this node: {why}");
            Refusal::new(Reason::UnresolvedReference, message)
        }
        (KeyRefusal::Unknown, _) => refuse("the virtual key is not known"),
        (KeyRefusal::Revoked, _) => refuse("the virtual key was revoked"),
        (KeyRefusal::Expired { at }, _) => refuse(&format!("the virtual key expired at {at}")),
        (KeyRefusal::Inactive, None) => {
            Refusal::new(Reason::Forbidden, "the virtual key is not active")
        }
        (KeyRefusal::NotYetValid { from }, _) => {
            let message = format!("the virtual key is not valid before {from}");
            Refusal::new(Reason::Forbidden, message)
        }
    }
}

fn of_user(problem: UserProblem) -> Refusal {
    let message = problem.to_string();
    match problem {
        UserProblem::Token(TokenProblem::KeysNotLoaded) => {
            let mut refusal = Refusal::new(Reason::NotReady, message);
            refusal.retry_after = Some(KEYS_RETRY);
            refusal
        }
        UserProblem::BadHeader(_) | UserProblem::Ambiguous => {
            Refusal::new(Reason::InvalidRequest, message)
        }
        UserProblem::Missing | UserProblem::Token(_) => Refusal::new(Reason::NoUser, message),
    }
}

fn refuse(message: &str) -> Refusal {
    Refusal::new(Reason::Unauthenticated, message)
}

fn credential(headers: &HeaderMap) -> Result<&[u8], Refusal> {
    let own = present(headers, OWN_HEADER, HeaderValue::as_bytes);
    if let Some(value) = same(own)? {
        return Ok(value);
    }
    let others = KEY_HEADERS.iter().flat_map(|name| {
        let read = match *name {
            "authorization" => bearer,
            _ => HeaderValue::as_bytes,
        };
        present(headers, name, read)
    });
    same(others)?.ok_or_else(|| {
        refuse(
            "no virtual key: send it as 'Authorization: Bearer', 'x-api-key', 'api-key', \
             'x-goog-api-key' or 'x-tyr-key'",
        )
    })
}

fn present<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
    read: fn(&'a HeaderValue) -> &'a [u8],
) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .iter()
        .map(read)
        .map(<[u8]>::trim_ascii)
        .filter(|value| !value.is_empty())
}

/// The one value of all, `None` if there is none.
fn same<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, Refusal> {
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.all(|value| bool::from(value.ct_eq(first))) {
        Ok(Some(first))
    } else {
        Err(refuse(
            "two different keys were sent in two headers; send one",
        ))
    }
}

/// The token of a `Bearer` credential (RFC 6750, section 2.1); another scheme
/// counts as absent.
fn bearer(value: &HeaderValue) -> &[u8] {
    let bytes = value.as_bytes();
    match bytes.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
