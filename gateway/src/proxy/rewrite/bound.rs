//! The bound that a request sets on its answer, and the splice that lowers it.
//!
//! Promise: a lowered bound stands in the field that the endpoint reads, and
//! no field states more than it; nothing else of the body changes. State:
//! none. Failure: a [`BodyProblem`] for a bound of another type.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use super::{BodyProblem, Edit, KnownFields, fields};
use crate::api::Endpoint;

/// Where a body states bounds, and where it could.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The value of each field that is there; `None` = no bound (`null`, -1).
    stated: Vec<(Range<usize>, Option<u64>)>,
    /// The field that a body without any gets, and the offset of the brace
    /// before which it goes.
    missing: Option<(&'static str, usize)>,
}

/// The largest bound stated, and where bounds stand.
pub(super) fn read(
    body: &[u8],
    endpoint: Endpoint,
    known: &KnownFields<'_>,
) -> Result<(Option<u64>, Bounds), BodyProblem> {
    // The first one is the field that is added where there is none.
    let named: &[(&'static str, Option<&RawValue>)] = match endpoint {
        Endpoint::ChatCompletions => &[
            ("max_completion_tokens", known.max_completion_tokens),
            ("max_tokens", known.max_tokens),
        ],
        Endpoint::Completions | Endpoint::Messages => &[("max_tokens", known.max_tokens)],
        Endpoint::Responses => &[("max_output_tokens", known.max_output_tokens)],
        Endpoint::Embeddings | Endpoint::CountTokens => &[],
    };
    let mut largest = None;
    let mut bounds = Bounds::default();
    for (field, raw) in named {
        let count = fields::count(field, *raw)?;
        // Where two bounds stand, servers differ in which one holds.
        largest = largest.max(count);
        if let Some(raw) = raw {
            bounds.stated.push((fields::span(body, raw), count));
        }
    }
    if let (Some((field, _)), true) = (named.first(), bounds.stated.is_empty()) {
        let end = body.iter().rposition(|byte| *byte == b'}');
        bounds.missing = end.map(|end| (*field, end));
    }
    Ok((largest, bounds))
}

impl Bounds {
    /// The edits after which no answer may be longer than `most` tokens.
    pub(super) fn lowered_to(&self, most: u64) -> impl Iterator<Item = Edit> + use<'_> {
        let unbounded = self.stated.iter().all(|(_, count)| count.is_none());
        let stated = self.stated.iter().enumerate();
        let lowered = stated
            .filter(move |(index, (_, count))| match count {
                Some(count) => *count > most,
                // Beside a bound that says something, `null` stays.
                None => unbounded && *index == 0,
            })
            .map(move |(_, (span, _))| (span.clone(), Cow::Owned(most.to_string())));
        let added = self.missing.map(|(field, at)| {
            // An object with a model has a field before this one.
            (at..at, Cow::Owned(format!(",\"{field}\":{most}")))
        });
        lowered.chain(added)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{read_facts, upstream_body};
    use crate::api::Endpoint;

    #[track_caller]
    fn check(endpoint: Endpoint, body: &'static str, expected: &str) {
        let body = Bytes::from_static(body.as_bytes());
        let facts = read_facts(&body, endpoint, 64).unwrap();
        let sent = upstream_body(&body, &facts, &facts.model, false, Some(100));
        assert_eq!(
            sent,
            expected.as_bytes(),
            "{}",
            String::from_utf8_lossy(&sent)
        );
    }

    #[test]
    fn a_bound_is_lowered_where_it_stands() {
        use Endpoint::{ChatCompletions, Completions, Messages, Responses};
        check(
            ChatCompletions,
            r#"{"max_tokens": 900 , "model":"m"}"#,
            r#"{"max_tokens": 100 , "model":"m"}"#,
        );
        check(
            ChatCompletions,
            r#"{"max_tokens":900,"max_completion_tokens":50,"model":"m"}"#,
            r#"{"max_tokens":100,"max_completion_tokens":50,"model":"m"}"#,
        );
        check(
            ChatCompletions,
            r#"{"max_tokens":null,"max_completion_tokens":500,"model":"m"}"#,
            r#"{"max_tokens":null,"max_completion_tokens":100,"model":"m"}"#,
        );
        check(
            Completions,
            r#"{"max_tokens":-1,"model":"m"}"#,
            r#"{"max_tokens":100,"model":"m"}"#,
        );
        check(
            Messages,
            r#"{"model":"m","max_tokens":101}"#,
            r#"{"model":"m","max_tokens":100}"#,
        );
        check(
            Responses,
            r#"{"model":"m","max_output_tokens":null}"#,
            r#"{"model":"m","max_output_tokens":100}"#,
        );
    }

    #[test]
    fn an_absent_bound_is_added_in_the_endpoints_own_words() {
        for (endpoint, field) in [
            (Endpoint::ChatCompletions, "max_completion_tokens"),
            (Endpoint::Completions, "max_tokens"),
            (Endpoint::Messages, "max_tokens"),
            (Endpoint::Responses, "max_output_tokens"),
        ] {
            let expected = format!(r#"{{"model":"m" ,"{field}":100}} "#);
            check(endpoint, r#"{"model":"m" } "#, &expected);
        }
        check(Endpoint::Embeddings, r#"{"model":"m"}"#, r#"{"model":"m"}"#);
    }

    #[test]
    fn all_splices_go_together() {
        let body = Bytes::from_static(br#"{"model":"m","stream":true}"#);
        let facts = read_facts(&body, Endpoint::ChatCompletions, 64).unwrap();
        let sent = upstream_body(&body, &facts, "other", true, Some(7));
        let value: serde_json::Value = serde_json::from_slice(&sent).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"model": "other", "stream": true, "max_completion_tokens": 7,
                "stream_options": {"include_usage": true}})
        );
    }
}
