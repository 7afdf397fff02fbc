//! Judges the raw bytes of a request head before the proxy parses them.
//!
//! Promise: a head that two parsers could read differently, or that is larger
//! than its bounds, never reaches the proxy. The judgement depends on the bytes
//! alone, not on how they were split into reads, looks at every byte once and
//! allocates nothing. A refusal is a `HeadFault`.

use memchr::memchr;

use crate::api::Shape;

/// What an HTTP/2 client without TLS sends first.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A request line may be longer than its URI by the method, the version and
/// the spaces between.
const REQUEST_LINE_REST: usize = 32;

/// Largest head that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, with its empty line.
    pub max_head: usize,
    /// Header lines.
    pub max_headers: usize,
    /// Bytes of the request target.
    pub max_uri: usize,
}

/// What is known of a head so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadVerdict {
    /// More bytes are needed.
    Incomplete,
    /// A sound head of this many bytes; what follows is the body.
    Http1 {
        /// Bytes up to and with the empty line.
        head_len: usize,
    },
    /// The connection speaks HTTP/2.
    Preface,
    /// Not accepted.
    Refuse(HeadFault),
}

/// Why a head is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadFault {
    /// It was not complete in time.
    TooSlow,
    /// It has more bytes than allowed.
    TooLarge,
    /// It has more header lines than allowed.
    TooManyHeaders,
    /// The request target is longer than allowed.
    UriTooLong,
    /// The first line is not `METHOD target HTTP/1.x`.
    RequestLine,
    /// The target is not a path.
    Target,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// `CONNECT`: this is no forward proxy.
    Connect,
    /// A line ends in a line feed alone.
    BareLineFeed,
    /// A header line begins with white space.
    FoldedHeader,
    /// A header line has no name, no colon, or a name with other characters.
    HeaderName,
    /// A header's name has an underscore.
    Underscore,
    /// A header's value has a control character.
    HeaderValue,
    /// No, several or unusable `Host`.
    Host,
    /// Several or unusable `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding` is not exactly `chunked`.
    TransferEncoding,
    /// Both `Content-Length` and `Transfer-Encoding`.
    TwoLengths,
    /// A HTTP/1.0 request with a body of unknown length.
    NoLength,
    /// A change of protocol is asked for.
    Upgrade,
}

impl HeadFault {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            HeadFault::TooSlow => 408,
            HeadFault::TooLarge | HeadFault::TooManyHeaders => 431,
            HeadFault::UriTooLong => 414,
            HeadFault::Version => 505,
            HeadFault::Connect => 405,
            // Clients that try a WebSocket first fall back at once on this.
            HeadFault::Upgrade => 426,
            _ => 400,
        }
    }

    /// A short constant for metrics and for the `code` of the answer.
    pub fn label(self) -> &'static str {
        match self {
            HeadFault::TooSlow => "head_timeout",
            HeadFault::TooLarge => "head_too_large",
            HeadFault::TooManyHeaders => "too_many_headers",
            HeadFault::UriTooLong => "uri_too_long",
            HeadFault::RequestLine => "invalid_request_line",
            HeadFault::Target => "invalid_target",
            HeadFault::Version => "unsupported_version",
            HeadFault::Connect => "connect_not_allowed",
            HeadFault::BareLineFeed => "bare_line_feed",
            HeadFault::FoldedHeader => "folded_header",
            HeadFault::HeaderName => "invalid_header_name",
            HeadFault::Underscore => "underscore_in_header_name",
            HeadFault::HeaderValue => "invalid_header_value",
            HeadFault::Host => "invalid_host",
            HeadFault::ContentLength => "invalid_content_length",
            HeadFault::TransferEncoding => "invalid_transfer_encoding",
            HeadFault::TwoLengths => "two_lengths",
            HeadFault::NoLength => "length_required",
            HeadFault::Upgrade => "upgrade_not_allowed",
        }
    }

    /// One sentence for the client.
    pub fn message(self) -> &'static str {
        match self {
            HeadFault::TooSlow => "The request head was not complete in time.",
            HeadFault::TooLarge => "The request head is too large.",
            HeadFault::TooManyHeaders => "The request has too many header lines.",
            HeadFault::UriTooLong => "The request target is too long.",
            HeadFault::RequestLine => "The request line is not valid HTTP/1.",
            HeadFault::Target => "The request target must be a path that begins with '/'.",
            HeadFault::Version => "Only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here.",
            HeadFault::Connect => "CONNECT is not allowed here.",
            HeadFault::BareLineFeed => "Lines of the request head must end in CR LF.",
            HeadFault::FoldedHeader => "Header lines must not be folded.",
            HeadFault::HeaderName => "A header line has no valid name before its colon.",
            HeadFault::Underscore => "Header names must not have underscores.",
            HeadFault::HeaderValue => "A header value has a control character.",
            HeadFault::Host => "Exactly one valid Host header is needed.",
            HeadFault::ContentLength => "Content-Length must be one decimal number.",
            HeadFault::TransferEncoding => "Transfer-Encoding must be 'chunked', once.",
            HeadFault::TwoLengths => {
                "Content-Length and Transfer-Encoding must not be sent together."
            }
            HeadFault::NoLength => "An HTTP/1.0 request with a body needs a Content-Length.",
            HeadFault::Upgrade => "A change of protocol is not offered here.",
        }
    }
}

