//! Which endpoint a path names, and the protocol in which its errors are told.

use http::{HeaderMap, Method};

use crate::api::{Endpoint, Shape};

/// What a request line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A call that goes to a provider.
    Call(Endpoint),
    /// `GET /v1/models`
    Models,
    /// `GET /v1/models/{id}`; the id is percent-decoded.
    Model(String),
    /// `GET /v1/usage`
    Usage,
    /// `GET /`, `/openai` or `/anthropic`: some clients look whether anybody is there.
    Root,
    /// The path is known, the method is not one of it.
    WrongMethod {
        /// What the `Allow` header says.
        allow: &'static str,
    },
    /// Nothing is served here.
    Unknown,
}

/// A request line, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub target: Target,
    pub shape: Shape,
}

/// Judges a request line. The path is compared as it was sent: a form that
/// would need normalising (`//`, `%2e`, `;`) names nothing.
pub(super) fn route(method: &Method, path: &str, headers: &HeaderMap) -> Route {
    let (prefix, rest) = if let Some(rest) = strip_segment(path, "/anthropic") {
        (Some(Shape::Anthropic), rest)
    } else if let Some(rest) = strip_segment(path, "/openai") {
        (Some(Shape::OpenAi), rest)
    } else {
        (None, path)
    };
    let target = target(method, rest);
    let shape = match (&target, prefix) {
        (Target::Call(endpoint), _) => shape_of(*endpoint),
        (_, Some(Shape::Anthropic)) => Shape::Anthropic,
        _ if headers.contains_key("anthropic-version") => Shape::Anthropic,
        _ => match endpoint(rest) {
            Some(endpoint) => shape_of(endpoint),
            None => Shape::OpenAi,
        },
    };
    Route { target, shape }
}

/// The endpoint that a path names, whatever the protocol's prefix.
pub(super) fn endpoint_of(path: &str) -> Option<Endpoint> {
    let rest = strip_segment(path, "/anthropic").or_else(|| strip_segment(path, "/openai"));
    endpoint(rest.unwrap_or(path))
}

pub(super) fn shape_of(endpoint: Endpoint) -> Shape {
    match endpoint {
        Endpoint::Messages | Endpoint::CountTokens => Shape::Anthropic,
        _ => Shape::OpenAi,
    }
}

fn strip_segment<'a>(path: &'a str, segment: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(segment)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn endpoint(path: &str) -> Option<Endpoint> {
    Some(match path {
        "/v1/chat/completions" => Endpoint::ChatCompletions,
        "/v1/completions" => Endpoint::Completions,
        "/v1/embeddings" => Endpoint::Embeddings,
        "/v1/responses" => Endpoint::Responses,
        "/v1/messages" => Endpoint::Messages,
        "/v1/messages/count_tokens" => Endpoint::CountTokens,
        _ => return None,
    })
}

fn target(method: &Method, path: &str) -> Target {
    if let Some(endpoint) = endpoint(path) {
        return match *method {
            Method::POST => Target::Call(endpoint),
            _ => Target::WrongMethod { allow: "POST" },
        };
    }
    let read = *method == Method::GET || *method == Method::HEAD;
    let found = match path {
        "" | "/" => Target::Root,
        "/v1/models" => Target::Models,
        "/v1/usage" => Target::Usage,
        _ => match path.strip_prefix("/v1/models/").and_then(decode_id) {
            Some(id) => Target::Model(id),
            None => return Target::Unknown,
        },
    };
    if read {
        found
    } else {
        Target::WrongMethod { allow: "GET, HEAD" }
    }
}

/// Percent-decodes a model id (RFC 3986, section 2.1); `None` if it is empty,
/// broken or not UTF-8.
fn decode_id(id: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(id.len());
    let mut rest = id.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(hex::decode(digits).ok()?[0]);
    }
    String::from_utf8(bytes).ok().filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests;
