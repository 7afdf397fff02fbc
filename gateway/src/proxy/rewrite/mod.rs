//! What a request body asks for, and the few byte splices that an upstream's
//! copy of it may differ by.
//!
//! Promise: a body is judged as a whole (UTF-8, nesting, valid JSON with
//! nothing after it) and never re-serialised: its copy for the upstream equals
//! it byte for byte except for the top-level `model` value, for streams on chat
//! and completions `stream_options.include_usage`, and where a limit asks for
//! it the bound on the answer.
//! State: none. Failure: a [`BodyProblem`], worded for the client.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::Endpoint;

mod bound;
mod fields;
mod media;
mod survey;
#[cfg(test)]
mod tests;
mod text;

use bound::Bounds;

/// What the gateway needs to know about one request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFacts<'a> {
    /// The top-level `model`, escapes resolved; never empty.
    pub model: Cow<'a, str>,
    /// The client asked for server-sent events.
    pub stream: bool,
    /// Bound on the output of one choice in tokens: the largest that the
    /// endpoint's fields state. `None` when absent, null or negative (some
    /// servers read -1 as "no bound").
    pub max_output_tokens: Option<u64>,
    /// How many choices the upstream will generate: the larger of `n` and
    /// `best_of`, at least 1.
    pub choices_n: u64,
    /// The client itself asked for the usage chunk of a stream.
    pub include_usage: bool,
    /// Bytes that stand for the prompt when its tokens are estimated: the text
    /// of all strings with runs of spaces merged, and four bytes for each
    /// number or word, but neither white space nor punctuation of the JSON.
    /// Inlined media in a message (base64 of a known kind of file) counts as
    /// [`INLINE_MEDIA_BYTES`], or a part of its length for sound and documents.
    pub prompt_bytes: u64,
    /// Some of the prompt is inlined media, so its text says too much.
    pub has_media: bool,
    model_span: Range<usize>,
    usage_splice: UsageSplice,
    bounds: Bounds,
}

/// What one inlined image counts as in `prompt_bytes`: about what the largest
/// picture costs in tokens, at four bytes a token.
pub const INLINE_MEDIA_BYTES: u64 = 6_400;

/// What must change in a body so that its stream ends with usage.
#[derive(Clone, Debug, PartialEq, Eq)]
enum UsageSplice {
    /// Asked already, or an endpoint or request that knows no such field.
    Nothing,
    /// A new last field of the body, before the closing brace at this offset.
    Field(usize),
    /// `null` in place of the options object.
    Options(Range<usize>),
    /// A new last field of the options, before the closing brace at `at`.
    OptionsField { at: usize, first: bool },
    /// `false` or `null` in place of the flag.
    Flag(Range<usize>),
}

/// Why a body is refused; the text is meant for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyProblem {
    /// Some bytes are not UTF-8.
    #[error("the request body is not valid UTF-8")]
    NotUtf8,
    /// More levels of arrays and objects than allowed.
    #[error("the request body is nested deeper than {limit} levels")]
    TooDeep {
        /// The deepest nesting accepted.
        limit: usize,
    },
    /// Not one complete JSON document.
    #[error("the request body is not valid JSON: {message}")]
    NotJson {
        /// The parser's reason with line and column; never quotes the body.
        message: String,
    },
    /// Valid JSON, but not an object.
    #[error("the request body must be a JSON object")]
    NotAnObject,
    /// `model` is absent or empty.
    #[error("you must provide a model parameter: a non-empty string")]
    MissingModel,
    /// A field that the gateway reads has another type.
    #[error("invalid type for '{field}': expected {expected}")]
    WrongType {
        /// Path of the field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A field that the gateway reads stands twice, so that the gateway and
    /// the upstream could read different values.
    #[error("duplicate field '{field}'")]
    DuplicateField {
        /// Path of the field.
        field: &'static str,
    },
}

impl BodyProblem {
    /// The parameter at fault, for the `param` field of an OpenAI error.
    pub fn param(&self) -> Option<&str> {
        match self {
            BodyProblem::MissingModel => Some("model"),
            BodyProblem::WrongType { field, .. } | BodyProblem::DuplicateField { field } => {
                Some(field)
            }
            _ => None,
        }
    }
}

