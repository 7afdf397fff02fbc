//! Who calls: the virtual key from the request's headers.
//!
//! `x-tyr-key` alone decides when it is there. Otherwise every header that may
//! carry a key must carry the same one: two different keys are refused, for a
//! guess which one was meant would be a way around a limit.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use policy::{KeyHash, Snapshot, VirtualKey};
use subtle::ConstantTimeEq;

use super::reject::{Reason, Refusal};

/// The header that is a key whatever else the request carries.
pub(super) const OWN_HEADER: &str = "x-tyr-key";

/// The other headers in which clients send keys.
pub(super) const KEY_HEADERS: [&str; 4] =
    ["authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// The caller's key, or the refusal that says what is wrong without telling
/// whether such a key exists.
pub(super) fn authenticate(
    snapshot: &Snapshot,
    headers: &HeaderMap,
) -> Result<Arc<VirtualKey>, Refusal> {
    let value = credential(headers)?;
    snapshot
        .key(&KeyHash::of(value))
        .cloned()
        .ok_or_else(|| refuse("the virtual key is not known"))
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
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[(&'static str, &'static str)], expected: Result<&str, &str>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        match (credential(&map), expected) {
            (Ok(got), Ok(want)) => assert_eq!(got, want.as_bytes(), "{headers:?}"),
            (Err(got), Err(want)) => assert!(got.message.contains(want), "{headers:?}: {got:?}"),
            (got, want) => panic!("{headers:?}: {got:?}, expected {want:?}"),
        }
    }

    #[test]
    fn one_key_in_any_header() {
        check(&[("authorization", "Bearer k1")], Ok("k1"));
        check(&[("authorization", "bearer  k1 ")], Ok("k1"));
        check(&[("x-api-key", "k1")], Ok("k1"));
        check(&[("api-key", "k1")], Ok("k1"));
        check(&[("x-goog-api-key", "k1")], Ok("k1"));
        check(&[("x-tyr-key", "k1")], Ok("k1"));
    }

    #[test]
    fn several_headers() {
        check(
            &[("authorization", "Bearer k1"), ("x-api-key", "k1")],
            Ok("k1"),
        );
        check(
            &[("authorization", "Bearer k1"), ("x-api-key", "k2")],
            Err("two different"),
        );
        check(
            &[("x-api-key", "k1"), ("x-api-key", "k2")],
            Err("two different"),
        );
        check(
            &[("x-tyr-key", "k1"), ("x-tyr-key", "k2")],
            Err("two different"),
        );
        check(
            &[("x-tyr-key", "k1"), ("authorization", "Bearer other")],
            Ok("k1"),
        );
    }

    #[test]
    fn empty_and_foreign_schemes_count_as_absent() {
        check(&[], Err("no virtual key"));
        check(&[("authorization", "")], Err("no virtual key"));
        check(&[("authorization", "Basic dTpw")], Err("no virtual key"));
        check(
            &[("authorization", "Bearer "), ("x-api-key", "k1")],
            Ok("k1"),
        );
        check(
            &[("authorization", "Basic dTpw"), ("api-key", "k1")],
            Ok("k1"),
        );
        check(&[("x-tyr-key", ""), ("api-key", "k1")], Ok("k1"));
    }
}
