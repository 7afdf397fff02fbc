//! Why parts of a Bifrost configuration have no counterpart.

use crate::import::reasons::{NONE, Reasons, of_field, of_section};

/// By the beginning of the path.
const SECTIONS: Reasons = &[
    ("mcp", "Tyr is no gateway for tools"),
    ("plugins", "Tyr has no plugins"),
    ("vector_store", "Tyr has no semantic cache"),
    ("config_store", "Tyr keeps its own database: set `store`"),
    (
        "logs_store",
        "Tyr keeps usage records, not contents: set `store`",
    ),
    ("framework", "prices stand with the models"),
    (
        "audit_logs",
        "the audit trail is always on; `encryption.keys` sign it",
    ),
    (
        "governance.complexity_analyzer_config",
        "conditions know no complexity",
    ),
    (
        "governance.business_units",
        "there are customers and teams only",
    ),
    ("governance.roles", "see `admin.roles`"),
    (
        "governance.auth_config",
        "who knows the token is an administrator",
    ),
    ("auth_config", "who knows the token is an administrator"),
    ("cluster_config.broker", "this version of Tyr has no broker"),
    (
        "client.allow_direct_keys",
        "clients never bring keys of providers",
    ),
    (
        "client.enforce_auth_on_inference",
        "every request needs a virtual key",
    ),
    (
        "client.enforce_governance_header",
        "every request needs a virtual key",
    ),
];

/// By the last field of the path.
const FIELDS: Reasons = &[
    (
        "current_usage",
        "counts are not taken over: they start at zero",
    ),
    (
        "token_current_usage",
        "counts are not taken over: they start at zero",
    ),
    (
        "request_current_usage",
        "counts are not taken over: they start at zero",
    ),
    (
        "last_reset",
        "counts are not taken over: they start at zero",
    ),
    (
        "token_last_reset",
        "counts are not taken over: they start at zero",
    ),
    (
        "request_last_reset",
        "counts are not taken over: they start at zero",
    ),
    (
        "calendar_aligned",
        "rate limits do not begin at calendar boundaries",
    ),
    ("use_for_batch_api", "batches are not told apart"),
    (
        "concurrency_and_buffer_size",
        "there is no queue: see `concurrent` in `rate_limits`",
    ),
    ("proxy_config", "providers are reached directly"),
    ("extra_headers", "no headers are added for a provider"),
    (
        "insecure_skip_verify",
        "certificates are always verified: see `providers[].tls.ca`",
    ),
    ("mcp_configs", "Tyr is no gateway for tools"),
    (
        "query",
        "the state of a form; the condition is `cel_expression`",
    ),
    ("success_threshold", "it does nothing here"),
    ("ttft_timeout_ms", "see `providers[].timeouts.first_byte`"),
];

pub(in crate::import) fn reason(path: &str) -> &'static str {
    of_field(FIELDS, path)
        .or_else(|| of_section(SECTIONS, path))
        .unwrap_or(NONE)
}
