//! The answer to a head that is not accepted.
//!
//! Promise: the client sees a whole answer in its own protocol's shape and then
//! the end of the connection; a client that keeps sending or never reads cannot
//! hold the connection for longer than `LINGER`.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use uuid::Uuid;

use super::head::{HeadFault, shape_of};
use super::stream::GuardedStream;
use crate::api::Shape;

/// Longest time given to a client to take its answer.
const LINGER: Duration = Duration::from_secs(2);
/// Most bytes read and thrown away. Closing with unread bytes would reset the
/// connection and could destroy the answer on its way.
const DRAIN: usize = 1024 * 1024;

/// Answers, then reads what the client still sends until it closes.
pub(super) async fn refuse(stream: &mut GuardedStream, fault: HeadFault) {
    let answer = render(fault, shape_of(stream.ahead()), &Uuid::now_v7().to_string());
    let work = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        AsyncWriteExt::shutdown(stream).await?;
        let mut sink = [0; 4096];
        let mut left = DRAIN;
        while left > 0 {
            match stream.read(&mut sink).await? {
                0 => break,
                n => left = left.saturating_sub(n),
            }
        }
        std::io::Result::Ok(())
    };
    // Either way the connection ends; the client may have gone already.
    let _ = timeout(LINGER, work).await;
}

fn render(fault: HeadFault, shape: Shape, id: &str) -> String {
    let (message, code) = (fault.message(), fault.label());
    let body = match shape {
        Shape::OpenAi => json!({"error": {
            "message": message, "type": "invalid_request_error", "param": null, "code": code,
        }}),
        Shape::Anthropic => json!({
            "type": "error",
            "error": {"type": "invalid_request_error", "message": message},
            "request_id": id,
        }),
    }
    .to_string();
    let status = fault.status();
    let reason = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    // RFC 9110: 405 names what is allowed, 426 what could be changed to.
    let allow = match status {
        405 => "allow: GET, HEAD, OPTIONS, POST\r\n",
        426 => "upgrade: h2c\r\n",
        _ => "",
    };
    // A slow head may be only a slow network.
    let retry = if status == 408 {
        ""
    } else {
        "x-should-retry: false\r\n"
    };
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\n{allow}content-type: application/json\r\n\
         content-length: {length}\r\nx-request-id: {id}\r\nrequest-id: {id}\r\n\
         {retry}connection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_and_in_the_callers_shape() {
        for shape in [Shape::OpenAi, Shape::Anthropic] {
            let text = render(HeadFault::TooLarge, shape, "id-1");
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
            assert!(head.contains("connection: close"));
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"]["type"], "invalid_request_error");
            match shape {
                Shape::OpenAi => assert_eq!(body["error"]["code"], "head_too_large"),
                Shape::Anthropic => {
                    assert_eq!(body["type"], "error");
                    assert_eq!(body["request_id"], "id-1");
                }
            }
        }
    }

    #[test]
    fn connect_names_what_is_allowed() {
        let text = render(HeadFault::Connect, Shape::OpenAi, "id-1");
        assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\nallow: GET"));
    }
}
