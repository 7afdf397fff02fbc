//! Everything that goes wrong before an answer's head: error statuses, silence, resets.
//!
//! Promise: an error has the form its provider gives it, so that both dialects can be tested.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::sync::{Mutex, PoisonError};

use crate::control::{Directives, Fault};
use crate::sse::{Event, MockBody};
use crate::stats::{Entry, Stats};

/// Whose form errors take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
}

/// Errors by chance, from `--error-rate`.
#[derive(Debug)]
pub(crate) struct Chance {
    rate: f64,
    status: u16,
    random: Mutex<StdRng>,
}

impl Chance {
    pub(crate) fn new(rate: f64, status: u16, seed: u64) -> Self {
        Self {
            rate,
            status,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
        }
    }

    fn strikes(&self) -> bool {
        if self.rate <= 0.0 {
            return false;
        }
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        random.random_bool(self.rate.min(1.0))
    }
}

/// Settles which fault, if any, this request gets: counts `times` and `statuses`, draws chance.
pub(crate) fn settle(directives: &mut Directives, stats: &Stats, path: &str, chance: &Chance) {
    let fault = &mut directives.fault;
    if directives.times.is_some() || !fault.statuses.is_empty() {
        let id = directives.id.as_deref().unwrap_or(path);
        let before = stats.seen_before(id);
        if !fault.statuses.is_empty() {
            let index = usize::try_from(before).unwrap_or(usize::MAX);
            fault.status = fault.statuses.get(index).copied().filter(|s| *s != 200);
        }
        if directives.times.is_some_and(|n| before >= n) {
            *fault = Fault::default();
        }
    }
    if fault.status.is_none() && chance.strikes() {
        fault.status = Some(chance.status);
    }
}

/// The answer with the status that `fault` asks for.
pub(crate) fn error(
    dialect: Dialect,
    status: u16,
    fault: &Fault,
    mut entry: Entry,
) -> Response<MockBody> {
    let seq = entry.seq();
    let body = Bytes::from(error_body(dialect, status, fault, seq));
    entry.status(status);
    let mut response = Response::new(MockBody::whole(body, 0, Some(entry)));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let content_type = if fault.bad_content_type {
        "text/html"
    } else {
        "application/json"
    };
    provider_headers(headers, dialect, seq, content_type, fault.conn_close);
    let mut add = |name: &'static str, value: Option<&str>| {
        if let Some(value) = value.and_then(|v| HeaderValue::from_str(v).ok()) {
            headers.insert(name, value);
        }
    };
    add("retry-after", fault.retry_after.as_deref());
    add("retry-after-ms", fault.retry_after_ms.as_deref());
    add(
        "x-should-retry",
        fault
            .should_retry
            .map(|yes| if yes { "true" } else { "false" }),
    );
    response
}

/// Headers real providers send, limits of the operator's own account among them.
pub(crate) fn provider_headers(
    headers: &mut HeaderMap,
    dialect: Dialect,
    seq: u64,
    content_type: &'static str,
    closes: bool,
) {
    headers.insert("content-type", HeaderValue::from_static(content_type));
    let id = HeaderValue::from_str(&format!("req_mock_{seq}"));
    let fixed: &[(&str, &str)] = match dialect {
        Dialect::OpenAi => &[
            ("openai-organization", "org-mock"),
            ("x-ratelimit-limit-requests", "30000"),
            ("x-ratelimit-remaining-requests", "29999"),
        ],
        Dialect::Anthropic => &[
            ("anthropic-organization-id", "org-mock"),
            ("anthropic-ratelimit-requests-limit", "4000"),
            ("anthropic-ratelimit-requests-remaining", "3999"),
        ],
    };
    for (name, value) in fixed {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    if let Ok(id) = id {
        headers.insert(
            if dialect == Dialect::OpenAi {
                "x-request-id"
            } else {
                "request-id"
            },
            id,
        );
    }
    if closes {
        headers.insert("connection", HeaderValue::from_static("close"));
    }
}

/// The text of an error in its provider's form.
pub(crate) fn error_body(dialect: Dialect, status: u16, fault: &Fault, seq: u64) -> String {
    let default = format!("mock error {status}");
    let message = fault.message.as_deref().unwrap_or(&default);
    let kind = fault.error_type.as_deref().unwrap_or(match dialect {
        Dialect::OpenAi => openai_type(status),
        Dialect::Anthropic => anthropic_type(status),
    });
    match dialect {
        Dialect::OpenAi => json!({"error": {
            "message": message, "type": kind, "param": null, "code": fault.code,
        }}),
        Dialect::Anthropic => json!({
            "type": "error",
            "error": {"type": kind, "message": message},
            "request_id": format!("req_mock_{seq}"),
        }),
    }
    .to_string()
}

/// The event that reports an error inside a stream.
pub(crate) fn error_event(dialect: Dialect, fault: &Fault, seq: u64) -> Event {
    let status = fault.status.unwrap_or(match dialect {
        Dialect::OpenAi => 500,
        Dialect::Anthropic => 529,
    });
    let body = error_body(dialect, status, fault, seq);
    match dialect {
        Dialect::OpenAi => Event::data(&body),
        Dialect::Anthropic => Event::named("error", &body),
    }
}

fn openai_type(status: u16) -> &'static str {
    match status {
        429 => "rate_limit_exceeded",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}
