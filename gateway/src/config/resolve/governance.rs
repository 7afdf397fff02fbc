//! `governance`: limits over everything, over models, and of each user.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, Uri};
use ipnet::IpNet;
use policy::ScopeKind;

use super::limit::{ScopePlan, scope};
use super::names::Names;
use super::provider::parse_url;
use super::{Checks, unknown};
use crate::config::file::{File, Jwt, Users};
use crate::config::problem::FieldPath;
use crate::config::reference::{Written, written};
use crate::users::Jwks;

/// The entity of limits over all requests.
const EVERYTHING: &str = "all";

/// The entity by which the templates of users' limits are planned.
const EACH: &str = "";

/// `governance`, its counters apart.
pub(super) struct GovernancePlan {
    pub(super) global: ScopePlan,
    pub(super) models: Vec<ScopePlan>,
    pub(super) users: Option<UsersPlan>,
}

/// Who the end user of a request is, and what each may use.
pub(super) struct UsersPlan {
    pub(super) header: HeaderName,
    pub(super) trusted_from: Vec<IpNet>,
    pub(super) required: bool,
    pub(super) max_tracked: usize,
    pub(super) token: Option<TokenPlan>,
    /// For a user without a name.
    pub(super) scope: ScopePlan,
}

/// Signed tokens that name the user.
pub(super) struct TokenPlan {
    pub(super) header: HeaderName,
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) claim: String,
    pub(super) keys: KeysPlan,
}

/// Where the keys that sign come from.
pub(super) enum KeysPlan {
    /// Read already.
    Known(Arc<Jwks>),
    /// To be fetched.
    At { uri: Uri, allow_private: bool },
    /// A reference that was not read.
    Unread,
}

pub(super) fn governance(checks: &mut Checks<'_>, names: &Names, file: &File) -> GovernancePlan {
    let at = FieldPath::root().key("governance");
    let governance = &file.governance;
    let global = &governance.global;
    let limits = (global.rate_limits.as_slice(), global.budgets.as_slice());
    GovernancePlan {
        global: scope(
            checks,
            &at.key("global"),
            ScopeKind::Global,
            EVERYTHING,
            limits,
        ),
        models: models(checks, names, &at.key("models"), file),
        users: governance
            .users
            .as_ref()
            .map(|users| self::users(checks, &at.key("users"), users)),
    }
}

fn models(checks: &mut Checks<'_>, names: &Names, all: &FieldPath, file: &File) -> Vec<ScopePlan> {
    let mut seen = BTreeMap::new();
    let mut plans = Vec::with_capacity(file.governance.models.len());
    for (index, model) in file.governance.models.iter().enumerate() {
        let at = all.index(index);
        checks.once(
            &mut seen,
            "the limit of model",
            &model.name,
            &at.key("name"),
        );
        if !names.has_bare(&model.name) {
            let message = match names.has_alias(&model.name) {
                true => format!("'{}' is an alias: limits are of models", model.name),
                false => unknown("model", &model.name, names.bare_names()),
            };
            checks.problem(&at.key("name"), message);
        }
        let limits = (model.rate_limits.as_slice(), model.budgets.as_slice());
        plans.push(scope(checks, &at, ScopeKind::Model, &model.name, limits));
    }
    plans
}

fn users(checks: &mut Checks<'_>, at: &FieldPath, users: &Users) -> UsersPlan {
    if users.trusted_from.is_empty() && users.jwt.is_none() {
        let message = "nobody may name a user: give `trusted_from` or `jwt`";
        match users.required {
            true => checks.problem(at, message),
            false => checks.warning(at, message),
        }
    }
    let limits = (users.rate_limits.as_slice(), users.budgets.as_slice());
    UsersPlan {
        header: header(checks, &at.key("header"), &users.header),
        trusted_from: networks(checks, &at.key("trusted_from"), &users.trusted_from),
        required: users.required,
        max_tracked: users.max_tracked as usize,
        token: users
            .jwt
            .as_ref()
            .map(|jwt| token(checks, &at.key("jwt"), jwt)),
        scope: scope(checks, at, ScopeKind::User, EACH, limits),
    }
}

fn header(checks: &mut Checks<'_>, at: &FieldPath, name: &str) -> HeaderName {
    HeaderName::from_bytes(name.as_bytes()).unwrap_or_else(|_| {
        checks.problem(at, "is not the name of a header");
        HeaderName::from_static(crate::users::DEFAULT_HEADER)
    })
}

fn networks(checks: &mut Checks<'_>, all: &FieldPath, texts: &[String]) -> Vec<IpNet> {
    let everybody = ["0.0.0.0/0", "::/0"];
    if let [only] = texts
        && only == "*"
    {
        return everybody
            .iter()
            .filter_map(|net| net.parse().ok())
            .collect();
    }
    let mut networks = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let at = all.index(index);
        match text.parse::<IpNet>() {
            Ok(network) if network.trunc() != network => {
                let message = format!(
                    "has bits beyond its length: `{}` is meant?",
                    network.trunc()
                );
                checks.problem(&at, message);
            }
            Ok(network) => networks.push(network),
            Err(_) if text == "*" => checks.problem(&at, "\"*\" is everybody and must stand alone"),
            Err(_) => {
                let shown = text.escape_debug();
                let message = format!("expected a network such as `10.0.0.0/8`, found `{shown}`");
                checks.problem(&at, message);
            }
        }
    }
    networks
}

fn token(checks: &mut Checks<'_>, at: &FieldPath, jwt: &Jwt) -> TokenPlan {
    for (field, text) in [
        ("issuer", &jwt.issuer),
        ("audience", &jwt.audience),
        ("claim", &jwt.claim),
    ] {
        if text.is_empty() {
            checks.problem(&at.key(field), "must not be empty");
        }
    }
    TokenPlan {
        header: header(checks, &at.key("header"), &jwt.header),
        issuer: jwt.issuer.clone(),
        audience: jwt.audience.clone(),
        claim: jwt.claim.clone(),
        keys: signing_keys(checks, &at.key("jwks"), jwt),
    }
}

fn signing_keys(checks: &mut Checks<'_>, at: &FieldPath, jwt: &Jwt) -> KeysPlan {
    let in_file = matches!(written(&jwt.jwks.0), Ok(Written::File(_)));
    let Some(text) = checks.read(at, &jwt.jwks.0) else {
        return KeysPlan::Unread;
    };
    if in_file {
        return match Jwks::of_text(&text) {
            Ok(keys) => KeysPlan::Known(Arc::new(keys)),
            Err(error) => {
                checks.problem(at, format!("the file holds no keys: {error}"));
                KeysPlan::Unread
            }
        };
    }
    match parse_url(&text, jwt.allow_private_addresses) {
        Ok(uri) => KeysPlan::At {
            uri,
            allow_private: jwt.allow_private_addresses,
        },
        Err(message) => {
            checks.problem(at, message);
            KeysPlan::Unread
        }
    }
}
