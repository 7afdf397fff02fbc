//! From a request to its answer: reads the body, settles faults, picks the dialect's writer.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::anthropic;
use crate::control::{Directives, Early, EarlyThen, bracketed};
use crate::faults::{self, Dialect};
use crate::openai::{chat, completions, embeddings, responses};
use crate::request::Ask;
use crate::server::{Answered, Shared, Wire};
use crate::sse::{Broken, Event, Events, MockBody, Pace};
use crate::stats::{Entry, Seen};

/// Directives that must be known before the body is whole are looked for in its first bytes.
const SEARCHED: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    Responses,
    Moderations,
    Messages,
    CountTokens,
}

impl Endpoint {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "chat/completions" => Self::Chat,
            "completions" => Self::Completions,
            "embeddings" => Self::Embeddings,
            "responses" => Self::Responses,
            "moderations" => Self::Moderations,
            "messages" => Self::Messages,
            "messages/count_tokens" => Self::CountTokens,
            _ => return None,
        })
    }

    fn dialect(self) -> Dialect {
        match self {
            Self::Messages | Self::CountTokens => Dialect::Anthropic,
            _ => Dialect::OpenAi,
        }
    }
}

/// The path without its leading `/` and `v1/`.
fn bare(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    path.strip_prefix("v1/").unwrap_or(path)
}

/// Answers one request.
pub(crate) async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    wire: Arc<Wire>,
) -> Answered {
    if let Some(rest) = request.uri().path().strip_prefix("/mock/") {
        return Ok(own(request.method(), rest, &shared));
    }
    let entry = shared.stats.begin(&Seen {
        method: request.method(),
        uri: request.uri(),
        version: request.version(),
        headers: request.headers(),
    });
    let endpoint = Endpoint::of(bare(request.uri().path()));
    match (request.method(), endpoint) {
        (&Method::POST, Some(endpoint)) => {
            Call {
                endpoint,
                shared,
                wire,
                entry,
            }
            .answer(request)
            .await
        }
        _ => Ok(listing(&request, &shared, entry)),
    }
}

/// `/mock/…`: the mock about itself.
fn own(method: &Method, rest: &str, shared: &Shared) -> Response<MockBody> {
    let whole = |bytes: Bytes| Response::new(MockBody::whole(bytes, 0, None));
    let body_of = || {
        let seq = rest
            .strip_prefix("requests/")?
            .strip_suffix("/body")?
            .parse()
            .ok()?;
        shared.stats.body(seq)
    };
    match (method, rest) {
        (&Method::GET, "stats") => {
            let mut response = whole(shared.stats.to_json().to_string().into());
            json_type(response.headers_mut());
            response
        }
        (&Method::DELETE, "stats") => {
            shared.stats.reset();
            let mut response = whole(Bytes::new());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        (&Method::GET, _) => body_of().map_or_else(not_here, whole),
        _ => not_here(),
    }
}

fn not_here() -> Response<MockBody> {
    let mut response = Response::new(MockBody::whole(Bytes::from_static(b"not here\n"), 0, None));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn json_type(headers: &mut HeaderMap) {
    headers.insert("content-type", HeaderValue::from_static("application/json"));
}

/// Everything that has no body: model lists, stored responses, probes, unknown paths.
fn listing(request: &Request<Incoming>, shared: &Shared, mut entry: Entry) -> Response<MockBody> {
    let anthropic = request.headers().contains_key("anthropic-version");
    let dialect = if anthropic {
        Dialect::Anthropic
    } else {
        Dialect::OpenAi
    };
    let parts: Vec<&str> = bare(request.uri().path()).split('/').collect();
    let body = match (request.method().as_str(), parts.as_slice()) {
        ("HEAD" | "GET", [""]) => json!({"mock": "llm"}),
        ("GET", ["responses"]) => return faults::error(dialect, 426, &Default::default(), entry),
        ("GET", ["models"]) => models(shared, anthropic),
        ("GET", ["models", id]) => model(id, anthropic),
        ("GET", ["responses", id]) => stored(id, "completed"),
        ("GET", ["responses", _, "input_items"]) => {
            json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false})
        }
        ("DELETE", ["responses", id]) => json!({"id": id, "object": "response", "deleted": true}),
        ("POST", ["responses", id, "cancel"]) => stored(id, "cancelled"),
        _ => return faults::error(dialect, 404, &Default::default(), entry),
    };
    entry.status(200);
    if request.method() == Method::HEAD {
        // Its body is never asked for, so nothing else would end it.
        entry.end("finished");
    }
    let mut response = Response::new(MockBody::whole(body.to_string().into(), 0, Some(entry)));
    json_type(response.headers_mut());
    response
}

fn stored(id: &str, status: &str) -> Value {
    json!({"id": id, "object": "response", "created_at": 1, "status": status, "output": [], "model": "mock"})
}

