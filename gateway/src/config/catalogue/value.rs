//! Values of credentials that are made here.
//!
//! A prefix that tells scanners whose they are, 178 random bits, and a
//! checksum, so that a scanner knows a real one from a text that looks alike.
//! None of it is ever judged: a key is what its hash says.

use rand::RngExt;

use crate::upstream::Secret;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Random digits: 30 times log2(62) are 178 bits.
const RANDOM: usize = 30;
/// Digits of a CRC-32 in base 62.
const CHECKSUM: usize = 6;

/// A new value for a virtual key.
pub(super) fn virtual_key() -> Secret {
    value("sk-tyr-")
}

/// A new value for a token of the admin API.
pub(super) fn admin_token() -> Secret {
    value("tyr-admin-")
}

fn value(prefix: &str) -> Secret {
    let mut random = rand::rng();
    let mut text = String::with_capacity(prefix.len() + RANDOM + CHECKSUM);
    text.push_str(prefix);
    for _ in 0..RANDOM {
        text.push(char::from(DIGITS[random.random_range(0..DIGITS.len())]));
    }
    let checksum = checksum(&text);
    text.push_str(&checksum);
    Secret::new(text)
}

/// CRC-32 of a text in base 62, most significant digit first.
fn checksum(text: &str) -> String {
    let mut rest = crc32(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// CRC-32 as in zip and Ethernet. Bit by bit: texts are short and rare.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_the_common_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn values_have_their_form_and_differ() {
        let one = virtual_key();
        let text = one.expose();
        assert_eq!(text.len(), "sk-tyr-".len() + RANDOM + CHECKSUM);
        let (body, sum) = text.split_at(text.len() - CHECKSUM);
        assert!(text.starts_with("sk-tyr-"));
        assert_eq!(checksum(body), sum);
        assert_ne!(text, virtual_key().expose());
        assert!(admin_token().expose().starts_with("tyr-admin-"));
    }
}
