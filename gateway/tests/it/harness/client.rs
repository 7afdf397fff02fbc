//! HTTP/1.1 by hand over a TCP socket: what is sent is exactly what was asked,
//! and what came back is seen as it came.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest silence a read bears.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request, with headers in their order.
#[derive(Clone)]
pub struct Ask {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Size of the chunks; `None` sends a content-length.
    pub chunked: Option<usize>,
}

impl Ask {
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
            chunked: None,
        }
    }

    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// A POST of JSON with the test's key as Bearer.
    pub fn post(path: &str, body: &Value) -> Self {
        Self::post_bytes(path, body.to_string().into_bytes()).bearer(super::conf::KEY)
    }

    /// A POST of these bytes as JSON, without a key.
    pub fn post_bytes(path: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut ask = Self::new("POST", path).header("content-type", "application/json");
        ask.body = body.into();
        ask
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn bearer(self, key: &str) -> Self {
        self.without("authorization")
            .header("authorization", &format!("Bearer {key}"))
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers
            .retain(|(given, _)| !given.eq_ignore_ascii_case(name));
        self
    }

    pub fn chunked(mut self, size: usize) -> Self {
        self.chunked = Some(size);
        self
    }

    /// The head, with the framing headers of the body.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nhost: tyr.test\r\n",
            self.method, self.path
        );
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if self.chunked.is_some() {
            head += "transfer-encoding: chunked\r\n";
        } else if !self.body.is_empty() || self.method == "POST" {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        (head + "\r\n").into_bytes()
    }

    /// Head and body as they go over the wire.
    pub fn wire(&self) -> Vec<u8> {
        let mut wire = self.head();
        let Some(size) = self.chunked else {
            wire.extend_from_slice(&self.body);
            return wire;
        };
        for chunk in self.body.chunks(size.max(1)) {
            wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        wire
    }
}

/// Status line and headers of an answer.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
    /// False when the connection ended before the body's framing did.
    pub complete: bool,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }
}

/// Framing of the answer being read.
enum Framing {
    Length(usize),
    Chunked,
    Close,
}

/// One client connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    framing: Framing,
    ended: bool,
}

impl Connection {
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).unwrap_or_else(|error| panic!("{address} refuses: {error}"))
    }

    /// The same for a port that may be closed.
    pub fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a read timeout");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a write timeout");
        Ok(Self {
            stream,
            buffer: Vec::new(),
            framing: Framing::Close,
            ended: false,
        })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are; an answer may already have closed the other side.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request; a peer that answers early and closes is no error.
    pub fn ask(&mut self, ask: &Ask) {
        self.send(&ask.wire()).ok();
    }

    /// Reads the next head that is not `100 Continue`; `None` at a closed connection.
    pub fn head(&mut self) -> Option<Head> {
        loop {
            let end = loop {
                if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                    break at + 4;
                }
                if self.fill() == 0 {
                    return None;
                }
            };
            let text: Vec<u8> = self.buffer.drain(..end).collect();
            let head = parse_head(&String::from_utf8_lossy(&text));
            if head.status != 100 {
                self.framing = framing(&head);
                self.ended =
                    matches!(self.framing, Framing::Length(0)) || [204, 304].contains(&head.status);
                return Some(head);
            }
        }
    }

    /// The next piece of the body as it arrives; `None` at its end.
    /// `Err` when the connection ends first.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, io::Error> {
        if self.ended {
            return Ok(None);
        }
        match self.framing {
            Framing::Length(left) => self.counted(left),
            Framing::Chunked => self.chunk(),
            Framing::Close => {
                if self.buffer.is_empty() && self.fill() == 0 {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.buffer)))
            }
        }
    }

    fn counted(&mut self, left: usize) -> Result<Option<Vec<u8>>, io::Error> {
        if self.buffer.is_empty() && self.fill() == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let take = left.min(self.buffer.len());
        self.ended = take == left;
        self.framing = Framing::Length(left - take);
        Ok(Some(self.buffer.drain(..take).collect()))
    }

    fn chunk(&mut self) -> Result<Option<Vec<u8>>, io::Error> {
        let line = self.until(b"\r\n")?;
        let text = String::from_utf8_lossy(&line);
        let size = usize::from_str_radix(text.trim().split(';').next().unwrap_or_default(), 16)
            .map_err(|_| io::Error::other(format!("chunk size {text:?}")))?;
        while self.buffer.len() < size + 2 {
            if self.fill() == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let data: Vec<u8> = self.buffer.drain(..size).collect();
        self.buffer.drain(..2);
        if size == 0 {
            self.ended = true;
            return Ok(None);
        }
        Ok(Some(data))
    }

    fn until(&mut self, mark: &[u8]) -> Result<Vec<u8>, io::Error> {
        loop {
            if let Some(at) = find(&self.buffer, mark) {
                return Ok(self.buffer.drain(..at + mark.len()).collect());
            }
            if self.fill() == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The whole answer to one request.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer()
            .expect("an answer before the connection ends")
    }

    /// The whole answer; `None` when the connection ended before any head.
    pub fn try_answer(&mut self) -> Option<Answer> {
        let head = self.head()?;
        let mut body = Vec::new();
        let complete = loop {
            match self.piece() {
                Ok(Some(piece)) => body.extend(piece),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        Some(Answer {
            head,
            body,
            complete,
        })
    }

    /// Sends and reads one exchange.
    #[track_caller]
    pub fn exchange(&mut self, ask: &Ask) -> Answer {
        self.ask(ask);
        self.answer()
    }

    /// Sends and reads one exchange; `None` when the connection ends before a head.
    pub fn try_exchange(&mut self, ask: &Ask) -> Option<Answer> {
        self.ask(ask);
        self.try_answer()
    }

    /// True when the other side ends the connection within `limit`; unread bytes are dropped.
    pub fn closed_within(&mut self, limit: Duration) -> bool {
        self.stream
            .set_read_timeout(Some(limit))
            .expect("a read timeout");
        let mut rest = [0; 4096];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    let waited = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
                    return !waited.contains(&error.kind());
                }
            }
        }
    }

    /// Sets the longest silence the following reads bear.
    pub fn patience(&self, limit: Duration) {
        self.stream
            .set_read_timeout(Some(limit))
            .expect("a read timeout");
    }

    /// Ends both directions at once.
    pub fn leave(self) {
        self.stream.shutdown(Shutdown::Both).ok();
    }

    /// Reads more into the buffer; 0 at the end of the connection or of our patience.
    fn fill(&mut self) -> usize {
        let mut piece = [0; 64 * 1024];
        let count = self.stream.read(&mut piece).unwrap_or(0);
        self.buffer.extend_from_slice(&piece[..count]);
        count
    }
}

/// One request on a connection of its own.
#[track_caller]
pub fn ask(address: SocketAddr, ask: &Ask) -> Answer {
    Connection::open(address).exchange(ask)
}

fn framing(head: &Head) -> Framing {
    let chunked = head
        .header("transfer-encoding")
        .is_some_and(|v| v.contains("chunked"));
    let length = head
        .header("content-length")
        .and_then(|value| value.parse().ok());
    match length {
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::Close,
    }
}

/// Status and headers out of the text of a head.
pub fn parse_head(text: &str) -> Head {
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default();
    let headers = lines.filter_map(|line| line.split_once(':'));
    Head {
        status: status.parse().unwrap_or(0),
        headers: headers
            .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_string()))
            .collect(),
    }
}

/// Where `mark` first stands in `bytes`.
pub fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}
