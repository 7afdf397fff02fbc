//! HTTP/2 over a plain socket, with prior knowledge.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::client::{Answer, Ask, Head};

/// Sends `asks` over one HTTP/2 connection, at the same time, and reads the answers.
pub fn ask_all(address: SocketAddr, asks: Vec<Ask>) -> Vec<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let stream = TcpStream::connect(address).await.expect("tyr accepts");
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .handshake(TokioIo::new(stream))
            .await
            .expect("an HTTP/2 handshake");
        tokio::spawn(connection);
        let mut running = Vec::new();
        for ask in asks {
            let mut sender = sender.clone();
            running.push(tokio::spawn(async move {
                let request = request(&format!("http://{address}"), ask);
                let response = sender.send_request(request).await.expect("an answer");
                answer(response).await
            }));
        }
        let mut answers = Vec::new();
        for task in running {
            answers.push(task.await.expect("the exchange ends"));
        }
        answers
    })
}

/// One request over one HTTP/2 connection.
pub fn ask(address: SocketAddr, ask: Ask) -> Answer {
    ask_all(address, vec![ask]).remove(0)
}

/// A request to `base`, such as `http://host`; empty for one that names no host.
pub(super) fn request(base: &str, ask: Ask) -> http::Request<Full<Bytes>> {
    let mut builder = http::Request::builder()
        .method(ask.method.as_str())
        .uri(format!("{base}{}", ask.path));
    for (name, value) in &ask.headers {
        builder = builder.header(name, value);
    }
    builder
        .body(Full::new(Bytes::from(ask.body)))
        .expect("a well-formed request")
}

/// Head and body of a response.
pub(super) async fn answer(response: http::Response<hyper::body::Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let headers = parts.headers.iter();
    let head = Head {
        status: parts.status.as_u16(),
        headers: headers
            .map(|(n, v)| {
                (
                    n.to_string(),
                    String::from_utf8_lossy(v.as_bytes()).into_owned(),
                )
            })
            .collect(),
    };
    let collected = body.collect().await;
    let complete = collected.is_ok();
    let body = collected
        .map(|all| all.to_bytes().to_vec())
        .unwrap_or_default();
    Answer {
        head,
        body,
        complete,
    }
}

/// Type of the frame that announces a connection's end.
const GOAWAY: u8 = 7;

/// What one connection saw until its end.
#[derive(Debug, Default)]
pub struct Farewell {
    /// Whole answers.
    pub answers: Vec<Answer>,
    /// Requests that got no answer.
    pub refused: usize,
    /// The error codes of the GOAWAY frames.
    pub goaways: Vec<u32>,
}

/// Asks the same again and again over one connection, `width` at a time, until
/// the other side ends it. Counts each answer in `answered` as it comes.
pub fn ask_until_end(
    address: SocketAddr,
    ask: &Ask,
    width: usize,
    answered: &Arc<AtomicUsize>,
) -> Farewell {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let stream = TcpStream::connect(address).await.expect("tyr accepts");
        let bytes = Arc::default();
        let tap = Tap {
            stream,
            bytes: Arc::clone(&bytes),
        };
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tap));
        let (sender, connection) = handshake.await.expect("an HTTP/2 handshake");
        let connection = tokio::spawn(connection);
        let running: Vec<_> = (0..width)
            .map(|_| {
                let (mut sender, ask) = (sender.clone(), ask.clone());
                let answered = Arc::clone(answered);
                tokio::spawn(async move {
                    let mut answers = Vec::new();
                    while sender.ready().await.is_ok() {
                        let request = request(&format!("http://{address}"), ask.clone());
                        let Ok(response) = sender.send_request(request).await else {
                            return (answers, 1);
                        };
                        answers.push(answer(response).await);
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                    (answers, 0)
                })
            })
            .collect();
        let mut farewell = Farewell::default();
        for task in running {
            let (answers, refused) = task.await.expect("the exchanges end");
            farewell.answers.extend(answers);
            farewell.refused += refused;
        }
        drop(sender);
        // How it ended is judged by what was asked and by the frames.
        let _ = connection.await.expect("the connection ends");
        let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
        farewell.goaways = goaways(&bytes);
        farewell
    })
}

fn goaways(mut bytes: &[u8]) -> Vec<u32> {
    let mut codes = Vec::new();
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let Some(payload) = bytes.get(9..9 + length) else {
            break;
        };
        if bytes[3] == GOAWAY {
            let code = payload[4..8].try_into().expect("four bytes");
            codes.push(u32::from_be_bytes(code));
        }
        bytes = &bytes[9 + length..];
    }
    codes
}

/// A socket that keeps what was read from it.
struct Tap {
    stream: TcpStream,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buf))?;
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.extend_from_slice(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
