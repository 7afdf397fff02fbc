//! Heads and bodies on the client's side of the gateway.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora_core::protocols::http::ServerSession;
use policy::Timestamp;

use super::context::RequestContext;
use super::headers;
use super::limit_headers;
use super::reject::Refusal;
use super::settle::Account;
use super::stop::Stop;
use crate::api::Shape;

/// The head of a relayed answer: a fresh one, because a head that came over
/// HTTP/2 cannot be written to an HTTP/1 client.
pub(super) fn relayed_head(
    session: &ServerSession,
    account: &Account,
    parts: &http::response::Parts,
    events: bool,
    caller: Caller<'_>,
    now: Timestamp,
) -> Option<ResponseHeader> {
    let mut head = ResponseHeader::build(parts.status, Some(24)).ok()?;
    for (name, value) in headers::towards_client(&parts.headers) {
        head.append_header(name.clone(), value.clone()).ok()?;
    }
    if let Some(id) = headers::upstream_request_id(&parts.headers) {
        head.insert_header("x-upstream-request-id", id.clone())
            .ok()?;
    }
    if events {
        // Proxies in front must neither store nor gather events.
        head.insert_header("cache-control", "no-cache").ok()?;
        head.insert_header("x-accel-buffering", "no").ok()?;
    } else if parts.status.is_client_error() {
        for name in ["retry-after", "x-should-retry"] {
            if let Some(value) = parts.headers.get(name) {
                head.insert_header(name, value.clone()).ok()?;
            }
        }
    }
    let length = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .filter(|_| !events);
    frame(&mut head, session, length.cloned()).ok()?;
    request_ids(&mut head, caller).ok()?;
    if let Some(reservation) = account.reservation() {
        limit_headers::insert(&mut head, reservation, caller.shape, now).ok()?;
    }
    if let Some(clamp) = account.call.clamp {
        head.insert_header("x-tyr-clamped", clamp.to_string())
            .ok()?;
    }
    Some(head)
}

/// `content-length` if it is known, chunks otherwise; HTTP/2 frames by itself
/// and HTTP/1.0 ends a body by closing.
fn frame(
    head: &mut ResponseHeader,
    session: &ServerSession,
    length: Option<HeaderValue>,
) -> pingora_core::Result<()> {
    // RFC 9112, section 6.1: these have no body, and so no coding of it.
    if matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    ) {
        return Ok(());
    }
    if let Some(length) = length {
        return head.insert_header(header::CONTENT_LENGTH, length);
    }
    if !session.is_http2() && session.req_header().version == Version::HTTP_11 {
        return head.insert_header(header::TRANSFER_ENCODING, "chunked");
    }
    Ok(())
}

/// Whom an answer's head is for.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub shape: Shape,
    pub request: &'a str,
    /// Under which `GET /api/usage/{id}` finds the request.
    pub record: &'a str,
}

impl<'a> Caller<'a> {
    pub(super) fn of(ctx: &'a RequestContext) -> Self {
        Caller {
            shape: ctx.shape,
            request: &ctx.request_id,
            record: &ctx.record_id,
        }
    }
}

/// OpenAI's SDKs read the first name, Anthropic's the second.
fn request_ids(head: &mut ResponseHeader, caller: Caller<'_>) -> pingora_core::Result<()> {
    head.insert_header("x-request-id", caller.request)?;
    head.insert_header("request-id", caller.request)?;
    if caller.record != caller.request {
        head.insert_header("x-tyr-record-id", caller.record)?;
    }
    Ok(())
}

/// Writes a head; an unwritable one cuts the connection.
pub(super) async fn write_head(
    session: &mut ServerSession,
    head: Option<ResponseHeader>,
) -> Result<(), Stop> {
    let head = head.ok_or(Stop::Cut)?;
    let sent = session.write_response_header(Box::new(head)).await;
    sent.map_err(|_| Stop::ClientGone)
}

/// A whole JSON answer of the gateway itself.
pub(super) async fn json(
    session: &mut ServerSession,
    ctx: &RequestContext,
    status: StatusCode,
    extra: &[(&'static str, String)],
    body: Bytes,
) -> Result<(), Stop> {
    let head = own_head(ctx, status, extra, &body).map_err(|_| Stop::Cut)?;
    let bodiless = session.req_header().method == http::Method::HEAD;
    let body = if bodiless { Bytes::new() } else { body };
    write_head(session, Some(head)).await?;
    let sent = session.write_response_body(body, true).await;
    sent.map_err(|_| Stop::ClientGone)
}

fn own_head(
    ctx: &RequestContext,
    status: StatusCode,
    extra: &[(&'static str, String)],
    body: &Bytes,
) -> pingora_core::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(status, Some(12))?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    request_ids(&mut head, Caller::of(ctx))?;
    for (name, value) in extra {
        head.insert_header(HeaderName::from_static(name), value.as_str())?;
    }
    if let Some(account) = &ctx.account
        && let Some(reservation) = account.reservation()
    {
        limit_headers::insert(&mut head, reservation, ctx.shape, ctx.started_at)?;
    }
    Ok(head)
}

/// Tells the caller why not, in its own protocol.
pub(super) async fn refuse(
    session: &mut ServerSession,
    ctx: &RequestContext,
    refusal: &Refusal,
    allow: Option<&'static str>,
) -> Result<(), Stop> {
    let mut extra = refusal.headers();
    if let Some(allow) = allow {
        extra.push(("allow", allow.to_owned()));
    }
    if refusal.reason == super::reject::Reason::Unauthenticated && ctx.shape == Shape::OpenAi {
        extra.push(("www-authenticate", "Bearer".to_owned()));
    }
    if refusal.close {
        session.set_keepalive(None);
    }
    let body = refusal.body(ctx.shape, &ctx.request_id);
    json(session, ctx, refusal.status(ctx.shape), &extra, body).await
}