/// Judges one head as its bytes arrive.
#[derive(Clone, Debug)]
pub struct HeadJudge {
    limits: HeadLimits,
    preface_allowed: bool,
    /// Where the first line without a judgement begins.
    line_start: usize,
    /// Up to here no line feed remains unseen.
    searched: usize,
    stage: Stage,
    headers: usize,
    http10: bool,
    body_method: bool,
    host: bool,
    content_length: bool,
    transfer_encoding: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before everything; one empty line is skipped, as clients send one after
    /// a body.
    Start,
    RequestLine,
    Headers,
}

impl HeadJudge {
    /// A judge for one head. Only the first bytes of a connection without TLS
    /// may be the HTTP/2 preface.
    pub fn new(limits: HeadLimits, preface_allowed: bool) -> Self {
        HeadJudge {
            limits,
            preface_allowed,
            line_start: 0,
            searched: 0,
            stage: Stage::Start,
            headers: 0,
            http10: false,
            body_method: false,
            host: false,
            content_length: false,
            transfer_encoding: false,
        }
    }

    /// The verdict on `bytes`, which must begin with the bytes of the previous
    /// call. After any verdict but `Incomplete` the judge is spent.
    pub fn judge(&mut self, bytes: &[u8]) -> HeadVerdict {
        if self.preface_allowed && self.searched < PREFACE.len() {
            if bytes.starts_with(PREFACE) {
                return HeadVerdict::Preface;
            }
            if PREFACE.starts_with(bytes) {
                return HeadVerdict::Incomplete;
            }
        }
        match self.lines(bytes) {
            Ok(Some(head_len)) => HeadVerdict::Http1 { head_len },
            Ok(None) => HeadVerdict::Incomplete,
            Err(fault) => HeadVerdict::Refuse(fault),
        }
    }

    fn lines(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadFault> {
        while let Some(found) = memchr(b'\n', &bytes[self.searched..]) {
            let end = self.searched + found;
            self.bounds(&bytes[self.line_start..=end], end + 1)?;
            let line = &bytes[self.line_start..end];
            let line = line.strip_suffix(b"\r").ok_or(HeadFault::BareLineFeed)?;
            let done = self.line(line)?;
            self.line_start = end + 1;
            self.searched = end + 1;
            if done {
                self.whole()?;
                return Ok(Some(end + 1));
            }
        }
        self.searched = bytes.len();
        self.bounds(&bytes[self.line_start..], bytes.len())?;
        Ok(None)
    }

    /// What can be said of a line before its end, so that neither a giant line
    /// nor another protocol waits for the deadline.
    fn bounds(&self, line: &[u8], end: usize) -> Result<(), HeadFault> {
        if self.stage != Stage::Headers {
            match line.first() {
                Some(&first) if !is_token(first) && first != b'\r' && first != b'\n' => {
                    return Err(HeadFault::RequestLine);
                }
                _ => {}
            }
            if line.len() > self.limits.max_uri.saturating_add(REQUEST_LINE_REST) {
                return Err(HeadFault::UriTooLong);
            }
        }
        match end > self.limits.max_head {
            true => Err(HeadFault::TooLarge),
            false => Ok(()),
        }
    }

    /// Judges one whole line without its CR LF; true = the head ends here.
    fn line(&mut self, line: &[u8]) -> Result<bool, HeadFault> {
        match self.stage {
            Stage::Start if line.is_empty() => self.stage = Stage::RequestLine,
            Stage::Start | Stage::RequestLine => {
                self.request_line(line)?;
                self.stage = Stage::Headers;
            }
            Stage::Headers if line.is_empty() => return Ok(true),
            Stage::Headers => self.header(line)?,
        }
        Ok(false)
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), HeadFault> {
        let first = memchr(b' ', line).ok_or(HeadFault::RequestLine)?;
        let last = line.iter().rposition(|&b| b == b' ').unwrap_or(first);
        let (method, version) = (&line[..first], &line[last + 1..]);
        if first == last || !is_name(method) {
            return Err(HeadFault::RequestLine);
        }
        self.http10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ if version.starts_with(b"HTTP/") => return Err(HeadFault::Version),
            _ => return Err(HeadFault::RequestLine),
        };
        if method == b"CONNECT" {
            return Err(HeadFault::Connect);
        }
        self.body_method = matches!(method, b"POST" | b"PUT" | b"PATCH");
        let target = &line[first + 1..last];
        if target.len() > self.limits.max_uri {
            return Err(HeadFault::UriTooLong);
        }
        // Only a path: a URL would bring a second authority beside `Host`.
        let sound = target.first() == Some(&b'/')
            && target.iter().all(|&b| b.is_ascii_graphic() && b != b'#');
        if sound {
            Ok(())
        } else {
            Err(HeadFault::Target)
        }
    }

