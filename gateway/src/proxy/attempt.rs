//! The one loop over upstream choices.
//!
//! A failure before the first byte to the client goes round again, with the
//! next credential or the next choice and the original body. What the loop
//! gives back is an answer to relay, or the refusal that tells of the last
//! failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, Limited};
use pingora_core::protocols::http::ServerSession;
use policy::{Choice, ModelId};
use rand::RngExt;

use super::admit::Plan;
use super::context::RequestContext;
use super::headers::{self, Sender};
use super::reject::{Reason, Refusal};
use super::rewrite::{self, RequestFacts};
use super::settle::Served;
use super::stop::Stop;
use crate::clock;
use crate::state::Live;
use crate::upstream::{AnswerBody, Secret, SendError, Upstream};

/// How much of an error's body is read so that its connection stays usable.
const ERROR_BODY_MAX: usize = 64 * 1024;

/// How long reading an error's body may take.
const ERROR_BODY_TIME: Duration = Duration::from_secs(1);

/// How much of an upstream's error message is passed on, in characters.
const ERROR_TEXT_MAX: usize = 512;

/// What every attempt of one request sends.
pub(super) struct Outgoing<'a> {
    pub body: &'a Bytes,
    pub facts: &'a RequestFacts<'a>,
    pub client_headers: &'a HeaderMap,
    pub query: Option<&'a str>,
    pub plan: &'a Plan,
}

/// An answer whose head has come and whose first byte has not left.
pub(super) struct Answer {
    pub parts: Parts,
    pub body: Body,
    pub upstream: Arc<Upstream>,
    pub hide_usage: bool,
    /// The whole request ends here.
    pub deadline: Instant,
    /// When the head came.
    pub head_at: Instant,
}

/// Why an attempt brought no answer.
enum Failure {
    Send(SendError),
    FirstByteTimeout,
    TotalTimeout,
    Status {
        status: StatusCode,
        retry_after: Option<Duration>,
        /// The provider's word to the official SDKs.
        should_retry: Option<bool>,
        message: String,
    },
    NoCredential,
    BadHeader,
}

enum Tried {
    Answer(Parts, Body),
    Failed(Failure),
}

/// The body of an answer to relay.
pub(super) enum Body {
    Flowing(AnswerBody),
    /// A short one, read to its end before its head was passed on.
    Whole(Option<Bytes>),
}

impl Body {
    /// Whether the last part has been given out, as far as is known without
    /// waiting.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Body::Flowing(body) => body.is_end_stream(),
            Body::Whole(bytes) => bytes.is_none(),
        }
    }

    /// The next part, as `BodyExt::frame` gives it. Dropping the future loses
    /// nothing.
    pub(super) async fn frame(&mut self) -> Option<Result<Frame<Bytes>, ()>> {
        match self {
            Body::Flowing(body) => Some(body.frame().await?.map_err(|_| ())),
            Body::Whole(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
        }
    }
}

/// Sends the request until something answers.
pub(super) async fn run(
    session: &mut ServerSession,
    ctx: &mut RequestContext,
    outgoing: &Outgoing<'_>,
) -> Result<Answer, Stop> {
    let live = ctx.live.clone();
    let start = clock::monotonic();
    let mut last = Failure::NoCredential;
    let mut provider = Arc::from("");
    let first = outgoing.plan.first;
    for (index, way) in outgoing.plan.choices.iter().enumerate().skip(first) {
        // What is held for a choice goes along; a full one is skipped.
        if index > first && !moved(ctx, index) {
            continue;
        }
        let model = live.policy.model(way.model);
        let upstream = live.upstreams[usize::from(model.provider.0)].clone();
        provider = upstream.config.name.clone();
        let deadline = start + upstream.config.timeouts.total;
        match choice(session, ctx, outgoing, way, &upstream, deadline).await? {
            Ok(answer) => return Ok(answer),
            Err(failure) => last = failure,
        }
        if matches!(last, Failure::TotalTimeout) {
            break;
        }
    }
    Err(Stop::Refuse(Box::new(refusal_of(&last, &provider))))
}

