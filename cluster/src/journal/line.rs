//! One record as one line of a usage file.

use crate::frame;
use crate::record::{UsageRecord, append_json};

/// Appends the record's line to `buffer`.
pub(super) fn encode(record: &UsageRecord, buffer: &mut Vec<u8>) {
    frame::append(buffer, |json| append_json(record, json));
}

/// The record of a line without its newline, or `None` when the line is damaged.
pub(super) fn decode(line: &[u8]) -> Option<UsageRecord> {
    serde_json::from_slice(frame::json(line)?).ok()
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
