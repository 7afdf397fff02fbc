//! The request body: read whole, within bounds of size and time.
//!
//! Pingora's own replay of a body that was read hangs above 64 KiB, so the
//! body is read here once and sent by our own attempts as often as needed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use pingora_core::protocols::http::ServerSession;

use super::context::RequestContext;
use super::encoding::{Coding, DecodeError};
use super::reject::{Reason, Refusal};
use crate::clock;
use crate::state::RequestBounds;

/// Time that any upload has before its rate is judged.
const RATE_GRACE: Duration = Duration::from_secs(10);

/// Bodies whose compressed form is larger are decoded off the proxy threads;
/// a thousand times as much may come out.
const INLINE_DECODE_MAX: usize = 4 * 1024;

/// How long an answered client may go on sending a body that nobody reads.
/// Closing at once would reset the connection and could destroy the answer.
const LINGER: Duration = Duration::from_secs(2);

/// Largest allocation made on the word of a `content-length` alone.
const TRUSTED_CAPACITY: u64 = 1024 * 1024;

/// The decoded body, or the refusal to send.
pub(super) async fn read(
    session: &mut ServerSession,
    ctx: &mut RequestContext,
) -> Result<Bytes, Refusal> {
    let bounds = ctx.live.bounds;
    let headers = &session.req_header().headers;
    judge_content_type(headers)?;
    let coding = coding(headers)?;
    let declared = content_length(headers);
    if declared.is_some_and(|length| length > bounds.max_body) {
        return Err(too_large(bounds.max_body));
    }
    if expects_continue(headers) {
        // The client waits for this before it sends a byte of its body.
        let sent = session.write_continue_response().await;
        sent.map_err(|error| cut_short(&error))?;
    }
    let raw = read_raw(session, ctx, &bounds, declared).await?;
    let size = raw.len();
    let body = decode(coding, raw, bounds.max_body).await?;
    ctx.hold_bytes(body.len().saturating_sub(size))?;
    Ok(body)
}

/// Takes what an answered client still sends, for a moment.
pub(super) async fn linger(session: &mut ServerSession) {
    let rest = async { while let Ok(Some(_)) = session.read_request_body().await {} };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

async fn read_raw(
    session: &mut ServerSession,
    ctx: &mut RequestContext,
    bounds: &RequestBounds,
    declared: Option<u64>,
) -> Result<Bytes, Refusal> {
    let start = clock::monotonic();
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let size = (first.len() + rest.len()) as u64;
        let allowed = RATE_GRACE + Duration::from_secs(size / bounds.body_min_rate.max(1));
        let left = allowed.saturating_sub(start.elapsed());
        let chunk = match tokio::time::timeout(left, session.read_request_body()).await {
            Err(_) => {
                return Err(Refusal::new(
                    Reason::RequestTimeout,
                    format!(
                        "the body came slower than {} bytes a second",
                        bounds.body_min_rate
                    ),
                )
                .closing());
            }
            Ok(Err(error)) => return Err(cut_short(&error)),
            Ok(Ok(None)) => break,
            Ok(Ok(Some(chunk))) => chunk,
        };
        if size + chunk.len() as u64 > bounds.max_body {
            return Err(too_large(bounds.max_body));
        }
        ctx.hold_bytes(chunk.len())?;
        if first.is_empty() && rest.is_empty() {
            first = chunk;
            continue;
        }
        if rest.is_empty() {
            let expected = declared.unwrap_or(0).min(TRUSTED_CAPACITY);
            rest.reserve(usize::try_from(expected).unwrap_or(0).max(2 * first.len()));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&chunk);
    }
    let whole = if rest.is_empty() {
        first
    } else {
        rest.freeze()
    };
    match declared {
        Some(length) if length != whole.len() as u64 => Err(Refusal::new(
            Reason::InvalidRequest,
            format!("the body ended after {} of {length} bytes", whole.len()),
        )
        .closing()),
        _ => Ok(whole),
    }
}

async fn decode(coding: Coding, raw: Bytes, limit: u64) -> Result<Bytes, Refusal> {
    if coding == Coding::Identity {
        return Ok(raw);
    }
    let decoded = if raw.len() > INLINE_DECODE_MAX {
        tokio::task::spawn_blocking(move || coding.decode(&raw, limit))
            .await
            .map_err(|_| Refusal::new(Reason::Internal, "the body could not be decoded"))?
    } else {
        coding.decode(&raw, limit)
    };
    decoded.map_err(|error| {
        let reason = match error {
            DecodeError::TooLarge { .. } => Reason::BodyTooLarge,
            DecodeError::Damaged { .. } => Reason::InvalidRequest,
        };
        Refusal::new(reason, error.to_string())
    })
}

fn too_large(limit: u64) -> Refusal {
    // What was not read stays on the connection, so it cannot be used again.
    Refusal::new(
        Reason::BodyTooLarge,
        format!("the body is larger than {limit} bytes"),
    )
    .closing()
}

fn cut_short(error: &pingora_core::Error) -> Refusal {
    tracing::debug!(%error, "a request body ended early");
    Refusal::new(
        Reason::InvalidRequest,
        "the body ended early or its framing is broken",
    )
    .closing()
}

/// JSON by name, or no name at all: what is not JSON is found when it is read.
fn judge_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let bytes = value.as_bytes();
    let essence = bytes.split(|byte| *byte == b';').next().unwrap_or(bytes);
    let essence = essence.trim_ascii();
    let json = essence.eq_ignore_ascii_case(b"application/json")
        || essence.len() > 5 && essence[essence.len() - 5..].eq_ignore_ascii_case(b"+json");
    if json {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::UnsupportedMediaType,
        "the content type must be application/json",
    ))
}

fn coding(headers: &HeaderMap) -> Result<Coding, Refusal> {
    let value = headers.get(header::CONTENT_ENCODING);
    Coding::parse(value.map(http::HeaderValue::as_bytes)).ok_or_else(|| {
        Refusal::new(
            Reason::UnsupportedMediaType,
            "the content encoding must be one of identity, gzip, br and zstd",
        )
    })
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