fn moved(ctx: &mut RequestContext, choice: usize) -> bool {
    let account = ctx.account.as_mut();
    account.is_some_and(|account| account.move_to(choice))
}

/// All attempts at one choice.
async fn choice(
    session: &mut ServerSession,
    ctx: &mut RequestContext,
    outgoing: &Outgoing<'_>,
    way: &Choice,
    upstream: &Arc<Upstream>,
    deadline: Instant,
) -> Result<Result<Answer, Failure>, Stop> {
    let live = ctx.live.clone();
    let model = live.policy.model(way.model);
    let pinned = way.credential.as_deref();
    let provider = live.policy.provider(model.provider);
    let ask_usage = upstream.config.usage_in_stream;
    let body = rewrite::upstream_body(
        outgoing.body,
        outgoing.facts,
        &model.upstream_name,
        ask_usage,
        outgoing.plan.clamp,
    );
    if body.as_ptr() != outgoing.body.as_ptr() {
        ctx.hold_bytes(body.len())?;
    }
    let mut tried: Vec<usize> = Vec::new();
    let mut last = Failure::NoCredential;
    for attempt in 0..=upstream.config.retries.max {
        let random = rand::rng().random();
        let Some(index) = policy::credential(provider, &model.name, pinned, &tried, random) else {
            break;
        };
        if tried.contains(&index) {
            if let Failure::Status { status, .. } = &last
                && is_about_credential(*status)
            {
                break; // the same credential would be refused again
            }
            let Some(wait) = backoff(upstream, attempt, &last) else {
                break;
            };
            super::stop::unless_gone(session, tokio::time::sleep(wait)).await?;
        }
        tried.push(index);
        let served = served(&live, way.model, upstream, index);
        let Some(request) = build(ctx, outgoing, upstream, index, &body) else {
            return Ok(Err(Failure::BadHeader));
        };
        match once(session, ctx, request, served, upstream, deadline).await? {
            Tried::Answer(parts, body) => {
                return Ok(Ok(Answer {
                    parts,
                    body,
                    upstream: upstream.clone(),
                    hide_usage: outgoing.facts.usage_is_ours(ask_usage),
                    deadline,
                    head_at: clock::monotonic(),
                }));
            }
            Tried::Failed(failure) if failure.is_final() => return Ok(Err(failure)),
            Tried::Failed(failure) => last = failure,
        }
    }
    Ok(Err(last))
}

fn served(live: &Arc<Live>, model: ModelId, upstream: &Upstream, index: usize) -> Served {
    let provider = live.policy.provider(live.policy.model(model).provider);
    Served {
        live: live.clone(),
        model,
        provider: upstream.config.name.clone(),
        credential: provider.credentials[index].name.clone(),
    }
}

/// One attempt: one request on the wire.
async fn once(
    session: &mut ServerSession,
    ctx: &mut RequestContext,
    request: Request<Full<Bytes>>,
    served: Served,
    upstream: &Arc<Upstream>,
    deadline: Instant,
) -> Result<Tried, Stop> {
    let now = clock::monotonic();
    if now >= deadline {
        return Ok(Tried::Failed(Failure::TotalTimeout));
    }
    if let Some(account) = &mut ctx.account {
        account.attempt_begins(served);
    }
    let first_byte = now + upstream.config.timeouts.first_byte;
    let limit = tokio::time::Instant::from_std(first_byte.min(deadline));
    let sending = tokio::time::timeout_at(limit, upstream.send(request));
    let tried = match super::stop::unless_gone(session, sending).await? {
        Ok(Ok(response)) => judge(response, upstream).await,
        Ok(Err(error)) => Tried::Failed(Failure::Send(error)),
        Err(_) if deadline <= first_byte => Tried::Failed(Failure::TotalTimeout),
        Err(_) => Tried::Failed(Failure::FirstByteTimeout),
    };
    let outcome = match &tried {
        Tried::Answer(..) => "answered",
        Tried::Failed(failure) => failure.label(),
    };
    ctx.services.metrics.attempt(&upstream.config.name, outcome);
    if let Tried::Failed(failure) = &tried {
        if let Some(account) = &mut ctx.account {
            account.attempt_failed(!failure.is_before_sending());
        }
        tracing::warn!(request_id = %ctx.request_id, provider = %upstream.config.name, outcome,
            detail = %failure.text(), "an upstream attempt failed");
    }
    Ok(tried)
}

