//! One call to the admin port of a node, for commands.
//!
//! Failure answer: a node that cannot be reached or refuses is an error with
//! its own words.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

/// Longest wait for an answer, or for the next part of one that comes in parts.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer, and largest line of one.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No token to ask with.
    #[error("set TYR_ADMIN_TOKEN to a token of the admin API")]
    NoToken,
    /// `--admin` is no address.
    #[error("--admin is not an http or https address: {0}")]
    Address(String),
    /// The node is not there or does not answer.
    #[error("the admin port at {address} cannot be asked: {reason}")]
    Unreachable {
        /// As it was given.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// The node refused.
    #[error("the node answered {status}: {message}")]
    Refused {
        /// Its HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The node speaks of something else.
    #[error("the node's answer is not what was asked for: {0}")]
    Unreadable(#[source] serde_json::Error),
}

/// A node's admin port and the right to ask it.
#[derive(Debug)]
pub struct AdminPort<'a> {
    address: &'a str,
    token: String,
}

impl<'a> AdminPort<'a> {
    /// The port at `address`, with the token that the environment has.
    pub fn new(address: &'a str, token: Option<String>) -> Result<Self, AskError> {
        let token = token.filter(|token| !token.is_empty());
        let token = token.ok_or(AskError::NoToken)?;
        Ok(AdminPort { address, token })
    }

    /// The node's answer, as it came.
    pub fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, AskError> {
        let request = self.request(method, path, body)?;
        self.wait(async {
            let answer = self.in_time(call(request)).await?;
            self.whole(answer).await
        })
    }

    /// Calls `each` with every line of the node's answer, as it comes, until
    /// it says `false`.
    pub fn ask_lines(
        &self,
        path: &str,
        mut each: impl FnMut(Value) -> bool,
    ) -> Result<(), AskError> {
        let request = self.request(Method::POST, path, None)?;
        self.wait(async {
            let answer = self.in_time(call(request)).await?;
            if answer.status() != 200 {
                return self.whole(answer).await.map(|_| ());
            }
            let mut body = answer.into_body();
            let mut buffer = Vec::new();
            loop {
                let frame = async {
                    let frame = body.frame().await.transpose();
                    frame.map_err(|error| causes(&error))
                };
                let Some(frame) = self.in_time(frame).await? else {
                    return Ok(());
                };
                buffer.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
                while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = buffer.drain(..=end).collect();
                    let line = serde_json::from_slice(&line).map_err(AskError::Unreadable)?;
                    if !each(line) {
                        return Ok(());
                    }
                }
                if buffer.len() > MAX_ANSWER_BYTES {
                    return Err(self.unreachable("a line of its answer has no end".to_owned()));
                }
            }
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, AskError> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        Request::builder()
            .method(method)
            .uri(self.uri(path)?)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| AskError::NoToken)
    }

    fn uri(&self, path: &str) -> Result<Uri, AskError> {
        let wrong = || AskError::Address(self.address.to_owned());
        let text = format!("{}{path}", self.address.trim_end_matches('/'));
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(_)) => Ok(uri),
            _ => Err(wrong()),
        }
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, AskError>>) -> Result<T, AskError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| self.unreachable(error.to_string()))?;
        runtime.block_on(work)
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, String>>,
    ) -> Result<T, AskError> {
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(done) => done.map_err(|reason| self.unreachable(reason)),
            Err(_) => Err(self.unreachable("it did not answer in time".to_owned())),
        }
    }

    /// A whole answer, or the refusal that it is.
    async fn whole(&self, answer: Response<Incoming>) -> Result<Value, AskError> {
        let status = answer.status().as_u16();
        let body = async {
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect();
            body.await.map_err(|error| error.to_string())
        };
        let body = self.in_time(body).await?.to_bytes();
        let answer = serde_json::from_slice::<Value>(&body);
        if status != 200 {
            let said = answer.ok().and_then(|answer| {
                let message = answer.pointer("/error/message")?.as_str()?;
                Some(message.to_owned())
            });
            let message = said.unwrap_or_else(|| "and nothing more".to_owned());
            return Err(AskError::Refused { status, message });
        }
        answer.map_err(AskError::Unreadable)
    }

    fn unreachable(&self, reason: String) -> AskError {
        AskError::Unreachable {
            address: self.address.to_owned(),
            reason,
        }
    }
}

async fn call(request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
    // A second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let tls = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let answer = client.request(request).await;
    answer.map_err(|error| causes(&error))
}

/// An error with what it comes from.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
