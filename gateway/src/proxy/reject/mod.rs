//! Refusals in the caller's own protocol.
//!
//! A refusal is a value: what happened, how the caller may go on, and nothing
//! secret. This file is the only place that turns one into a status, headers
//! and a body, in the shape of the protocol that was called.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use policy::{Rejection, RejectionKind, Timestamp, Unit};
use serde_json::json;

use super::limit_headers;
use crate::api::Shape;

/// Why a request is answered by the gateway itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The request cannot be understood.
    InvalidRequest,
    /// The body is not of a type that the endpoint takes.
    UnsupportedMediaType,
    /// No key, a wrong key, or two different keys.
    Unauthenticated,
    /// The request has no user that could be verified.
    NoUser,
    /// The key is known and may not do this.
    Forbidden,
    /// The key names something that this node does not have.
    UnresolvedReference,
    /// No such model.
    ModelNotFound,
    /// No such path.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// No provider of the model speaks the protocol that was called.
    UnsupportedEndpoint,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The body is larger than `server.max_body`.
    BodyTooLarge,
    /// The path and query are too long.
    UriTooLong,
    /// The head is too large.
    HeadTooLarge,
    /// A protocol upgrade that is not served.
    UpgradeRefused,
    /// A rate limit is used up.
    RateLimited,
    /// A budget is spent.
    BudgetSpent,
    /// The request alone is larger than a whole limit.
    LargerThanLimit,
    /// Every upstream attempt failed.
    UpstreamFailed,
    /// Every upstream attempt was refused for its rate.
    UpstreamRateLimited,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// What the request needs has not been loaded yet.
    NotReady,
    /// The gateway sheds load.
    Overloaded,
    /// A defect of the gateway.
    Internal,
}

/// One row per reason: OpenAI status, type, code; Anthropic status, type;
/// label in metrics.
struct Row(
    u16,
    &'static str,
    Option<&'static str>,
    u16,
    &'static str,
    &'static str,
);

impl Reason {
    #[rustfmt::skip]
    fn row(self) -> Row {
        const BAD: &str = "invalid_request_error";
        match self {
            Reason::InvalidRequest => Row(400, BAD, None, 400, BAD, "invalid_request"),
            Reason::UnsupportedMediaType => Row(415, BAD, Some("unsupported_media_type"), 415, BAD, "unsupported_media_type"),
            Reason::Unauthenticated => Row(401, BAD, Some("invalid_api_key"), 401, "authentication_error", "unauthenticated"),
            Reason::NoUser => Row(401, BAD, Some("invalid_user"), 401, "authentication_error", "no_user"),
            Reason::UnresolvedReference => Row(403, "permission_denied", Some("unresolved_reference"), 403, "permission_error", "unresolved_reference"),
            Reason::Forbidden => Row(403, "permission_denied", Some("permission_denied"), 403, "permission_error", "forbidden"),
            Reason::ModelNotFound => Row(404, BAD, Some("model_not_found"), 404, "not_found_error", "model_not_found"),
            Reason::NotFound => Row(404, BAD, Some("not_found"), 404, "not_found_error", "not_found"),
            Reason::MethodNotAllowed => Row(405, BAD, Some("method_not_allowed"), 405, BAD, "method_not_allowed"),
            Reason::UnsupportedEndpoint => Row(400, BAD, Some("unsupported_endpoint"), 400, BAD, "unsupported_endpoint"),
            Reason::RequestTimeout => Row(408, BAD, Some("request_timeout"), 408, BAD, "request_timeout"),
            Reason::BodyTooLarge => Row(413, BAD, Some("request_too_large"), 413, "request_too_large", "body_too_large"),
            Reason::UriTooLong => Row(414, BAD, Some("uri_too_long"), 414, BAD, "uri_too_long"),
            Reason::HeadTooLarge => Row(431, BAD, Some("head_too_large"), 431, BAD, "head_too_large"),
            Reason::UpgradeRefused => Row(426, BAD, Some("upgrade_not_supported"), 426, BAD, "upgrade"),
            Reason::RateLimited => Row(429, "rate_limit_exceeded", Some("rate_limit_exceeded"), 429, "rate_limit_error", "rate_limit"),
            Reason::BudgetSpent => Row(429, "insufficient_quota", Some("insufficient_quota"), 402, "billing_error", "budget"),
            Reason::LargerThanLimit => Row(429, "rate_limit_exceeded", Some("request_larger_than_limit"), 429, "rate_limit_error", "larger_than_limit"),
            Reason::UpstreamFailed => Row(502, "server_error", Some("upstream_failed"), 500, "api_error", "upstream_failed"),
            Reason::UpstreamRateLimited => Row(429, "rate_limit_exceeded", Some("upstream_rate_limited"), 429, "rate_limit_error", "upstream_rate_limited"),
            Reason::UpstreamTimeout => Row(504, "server_error", Some("upstream_timeout"), 504, "timeout_error", "upstream_timeout"),
            Reason::NotReady => Row(503, "server_error", Some("not_ready"), 529, "overloaded_error", "not_ready"),
            Reason::Overloaded => Row(503, "server_error", Some("overloaded"), 529, "overloaded_error", "overloaded"),
            Reason::Internal => Row(500, "server_error", Some("internal_error"), 500, "api_error", "internal"),
        }
    }