fn model(id: &str, anthropic: bool) -> Value {
    if anthropic {
        json!({"type": "model", "id": id, "display_name": id, "created_at": "2026-01-01T00:00:00Z"})
    } else {
        json!({"id": id, "object": "model", "created": 1_767_225_600, "owned_by": "mock"})
    }
}

const MODELS: [&str; 5] = [
    "gpt-4o-mini",
    "gpt-4o",
    "text-embedding-3-small",
    "claude-haiku-4-5",
    "claude-sonnet-4-5",
];

fn models(shared: &Shared, anthropic: bool) -> Value {
    let ids = MODELS
        .iter()
        .copied()
        .chain(shared.options.models.iter().map(String::as_str));
    let data: Vec<Value> = ids.map(|id| model(id, anthropic)).collect();
    if anthropic {
        json!({"data": data, "has_more": false, "first_id": data[0]["id"], "last_id": data[data.len() - 1]["id"]})
    } else {
        json!({"object": "list", "data": data})
    }
}

/// A body read to its end, or the early answer it asked for.
enum Read {
    Whole(Bytes),
    Early(Early, Option<Incoming>),
}

/// One call of an endpoint.
struct Call {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    wire: Arc<Wire>,
    entry: Entry,
}

impl Call {
    async fn answer(mut self, request: Request<Incoming>) -> Answered {
        let (head, body) = request.into_parts();
        let mut directives = Directives::default();
        let from_header = head.headers.get("x-mock").and_then(|v| v.to_str().ok());
        let applied = directives
            .apply(&self.shared.options.directives)
            .and_then(|()| directives.apply(from_header.unwrap_or_default()));
        if let Err(problem) = applied {
            return Ok(self.refuse(&problem.to_string()));
        }
        let body = match read(body, directives.fault.early).await? {
            Read::Whole(body) => body,
            Read::Early(early, rest) => return Ok(self.early(early, rest)),
        };
        self.entry.body(&body);
        let value: Value = match serde_json::from_slice(&body) {
            Ok(value) => value,
            Err(problem) => return Ok(self.refuse(&format!("not JSON: {problem}"))),
        };
        let ask = match Ask::read(&value, &mut directives) {
            Ok(ask) => ask,
            Err(problem) => return Ok(self.refuse(&problem.to_string())),
        };
        self.entry.asked(&ask.model, ask.stream);
        faults::settle(
            &mut directives,
            &self.shared.stats,
            head.uri.path(),
            &self.shared.chance,
        );
        if let Some(early) = directives.fault.early {
            return Ok(self.early(early, None));
        }
        self.before_head(&directives).await?;
        if let Some(status) = directives.fault.status {
            return Ok(faults::error(
                self.endpoint.dialect(),
                status,
                &directives.fault,
                self.entry,
            ));
        }
        Ok(self.write(&value, &ask, directives).await)
    }

    fn refuse(self, message: &str) -> Response<MockBody> {
        let mut directives = Directives::default();
        directives.fault.message = Some(message.to_owned());
        faults::error(self.endpoint.dialect(), 400, &directives.fault, self.entry)
    }

    /// Answers now; the rest of the body, if any, is drained beside it or left unread.
    fn early(self, early: Early, rest: Option<Incoming>) -> Response<MockBody> {
        let drained = rest.filter(|_| early.then == EarlyThen::Drain);
        if let Some(mut rest) = drained {
            tokio::spawn(async move { while let Some(Ok(_)) = rest.frame().await {} });
        }
        faults::error(
            self.endpoint.dialect(),
            early.status,
            &Default::default(),
            self.entry,
        )
    }

    /// Silence or a reset instead of an answer.
    async fn before_head(&mut self, directives: &Directives) -> Result<(), Broken> {
        if directives.fault.hang {
            // Ends when the client leaves: hyper then drops this future.
            std::future::pending::<()>().await;
        }
        if directives.fault.reset_before_head {
            self.entry.end("fault");
            self.wire.reset();
            return Err(Broken);
        }
        Ok(())
    }

