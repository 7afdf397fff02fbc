//! A lenient look into JSON that a provider sent.
//!
//! Promise: no allocation, no recursion, no panic; values are found by their
//! nesting and not validated, and what cannot be read is absent. Names are
//! compared as written, so a name spelled with escapes is not found.
//! State: none.

/// The fields of an object, name and raw value, in order; none when the value
/// is something else.
pub(super) fn fields(value: &[u8]) -> Fields<'_> {
    Fields(inside(value, b'{'))
}

/// The items of an array as raw values; none when the value is something else.
pub(super) fn items(value: &[u8]) -> Items<'_> {
    Items(inside(value, b'['))
}

/// The value of the first field of that name.
pub(super) fn field<'a>(object: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    fields(object).find_map(|(key, value)| (key == name).then_some(value))
}

/// What stands between a string's quotes, escapes kept.
pub(super) fn text(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// The length of a string's content in bytes as written; 0 for other values.
pub(super) fn text_len(value: &[u8]) -> u64 {
    text(value).map_or(0, |content| content.len() as u64)
}

/// A number of tokens. Fractions are cut off, negative numbers are 0, and what
/// is larger than `u64` saturates.
pub(super) fn count(value: &[u8]) -> Option<u64> {
    let first = value.first()?;
    if !first.is_ascii_digit() && *first != b'-' {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => text.parse::<f64>().ok().map(|number| number as u64),
    }
}

/// Whether a value is there and not `null`.
pub(super) fn is_set(value: &[u8]) -> bool {
    !value.is_empty() && value != b"null"
}

/// See [`fields`].
#[derive(Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = next_item(self.0);
        let end = string_end(rest)?;
        let name = &rest[1..end - 1];
        let rest = skip_blank(&rest[end..]).strip_prefix(b":")?;
        let rest = skip_blank(rest);
        let len = value_len(rest)?;
        self.0 = &rest[len..];
        Some((name, &rest[..len]))
    }
}

/// See [`items`].
#[derive(Debug)]
pub(super) struct Items<'a>(&'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = next_item(self.0);
        let len = value_len(rest)?;
        self.0 = &rest[len..];
        Some(&rest[..len])
    }
}

fn inside(value: &[u8], open: u8) -> &[u8] {
    match skip_blank(value).split_first() {
        Some((first, rest)) if *first == open => rest,
        _ => b"",
    }
}

fn skip_blank(bytes: &[u8]) -> &[u8] {
    match bytes.first() {
        Some(first) if first.is_ascii_whitespace() => bytes.trim_ascii_start(),
        _ => bytes,
    }
}

fn next_item(bytes: &[u8]) -> &[u8] {
    let rest = skip_blank(bytes);
    rest.strip_prefix(b",").map_or(rest, skip_blank)
}

/// The length of the string at the start of `bytes`, both quotes included.
fn string_end(bytes: &[u8]) -> Option<usize> {
    if bytes.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    // Most strings of an event are shorter than a vector search pays for.
    let near = bytes.len().min(24);
    while at < near {
        match bytes[at] {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    while at < bytes.len() {
        at += memchr::memchr2(b'"', b'\\', &bytes[at..])?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
    None
}

/// The length of the value at the start of `bytes`; `None` when it does not
/// end or there is none.
fn value_len(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b'"' => string_end(bytes),
        b'{' | b'[' => container_len(bytes),
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
            let len = bytes.iter().position(ends)?;
            (len > 0).then_some(len)
        }
    }
}

fn container_len(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += string_end(&bytes[at..])?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}
