//! `store` and `encryption`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Checks;
use super::server::LEAST_KEY;
use crate::config::file::{AddressText, File, SecretText, Store, StoreTlsMode, StoreType};
use crate::config::problem::FieldPath;
use crate::config::reference::References;
use crate::vault::KeyRing;

/// Where the node keeps what has to last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSettings {
    /// A database file.
    Sqlite {
        /// Relative to the working folder.
        path: PathBuf,
    },
    /// A Postgres server.
    Postgres(Box<PostgresSettings>),
}

/// A Postgres server and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSettings {
    /// `postgres://…` as written or read: it may hold a password. Either this
    /// or the next four.
    pub url: Option<SecretText>,
    /// The server's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who signs in.
    pub user: String,
    /// The database.
    pub database: String,
    /// The password or a reference to it, to be read at each connection.
    pub password: Option<SecretText>,
    /// Encryption; `None`: what the URL says, else by the host.
    pub tls: Option<StoreTlsMode>,
    /// Authorities that may sign its certificate, PEM; `None`: the public ones.
    pub ca_pem: Option<String>,
    /// Most connections.
    pub pool: usize,
    /// Whether an older schema is brought up to date.
    pub migrate: bool,
}

const DEFAULT_PATH: &str = "data/tyr.db";
const DEFAULT_POOL: u16 = 4;
const DEFAULT_PORT: u16 = 5_432;
const DEFAULT_NAME: &str = "tyr";

pub(super) fn store(checks: &mut Checks<'_>, file: &File) -> StoreSettings {
    let store = &file.store;
    let at = FieldPath::root().key("store");
    match store.kind {
        StoreType::Sqlite => {
            refuse(checks, &at, of_postgres(store), "postgres");
            StoreSettings::Sqlite {
                path: PathBuf::from(text(checks, &at.key("path"), &store.path, DEFAULT_PATH)),
            }
        }
        StoreType::Postgres => {
            refuse(checks, &at, vec![("path", store.path.is_some())], "sqlite");
            StoreSettings::Postgres(Box::new(postgres(checks, &at, store)))
        }
    }
}

fn of_postgres(store: &Store) -> Vec<(&'static str, bool)> {
    let mut fields = of_parts(store);
    fields.extend([
        ("url", store.url.is_some()),
        ("password", store.password.is_some()),
        ("tls", store.tls.is_some()),
        ("pool", store.pool.is_some()),
    ]);
    fields
}

fn of_parts(store: &Store) -> Vec<(&'static str, bool)> {
    vec![
        ("host", store.host.is_some()),
        ("port", store.port.is_some()),
        ("user", store.user.is_some()),
        ("database", store.database.is_some()),
    ]
}

fn refuse(checks: &mut Checks<'_>, at: &FieldPath, fields: Vec<(&str, bool)>, owner: &str) {
    for (name, _) in fields.into_iter().filter(|(_, given)| *given) {
        checks.problem(
            &at.key(name),
            format!("has a meaning with `type: {owner}` only"),
        );
    }
}

fn postgres(checks: &mut Checks<'_>, at: &FieldPath, store: &Store) -> PostgresSettings {
    match (&store.url, &store.host) {
        (Some(_), _) => {
            for (name, _) in of_parts(store).into_iter().filter(|(_, given)| *given) {
                checks.problem(&at.key(name), "stands in `url` already: give one of them");
            }
        }
        (None, None) => checks.problem(at, "`type: postgres` needs `url` or `host`"),
        (None, Some(_)) => {}
    }
    let url = store.url.as_ref().map(|url| {
        let text = checks.read(&at.key("url"), &url.0);
        let scheme =
            |text: &str| text.starts_with("postgres://") || text.starts_with("postgresql://");
        if text.as_deref().is_some_and(|text| !scheme(text)) {
            checks.problem(&at.key("url"), "must begin with postgres://");
        }
        SecretText(text.unwrap_or_default())
    });
    if let Some(password) = &store.password {
        checks.secret(&at.key("password"), &password.0, 1);
    }
    let tls = store.tls.as_ref();
    PostgresSettings {
        url,
        host: text(checks, &at.key("host"), &store.host, ""),
        port: store.port.unwrap_or(DEFAULT_PORT),
        user: text(checks, &at.key("user"), &store.user, DEFAULT_NAME),
        database: text(checks, &at.key("database"), &store.database, DEFAULT_NAME),
        password: store.password.clone(),
        tls: tls.map(|tls| tls.mode),
        ca_pem: tls
            .and_then(|tls| tls.ca.as_ref())
            .and_then(|ca| checks.read(&at.key("tls").key("ca"), &ca.0)),
        pool: usize::from(store.pool.unwrap_or(DEFAULT_POOL)),
        migrate: store.migrate,
    }
}

fn text(
    checks: &mut Checks<'_>,
    at: &FieldPath,
    text: &Option<AddressText>,
    default: &str,
) -> String {
    match text {
        Some(text) => checks.read(at, &text.0).unwrap_or_default(),
        None => default.to_owned(),
    }
}

/// The keys for secrets at rest; without any where references are not read.
pub(super) fn encryption(checks: &mut Checks<'_>, file: &File) -> KeyRing {
    let keys = &file.encryption.keys;
    let all = FieldPath::root().key("encryption").key("keys");
    let mut ids = BTreeMap::new();
    let mut ring = Vec::with_capacity(keys.len());
    let before = checks.problems.len();
    for (index, key) in keys.iter().enumerate() {
        let at = all.index(index);
        checks.once(&mut ids, "encryption key", &key.id, &at.key("id"));
        let secret = checks.secret(&at.key("value"), &key.value.0, LEAST_KEY);
        ring.push((key.id.clone(), secret));
    }
    let read = matches!(checks.references, References::Resolve(_));
    if !read || checks.problems.len() > before {
        return KeyRing::default();
    }
    KeyRing::new(ring).unwrap_or_else(|error| {
        checks.problem(&all, error.to_string());
        KeyRing::default()
    })
}