/// The top-level fields that the gateway reads. Each value stays raw, so that
/// its place in the body is known and a wrong type can be named.
#[derive(Deserialize)]
struct KnownFields<'a> {
    #[serde(borrow, default, deserialize_with = "fields::raw")]
    model: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "fields::raw")]
    stream: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "fields::raw")]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "fields::raw")]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "fields::raw")]
    max_output_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "fields::raw")]
    n: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "fields::raw")]
    best_of: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "fields::raw")]
    stream_options: Option<&'a RawValue>,
}

const KNOWN: [&str; 8] = [
    "model",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "best_of",
    "stream_options",
];

/// The part of `stream_options` that the gateway reads.
#[derive(Deserialize)]
struct StreamOptions<'a> {
    #[serde(borrow, default, deserialize_with = "fields::raw")]
    include_usage: Option<&'a RawValue>,
}

/// Judges a decoded request body and reads what the gateway needs from it.
///
/// `max_depth` is the deepest nesting accepted; the top-level object is 1.
/// Fields that mean nothing to `endpoint` are not judged, except that no
/// known field may stand twice.
pub fn read_facts(
    body: &[u8],
    endpoint: Endpoint,
    max_depth: usize,
) -> Result<RequestFacts<'_>, BodyProblem> {
    let text = std::str::from_utf8(body).map_err(|_| BodyProblem::NotUtf8)?;
    let survey = survey::survey(body, max_depth)?;
    let known = parse_known(text)?;
    let (model, model_span) = fields::model(body, known.model)?;

    let streams = !matches!(endpoint, Endpoint::Embeddings | Endpoint::CountTokens);
    let stream = streams && fields::flag("stream", known.stream)?.unwrap_or(false);
    let (max_output_tokens, bounds) = bound::read(body, endpoint, &known)?;
    let mut choices_n = 1;
    if has_choices(endpoint) {
        choices_n = fields::count("n", known.n)?.unwrap_or(1).max(1);
    }
    if endpoint == Endpoint::Completions {
        choices_n = choices_n.max(fields::count("best_of", known.best_of)?.unwrap_or(1));
    }
    let mut include_usage = false;
    let mut usage_splice = UsageSplice::Nothing;
    if has_choices(endpoint) {
        (include_usage, usage_splice) = usage_request(body, known.stream_options)?;
    }
    if !stream {
        usage_splice = UsageSplice::Nothing;
    }
    Ok(RequestFacts {
        model,
        stream,
        max_output_tokens,
        choices_n,
        include_usage,
        prompt_bytes: survey.prompt_bytes,
        has_media: survey.has_media,
        model_span,
        usage_splice,
        bounds,
    })
}

/// Chat and completions: the endpoints with `n` and `stream_options`.
fn has_choices(endpoint: Endpoint) -> bool {
    matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Completions)
}

fn parse_known(text: &str) -> Result<KnownFields<'_>, BodyProblem> {
    // serde would also read a struct from an array.
    if !fields::is_object(text) {
        return Err(match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => BodyProblem::NotAnObject,
            Err(error) => not_json(&error),
        });
    }
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let duplicate = fields::duplicate(&error, &message);
        match duplicate.and_then(|name| KNOWN.into_iter().find(|known| *known == name)) {
            Some(field) => BodyProblem::DuplicateField { field },
            None => not_json(&error),
        }
    })
}

fn not_json(error: &serde_json::Error) -> BodyProblem {
    BodyProblem::NotJson {
        message: error.to_string(),
    }
}

