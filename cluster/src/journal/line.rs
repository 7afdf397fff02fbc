//! One record as one line: eight hexadecimal digits of CRC-32, a space, the JSON, a newline.
//!
//! The checksum tells a line that a power cut tore, or a disk changed, from one that was written.

use crate::record::{UsageRecord, append_json};

const CRC_DIGITS: usize = 8;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends the record's line to `buffer`.
pub(super) fn encode(record: &UsageRecord, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    buffer.extend_from_slice(b"00000000 ");
    let json = buffer.len();
    append_json(record, buffer);
    let crc = crc32fast::hash(&buffer[json..]);
    for (at, digit) in buffer[start..start + CRC_DIGITS].iter_mut().enumerate() {
        *digit = HEX[(crc >> (28 - 4 * at)) as usize & 0xf];
    }
    buffer.push(b'\n');
}

/// The record of a line without its newline, or `None` when the line is damaged.
pub(super) fn decode(line: &[u8]) -> Option<UsageRecord> {
    let (crc, rest) = line.split_at_checked(CRC_DIGITS)?;
    let json = rest.strip_prefix(b" ")?;
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
    if crc != crc32fast::hash(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_torn_or_changed_line_is_told_apart() {
        let record = crate::testing::record(3);
        let mut line = Vec::new();
        encode(&record, &mut line);
        assert_eq!(line.pop(), Some(b'\n'));
        assert!(!line.contains(&b'\n'));
        assert_eq!(decode(&line), Some(record));
        for cut in 0..line.len() {
            assert_eq!(decode(&line[..cut]), None, "cut at {cut}");
        }
        for at in 0..line.len() {
            let mut changed = line.clone();
            changed[at] ^= 0x11;
            assert_eq!(decode(&changed), None, "changed at {at}");
        }
    }
}
