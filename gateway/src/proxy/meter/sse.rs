//! Server-sent events as bytes: where one ends, and what its lines say.
//!
//! Promise: whatever the chunking, the same bytes go out and every batch ends
//! where an event ends; line ends may be LF, CRLF or CR. An event leaves with
//! the chunk that completes it. State: the bytes of one unfinished event, at
//! most `max_event`. Failure: [`EventTooLong`]; events before it stay readable.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

/// One event is longer than the bytes that may be held for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the upstream's stream is longer than {limit} bytes")]
pub struct EventTooLong {
    /// The most bytes that one event may have.
    pub limit: usize,
}

/// Cuts a stream of chunks into batches of whole events.
///
/// Call `next_batch` after each `push`, also after a refused one, and
/// `take_remainder` at the end of the stream.
#[derive(Debug)]
pub struct EventSplitter {
    max_event: usize,
    /// Whole events not yet taken.
    ready: Bytes,
    /// The unfinished event.
    held: Vec<u8>,
    line: LineState,
    too_long: bool,
}

/// Where in a line the last byte left off.
#[derive(Clone, Copy, Debug)]
struct LineState {
    /// The current line has no byte yet.
    empty: bool,
    /// The last byte was CR: a following LF belongs to the same line end.
    after_cr: bool,
    /// The last line end completed an event.
    at_boundary: bool,
}

const FRESH: LineState = LineState {
    empty: true,
    after_cr: false,
    at_boundary: true,
};

impl EventSplitter {
    /// A splitter that refuses events of more than `max_event` bytes.
    pub fn new(max_event: usize) -> Self {
        Self {
            max_event,
            ready: Bytes::new(),
            held: Vec::new(),
            line: FRESH,
            too_long: false,
        }
    }

    /// Takes the next bytes of the stream. After a refusal every further push
    /// is refused too.
    pub fn push(&mut self, chunk: Bytes) -> Result<(), EventTooLong> {
        let mut whole = 0;
        let mut longest = 0;
        let mut at = 0;
        while at < chunk.len() && !self.too_long {
            let (next, boundary) = self.line.step(&chunk, at);
            at = next;
            let carried = if whole == 0 { self.held.len() } else { 0 };
            longest = longest.max(carried + at - whole);
            if longest > self.max_event {
                self.too_long = true;
                break;
            }
            if boundary {
                whole = at;
            }
        }
        if whole > 0 {
            self.add_ready(chunk.slice(..whole));
        }
        if self.too_long {
            self.held = Vec::new();
            return Err(EventTooLong {
                limit: self.max_event,
            });
        }
        self.held.extend_from_slice(&chunk[whole..]);
        Ok(())
    }

    fn add_ready(&mut self, whole: Bytes) {
        if self.ready.is_empty() && self.held.is_empty() {
            self.ready = whole;
            return;
        }
        let mut joined = Vec::with_capacity(self.ready.len() + self.held.len() + whole.len());
        joined.extend_from_slice(&self.ready);
        joined.append(&mut self.held);
        joined.extend_from_slice(&whole);
        self.ready = Bytes::from(joined);
    }

    /// All whole events received and not yet taken; never empty.
    pub fn next_batch(&mut self) -> Option<Bytes> {
        if self.ready.is_empty() {
            return None;
        }
        Some(std::mem::take(&mut self.ready))
    }

    /// How many bytes of an unfinished event are held.
    pub fn remainder(&self) -> usize {
        self.held.len()
    }

    /// The bytes of the unfinished event, for a stream that ended without the
    /// blank line; never empty.
    pub fn take_remainder(&mut self) -> Option<Bytes> {
        if self.held.is_empty() {
            return None;
        }
        self.line = FRESH;
        Some(Bytes::from(std::mem::take(&mut self.held)))
    }
}

impl LineState {
    /// Moves over the rest of the current line, or over one line end. Answers
    /// the offset behind it and whether an event ends there.
    fn step(&mut self, chunk: &[u8], at: usize) -> (usize, bool) {
        let byte = chunk[at];
        if byte == b'\n' && self.after_cr {
            self.after_cr = false;
            return (at + 1, self.at_boundary);
        }
        self.after_cr = byte == b'\r';
        if byte == b'\n' || byte == b'\r' {
            self.at_boundary = self.empty;
            self.empty = true;
            return (at + 1, self.at_boundary);
        }
        self.empty = false;
        self.at_boundary = false;
        let line = memchr::memchr2(b'\n', b'\r', &chunk[at..]);
        (line.map_or(chunk.len(), |len| at + len), false)
    }
}

/// One event of a batch.
#[derive(Debug)]
pub(super) struct Event<'a> {
    /// Its bytes in the batch, from the end of the event before it, blank line
    /// included.
    pub(super) span: Range<usize>,
    /// The value of the last `event:` line, else empty.
    pub(super) name: &'a [u8],
    /// The values of the `data:` lines, joined by line feeds.
    pub(super) data: Cow<'a, [u8]>,
}

/// The events of a batch; what is not ended by a blank line counts as one.
/// Blocks without any data (comments, blank lines) are passed over.
#[derive(Debug)]
pub(super) struct Events<'a> {
    batch: &'a [u8],
    at: usize,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl<'a> Events<'a> {
    pub(super) fn new(batch: &'a [u8]) -> Self {
        // Only a stream's first bytes may be the mark; later it cannot stand
        // where a line begins with a known field.
        let at = match batch.starts_with(BYTE_ORDER_MARK) {
            true => BYTE_ORDER_MARK.len(),
            false => 0,
        };
        Self { batch, at }
    }

    /// The next line without its end, and the offset behind that end.
    fn line(&self) -> (&'a [u8], usize) {
        let rest = &self.batch[self.at..];
        let Some(len) = memchr::memchr2(b'\n', b'\r', rest) else {
            return (rest, self.batch.len());
        };
        let crlf = rest[len..].starts_with(b"\r\n");
        (&rest[..len], self.at + len + 1 + usize::from(crlf))
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        let mut start = self.at;
        let mut name: &[u8] = b"";
        let mut data: Option<Cow<'a, [u8]>> = None;
        while self.at < self.batch.len() {
            let (line, next) = self.line();
            self.at = next;
            if line.is_empty() {
                if data.is_some() {
                    break;
                }
                (start, name) = (next, b"");
            } else if let Some(value) = field(line, b"data") {
                match &mut data {
                    None => data = Some(Cow::Borrowed(value)),
                    Some(joined) => {
                        let joined = joined.to_mut();
                        joined.push(b'\n');
                        joined.extend_from_slice(value);
                    }
                }
            } else if let Some(value) = field(line, b"event") {
                name = value;
            }
        }
        Some(Event {
            span: start..self.at,
            name,
            data: data?,
        })
    }
}

/// The value of a line when it is the named field's.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name)?;
    match rest.strip_prefix(b":") {
        Some(value) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        None => rest.is_empty().then_some(rest),
    }
}