    async fn write(
        mut self,
        value: &Value,
        ask: &Ask,
        directives: Directives,
    ) -> Response<MockBody> {
        let options = &self.shared.options;
        let shape = &directives.shape;
        let ttft = shape.ttft.unwrap_or(options.ttft);
        let interval = shape.token_interval.unwrap_or(options.token_interval);
        let answer = Answer::plan(ask, shape, options.tokens, self.entry.seq());
        let events = if ask.stream {
            self.events(&answer, ask, value, &directives)
        } else {
            None
        };
        let before_first = if events.is_some() && shape.head_first {
            ttft
        } else {
            Default::default()
        };
        let pause = match (&events, shape.head_first) {
            (Some(_), true) => Default::default(),
            (Some(_), false) => ttft,
            (None, _) => ttft + interval * u32::try_from(answer.tokens.output).unwrap_or(u32::MAX),
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.entry.status(200);
        if self.endpoint != Endpoint::CountTokens {
            self.entry.input_tokens(answer.tokens.input);
        }
        let (dialect, seq) = (self.endpoint.dialect(), self.entry.seq());
        let bad_type = directives.fault.bad_content_type;
        let closes = directives.fault.conn_close;
        let content_type = match (&events, bad_type) {
            (Some(_), false) => "text/event-stream; charset=utf-8",
            (None, true) => "text/html",
            _ => "application/json",
        };
        let body = match events {
            Some(events) => {
                let pace = Pace {
                    before_first,
                    interval,
                    crlf: shape.crlf,
                    comments: shape.comments,
                };
                let error = self.error_event(&answer, &directives);
                MockBody::events(events, pace, directives.fault, error, self.entry, self.wire)
            }
            None => self.whole(value, ask, &answer, &directives),
        };
        let mut response = Response::new(body);
        faults::provider_headers(response.headers_mut(), dialect, seq, content_type, closes);
        response
    }

    fn events(
        &self,
        answer: &Answer,
        ask: &Ask,
        value: &Value,
        directives: &Directives,
    ) -> Option<Events> {
        match self.endpoint {
            Endpoint::Chat => Some(chat::stream(answer.clone(), ask, directives)),
            Endpoint::Completions => Some(completions::stream(answer.clone(), ask, directives)),
            Endpoint::Responses => Some(responses::stream(answer, value, directives)),
            Endpoint::Messages => Some(anthropic::stream(answer, directives)),
            Endpoint::Embeddings | Endpoint::Moderations | Endpoint::CountTokens => None,
        }
    }

    fn error_event(&self, answer: &Answer, directives: &Directives) -> Event {
        let fault = &directives.fault;
        if self.endpoint == Endpoint::Responses {
            return responses::error(
                answer.id,
                &answer.model,
                fault.code.as_deref(),
                fault.message.as_deref(),
            );
        }
        faults::error_event(self.endpoint.dialect(), fault, answer.id)
    }

    fn whole(self, value: &Value, ask: &Ask, answer: &Answer, directives: &Directives) -> MockBody {
        let said = answer.tokens.output;
        let (body, tokens) = match self.endpoint {
            Endpoint::Chat => (chat::unary(answer, ask, directives), said),
            Endpoint::Completions => (completions::unary(answer, ask, directives), said),
            Endpoint::Responses => (responses::unary(answer, value, directives), said),
            Endpoint::Messages => (anthropic::unary(answer, directives), said),
            Endpoint::Embeddings => (embeddings::unary(value, answer), 0),
            Endpoint::CountTokens => (anthropic::count_tokens(answer), 0),
            Endpoint::Moderations => {
                let result = json!({"flagged": false, "categories": {}, "category_scores": {}});
                (
                    json!({"id": format!("modr_mock_{}", answer.id), "model": answer.model, "results": [result]}),
                    0,
                )
            }
        };
        let mut bytes = Bytes::from(body.to_string());
        if directives.fault.invalid_json {
            bytes.truncate(bytes.len() / 2);
        }
        match directives.fault.cut_body {
            Some(cut) => MockBody::cut(bytes, cut, self.entry),
            None => MockBody::whole(bytes, tokens, Some(self.entry)),
        }
    }
}

/// Reads the body, stopping where an early answer is asked for.
async fn read(mut body: Incoming, mut early: Option<Early>) -> Result<Read, Broken> {
    let mut first = None;
    let mut rest = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Broken)?.into_data() else {
            continue;
        };
        length += data.len();
        if early.is_none() && length <= SEARCHED && !body.is_end_stream() {
            early = bracketed_early(&data);
        }
        if let Some(early) = early
            && length as u64 >= early.after
        {
            return Ok(Read::Early(early, Some(body)));
        }
        if first.is_none() {
            rest.reserve(
                body.size_hint()
                    .upper()
                    .and_then(|n| usize::try_from(n).ok())
                    .unwrap_or(0),
            );
            first = Some(data);
        } else {
            rest.extend_from_slice(&data);
        }
    }
    Ok(Read::Whole(match first {
        None => Bytes::new(),
        Some(first) if rest.is_empty() => first,
        Some(first) => [first.as_ref(), rest.as_ref()].concat().into(),
    }))
}

/// The early answer asked for in a message, while only a part of the body is here.
fn bracketed_early(data: &[u8]) -> Option<Early> {
    memchr::memmem::find(data, b"[[mock")?;
    let text = String::from_utf8_lossy(data);
    let mut directives = Directives::default();
    // What cannot be understood yet is judged again when the body is whole.
    directives.apply(bracketed(&text)?).ok()?;
    directives.fault.early
}
