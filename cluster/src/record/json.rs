//! Records as JSON text, written by hand: the same text as `serde` gives, for a third of its time.
//!
//! Names are constants here, so only values need a look at whether they must be escaped, and few do.

use policy::Charge;

use super::UsageRecord;

/// Appends the record as one JSON object, without a line break.
pub(crate) fn append(record: &UsageRecord, to: &mut Vec<u8>) {
    text(to, b"{\"request_id\":", &record.request_id);
    text(to, b",\"key\":", &record.key);
    optional(to, b",\"team\":", record.team.as_deref());
    optional(to, b",\"customer\":", record.customer.as_deref());
    optional(to, b",\"user\":", record.user.as_deref());
    optional(to, b",\"rule\":", record.rule.as_deref());
    text(to, b",\"model_requested\":", &record.model_requested);
    optional(to, b",\"model_served\":", record.model_served.as_deref());
    optional(to, b",\"provider\":", record.provider.as_deref());
    optional(to, b",\"credential\":", record.credential.as_deref());
    text(to, b",\"endpoint\":", &record.endpoint);
    to.extend_from_slice(match record.stream {
        true => b",\"stream\":true",
        false => b",\"stream\":false",
    });
    number(to, b",\"usage\":{\"input\":", record.usage.input);
    number(to, b",\"cache_read\":", record.usage.cache_read);
    number(to, b",\"cache_write\":", record.usage.cache_write);
    number(to, b",\"cache_write_1h\":", record.usage.cache_write_1h);
    number(to, b",\"output\":", record.usage.output);
    number(to, b",\"reasoning\":", record.usage.reasoning);
    number(to, b"},\"cost_nano_usd\":", record.cost.0);
    text(to, b",\"basis\":", record.basis.as_str());
    number(to, b",\"status\":", record.status.into());
    number(to, b",\"started_at_ms\":", record.started_at.0);
    match record.first_byte_ms {
        Some(value) => number(to, b",\"first_byte_ms\":", value),
        None => to.extend_from_slice(b",\"first_byte_ms\":null"),
    }
    number(to, b",\"duration_ms\":", record.duration_ms);
    number(to, b",\"attempts\":", record.attempts.into());
    text(to, b",\"end\":", record.end.as_str());
    let id = record.upstream_request_id.as_deref();
    optional(to, b",\"upstream_request_id\":", id);
    to.extend_from_slice(b",\"charges\":");
    append_charges(&record.charges, to);
    to.push(b'}');
}

/// Appends the charges as a JSON array, the form in which the store keeps them.
pub(crate) fn append_charges(charges: &[Charge], to: &mut Vec<u8>) {
    to.push(b'[');
    for (at, charge) in charges.iter().enumerate() {
        let before: &[u8] = match at {
            0 => b"{\"counter\":",
            _ => b",{\"counter\":",
        };
        text(to, before, &charge.counter);
        to.extend_from_slice(b",\"epoch\":");
        if charge.epoch < 0 {
            to.push(b'-');
        }
        number(to, b"", charge.epoch.unsigned_abs());
        number(to, b",\"amount\":", charge.amount);
        number(to, b",\"expires_at_ms\":", charge.expires_at.0);
        to.push(b'}');
    }
    to.push(b']');
}

fn optional(to: &mut Vec<u8>, before: &[u8], value: Option<&str>) {
    match value {
        Some(value) => text(to, before, value),
        None => {
            to.extend_from_slice(before);
            to.extend_from_slice(b"null");
        }
    }
}

fn text(to: &mut Vec<u8>, before: &[u8], value: &str) {
    to.extend_from_slice(before);
    let is_odd = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    // Looks at every byte, so that many are looked at with one instruction.
    let odd = value.bytes().fold(false, |odd, byte| odd | is_odd(byte));
    if odd {
        serde_json::to_writer(to, value).expect("a Vec takes every byte");
    } else {
        to.push(b'"');
        to.extend_from_slice(value.as_bytes());
        to.push(b'"');
    }
}

fn number(to: &mut Vec<u8>, before: &[u8], value: u64) {
    to.extend_from_slice(before);
    serde_json::to_writer(to, &value).expect("a Vec takes every byte");
}

#[cfg(test)]
mod tests {
    use policy::{NanoUsd, Timestamp};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{charge, record};

    fn append_to_string(record: &UsageRecord) -> String {
        let mut bytes = Vec::new();
        append(record, &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn the_text_is_that_of_serde(
            texts in prop::collection::vec(".{0,9}", 4),
            absent in any::<bool>(),
            large in any::<u64>(),
            epoch in any::<i64>(),
        ) {
            let mut record = record(large % 1_000);
            record.key.clone_from(&texts[0]);
            record.model_served = Some(texts[1].clone());
            record.customer = Some(texts[2].clone()).filter(|_| absent);
            record.first_byte_ms = Some(large).filter(|_| !absent);
            record.cost = NanoUsd(large);
            record.started_at = Timestamp(large);
            record.charges.push(charge(&texts[3], epoch, large));
            record.charges.truncate(usize::from(!absent) * 3);
            let expected = serde_json::to_string(&record).unwrap();
            prop_assert_eq!(append_to_string(&record), expected);
        }
    }
}
