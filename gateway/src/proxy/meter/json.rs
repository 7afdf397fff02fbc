//! An incremental look into a JSON answer that passes by in chunks.
//!
//! Promise: the answer is never held; any chunking gives the same result, and
//! no bytes make it panic or grow. Nesting and punctuation are checked, the
//! spelling of numbers and words is not. State: nesting, plus the bytes of the
//! top-level `usage` (at most 64 KiB) and `model` (at most 256 bytes).
//! Failure: bytes that are not one JSON object report nothing.

/// The longest `usage` value kept, in bytes.
const MAX_USAGE: usize = 64 * 1024;
/// The longest `model` value kept, in bytes, quotes included.
const MAX_MODEL: usize = 256;
/// The deepest nesting followed.
const MAX_DEPTH: usize = 1024;
/// Names longer than this are none of those looked for.
const MAX_NAME: usize = 24;

/// Watches one JSON answer.
#[derive(Debug)]
pub(super) struct JsonScanner {
    next: Next,
    depth: usize,
    /// One bit a level: set where the container is an object.
    objects: [u64; MAX_DEPTH / 64],
    name: Name,
    /// What the current top-level field is.
    field: Field,
    usage: Vec<u8>,
    model: Vec<u8>,
    output_bytes: u64,
}

/// What the next byte may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The answer's opening brace.
    Start,
    /// A name or `}` right after `{`.
    NameOrEnd,
    /// A name after a comma.
    Name,
    /// Inside a name; `escaped` after a backslash.
    InName {
        escaped: bool,
    },
    Colon,
    /// A value after a colon or a comma.
    Value,
    /// A value or `]` right after `[`.
    ValueOrEnd,
    /// Inside a string value.
    InString {
        escaped: bool,
    },
    /// Inside a number, `true`, `false` or `null`.
    InScalar,
    /// A comma or the end of the container.
    AfterValue,
    /// The answer is complete.
    Done,
    /// Not JSON, or too deep to follow.
    Broken,
}

/// A top-level field by what it is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Usage,
    Model,
    /// Generated text is inside.
    Output,
    Other,
}

/// The name before the current value, cut at `MAX_NAME`.
#[derive(Clone, Copy, Debug)]
struct Name {
    bytes: [u8; MAX_NAME],
    /// May be larger than `MAX_NAME`.
    len: usize,
}

impl Name {
    fn extend(&mut self, part: &[u8]) {
        let end = self.len.saturating_add(part.len());
        if end <= MAX_NAME {
            self.bytes[self.len..end].copy_from_slice(part);
        }
        self.len = end;
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(b"")
    }
}

impl JsonScanner {
    pub(super) fn new() -> Self {
        Self {
            next: Next::Start,
            depth: 0,
            objects: [0; MAX_DEPTH / 64],
            name: Name {
                bytes: [0; MAX_NAME],
                len: 0,
            },
            field: Field::Other,
            usage: Vec::new(),
            model: Vec::new(),
            output_bytes: 0,
        }
    }

    /// Whether one whole object has passed.
    pub(super) fn is_complete(&self) -> bool {
        self.next == Next::Done
    }

    /// The raw top-level `usage` of a complete answer.
    pub(super) fn usage(&self) -> Option<&[u8]> {
        (self.is_complete() && !self.usage.is_empty()).then_some(&self.usage)
    }

    /// The raw top-level `model` of a complete answer.
    pub(super) fn model(&self) -> Option<&[u8]> {
        (self.is_complete() && !self.model.is_empty()).then_some(&self.model)
    }

    /// Bytes of generated text so far, as written; an estimate, see `counts`.
    pub(super) fn output_bytes(&self) -> u64 {
        self.output_bytes
    }

