//! Which headers cross the gateway, in both directions.
//!
//! Towards the provider everything end-to-end goes on but what names a hop, a
//! credential or the gateway. Towards the client only what is on a list goes
//! on, for an upstream may echo our credential in any header.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use policy::Dialect;

use super::auth::{KEY_HEADERS, OWN_HEADER};

/// Names of one hop (RFC 9110, section 7.6.1), of the framing we set anew, and
/// of things that belong to the gateway's own account with the provider.
const DROPPED: [&str; 21] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "openai-organization",
    "openai-project",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
    "x-request-id",
];

/// The version that Anthropic's API reference names; sent when the client
/// named none.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// The headers of an answer that reach the client as they are.
const PASSED_BACK: [&str; 9] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "date",
    "openai-processing-ms",
    "openai-version",
    "vary",
];

/// Headers for the provider: the client's, less what must not leave, plus the
/// credential.
pub(super) fn towards_provider(
    client: &HeaderMap,
    dialect: Dialect,
    credential: Option<&str>,
    pass_client_credential: bool,
    request_id: &str,
) -> Result<HeaderMap, header::InvalidHeaderValue> {
    let mut headers = HeaderMap::with_capacity(client.len() + 6);
    let named = named_by_connection(client);
    for (name, value) in client {
        if is_end_to_end(name.as_str()) && !named.contains(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    let passed = pass_client_credential && copy_credential(client, &mut headers);
    if let (false, Some(credential)) = (passed, credential) {
        add_credential(&mut headers, dialect, credential)?;
    }
    if dialect == Dialect::Anthropic && !headers.contains_key("anthropic-version") {
        let version = HeaderValue::from_static(ANTHROPIC_VERSION);
        headers.insert("anthropic-version", version);
    }
    let json = HeaderValue::from_static("application/json");
    headers.entry(header::CONTENT_TYPE).or_insert(json);
    headers.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    headers.insert("x-request-id", HeaderValue::from_str(request_id)?);
    Ok(headers)
}

fn is_end_to_end(name: &str) -> bool {
    !(DROPPED.contains(&name)
        || KEY_HEADERS.contains(&name)
        || name.starts_with("x-tyr-")
        || name.starts_with("x-forwarded-"))
}

/// A sender may declare any header as one of its hop.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect()
}

/// Copies the client's own credential, which it may send beside a virtual key
/// in our own header. The virtual key itself never leaves, in no header.
fn copy_credential(client: &HeaderMap, headers: &mut HeaderMap) -> bool {
    let own = client
        .get(OWN_HEADER)
        .map(|key| key.as_bytes().trim_ascii());
    let Some(own) = own.filter(|key| !key.is_empty()) else {
        return false;
    };
    let mut any = false;
    for name in KEY_HEADERS {
        for value in client.get_all(name) {
            // Whatever the scheme in front, the end of it would be the key.
            if !value.as_bytes().trim_ascii().ends_with(own) {
                headers.append(HeaderName::from_static(name), value.clone());
                any = true;
            }
        }
    }
    any
}

fn add_credential(
    headers: &mut HeaderMap,
    dialect: Dialect,
    credential: &str,
) -> Result<(), header::InvalidHeaderValue> {
    let (name, mut value) = match dialect {
        Dialect::OpenAi => {
            let bearer = format!("Bearer {credential}");
            (header::AUTHORIZATION, HeaderValue::from_str(&bearer)?)
        }
        Dialect::Anthropic => (
            HeaderName::from_static("x-api-key"),
            HeaderValue::from_str(credential)?,
        ),
    };
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

/// The headers of an answer that reach the client.
pub(super) fn towards_client(
    upstream: &HeaderMap,
) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    upstream
        .iter()
        .filter(|(name, _)| PASSED_BACK.contains(&name.as_str()))
}

/// The provider's own id of the request, for its support.
pub(super) fn upstream_request_id(upstream: &HeaderMap) -> Option<&HeaderValue> {
    upstream
        .get("x-request-id")
        .or_else(|| upstream.get("request-id"))
}

/// A caller's request id, if it is at most 128 safe characters.
pub(super) fn accepted_request_id(client: &HeaderMap) -> Option<&str> {
    let id = client.get("x-request-id")?.to_str().ok()?;
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    ((1..=128).contains(&id.len()) && id.bytes().all(safe)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_names_a_hop_or_a_credential_stays_here() {
        let client = map(&[
            ("authorization", "Bearer sk-tyr-x"),
            ("x-api-key", "sk-tyr-x"),
            ("x-tyr-key", "sk-tyr-x"),
            ("connection", "keep-alive, x-private"),
            ("x-private", "1"),
            ("x-forwarded-for", "1.2.3.4"),
            ("expect", "100-continue"),
            ("anthropic-beta", "a,b"),
            ("anthropic-beta", "c"),
            ("anthropic-version", "2099-01-01"),
            ("traceparent", "00-1-2-3"),
            ("x-unknown", "kept"),
        ]);
        let sent =
            towards_provider(&client, Dialect::Anthropic, Some("real"), false, "r1").unwrap();
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept-encoding",
                "anthropic-beta",
                "anthropic-version",
                "content-type",
                "traceparent",
                "x-api-key",
                "x-request-id",
                "x-unknown",
            ]
        );
        assert_eq!(sent["x-api-key"], "real");
        assert_eq!(sent["anthropic-version"], "2099-01-01");
        assert_eq!(sent.get_all("anthropic-beta").iter().count(), 2);
    }

    #[test]
    fn a_clients_credential_passes_only_beside_our_own_header() {
        let client = map(&[("authorization", "Bearer oauth"), ("x-tyr-key", "k")]);
        let sent = towards_provider(&client, Dialect::OpenAi, Some("ours"), true, "r").unwrap();
        assert_eq!(sent["authorization"], "Bearer oauth");
        let sent = towards_provider(&client, Dialect::OpenAi, Some("ours"), false, "r").unwrap();
        assert_eq!(sent["authorization"], "Bearer ours");
        for own in ["", "sk-tyr-key"] {
            let client = map(&[("authorization", "Bearer sk-tyr-key"), ("x-tyr-key", own)]);
            let sent = towards_provider(&client, Dialect::OpenAi, Some("ours"), true, "r").unwrap();
            assert_eq!(sent["authorization"], "Bearer ours");
        }
        let client = map(&[("authorization", "Bearer sk-tyr-key")]);
        let sent = towards_provider(&client, Dialect::OpenAi, Some("ours"), true, "r").unwrap();
        assert_eq!(sent["authorization"], "Bearer ours");
    }

    #[test]
    fn only_listed_headers_come_back() {
        let upstream = map(&[
            ("content-type", "text/event-stream"),
            ("x-ratelimit-limit-requests", "10"),
            ("authorization", "Bearer leaked"),
            ("set-cookie", "a=b"),
            ("openai-processing-ms", "12"),
        ]);
        let names: Vec<_> = towards_client(&upstream).map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["content-type", "openai-processing-ms"]);
    }

    #[test]
    fn request_ids() {
        let id = |value: &'static str| {
            let headers = map(&[("x-request-id", value)]);
            accepted_request_id(&headers).map(str::to_owned)
        };
        assert_eq!(id("abc-1.2:3_4").as_deref(), Some("abc-1.2:3_4"));
        assert_eq!(id("with space"), None);
        assert_eq!(id(""), None);
    }
}
