//! One request at the target and what came back.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where requests go. Clones share the connection pool.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    key: String,
    pub(crate) model: String,
}

/// An answer read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// From sending to the first byte of the body.
    pub(crate) first_byte: Duration,
}

impl Target {
    pub(crate) fn new(base: &str, key: &str, model: &str) -> anyhow::Result<Self> {
        let uri = format!("{}/v1/chat/completions", base.trim_end_matches('/'));
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            uri: uri
                .parse()
                .with_context(|| format!("{base} is not a URL"))?,
            key: key.to_owned(),
            model: model.to_owned(),
        })
    }

    /// Sends a chat completion; the error is a sentence.
    pub(crate) async fn chat(&self, body: Bytes) -> Result<Answer, String> {
        let exchange = self.exchange(body);
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    async fn exchange(&self, body: Bytes) -> Result<Answer, String> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header("content-type", "application/json");
        if !self.key.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        let request = request.body(Full::new(body)).map_err(|e| e.to_string())?;
        let sent = Instant::now();
        let response = self
            .client
            .request(request)
            .await
            .map_err(|e| format!("no head: {e}"))?;
        let (head, mut incoming) = response.into_parts();
        let mut first_byte = None;
        let mut bytes = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let frame =
                frame.map_err(|e| format!("body broke off after {} bytes: {e}", bytes.len()))?;
            first_byte.get_or_insert_with(|| sent.elapsed());
            bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: bytes.into(),
            first_byte: first_byte.unwrap_or_else(|| sent.elapsed()),
        })
    }
}
