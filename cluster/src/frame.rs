//! One value as one line: eight hexadecimal digits of CRC-32, a space, the JSON, a newline.
//!
//! The checksum tells a line that a power cut tore, or a disk changed, from one that was written.

const CRC_DIGITS: usize = 8;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends a line to `buffer`; `json` appends its JSON, which holds no line break.
pub(crate) fn append(buffer: &mut Vec<u8>, json: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(b"00000000 ");
    let text = buffer.len();
    json(buffer);
    let crc = crc32fast::hash(&buffer[text..]);
    for (at, digit) in buffer[start..start + CRC_DIGITS].iter_mut().enumerate() {
        *digit = HEX[(crc >> (28 - 4 * at)) as usize & 0xf];
    }
    buffer.push(b'\n');
}

/// The JSON of a line without its newline, or `None` when the line is damaged.
pub(crate) fn json(line: &[u8]) -> Option<&[u8]> {
    let (crc, rest) = line.split_at_checked(CRC_DIGITS)?;
    let json = rest.strip_prefix(b" ")?;
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
    (crc == crc32fast::hash(json)).then_some(json)
}
