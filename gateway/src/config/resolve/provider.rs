//! `providers`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;
use policy::{AllowList, CredentialRef, Dialect, ScopeKind};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::limit::{ScopePlan, scope};
use super::names::Names;
use super::{Checks, unknown};
use crate::config::file::{self, ClientCredential, File, Kind, UsageInStream};
use crate::config::problem::FieldPath;
use crate::upstream::{EgressRule, Http2, Retries, Timeouts, UpstreamConfig};
use crate::vault::Place;

/// One provider, for decisions and for sending.
pub(super) struct ProviderPlan {
    pub(super) policy: policy::Provider,
    pub(super) upstream: UpstreamConfig,
    pub(super) scope: ScopePlan,
}

pub(super) fn providers(checks: &mut Checks<'_>, names: &Names, file: &File) -> Vec<ProviderPlan> {
    let all = FieldPath::root().key("providers");
    if file.providers.len() > usize::from(u16::MAX) {
        checks.problem(&all, "more than 65535 providers are not supported");
    }
    let mut seen = BTreeMap::new();
    let mut plans = Vec::with_capacity(file.providers.len());
    for (index, provider) in file.providers.iter().enumerate() {
        let at = all.index(index);
        checks.once(&mut seen, "provider", &provider.name, &at.key("name"));
        plans.push(plan(checks, names, &at, provider));
    }
    plans
}

fn plan(
    checks: &mut Checks<'_>,
    names: &Names,
    at: &FieldPath,
    provider: &file::Provider,
) -> ProviderPlan {
    let name: Arc<str> = provider.name.as_str().into();
    let dialect = match provider.kind {
        Kind::OpenAi => Dialect::OpenAi,
        Kind::Anthropic => Dialect::Anthropic,
    };
    let retries = retries(checks, &at.key("retries"), &provider.retries);
    let (credentials, secrets) = credentials(checks, names, at, provider);
    let upstream = UpstreamConfig {
        name: Arc::clone(&name),
        dialect,
        base_url: base_url(checks, at, provider),
        allow_private_addresses: provider.allow_private_addresses,
        credentials: secrets,
        timeouts: timeouts(checks, &at.key("timeouts"), &provider.timeouts),
        retries,
        usage_in_stream: provider.usage_in_stream == UsageInStream::Always,
        pass_client_credential: provider.client_credential == ClientCredential::Pass,
        ca_pem: certificates(checks, &at.key("tls").key("ca"), provider.tls.as_ref()),
        http2: match provider.http2 {
            file::Http2::Auto => Http2::Auto,
            file::Http2::PriorKnowledge => Http2::PriorKnowledge,
            file::Http2::Never => Http2::Never,
        },
    };
    let limits = (provider.rate_limits.as_slice(), provider.budgets.as_slice());
    ProviderPlan {
        policy: policy::Provider {
            name,
            dialect,
            credentials,
            max_retries: retries.max,
            region: provider.region.as_deref().map(Arc::from),
            scope: None,
        },
        upstream,
        scope: scope(checks, at, ScopeKind::Provider, &provider.name, limits),
    }
}

fn credentials(
    checks: &mut Checks<'_>,
    names: &Names,
    at: &FieldPath,
    provider: &file::Provider,
) -> (Vec<CredentialRef>, Vec<crate::upstream::Secret>) {
    let mut seen = BTreeMap::new();
    let mut credentials = Vec::with_capacity(provider.keys.len());
    let mut secrets = Vec::with_capacity(provider.keys.len());
    for (index, key) in provider.keys.iter().enumerate() {
        let at = at.key("keys").index(index);
        checks.once(&mut seen, "key", &key.name, &at.key("name"));
        credentials.push(CredentialRef {
            name: key.name.as_str().into(),
            weight: key.weight,
            models: allow_list(
                checks,
                names,
                &at.key("models"),
                &provider.name,
                &key.models,
            ),
        });
        let field = format!("keys/{}/value", key.name);
        let place = Place {
            kind: "provider",
            name: &provider.name,
            field: &field,
        };
        secrets.push(checks.credential(&at.key("value"), &key.value.0, &place));
    }
    (credentials, secrets)
}