    /// The label in `tyr_refusals_total`.
    pub(super) fn label(self) -> &'static str {
        self.row().5
    }
}

/// An answer made by the gateway in place of the provider's.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// What happened.
    pub reason: Reason,
    /// For a person; never holds a secret.
    pub message: String,
    /// The body's field at fault, if one is.
    pub param: Option<String>,
    /// How long until the same request would pass.
    pub retry_after: Option<Duration>,
    /// `Some(false)` tells the official SDKs not to retry.
    pub should_retry: Option<bool>,
    /// `scope/name/unit/every` of the limit that refused.
    pub limit: Option<String>,
    /// Where the caller stands with the limit that refused.
    pub standing: Vec<(&'static str, String)>,
    /// Overrides the status of the table.
    pub status: Option<u16>,
    /// The connection cannot be used again.
    pub close: bool,
}

impl Refusal {
    /// A refusal with nothing but its reason and message.
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Refusal {
            reason,
            message: message.into(),
            param: None,
            retry_after: None,
            should_retry: None,
            limit: None,
            standing: Vec::new(),
            status: None,
            close: false,
        }
    }

    /// Names the field of the body that is at fault.
    pub(super) fn param(mut self, param: Option<&str>) -> Self {
        self.param = param.map(str::to_owned);
        self
    }

    /// Ends the connection after the answer.
    pub(super) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// The refusal of a limit; `budget_status` is `governance.budget_status`.
    pub(super) fn of_limit(
        rejection: &Rejection,
        budget_status: Option<u16>,
        shape: Shape,
        now: Timestamp,
    ) -> Self {
        let budget = rejection.unit == Unit::Usd;
        let (reason, should_retry) = match &rejection.kind {
            RejectionKind::TooLargeForLimit { .. } if budget => (Reason::BudgetSpent, Some(false)),
            RejectionKind::TooLargeForLimit { .. } => (Reason::LargerThanLimit, Some(false)),
            RejectionKind::Budget => (Reason::BudgetSpent, Some(false)),
            RejectionKind::RateLimit => (Reason::RateLimited, None),
        };
        Refusal {
            retry_after: Some(rejection.retry_after),
            should_retry,
            limit: Some(rejection.limit_label()),
            standing: limit_headers::of_rejection(rejection, shape, now).collect(),
            status: budget_status.filter(|_| reason == Reason::BudgetSpent),
            ..Refusal::new(reason, rejection.to_string())
        }
    }

    /// The status line's code in `shape`.
    pub(super) fn status(&self, shape: Shape) -> StatusCode {
        let row = self.reason.row();
        let code = self.status.unwrap_or(match shape {
            Shape::OpenAi => row.0,
            Shape::Anthropic => row.3,
        });
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The error body in `shape`.
    pub(super) fn body(&self, shape: Shape, request_id: &str) -> Bytes {
        let row = self.reason.row();
        let value = match shape {
            Shape::OpenAi => json!({"error": {
                "message": self.message, "type": row.1, "param": self.param, "code": row.2,
            }}),
            Shape::Anthropic => json!({
                "type": "error",
                "error": {"type": row.4, "message": self.message},
                "request_id": request_id,
            }),
        };
        Bytes::from(value.to_string())
    }

    /// The headers that tell a client how to go on, names in lower case.
    pub(super) fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = Vec::with_capacity(5);
        if let Some(wait) = self.retry_after {
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            headers.push(("retry-after", ms.div_ceil(1000).max(1).to_string()));
            headers.push(("retry-after-ms", ms.max(1).to_string()));
        }
        if let Some(should) = self.should_retry {
            headers.push(("x-should-retry", should.to_string()));
        }
        if let Some(limit) = &self.limit {
            headers.push((limit_headers::LIMIT, limit.clone()));
        }
        headers.extend(self.standing.iter().cloned());
        if self.reason == Reason::UpgradeRefused {
            headers.push(("upgrade", "h2c".to_owned()));
        }
        headers
    }
}

#[cfg(test)]
mod tests;