    /// Takes the next bytes of the answer.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        let mut at = 0;
        while at < chunk.len() {
            let from = at;
            let captured = self.captures();
            at = match self.next {
                Next::Broken => return,
                Next::InName { .. } | Next::InString { .. } => self.in_string(chunk, at),
                Next::InScalar => self.in_scalar(chunk, at),
                _ => {
                    self.punctuation(chunk[at]);
                    at + 1
                }
            };
            // A value's first byte starts its capture, its last byte ends it.
            if captured || self.captures() {
                self.capture(&chunk[from..at]);
            }
        }
    }

    /// Whether the bytes at hand belong to a kept top-level value.
    fn captures(&self) -> bool {
        if !matches!(self.field, Field::Usage | Field::Model) {
            return false;
        }
        self.depth > 1 || matches!(self.next, Next::InString { .. } | Next::InScalar)
    }

    fn capture(&mut self, part: &[u8]) {
        let (kept, limit) = match self.field {
            Field::Usage => (&mut self.usage, MAX_USAGE),
            Field::Model => (&mut self.model, MAX_MODEL),
            Field::Output | Field::Other => return,
        };
        if kept.len() + part.len() > limit {
            self.field = Field::Other;
            *kept = Vec::new();
            return;
        }
        kept.extend_from_slice(part);
    }

    /// Moves to the end of a string or of the chunk.
    fn in_string(&mut self, chunk: &[u8], from: usize) -> usize {
        let (name, mut escaped) = match self.next {
            Next::InName { escaped } => (true, escaped),
            Next::InString { escaped } => (false, escaped),
            _ => return from,
        };
        let mut at = from;
        let mut ended = false;
        while at < chunk.len() && !ended {
            if escaped {
                escaped = false;
                at += 1;
                continue;
            }
            match memchr::memchr2(b'"', b'\\', &chunk[at..]) {
                None => at = chunk.len(),
                Some(found) => {
                    at += found + 1;
                    ended = chunk[at - 1] == b'"';
                    escaped = !ended;
                }
            }
        }
        let content = &chunk[from..at - usize::from(ended)];
        if name {
            self.name.extend(content);
        } else if self.counts() {
            self.output_bytes += content.len() as u64;
        }
        self.next = match (name, ended) {
            (true, true) => Next::Colon,
            (true, false) => Next::InName { escaped },
            (false, true) => Next::AfterValue,
            (false, false) => Next::InString { escaped },
        };
        at
    }

    /// Whether the string at hand is generated text: any below the answer's
    /// output except those that only describe it.
    fn counts(&self) -> bool {
        let described: &[&[u8]] = &[
            b"call_id",
            b"encrypted_content",
            b"finish_reason",
            b"id",
            b"object",
            b"role",
            b"signature",
            b"status",
            b"token",
            b"type",
        ];
        self.field == Field::Output && self.depth > 1 && !described.contains(&self.name.as_bytes())
    }

    /// Moves to the end of a number or word, or of the chunk.
    fn in_scalar(&mut self, chunk: &[u8], from: usize) -> usize {
        let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        match chunk[from..].iter().position(|byte| !part(byte)) {
            Some(len) => {
                self.next = Next::AfterValue;
                from + len
            }
            None => chunk.len(),
        }
    }

    fn punctuation(&mut self, byte: u8) {
        if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            return;
        }
        self.next = match (self.next, byte) {
            (Next::Start, b'{') => self.open(true),
            (Next::NameOrEnd | Next::Name, b'"') => {
                self.name.len = 0;
                Next::InName { escaped: false }
            }
            (Next::NameOrEnd, b'}') | (Next::ValueOrEnd, b']') => self.close(byte),
            (Next::Colon, b':') => {
                if self.depth == 1 {
                    self.enter_field();
                }
                Next::Value
            }
            (Next::Value | Next::ValueOrEnd, _) => self.value(byte),
            (Next::AfterValue, b',') => {
                if self.depth == 1 {
                    self.field = Field::Other;
                }
                match self.in_object() {
                    true => Next::Name,
                    false => Next::Value,
                }
            }
            (Next::AfterValue, b'}' | b']') => self.close(byte),
            _ => Next::Broken,
        };
    }

    fn enter_field(&mut self) {
        self.field = match self.name.as_bytes() {
            b"usage" => Field::Usage,
            b"model" => Field::Model,
            b"choices" | b"content" | b"output" => Field::Output,
            _ => Field::Other,
        };
        // Of a name that stands twice the last value holds.
        match self.field {
            Field::Usage => self.usage.clear(),
            Field::Model => self.model.clear(),
            Field::Output | Field::Other => {}
        }
    }

    fn value(&mut self, first: u8) -> Next {
        match first {
            b'"' => Next::InString { escaped: false },
            b'{' => self.open(true),
            b'[' => self.open(false),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => Next::InScalar,
            _ => Next::Broken,
        }
    }

    fn open(&mut self, object: bool) -> Next {
        if self.depth == MAX_DEPTH {
            return Next::Broken;
        }
        let (word, bit) = (self.depth / 64, 1_u64 << (self.depth % 64));
        self.depth += 1;
        if object {
            self.objects[word] |= bit;
            Next::NameOrEnd
        } else {
            self.objects[word] &= !bit;
            Next::ValueOrEnd
        }
    }

    /// Whether the innermost container is an object.
    fn in_object(&self) -> bool {
        let Some(level) = self.depth.checked_sub(1) else {
            return false;
        };
        self.objects[level / 64] & (1 << (level % 64)) != 0
    }

    fn close(&mut self, byte: u8) -> Next {
        if self.in_object() != (byte == b'}') {
            return Next::Broken;
        }
        self.depth -= 1;
        match self.depth {
            0 => Next::Done,
            _ => Next::AfterValue,
        }
    }
}
