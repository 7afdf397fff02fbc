//! What routing rules may read of a request's head.
//!
//! Promise: nothing is gathered unless a rule asks for it, and no rule sees a
//! credential. State: none. Failure: none; what is no text is absent.

use http::HeaderMap;
use policy::Snapshot;

use super::auth::{KEY_HEADERS, OWN_HEADER};

/// Most parameters of a query that are read.
const PARAMS_MAX: usize = 100;

/// The head of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleInput<'a> {
    pub headers: &'a HeaderMap,
    pub query: Option<&'a str>,
}

/// What was read of a head. The default is nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered<'a> {
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(&'a str, &'a str)>,
    /// Decoded, in the order in which they came.
    params: Vec<(String, String)>,
}

impl<'a> RuleInput<'a> {
    /// Headers and query parameters, none unless the rules of `snapshot` ask
    /// for them.
    pub(super) fn gathered(&self, snapshot: &Snapshot) -> Gathered<'a> {
        let rules = snapshot.rules();
        let mut gathered = Gathered::default();
        if rules.needs_headers() {
            gathered.headers.extend(self.headers());
        }
        if rules.needs_params() {
            gathered.params = params(self.query.unwrap_or_default());
        }
        gathered
    }

    fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let secret = |name: &str| name == OWN_HEADER || KEY_HEADERS.contains(&name);
        let all = self.headers.iter();
        all.filter(move |(name, _)| !secret(name.as_str()))
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    }
}

impl Gathered<'_> {
    /// The query's parameters.
    pub(super) fn params(&self) -> Vec<(&str, &str)> {
        let pairs = self.params.iter();
        pairs.map(|(name, value)| (&**name, &**value)).collect()
    }
}

/// The pairs of a query as forms write them (WHATWG URL, section 5.1).
fn params(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .take(PARAMS_MAX)
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| *first == b'%');
        match escaped.and_then(|digits| hex::decode(digits).ok()) {
            Some(byte) => {
                bytes.extend(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn parameters_are_decoded_like_a_form() {
        let read = params("a=1&b=x+y%2Fz&&c&=d&e=%zz%f&f=%F0%9F%98%80%ff");
        let pairs: Vec<_> = read.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(
            pairs,
            [
                ("a", "1"),
                ("b", "x y/z"),
                ("c", ""),
                ("", "d"),
                ("e", "%zz%f"),
                ("f", "\u{1f600}\u{fffd}"),
            ]
        );
        assert_eq!(params(&"a&".repeat(1_000)).len(), PARAMS_MAX);
    }

    #[test]
    fn no_rule_sees_a_credential() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-tyr-key",
            "authorization",
            "x-api-key",
            "api-key",
            "x-team",
        ] {
            headers.insert(name, HeaderValue::from_static("v"));
        }
        headers.insert("x-odd", HeaderValue::from_bytes(b"\xff").unwrap());
        let input = RuleInput {
            headers: &headers,
            query: None,
        };
        assert_eq!(input.headers().collect::<Vec<_>>(), [("x-team", "v")]);
        let nothing = input.gathered(&Snapshot::default());
        assert!(nothing.headers.is_empty(), "no rule asks");
    }
}