fn build(
    ctx: &RequestContext,
    outgoing: &Outgoing<'_>,
    upstream: &Upstream,
    credential: usize,
    body: &Bytes,
) -> Option<Request<Full<Bytes>>> {
    let secret = upstream.config.credentials.get(credential)?;
    let endpoint = ctx.account.as_ref()?.call.ask.endpoint;
    let sender = Sender {
        dialect: upstream.config.dialect,
        credential: Some(secret.expose()),
        pass_client_credential: upstream.config.pass_client_credential,
        request_id: &ctx.request_id,
        users: &ctx.live.users,
    };
    let headers = headers::towards_provider(outgoing.client_headers, sender).ok()?;
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = upstream.uri(endpoint.upstream_path(), outgoing.query);
    *request.headers_mut() = headers;
    Some(request)
}

/// An answer the client may see, or a failure with what is worth keeping of it.
async fn judge(response: Response<AnswerBody>, upstream: &Upstream) -> Tried {
    let (parts, body) = response.into_parts();
    let failed = is_failure(parts.status);
    if !failed && !parts.status.is_client_error() {
        return Tried::Answer(parts, Body::Flowing(body));
    }
    // Read to its end, or the connection could not be used again.
    let body = Limited::new(body, ERROR_BODY_MAX);
    let body = match tokio::time::timeout(ERROR_BODY_TIME, body.collect()).await {
        Ok(Ok(collected)) => Some(collected.to_bytes()),
        _ => None,
    };
    // An error of the request passes as it is, unless it quotes our credential.
    if let (false, Some(bytes)) = (failed, &body)
        && !holds_secret(bytes, upstream)
    {
        return Tried::Answer(parts, Body::Whole(Some(bytes.clone())));
    }
    // What a provider says about a credential may quote a part of it.
    let message = match body {
        Some(bytes) if !is_about_credential(parts.status) => {
            without_secrets(error_text(&bytes), upstream)
        }
        _ => String::new(),
    };
    Tried::Failed(Failure::Status {
        status: parts.status,
        retry_after: retry_after(&parts.headers),
        should_retry: should_retry(&parts.headers),
        message,
    })
}

fn holds_secret(body: &[u8], upstream: &Upstream) -> bool {
    let mut secrets = upstream.config.credentials.iter().map(Secret::expose);
    secrets
        .any(|secret| !secret.is_empty() && memchr::memmem::find(body, secret.as_bytes()).is_some())
}

fn is_about_credential(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401..=403)
}

fn is_failure(status: StatusCode) -> bool {
    status.is_informational()
        || status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || is_about_credential(status)
}

/// The message of an error body in either dialect.
fn error_text(body: &[u8]) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let error = parsed.as_ref().and_then(|value| value.get("error"));
    let message = error.and_then(|error| error.get("message").unwrap_or(error).as_str());
    let text = message.unwrap_or_default();
    text.chars()
        .filter(|c| !c.is_control())
        .take(ERROR_TEXT_MAX)
        .collect()
}

fn without_secrets(text: String, upstream: &Upstream) -> String {
    upstream
        .config
        .credentials
        .iter()
        .map(Secret::expose)
        .filter(|secret| !secret.is_empty())
        .fold(text, |text, secret| text.replace(secret, "***"))
}

