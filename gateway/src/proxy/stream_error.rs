//! The event that ends a stream whose provider was lost.
//!
//! Each protocol has its own; the official SDKs raise an error on all three.
//! A chat stream gets no `[DONE]` after it, for that means success.

use bytes::Bytes;
use serde_json::json;

use crate::api::Endpoint;

/// A whole event for `endpoint`'s protocol. `position` is
/// `Meter::responses_position`: the event goes on with the stream's numbers
/// under the stream's id; a stream lost before its first event has neither.
pub(super) fn event(
    endpoint: Endpoint,
    request_id: &str,
    why: &str,
    position: Option<(u64, Option<&str>)>,
) -> Bytes {
    let message = format!("the provider's stream was lost: {why}");
    let text = match endpoint {
        Endpoint::Messages | Endpoint::CountTokens => {
            let data = json!({
                "type": "error",
                "error": {"type": "api_error", "message": message},
                "request_id": request_id,
            });
            format!("event: error\ndata: {data}\n\n")
        }
        Endpoint::Responses => {
            let (number, id) = position.unwrap_or_default();
            let id = id.map_or_else(|| format!("resp_{request_id}"), str::to_owned);
            let data = json!({
                "type": "response.failed",
                "sequence_number": number,
                "response": {
                    "id": id,
                    "object": "response",
                    "status": "failed",
                    "error": {"code": "server_error", "message": message},
                    "output": [],
                },
            });
            format!("event: response.failed\ndata: {data}\n\n")
        }
        _ => {
            let data = json!({"error": {
                "message": message,
                "type": "server_error",
                "param": null,
                "code": "upstream_stream_lost",
            }});
            format!("data: {data}\n\n")
        }
    };
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_own() {
        for (endpoint, start, word) in [
            (
                Endpoint::ChatCompletions,
                "data: {\"error\":",
                "server_error",
            ),
            (
                Endpoint::Completions,
                "data: {\"error\":",
                "upstream_stream_lost",
            ),
            (Endpoint::Messages, "event: error\ndata: {", "api_error"),
            (
                Endpoint::Responses,
                "event: response.failed\ndata: {",
                "\"failed\"",
            ),
        ] {
            let event = event(endpoint, "r1", "why", None);
            let text = std::str::from_utf8(&event).unwrap();
            assert!(text.starts_with(start) && text.contains(word), "{text}");
            assert!(text.ends_with("\n\n") && !text.contains("[DONE]"));
        }
    }

    #[test]
    fn a_responses_stream_goes_on_with_its_numbers_and_id() {
        for (position, number, id) in [
            (None, 0, "resp_r1"),
            (Some((7, None)), 7, "resp_r1"),
            (Some((8, Some("resp_own"))), 8, "resp_own"),
        ] {
            let event = event(Endpoint::Responses, "r1", "why", position);
            let text = std::str::from_utf8(&event).unwrap();
            let (_, data) = text.split_once("data: ").unwrap();
            let data: serde_json::Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["sequence_number"], number);
            assert_eq!(data["response"]["id"], id);
        }
    }
}