/// A list of model names of one provider.
pub(super) fn allow_list(
    checks: &mut Checks<'_>,
    names: &Names,
    at: &FieldPath,
    provider: &str,
    models: &[String],
) -> AllowList {
    for (index, model) in models.iter().enumerate() {
        // An unknown provider is reported where it is named.
        let known = model == "*" || !names.has_provider(provider) || names.has(provider, model);
        if !known {
            let what = format!("model of provider '{provider}' called");
            let message = unknown(&what, model, names.models_of(provider));
            checks.problem(&at.index(index), message);
        }
    }
    AllowList::from_names(models.to_vec()).unwrap_or_else(|error| {
        checks.problem(at, error.to_string());
        AllowList::default()
    })
}

fn timeouts(checks: &mut Checks<'_>, at: &FieldPath, timeouts: &file::Timeouts) -> Timeouts {
    Timeouts {
        connect: checks.positive(&at.key("connect"), &timeouts.connect),
        first_byte: checks.positive(&at.key("first_byte"), &timeouts.first_byte),
        idle: checks.positive(&at.key("idle"), &timeouts.idle),
        total: checks.positive(&at.key("total"), &timeouts.total),
    }
}

fn retries(checks: &mut Checks<'_>, at: &FieldPath, retries: &file::Retries) -> Retries {
    let (least, most) = (retries.backoff_min.get(), retries.backoff_max.get());
    if least > most {
        let message = format!(
            "is longer than `backoff_max` ({} > {})",
            retries.backoff_min, retries.backoff_max
        );
        checks.problem(&at.key("backoff_min"), message);
    }
    Retries {
        max: retries.max,
        backoff_min: least,
        backoff_max: most,
    }
}

fn base_url(checks: &mut Checks<'_>, at: &FieldPath, provider: &file::Provider) -> Uri {
    let stand_in = Uri::from_static("https://unread.invalid");
    let at = at.key("base_url");
    let Some(text) = checks.read(&at, &provider.base_url.0) else {
        return stand_in;
    };
    match parse_url(&text, provider.allow_private_addresses) {
        Ok(uri) => {
            let clear = uri.scheme_str() == Some("http") && !provider.allow_private_addresses;
            if clear {
                checks.warning(&at, "requests and credentials go there unencrypted");
            }
            uri
        }
        Err(message) => {
            checks.problem(&at, message);
            stand_in
        }
    }
}

/// Judges a base URL. The text is never shown: it may hold a password.
pub(super) fn parse_url(text: &str, allow_private: bool) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("must begin with http:// or https://");
    }
    let authority = uri.authority().ok_or("names no host")?;
    if authority.as_str().contains('@') {
        return Err("must not carry a user or password");
    }
    let host = authority.host();
    if host.is_empty() {
        return Err("names no host");
    }
    if uri.query().is_some() || text.contains('#') {
        return Err("must not carry a query or fragment");
    }
    let rule = match allow_private {
        true => EgressRule::AllowPrivate,
        false => EgressRule::PublicOnly,
    };
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let refused = match literal.parse::<IpAddr>() {
        Ok(address) => !rule.allows(address),
        Err(_) => !allow_private && is_localhost(host),
    };
    match (refused, allow_private) {
        (false, _) => Ok(uri),
        (true, false) => Err(
            "is a loopback or private address: set `allow_private_addresses: true` if that is meant",
        ),
        (true, true) => Err("is an address at which a cloud hands out credentials"),
    }
}

fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

fn certificates(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    tls: Option<&file::ProviderTls>,
) -> Option<Arc<[u8]>> {
    let pem = checks.read(at, &tls?.ca.0)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => {}
        _ => checks.problem(at, "holds no certificate in PEM form"),
    }
    Some(pem.into_bytes().into())
}
