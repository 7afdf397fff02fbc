//! The one shape of a refusal on this port, and small things about answers.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A refusal: `{"error": {"type", "message"}}`. The texts are made here and
/// never hold what the caller sent in a header.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    kind: &'static str,
    message: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Failure {
            status,
            kind,
            message: message.into(),
            header: None,
        }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path does not take this method",
        )
    }

    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the call failed inside the node; the log has the reason",
        )
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({"error": {"type": self.kind, "message": self.message}});
        let mut response = (self.status, Json(body)).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A strong entity tag of what can be written, quotes included.
pub(super) fn entity_tag(value: &Value) -> HeaderValue {
    let digest = Sha256::digest(value.to_string().as_bytes());
    let tag = format!("\"{}\"", hex::encode(&digest[..16]));
    HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether `If-None-Match` names `tag`.
pub(super) fn is_unchanged(headers: &http::HeaderMap, tag: &HeaderValue) -> bool {
    let (Ok(tag), Some(Ok(known))) = (
        tag.to_str(),
        headers.get(header::IF_NONE_MATCH).map(HeaderValue::to_str),
    ) else {
        return false;
    };
    known
        .split(',')
        .map(|one| one.trim().trim_start_matches("W/"))
        .any(|one| one == tag || one == "*")
}

/// Size of a page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) limit: usize,
}

impl Page {
    const DEFAULT: usize = 100;
    const MAX: usize = 1_000;

    /// A limit that is out of bounds is refused rather than bent in silence.
    pub(super) fn of(limit: Option<usize>) -> Result<Self, Failure> {
        match limit.unwrap_or(Self::DEFAULT) {
            limit @ 1..=Self::MAX => Ok(Page { limit }),
            _ => Err(Failure::invalid(format!(
                "limit must be between 1 and {}",
                Self::MAX
            ))),
        }
    }
}