/// `retry-after` in seconds (RFC 9110, section 10.2.3), or OpenAI's
/// `retry-after-ms`.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms")
        .map(|ms| ms / 1000.0)
        .or_else(|| number("retry-after"))?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn should_retry(headers: &HeaderMap) -> Option<bool> {
    headers.get("x-should-retry")?.to_str().ok()?.parse().ok()
}

/// How long to wait before the same credential is used again, with jitter;
/// `None` when the upstream asked for longer than we wait.
fn backoff(upstream: &Upstream, attempt: u32, last: &Failure) -> Option<Duration> {
    let retries = &upstream.config.retries;
    if let Failure::Status {
        retry_after: Some(asked),
        ..
    } = last
    {
        return (*asked <= retries.backoff_max).then_some(*asked);
    }
    let doubled = retries
        .backoff_min
        .saturating_mul(1 << attempt.saturating_sub(1).min(16));
    let ceiling = doubled.min(retries.backoff_max);
    let share = rand::rng().random_range(0.5..=1.0);
    Some(ceiling.mul_f64(share))
}

impl Failure {
    fn label(&self) -> &'static str {
        match self {
            Failure::Send(error) => error.label(),
            Failure::FirstByteTimeout => "first_byte_timeout",
            Failure::TotalTimeout => "total_timeout",
            Failure::Status { status, .. } => match status.as_u16() {
                429 => "rate_limited",
                401..=403 => "credential_refused",
                _ => "server_error",
            },
            Failure::NoCredential => "no_credential",
            Failure::BadHeader => "bad_header",
        }
    }

    /// Another attempt at the same provider would end the same way.
    fn is_final(&self) -> bool {
        match self {
            Failure::TotalTimeout => true,
            Failure::Send(error) => !error.is_retryable(),
            _ => false,
        }
    }

    /// The provider has not seen the request.
    fn is_before_sending(&self) -> bool {
        use SendError::{Connect, ConnectTimeout, EgressDenied};
        matches!(
            self,
            Failure::Send(Connect(_) | ConnectTimeout | EgressDenied { .. })
        )
    }

    fn text(&self) -> String {
        match self {
            Failure::Send(error) => error.to_string(),
            Failure::FirstByteTimeout => "it sent no answer in time".to_owned(),
            Failure::TotalTimeout => "the time for the whole request is over".to_owned(),
            Failure::Status {
                status, message, ..
            } if message.is_empty() => {
                format!("it answered {}", status.as_u16())
            }
            Failure::Status {
                status, message, ..
            } => {
                format!("it answered {}: {message}", status.as_u16())
            }
            Failure::NoCredential => "none of its keys may be used for this model".to_owned(),
            Failure::BadHeader => "its key cannot be sent in a header".to_owned(),
        }
    }
}

/// What the client is told after the last attempt.
fn refusal_of(failure: &Failure, provider: &str) -> Refusal {
    let reason = match failure {
        Failure::FirstByteTimeout | Failure::TotalTimeout => Reason::UpstreamTimeout,
        Failure::Send(SendError::ConnectTimeout) => Reason::UpstreamTimeout,
        Failure::Status { status, .. } if *status == StatusCode::TOO_MANY_REQUESTS => {
            Reason::UpstreamRateLimited
        }
        _ => Reason::UpstreamFailed,
    };
    // Addresses and causes are for the log; the client learns which provider.
    let message = match failure {
        Failure::Send(_) => format!("provider '{provider}' could not be reached"),
        other => format!("provider '{provider}': {}", other.text()),
    };
    let mut refusal = Refusal::new(reason, message);
    if let Failure::Status {
        retry_after,
        should_retry,
        ..
    } = failure
    {
        refusal.retry_after = *retry_after;
        refusal.should_retry = *should_retry;
    }
    refusal
}
