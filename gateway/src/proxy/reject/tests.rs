//! Tests of `reject`.

use super::*;

fn body(refusal: &Refusal, shape: Shape) -> serde_json::Value {
    serde_json::from_slice(&refusal.body(shape, "req-1")).expect("a refusal is JSON")
}

/// Reason; OpenAI status and type; Anthropic status and type.
#[rustfmt::skip]
const TABLE: &[(Reason, u16, &str, u16, &str)] = &[
        (Reason::InvalidRequest, 400, "invalid_request_error", 400, "invalid_request_error"),
        (Reason::Unauthenticated, 401, "invalid_request_error", 401, "authentication_error"),
        (Reason::Forbidden, 403, "permission_denied", 403, "permission_error"),
        (Reason::ModelNotFound, 404, "invalid_request_error", 404, "not_found_error"),
        (Reason::BodyTooLarge, 413, "invalid_request_error", 413, "request_too_large"),
        (Reason::RateLimited, 429, "rate_limit_exceeded", 429, "rate_limit_error"),
        (Reason::BudgetSpent, 429, "insufficient_quota", 402, "billing_error"),
        (Reason::UpstreamFailed, 502, "server_error", 500, "api_error"),
        (Reason::UpstreamTimeout, 504, "server_error", 504, "timeout_error"),
        (Reason::Overloaded, 503, "server_error", 529, "overloaded_error"),
    ];

#[test]
fn each_reason_has_both_shapes() {
    for (reason, openai, openai_type, anthropic, anthropic_type) in TABLE {
        let refusal = Refusal::new(*reason, "why");
        assert_eq!(
            refusal.status(Shape::OpenAi).as_u16(),
            *openai,
            "{reason:?}"
        );
        assert_eq!(
            refusal.status(Shape::Anthropic).as_u16(),
            *anthropic,
            "{reason:?}"
        );
        let body_openai = body(&refusal, Shape::OpenAi);
        assert_eq!(body_openai["error"]["type"], *openai_type);
        assert_eq!(body_openai["error"]["message"], "why");
        let body_anthropic = body(&refusal, Shape::Anthropic);
        assert_eq!(body_anthropic["type"], "error");
        assert_eq!(body_anthropic["error"]["type"], *anthropic_type);
        assert_eq!(body_anthropic["request_id"], "req-1");
    }
}

#[test]
fn retry_after_is_whole_seconds_rounded_up() {
    let mut refusal = Refusal::new(Reason::RateLimited, "slow down");
    refusal.retry_after = Some(Duration::from_millis(1_001));
    assert_eq!(
        refusal.headers(),
        vec![
            ("retry-after", "2".to_owned()),
            ("retry-after-ms", "1001".to_owned())
        ]
    );
}
