//! A provider made of one closure: for tests that must decide each byte and
//! the moment it leaves. It keeps what it was sent.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{find, parse_head};

/// One request as it came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the provider was sent JSON")
    }
}

type Script = dyn Fn(&mut Exchange) + Send + Sync;

struct Shared {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    asked: AtomicUsize,
    script: Box<Script>,
    reads_body: bool,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listening provider; its threads end with their connections.
pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Upstream {
    /// Runs `script` for each request, whose body has been read.
    pub fn start(script: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Self {
        Self::listen(Box::new(script), true)
    }

    /// Runs `script` for each request as soon as its head is there.
    pub fn before_body(script: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Self {
        Self::listen(Box::new(script), false)
    }

    /// Answers each chat request with a short completion of known usage.
    pub fn chat() -> Self {
        Self::start(|exchange| exchange.json(200, &chat_completion("pong", 10, 5)))
    }

    fn listen(script: Box<Script>, reads_body: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            script,
            reads_body,
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// Everything it was sent, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen().clone()
    }

    /// How many requests have begun.
    pub fn count(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    stream.set_nodelay(true).ok();
    let mut buffer = Vec::new();
    loop {
        let mut exchange = Exchange {
            seen: Seen::default(),
            number: 0,
            stream: stream.try_clone().expect("a second handle"),
            buffer: std::mem::take(&mut buffer),
            over: false,
        };
        if !exchange.read_head() {
            return;
        }
        exchange.number = shared.asked.fetch_add(1, Ordering::SeqCst);
        if shared.reads_body {
            if !exchange.read_body() {
                return;
            }
            shared.seen().push(exchange.seen.clone());
        }
        (shared.script)(&mut exchange);
        if exchange.over || !shared.reads_body {
            stream.shutdown(Shutdown::Both).ok();
            return;
        }
        buffer = exchange.buffer;
    }
}

/// One request and the means to answer it.
pub struct Exchange {
    pub seen: Seen,
    /// How many requests began before this one.
    pub number: usize,
    stream: TcpStream,
    buffer: Vec<u8>,
    over: bool,
}

impl Exchange {
    /// Sends bytes as they are; false when the other side has gone.
    pub fn raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Answers with headers and a whole body.
    pub fn reply(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("HTTP/1.1 {status} Any\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        let mut wire = head.into_bytes();
        wire.extend_from_slice(body);
        self.raw(&wire);
    }

    pub fn json(&mut self, status: u16, body: &Value) {
        let body = body.to_string();
        self.reply(
            status,
            &[("content-type", "application/json")],
            body.as_bytes(),
        );
    }

    /// An error in the OpenAI form.
    pub fn fail(&mut self, status: u16, headers: &[(&str, &str)]) {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        let body = r#"{"error":{"message":"from the provider","type":"server_error","param":null,"code":null}}"#;
        self.reply(status, &all, body.as_bytes());
    }

    /// Starts an event stream.
    pub fn stream(&mut self) {
        self.raw(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        );
    }

    /// Sends `bytes` as one chunk; false when the other side has gone.
    pub fn chunk(&mut self, bytes: &[u8]) -> bool {
        let mut wire = format!("{:x}\r\n", bytes.len()).into_bytes();
        wire.extend_from_slice(bytes);
        wire.extend_from_slice(b"\r\n");
        self.raw(&wire)
    }

    /// Sends one `data:` event.
    pub fn event(&mut self, data: &str) -> bool {
        self.chunk(format!("data: {data}\n\n").as_bytes())
    }

    /// Ends the chunked body.
    pub fn end(&mut self) {
        self.raw(b"0\r\n\r\n");
    }

    /// Ends the connection in order, whatever was promised.
    pub fn hang_up(&mut self) {
        self.over = true;
        self.stream.shutdown(Shutdown::Both).ok();
    }

    /// Resets the connection (RST).
    pub fn reset(&mut self) {
        self.over = true;
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).ok();
        self.stream.shutdown(Shutdown::Both).ok();
    }

    /// How long the other side takes to leave; `None` when it stays past `limit`.
    pub fn left_within(&mut self, limit: Duration) -> Option<Duration> {
        let start = Instant::now();
        self.over = true;
        self.stream.set_read_timeout(Some(limit)).ok();
        let mut rest = [0; 4096];
        while start.elapsed() < limit {
            match self.stream.read(&mut rest) {
                Ok(0) => return Some(start.elapsed()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Some(start.elapsed());
                }
                Err(_) => return None,
            }
        }
        None
    }

    /// How many more bytes the other side takes while it is written to without a pause.
    /// Ends when it takes nothing for `stall`, or after `most`.
    pub fn flood(&mut self, event: &str, stall: Duration, most: usize) -> usize {
        self.stream.set_write_timeout(Some(stall)).ok();
        let mut sent = 0;
        while sent < most && self.event(event) {
            sent += event.len();
        }
        self.over = true;
        sent
    }

    /// Reads `count` bytes of the body and keeps none; for answers before its end.
    pub fn read_some(&mut self, count: usize) {
        while self.buffer.len() < count && self.fill() > 0 {}
    }

    /// Reads the body to its end into `seen`.
    pub fn read_body(&mut self) -> bool {
        if self
            .seen
            .header("transfer-encoding")
            .is_some_and(|v| v.contains("chunked"))
        {
            return self.read_chunks();
        }
        let length = self
            .seen
            .header("content-length")
            .and_then(|value| value.parse().ok());
        let length: usize = length.unwrap_or(0);
        while self.buffer.len() < length {
            if self.fill() == 0 {
                return false;
            }
        }
        self.seen.body = self.buffer.drain(..length).collect();
        true
    }

    fn read_chunks(&mut self) -> bool {
        loop {
            let Some(at) = find(&self.buffer, b"\r\n") else {
                if self.fill() == 0 {
                    return false;
                }
                continue;
            };
            let text = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
            let size = usize::from_str_radix(text.trim(), 16).expect("a chunk size");
            while self.buffer.len() < at + 2 + size + 2 {
                if self.fill() == 0 {
                    return false;
                }
            }
            let data: Vec<u8> = self
                .buffer
                .drain(..at + 2 + size + 2)
                .skip(at + 2)
                .take(size)
                .collect();
            self.seen.body.extend(data);
            if size == 0 {
                return true;
            }
        }
    }

    fn read_head(&mut self) -> bool {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill() == 0 {
                return false;
            }
        };
        let text: Vec<u8> = self.buffer.drain(..end).collect();
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut first = text.split(' ');
        self.seen.method = first.next().unwrap_or_default().into();
        self.seen.path = first.next().unwrap_or_default().into();
        self.seen.headers = parse_head(&text).headers;
        true
    }

    fn fill(&mut self) -> usize {
        let mut piece = [0; 64 * 1024];
        let count = self.stream.read(&mut piece).unwrap_or(0);
        self.buffer.extend_from_slice(&piece[..count]);
        count
    }
}

/// A chat completion with this text and usage.
pub fn chat_completion(text: &str, input: u64, output: u64) -> Value {
    serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini-2024",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output}
    })
}

/// The data of one chunk of a chat stream.
pub fn chat_chunk(text: &str) -> String {
    serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini-2024",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]
    })
    .to_string()
}

/// The data of the last two chunks of a chat stream: the end, and the usage.
pub fn chat_end(input: u64, output: u64) -> [String; 2] {
    let end = serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini-2024",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    });
    let usage = serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini-2024",
        "choices": [],
        "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output}
    });
    [end.to_string(), usage.to_string()]
}
