//! The providers that both gateways know by name.

use std::net::IpAddr;

use crate::upstream::EgressRule;

/// How a provider is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vendor {
    /// `openai` or `anthropic`.
    pub(super) kind: &'static str,
    /// Where it is; `None` when every operator runs their own.
    pub(super) base_url: Option<&'static str>,
    /// The variable its credential is usually in.
    pub(super) variable: &'static str,
}

/// Name in either gateway, kind, base URL, variable.
const VENDORS: &[(&str, &str, Option<&str>, &str)] = &[
    (
        "openai",
        OPENAI,
        Some("https://api.openai.com/v1"),
        "OPENAI_API_KEY",
    ),
    (
        "anthropic",
        "anthropic",
        Some("https://api.anthropic.com"),
        "ANTHROPIC_API_KEY",
    ),
    (
        "groq",
        OPENAI,
        Some("https://api.groq.com/openai/v1"),
        "GROQ_API_KEY",
    ),
    (
        "mistral",
        OPENAI,
        Some("https://api.mistral.ai/v1"),
        "MISTRAL_API_KEY",
    ),
    (
        "openrouter",
        OPENAI,
        Some("https://openrouter.ai/api/v1"),
        "OPENROUTER_API_KEY",
    ),
    (
        "cerebras",
        OPENAI,
        Some("https://api.cerebras.ai/v1"),
        "CEREBRAS_API_KEY",
    ),
    (
        "deepseek",
        OPENAI,
        Some("https://api.deepseek.com/v1"),
        "DEEPSEEK_API_KEY",
    ),
    ("xai", OPENAI, Some("https://api.x.ai/v1"), "XAI_API_KEY"),
    (
        "perplexity",
        OPENAI,
        Some("https://api.perplexity.ai"),
        "PERPLEXITYAI_API_KEY",
    ),
    (
        "together_ai",
        OPENAI,
        Some("https://api.together.xyz/v1"),
        "TOGETHERAI_API_KEY",
    ),
    (
        "fireworks",
        OPENAI,
        Some("https://api.fireworks.ai/inference/v1"),
        "FIREWORKS_API_KEY",
    ),
    (
        "fireworks_ai",
        OPENAI,
        Some("https://api.fireworks.ai/inference/v1"),
        "FIREWORKS_API_KEY",
    ),
    (
        "gemini",
        OPENAI,
        Some("https://generativelanguage.googleapis.com/v1beta/openai"),
        "GEMINI_API_KEY",
    ),
    ("azure", OPENAI, None, "AZURE_API_KEY"),
    ("ollama", OPENAI, None, "OLLAMA_API_KEY"),
    ("ollama_chat", OPENAI, None, "OLLAMA_API_KEY"),
    ("vllm", OPENAI, None, "VLLM_API_KEY"),
    ("hosted_vllm", OPENAI, None, "HOSTED_VLLM_API_KEY"),
    ("sgl", OPENAI, None, "SGL_API_KEY"),
    ("lm_studio", OPENAI, None, "LM_STUDIO_API_KEY"),
    ("openai_like", OPENAI, None, "OPENAI_LIKE_API_KEY"),
    ("custom_openai", OPENAI, None, "OPENAI_API_KEY"),
];

const OPENAI: &str = "openai";

/// The provider of that name; `None` when it speaks a wire that is not ours.
pub(super) fn vendor(name: &str) -> Option<Vendor> {
    let (_, kind, base_url, variable) = VENDORS.iter().find(|(known, ..)| *known == name)?;
    Some(Vendor {
        kind,
        base_url: *base_url,
        variable,
    })
}

/// Whether a URL leads to a private network, as far as its text tells: such an
/// address has to be allowed on purpose.
pub(super) fn is_private(url: &str) -> bool {
    let Some(host) = host(url) else {
        return false;
    };
    match host.parse::<IpAddr>() {
        Ok(address) => !EgressRule::PublicOnly.allows(address),
        Err(_) => {
            let within = [".local", ".localhost", ".internal", ".svc", ".lan"];
            !host.contains('.')
                || host.contains(".svc.")
                || within.iter().any(|end| host.ends_with(end))
        }
    }
}

/// Whether a URL leads to this machine.
pub(super) fn is_loopback(url: &str) -> bool {
    let host = host(url).unwrap_or_default();
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

fn host(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => authority.split(':').next()?,
    };
    Some(host.to_ascii_lowercase())
}

/// Whether a URL carries a user or password.
pub(super) fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@')
}
