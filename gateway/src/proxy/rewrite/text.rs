//! The content of one JSON string as bytes of prompt text.
//!
//! Promise: one pass, no allocation; escapes count as the bytes of what they
//! stand for, so a body's spelling does not change what it counts as. State:
//! none. Failure: none; what is not JSON gives any count.

/// What a string's content amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Offset of the closing quote, or the body's end.
    pub(super) end: usize,
    /// Bytes of the text that the string stands for, in UTF-8.
    pub(super) bytes: u64,
    /// How many of `bytes` are spaces right behind a space.
    pub(super) padding: u64,
    /// Has an escape other than that of a slash.
    pub(super) escaped: bool,
}

/// Reads the string whose content starts at `start`.
pub(super) fn content(body: &[u8], start: usize) -> Content {
    short_content(body, start).unwrap_or_else(|| long_content(body, start))
}

/// A short string without escapes: most names are, and a loop over them is
/// faster than a vector search.
fn short_content(body: &[u8], start: usize) -> Option<Content> {
    let mut padding = 0;
    let mut before = 0;
    for (len, byte) in body[start..].iter().take(16).enumerate() {
        match *byte {
            b'"' => {
                return Some(Content {
                    end: start + len,
                    bytes: len as u64,
                    padding,
                    escaped: false,
                });
            }
            b'\\' => return None,
            _ => {}
        }
        padding += u64::from((*byte == b' ') & (before == b' '));
        before = *byte;
    }
    None
}

fn long_content(body: &[u8], start: usize) -> Content {
    let end = string_end(body, start);
    let raw = &body[start..end];
    let mut content = Content {
        end,
        bytes: raw.len() as u64,
        padding: doubled_spaces(raw),
        escaped: false,
    };
    let mut behind = 0;
    // Behind the last escape that stands for a space.
    let mut behind_space = None;
    for at in memchr::memchr_iter(b'\\', raw) {
        if at < behind {
            continue; // the second one of an escaped backslash
        }
        let (len, bytes, space) = escape(&raw[at..]);
        behind = at + len;
        content.escaped |= raw.get(at + 1) != Some(&b'/');
        content.bytes -= len as u64 - bytes;
        if space {
            let follows = at > 0 && raw[at - 1] == b' ' || behind_space == Some(at);
            content.padding += u64::from(follows);
            content.padding += u64::from(raw.get(behind) == Some(&b' '));
            behind_space = Some(behind);
        }
    }
    content
}

/// The offset of the quote that ends the string whose content starts at `start`.
fn string_end(body: &[u8], start: usize) -> usize {
    let mut from = start;
    while let Some(found) = memchr::memchr(b'"', &body[from..]) {
        let quote = from + found;
        let slashes = body[start..quote]
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count();
        if slashes % 2 == 0 {
            return quote;
        }
        from = quote + 1;
    }
    body.len()
}

/// An escape's own length, the bytes of what it stands for, and whether that
/// is a space.
fn escape(escape: &[u8]) -> (usize, u64, bool) {
    if escape.get(1) != Some(&b'u') {
        return (2, 1, false);
    }
    let code = escape
        .get(2..6)
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| u32::from_str_radix(digits, 16).ok());
    match code {
        // The parser refuses the body.
        None => (2, 1, false),
        Some(0..=0x7f) => (6, 1, code == Some(0x20)),
        // Half of a pair that stands for four bytes is two.
        Some(0x80..=0x7ff | 0xd800..=0xdfff) => (6, 2, false),
        Some(_) => (6, 3, false),
    }
}

/// How many spaces stand right behind a space.
fn doubled_spaces(text: &[u8]) -> u64 {
    // As many as one byte can count, in a loop that compiles to vectors.
    const BLOCK: usize = 240;
    let Some((_, mut behind)) = text.split_first() else {
        return 0;
    };
    let mut before = text;
    let mut count = 0;
    while behind.len() > BLOCK {
        count += pairs(&before[..BLOCK], &behind[..BLOCK]);
        (before, behind) = (&before[BLOCK..], &behind[BLOCK..]);
    }
    count + pairs(before, behind)
}

fn pairs(before: &[u8], behind: &[u8]) -> u64 {
    let pairs = before.iter().zip(behind);
    let count: u8 = pairs
        .map(|(a, b)| u8::from((*a == b' ') & (*b == b' ')))
        .sum();
    u64::from(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(literal: &str, bytes: u64, padding: u64) {
        let body = format!("\"{literal}\" ");
        let got = content(body.as_bytes(), 1);
        assert_eq!(got.end, literal.len() + 1);
        assert_eq!((got.bytes, got.padding), (bytes, padding), "{literal}");
    }

    #[test]
    fn counts_text_and_runs_of_spaces() {
        check("", 0, 0);
        check(" a b ", 5, 0);
        check("a   b  c", 8, 3);
        check(r"\n    x", 6, 3);
        check(r"  \u0020 \u0020", 5, 4);
        check(r#"\"\\\/\t"#, 4, 0);
        check(r"\u00e9é\u4f60你\ud83d\ude00😀", 2 + 2 + 3 + 3 + 4 + 4, 0);
        check(&" ".repeat(1_000), 1_000, 999);
        check(&"a".repeat(1_000), 1_000, 0);
    }

    #[test]
    fn only_the_escape_of_a_slash_is_none() {
        for (literal, escaped) in [("ab", false), (r"a\/b\/", false), (r"\/\u0061", true)] {
            let body = format!("\"{literal}\"");
            assert_eq!(content(body.as_bytes(), 1).escaped, escaped);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_parser(text in "([ a\"\\\\\n😀é]|\\PC){0,600}", ascii in any::<bool>()) {
            let mut literal = serde_json::to_string(&text).expect("serialises");
            if ascii {
                literal = literal.chars().map(|letter| match letter {
                    ' ' | '~'.. => {
                        let mut pair = [0; 2];
                        let units = letter.encode_utf16(&mut pair);
                        units.iter().map(|unit| format!("\\u{unit:04x}")).collect()
                    }
                    _ => letter.to_string(),
                }).collect();
            }
            let got = content(literal.as_bytes(), 1);
            let padding = text.as_bytes().windows(2).filter(|pair| pair == b"  ").count();
            prop_assert_eq!(got.end, literal.len() - 1);
            prop_assert_eq!(got.bytes, text.len() as u64);
            prop_assert_eq!(got.padding, padding as u64);
        }

        #[test]
        fn any_bytes_end(body in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(content(&body, 0).end <= body.len());
        }
    }
}
