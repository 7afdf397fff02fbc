//! The one shape of a refusal on this port, and small things about answers.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::config::catalogue::PointerProblem;

/// A refusal: `{"error": {"type", "message"}}`. The texts are made here and
/// never hold what the caller sent in a header.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    kind: &'static str,
    message: String,
    header: Option<Box<(HeaderName, HeaderValue)>>,
    problems: Vec<PointerProblem>,
}

/// Why a call was refused.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Refusal {
    error: RefusalReason,
    /// What is wrong with the body.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    problems: Vec<Problem>,
}

/// A refusal in one word and in a sentence.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RefusalReason {
    /// For programs.
    #[serde(rename = "type")]
    kind: &'static str,
    /// For people; no secret.
    message: String,
}

impl RefusalReason {
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        RefusalReason { kind, message }
    }
}

/// What is wrong with a field of a body.
#[derive(Debug, Serialize, JsonSchema)]
struct Problem {
    /// JSON Pointer of the field (RFC 6901); empty for the whole body.
    pointer: String,
    /// What is wrong and how to put it right; no secret.
    message: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Failure {
            status,
            kind,
            message: message.into(),
            header: None,
            problems: Vec::new(),
        }
    }

    /// A body with fields that cannot be taken.
    pub(super) fn invalid_body(problems: Vec<PointerProblem>) -> Self {
        let message = match problems.as_slice() {
            [only] if only.pointer.is_empty() => only.message.clone(),
            [only] => format!("{}: {}", only.pointer, only.message),
            many => format!("the body has {} problems", many.len()),
        };
        Failure {
            problems,
            ..Self::invalid(message)
        }
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "store_unavailable", reason)
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
        self.header = Some(Box::new((name, value)));
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problems = self.problems.into_iter().map(|problem| Problem {
            pointer: problem.pointer,
            message: problem.message,
        });
        let body = Refusal {
            error: RefusalReason::new(self.kind, self.message),
            problems: problems.collect(),
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some((name, value)) = self.header.map(|header| *header) {
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
