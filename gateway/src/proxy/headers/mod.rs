//! Which headers cross the gateway, in both directions.
//!
//! Towards the provider everything end-to-end goes on but what names a hop, a
//! credential or the gateway. Towards the client only what is on a list goes
//! on, for an upstream may echo our credential in any header.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use policy::Dialect;

use super::auth::{KEY_HEADERS, OWN_HEADER};
use crate::users::UserRule;

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

/// How a request is sent to one provider.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender<'a> {
    pub dialect: Dialect,
    /// Our own credential.
    pub credential: Option<&'a str>,
    pub pass_client_credential: bool,
    pub request_id: &'a str,
    /// Knows the headers that tell us the user, and nobody else.
    pub users: &'a UserRule,
}

/// Headers for the provider: the client's, less what must not leave, plus the
/// credential.
pub(super) fn towards_provider(
    client: &HeaderMap,
    sender: Sender<'_>,
) -> Result<HeaderMap, header::InvalidHeaderValue> {
    let mut headers = HeaderMap::with_capacity(client.len() + 6);
    let named = named_by_connection(client);
    for (name, value) in client {
        let ours = !is_end_to_end(name.as_str()) || sender.users.is_private(name);
        if !ours && !named.contains(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    let pass = sender.pass_client_credential;
    let passed = pass && copy_credential(client, sender.users, &mut headers);
    if let (false, Some(credential)) = (passed, sender.credential) {
        add_credential(&mut headers, sender.dialect, credential)?;
    }
    if sender.dialect == Dialect::Anthropic && !headers.contains_key("anthropic-version") {
        let version = HeaderValue::from_static(ANTHROPIC_VERSION);
        headers.insert("anthropic-version", version);
    }
    let json = HeaderValue::from_static("application/json");
    headers.entry(header::CONTENT_TYPE).or_insert(json);
    headers.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    headers.insert("x-request-id", HeaderValue::from_str(sender.request_id)?);
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
fn copy_credential(client: &HeaderMap, users: &UserRule, headers: &mut HeaderMap) -> bool {
    let own = client
        .get(OWN_HEADER)
        .map(|key| key.as_bytes().trim_ascii());
    let Some(own) = own.filter(|key| !key.is_empty()) else {
        return false;
    };
    let mut any = false;
    for name in KEY_HEADERS.map(HeaderName::from_static) {
        if users.is_private(&name) {
            continue; // a user's token, and no credential of the provider
        }
        for value in client.get_all(&name) {
            // Whatever the scheme in front, the end of it would be the key.
            if !value.as_bytes().trim_ascii().ends_with(own) {
                headers.append(name.clone(), value.clone());
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
mod tests;
