//! `store` and `encryption`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{AddressText, NAME, SecretText};

/// Where usage, and what is made by the admin API, is kept. All of it is read
/// at the start only.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// The kind of store.
    #[serde(rename = "type")]
    pub kind: StoreType,
    /// SQLite: the database file, relative to the working folder; default: `data/tyr.db`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<AddressText>,
    /// Postgres: `postgres://user:password@host:5432/database`. Either this or
    /// `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<SecretText>,
    /// Postgres: the server's name or address. Either this or `url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<AddressText>,
    /// Postgres: the server's port; default: 5432.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u16>,
    /// Postgres: who signs in; default: `tyr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<AddressText>,
    /// Postgres: the password, read again at each connection; with `url`, in
    /// place of the one in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretText>,
    /// Postgres: the database; default: `tyr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<AddressText>,
    /// Postgres: encryption of the connection; default: that of `url`, else
    /// `verify-full`, and `disable` on the same machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<StoreTls>,
    /// Postgres: most connections; default: 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub pool: Option<u16>,
    /// Whether a start brings an older schema up to date; `false` refuses to
    /// start on one instead.
    pub migrate: bool,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            kind: StoreType::Sqlite,
            path: None,
            url: None,
            host: None,
            port: None,
            user: None,
            password: None,
            database: None,
            tls: None,
            pool: None,
            migrate: true,
        }
    }
}

/// The kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum StoreType {
    /// A database file on this machine.
    Sqlite,
    /// A Postgres server.
    Postgres,
}

/// Encryption of the connection to Postgres.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreTls {
    /// How much is asked for.
    pub mode: StoreTlsMode,
    /// Authorities that may sign the server's certificate, PEM: `file.PATH`,
    /// `env.NAME` or the text itself; default: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<AddressText>,
}

/// How much encryption is asked of a Postgres server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum StoreTlsMode {
    /// None.
    Disable,
    /// Encrypted; anyone may answer.
    Require,
    /// Encrypted; the certificate is signed by an authority.
    VerifyCa,
    /// Encrypted; the certificate is signed and names the host.
    VerifyFull,
}

/// Keys for secrets at rest.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Encryption {
    /// The first encrypts, all decrypt. Without any, providers cannot be made
    /// by the admin API.
    pub keys: Vec<EncryptionKey>,
}

/// One key for secrets at rest.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EncryptionKey {
    /// Its name, stored beside what it encrypts.
    #[schemars(regex(pattern = NAME))]
    pub id: String,
    /// The key: 32 or more characters.
    pub value: SecretText,
}
