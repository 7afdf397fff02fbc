//! Why parts of a LiteLLM configuration have no counterpart.

use crate::import::reasons::{NONE, Reasons, of_field, of_section};

/// By the beginning of the path.
const SECTIONS: Reasons = &[
    (
        "environment_variables",
        "set these in the environment of Tyr",
    ),
    ("guardrails", "Tyr has no guardrails"),
    ("mcp_servers", "Tyr is no gateway for tools"),
    ("vector_store_registry", "Tyr has no vector stores"),
    ("files_settings", "files are not told apart"),
    ("finetune_settings", "fine-tuning is not told apart"),
    ("include", "other files are not read: import them too"),
    ("credential_list", "write the credential at each model"),
    (
        "general_settings.database_url",
        "Tyr keeps its own database: set `store`",
    ),
    (
        "litellm_settings.num_retries",
        "`router_settings` has it already",
    ),
    (
        "litellm_settings.request_timeout",
        "`router_settings` has it already",
    ),
    ("litellm_settings.cache", "Tyr has no cache"),
    ("litellm_settings.cache_params", "Tyr has no cache"),
    (
        "litellm_settings.callbacks",
        "see the metrics and usage records",
    ),
    (
        "litellm_settings.success_callback",
        "see the metrics and usage records",
    ),
    (
        "litellm_settings.failure_callback",
        "see the metrics and usage records",
    ),
    (
        "litellm_settings.drop_params",
        "bodies are passed on as they are",
    ),
    (
        "litellm_settings.context_window_fallbacks",
        "a refusal of the provider is passed on",
    ),
    (
        "litellm_settings.content_policy_fallbacks",
        "a refusal of the provider is passed on",
    ),
    (
        "router_settings.context_window_fallbacks",
        "a refusal of the provider is passed on",
    ),
    (
        "router_settings.content_policy_fallbacks",
        "a refusal of the provider is passed on",
    ),
    (
        "router_settings.routing_strategy",
        "credentials are chosen by weight",
    ),
    (
        "router_settings.redis_host",
        "nodes share counts without Redis",
    ),
    (
        "router_settings.redis_port",
        "nodes share counts without Redis",
    ),
    (
        "router_settings.redis_password",
        "nodes share counts without Redis",
    ),
    (
        "router_settings.redis_url",
        "nodes share counts without Redis",
    ),
];

/// By the last field of the path.
const FIELDS: Reasons = &[
    ("tags", "models are not chosen by tags: see `routing_rules`"),
    ("mode", "a model serves every endpoint its provider has"),
    ("base_model", "prices stand with each model"),
    ("stream_timeout", "see `providers[].timeouts.first_byte`"),
    ("api_version", "the endpoint has no versions"),
    ("organization", "no headers are added for a provider"),
    ("extra_headers", "no headers are added for a provider"),
    ("temperature", "bodies are passed on as they are"),
    ("max_tokens", "bodies are passed on as they are"),
];

pub(in crate::import) fn reason(path: &str) -> &'static str {
    of_section(SECTIONS, path)
        .or_else(|| of_field(FIELDS, path))
        .unwrap_or(NONE)
}
