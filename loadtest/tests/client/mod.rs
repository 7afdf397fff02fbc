//! A small HTTP client for tests: one connection per request, so that faults stay apart.

#![allow(dead_code, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use loadtest::{Mock, Options};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

/// No exchange with the mock takes longer; a test that would is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    http2: bool,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The body broke off.
    pub(crate) broken: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

impl Client {
    pub(crate) async fn new(options: Options) -> Self {
        Self {
            address: Mock::start(options).await.unwrap(),
            http2: false,
        }
    }

    pub(crate) async fn http2(options: Options) -> Self {
        Self {
            http2: true,
            ..Self::new(options).await
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(
            "POST",
            path,
            &[("content-type", "application/json")],
            &body.to_string(),
        )
        .await
    }

    pub(crate) async fn stats(&self) -> Value {
        self.call("GET", "/mock/stats", &[], "").await.json()
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.try_call(method, path, headers, body)
            .await
            .expect("an answer's head")
    }

    /// `None`: the connection ended before a head.
    pub(crate) async fn try_call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Answer> {
        let exchange = async {
            let response = self.open(method, path, headers, body).await?;
            let (head, mut incoming) = response.into_parts();
            let (mut body, mut broken) = (Vec::new(), false);
            while let Some(frame) = incoming.frame().await {
                match frame {
                    Ok(frame) => body.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d)),
                    Err(_) => {
                        broken = true;
                        break;
                    }
                }
            }
            Some(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
                broken,
            })
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .expect("the mock answers in time")
    }

    /// The head, with the body still to be read; dropping it leaves in the middle.
    pub(crate) async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<http::Response<Incoming>> {
        let io = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let scheme = if self.http2 {
            format!("http://{}", self.address)
        } else {
            String::new()
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{scheme}{path}"));
        if !self.http2 {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        if self.http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                    .await
                    .unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.ok()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.ok()
        }
    }
}

pub(crate) struct Event {
    /// Of the `event:` line; empty without one.
    pub(crate) name: String,
    pub(crate) data: String,
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// The whole events of a stream.
pub(crate) fn events(body: &[u8]) -> Vec<Event> {
    let text = std::str::from_utf8(body).unwrap().replace("\r\n", "\n");
    let end = text.rfind("\n\n").map_or(0, |i| i + 2);
    text[..end]
        .split_terminator("\n\n")
        .filter(|frame| !frame.starts_with(':'))
        .map(|frame| {
            let field = |name: &str| {
                frame
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .unwrap_or_default()
                    .to_owned()
            };
            Event {
                name: field("event: "),
                data: field("data: "),
            }
        })
        .collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