    fn header(&mut self, line: &[u8]) -> Result<(), HeadFault> {
        self.headers += 1;
        if self.headers > self.limits.max_headers {
            return Err(HeadFault::TooManyHeaders);
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(HeadFault::FoldedHeader);
        }
        let colon = memchr(b':', line).ok_or(HeadFault::HeaderName)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_name(name) {
            return Err(HeadFault::HeaderName);
        }
        if name.contains(&b'_') {
            return Err(HeadFault::Underscore);
        }
        if !is_value(value) {
            return Err(HeadFault::HeaderValue);
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => upgrade(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        let value = value.trim_ascii();
        let sound = !value.is_empty()
            && value
                .iter()
                .all(|&b| b.is_ascii_alphanumeric() || b"-._:[]%".contains(&b));
        if std::mem::replace(&mut self.host, true) || !sound {
            return Err(HeadFault::Host);
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        let value = value.trim_ascii();
        // 18 digits always fit into 64 bits.
        let sound = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        if std::mem::replace(&mut self.content_length, true) || !sound {
            return Err(HeadFault::ContentLength);
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        let sound = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
        if std::mem::replace(&mut self.transfer_encoding, true) || !sound {
            return Err(HeadFault::TransferEncoding);
        }
        Ok(())
    }

    /// Judges what only the whole head shows.
    fn whole(&self) -> Result<(), HeadFault> {
        if self.transfer_encoding && self.content_length {
            return Err(HeadFault::TwoLengths);
        }
        if self.http10 && self.transfer_encoding {
            return Err(HeadFault::TransferEncoding);
        }
        if self.http10 && self.body_method && !self.content_length {
            return Err(HeadFault::NoLength);
        }
        if !self.http10 && !self.host {
            return Err(HeadFault::Host);
        }
        Ok(())
    }
}

/// `h2c` is an offer that some libraries add to every first request; it is
/// ignored, as HTTP allows. Everything else would change the framing.
fn upgrade(value: &[u8]) -> Result<(), HeadFault> {
    match value.trim_ascii().eq_ignore_ascii_case(b"h2c") {
        true => Ok(()),
        false => Err(HeadFault::Upgrade),
    }
}

/// The error shape that the sender of these bytes understands, as far as they
/// can be read.
pub fn shape_of(bytes: &[u8]) -> Shape {
    let mut lines = bytes.split(|&b| b == b'\n');
    let first = lines
        .find(|line| !line.trim_ascii().is_empty())
        .unwrap_or_default();
    let target = first.split(|&b| b == b' ').nth(1).unwrap_or_default();
    let under = [b"/anthropic".as_slice(), b"/v1/messages"]
        .iter()
        .any(|prefix| {
            let rest = target.strip_prefix(*prefix);
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/' | b'?' | b'\r')))
        });
    let named = |line: &[u8]| {
        let name = line.split(|&b| b == b':').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"anthropic-version")
    };
    match under || lines.any(named) {
        true => Shape::Anthropic,
        false => Shape::OpenAi,
    }
}

fn is_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_token(b))
}

fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// No control characters but the tab.
fn is_value(bytes: &[u8]) -> bool {
    // Without an early end the loop is done many bytes at a time.
    !bytes.iter().fold(false, |bad, &b| {
        bad | ((b < 0x20) & (b != b'\t')) | (b == 0x7f)
    })
}

/// The characters of methods and header names.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests;
