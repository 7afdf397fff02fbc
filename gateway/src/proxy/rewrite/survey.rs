//! One cheap pass over a body's bytes before it is parsed.
//!
//! Promise: no recursion and no allocation, whatever the bytes are; nesting is
//! judged here because the parser skips unknown values without counting them.
//! What counts as prompt: the text of all strings, names included, where of a
//! run of spaces each further one is a sixteenth (tokenizers merge them), and
//! [`SCALAR_BYTES`] for each number or word, since a prompt may come as token
//! numbers. White space and punctuation of the JSON do not count, so no
//! padding there can teach a wrong ratio. Inlined media counts by its kind.
//! State: none. Failure: [`BodyProblem::TooDeep`].

use std::ops::Range;

use super::media;
use super::text;
use super::{BodyProblem, INLINE_MEDIA_BYTES};

/// What the pass found.
pub(super) struct Survey {
    /// See `RequestFacts::prompt_bytes`.
    pub(super) prompt_bytes: u64,
    /// See `RequestFacts::has_media`.
    pub(super) has_media: bool,
}

/// What a number, `true`, `false` or `null` counts as: one token.
const SCALAR_BYTES: u64 = 4;

/// Of a run of spaces one in so many counts.
const MERGED_SPACES: u64 = 16;

/// Names of fields that carry media rather than prompt text.
const MEDIA_NAMES: [&[u8]; 4] = [b"url", b"image_url", b"data", b"file_data"];

/// The top-level fields with messages in them.
const ROOT_NAMES: [&[u8]; 3] = [b"messages", b"input", b"system"];

/// The fields of a message on the way to its media. What is below others
/// (arguments of tools, their schemas) the model reads as text.
const PART_NAMES: [&[u8]; 6] = [
    b"content",
    b"output",
    b"source",
    b"image_url",
    b"input_audio",
    b"file",
];

/// Judges the nesting of a body and counts the bytes of its prompt. Bytes that
/// are not JSON give any count: the parser refuses them afterwards.
pub(super) fn survey(body: &[u8], max_depth: usize) -> Result<Survey, BodyProblem> {
    let mut walk = Walk {
        body,
        at: 0,
        depth: 0,
        last: 0..0,
        named: false,
        opaque: None,
        object: Object::MIXED,
        bytes: 0,
        padding: 0,
        media: 0,
    };
    while let Some(byte) = body.get(walk.at) {
        walk.at += 1;
        match byte {
            b'"' => walk.string(),
            b' ' | b'\n' | b'\r' | b'\t' => {}
            b':' => walk.named = true,
            b',' => walk.named = false,
            b'{' | b'[' => {
                if walk.depth == max_depth {
                    return Err(BodyProblem::TooDeep { limit: max_depth });
                }
                walk.open();
            }
            b'}' | b']' => walk.close(),
            _ => walk.scalar(),
        }
    }
    let text = walk.bytes - walk.media;
    Ok(Survey {
        prompt_bytes: text - walk.padding + walk.padding / MERGED_SPACES,
        has_media: walk.media > 0,
    })
}

struct Walk<'a> {
    body: &'a [u8],
    at: usize,
    depth: usize,
    /// The content of the last string; behind a colon it is a name.
    last: Range<usize>,
    /// A colon has passed, its value has not.
    named: bool,
    /// The depth of the outermost value that is no part of a message.
    opaque: Option<usize>,
    object: Object,
    bytes: u64,
    padding: u64,
    /// How many of `bytes` are media that counts as less.
    media: u64,
}

/// The innermost object, as far as nothing is nested in it.
struct Object {
    /// What its media is longer than it counts as, in bytes.
    excess: u64,
    /// It may hold text in a field that carries media elsewhere, like a
    /// document's source of the type `text`.
    text: bool,
}

impl Object {
    const EMPTY: Self = Self {
        excess: 0,
        text: false,
    };
    /// Another value ended within it, so not all of it is known.
    const MIXED: Self = Self {
        excess: 0,
        text: true,
    };
}

impl Walk<'_> {
    /// A string whose opening quote has passed.
    fn string(&mut self) {
        let start = self.at;
        let read = text::content(self.body, start);
        self.at = read.end + 1;
        self.bytes += read.bytes;
        self.padding += read.padding;
        let content = &self.body[start..read.end];
        // With escapes it could say "text" and not look like it.
        self.object.text |= read.escaped || content == b"text" || content.starts_with(b"text/");
        if read.bytes > INLINE_MEDIA_BYTES
            && !read.escaped
            && self.is_media_field()
            && let Some(counts) = media::counts_as(content, read.bytes)
        {
            self.object.excess += read.bytes.saturating_sub(counts);
        }
        self.last = start..read.end;
        self.named = false;
    }

    fn is_media_field(&self) -> bool {
        self.opaque.is_none() && self.named && MEDIA_NAMES.contains(&&self.body[self.last.clone()])
    }

    fn open(&mut self) {
        if self.named && self.opaque.is_none() {
            let name = &self.body[self.last.clone()];
            let known = match self.depth {
                1 => ROOT_NAMES.contains(&name),
                _ => PART_NAMES.contains(&name),
            };
            if !known {
                self.opaque = Some(self.depth);
            }
        }
        self.depth += 1;
        self.named = false;
        self.object = Object::EMPTY;
    }

    fn close(&mut self) {
        if !self.object.text {
            self.media += self.object.excess;
        }
        self.object = Object::MIXED;
        self.depth = self.depth.saturating_sub(1);
        if self.opaque == Some(self.depth) {
            self.opaque = None;
        }
    }

    /// A number or word whose first byte has passed.
    fn scalar(&mut self) {
        self.bytes += SCALAR_BYTES;
        let rest = &self.body[self.at..];
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b'"' | b':') || *byte <= b' ';
        self.at += rest.iter().position(ends).unwrap_or(rest.len());
        self.named = false;
    }
}
