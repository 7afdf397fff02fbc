//! Telling inlined media from text.
//!
//! Promise: a string counts as media only where all of it is base64 that
//! decodes to the start of a known kind of file; all else is text and counts
//! in full. State: none. Failure: none.

use super::INLINE_MEDIA_BYTES;

/// What part of a string's length a kind of media counts as, chosen so that a
/// quarter of it is about what providers make of the densest such file.
#[derive(Clone, Copy)]
enum Kind {
    /// Costs by its size in tiles, not in bytes.
    Image,
    /// Costs by its length in time or pages: one in this many bytes.
    Timed(u64),
}

/// The kind by the file's first bytes.
fn kind(head: &[u8; 12]) -> Option<Kind> {
    Some(match head {
        [0x89, b'P', b'N', b'G', ..]
        | [0xff, 0xd8, 0xff, ..]
        | [b'G', b'I', b'F', b'8', ..]
        | [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => Kind::Image,
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..]
            if [b"heic", b"heix", b"mif1", b"avif"].contains(&brand) =>
        {
            Kind::Image
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E'] => Kind::Timed(128),
        [b'I', b'D', b'3', ..] | [b'f', b'L', b'a', b'C', ..] | [b'O', b'g', b'g', b'S', ..] => {
            Kind::Timed(16)
        }
        // The sync word of MP3 and AAC frames.
        [0xff, second, ..] if second & 0xe0 == 0xe0 => Kind::Timed(16),
        [b'%', b'P', b'D', b'F', ..] => Kind::Timed(8),
        _ => return None,
    })
}

/// The bytes that a string's content counts as when it is media, bare or as a
/// `data:` URL. Of escapes it may have only those of slashes; `len` is its
/// length in bytes without them.
pub(super) fn counts_as(content: &[u8], len: u64) -> Option<u64> {
    let encoded = match content.starts_with(b"data:") {
        false => content,
        true => {
            let head = &content[..content.len().min(256)];
            let comma = memchr::memchr(b',', head)?;
            if !head[..comma].ends_with(b";base64") {
                return None;
            }
            &content[comma + 1..]
        }
    };
    let kind = kind(&decoded_head(encoded)?)?;
    // Text may follow a picture's head: every byte is looked at.
    if !encoded.chunks(4096).all(is_base64) {
        return None;
    }
    Some(match kind {
        Kind::Image => INLINE_MEDIA_BYTES,
        Kind::Timed(part) => (len / part).max(INLINE_MEDIA_BYTES),
    })
}

/// The first twelve bytes of what is encoded.
fn decoded_head(encoded: &[u8]) -> Option<[u8; 12]> {
    let mut head = [0; 12];
    let mut letters = encoded.iter().filter(|letter| **letter != b'\\');
    for bytes in head.chunks_mut(3) {
        let mut group = 0_u32;
        for _ in 0..4 {
            group = group << 6 | u32::from(value(*letters.next()?)?);
        }
        let [_, first, second, third] = group.to_be_bytes();
        bytes.copy_from_slice(&[first, second, third]);
    }
    Some(head)
}

fn value(letter: u8) -> Option<u8> {
    Some(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

/// Either alphabet, padding, and the backslash of an escaped slash. Without a
/// branch in the loop, so that it compiles to vectors.
fn is_base64(block: &[u8]) -> bool {
    let bad = block.iter().fold(0_u8, |bad, byte| {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        let digit = byte.wrapping_sub(b'/') <= b'9' - b'/';
        let other = (*byte == b'+')
            | (*byte == b'-')
            | (*byte == b'_')
            | (*byte == b'=')
            | (*byte == b'\\');
        bad | u8::from(!(letter | digit | other))
    });
    bad == 0
}
