//! Why parts of a LiteLLM configuration have no counterpart.

/// By the beginning of the path.
const SECTIONS: &[(&str, &str)] = &[
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
const FIELDS: &[(&str, &str)] = &[
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
    let below = |section: &str| {
        path.strip_prefix(section)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let section = SECTIONS.iter().find(|(section, _)| below(section));
    let last = path.rsplit('.').next().unwrap_or(path);
    let last = last.split('[').next().unwrap_or(last);
    let field = FIELDS.iter().find(|(field, _)| *field == last);
    section
        .or(field)
        .map_or("has no counterpart", |(_, why)| why)
}