/// Whether the client asked for usage, and what to splice when it did not.
fn usage_request(
    body: &[u8],
    options: Option<&RawValue>,
) -> Result<(bool, UsageSplice), BodyProblem> {
    const FLAG: &str = "stream_options.include_usage";
    let Some(options) = options else {
        let end = body
            .iter()
            .rposition(|byte| *byte == b'}')
            .map_or(UsageSplice::Nothing, UsageSplice::Field);
        return Ok((false, end));
    };
    let span = fields::span(body, options);
    if options.get() == "null" {
        return Ok((false, UsageSplice::Options(span)));
    }
    if !fields::is_object(options.get()) {
        return Err(BodyProblem::WrongType {
            field: "stream_options",
            expected: "an object",
        });
    }
    // The object was checked with the body, so only a second flag can fail.
    let parsed: StreamOptions<'_> = serde_json::from_str(options.get())
        .map_err(|_| BodyProblem::DuplicateField { field: FLAG })?;
    let Some(flag) = parsed.include_usage else {
        let inside = &options.get()[1..options.get().len() - 1];
        return Ok((
            false,
            UsageSplice::OptionsField {
                at: span.end - 1,
                first: inside.trim_ascii().is_empty(),
            },
        ));
    };
    if fields::flag(FLAG, Some(flag))? == Some(true) {
        return Ok((true, UsageSplice::Nothing));
    }
    Ok((false, UsageSplice::Flag(fields::span(body, flag))))
}

impl RequestFacts<'_> {
    /// The same facts, free of the body they were read from.
    pub fn into_owned(self) -> RequestFacts<'static> {
        RequestFacts {
            model: Cow::Owned(self.model.into_owned()),
            stream: self.stream,
            max_output_tokens: self.max_output_tokens,
            choices_n: self.choices_n,
            include_usage: self.include_usage,
            prompt_bytes: self.prompt_bytes,
            has_media: self.has_media,
            model_span: self.model_span,
            usage_splice: self.usage_splice,
            bounds: self.bounds,
        }
    }

    /// Whether an upstream that is asked for usage (`ask_usage` of
    /// [`upstream_body`]) will send a usage chunk that the client did not ask
    /// for, and that must be hidden from it.
    pub fn usage_is_ours(&self, ask_usage: bool) -> bool {
        ask_usage && self.usage_splice != UsageSplice::Nothing
    }
}

/// The body for an upstream: the client's, with `upstream_model` in place of
/// the model; where `ask_usage`, usage asked for on streams of chat and
/// completions; and where `clamp`, an answer of no more tokens than that. The
/// same `Bytes` (no copy) when nothing changes.
///
/// # Panics
/// When `facts` were read from another, longer body.
pub fn upstream_body(
    body: &Bytes,
    facts: &RequestFacts<'_>,
    upstream_model: &str,
    ask_usage: bool,
    clamp: Option<u64>,
) -> Bytes {
    let model = (facts.model != upstream_model).then(|| {
        let literal = fields::json_string(upstream_model);
        (facts.model_span.clone(), literal)
    });
    let usage = ask_usage.then(|| facts.usage_splice.as_edit()).flatten();
    let usage = usage.map(|(span, text)| (span, Cow::Borrowed(text)));
    let mut edits: Vec<Edit> = model.into_iter().chain(usage).collect();
    if let Some(most) = clamp {
        edits.extend(facts.bounds.lowered_to(most));
    }
    if edits.is_empty() {
        return body.clone();
    }
    // Two insertions at one place keep their order.
    edits.sort_by_key(|(span, _)| span.start);
    let added: usize = edits.iter().map(|edit| edit.1.len()).sum();
    let mut out = Vec::with_capacity(body.len() + added);
    let mut copied = 0;
    for (span, text) in &edits {
        out.extend_from_slice(&body[copied..span.start]);
        out.extend_from_slice(text.as_bytes());
        copied = span.end;
    }
    out.extend_from_slice(&body[copied..]);
    Bytes::from(out)
}

/// The bytes to replace, none where the span is empty, and their text.
type Edit = (Range<usize>, Cow<'static, str>);

impl UsageSplice {
    /// The bytes to replace (none where the span is empty) and their text.
    fn as_edit(&self) -> Option<(Range<usize>, &'static str)> {
        Some(match self {
            UsageSplice::Nothing => return None,
            UsageSplice::Field(at) => (*at..*at, r#","stream_options":{"include_usage":true}"#),
            UsageSplice::Options(span) => (span.clone(), r#"{"include_usage":true}"#),
            UsageSplice::OptionsField { at, first: true } => (*at..*at, r#""include_usage":true"#),
            UsageSplice::OptionsField { at, first: false } => {
                (*at..*at, r#","include_usage":true"#)
            }
            UsageSplice::Flag(span) => (span.clone(), "true"),
        })
    }
}
