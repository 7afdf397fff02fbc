//! The node's store, as the file describes it.

use ::cluster::{PasswordSource, PostgresConfig, StoreConfig, TlsMode};
use anyhow::Context;

use crate::config::file::StoreTlsMode;
use crate::config::{Environment, PostgresSettings, StoreSettings};

/// Where the node keeps what has to last. A password that is a reference is
/// read again at each connection.
pub(crate) fn store_config(
    settings: &StoreSettings,
    environment: &Environment,
) -> anyhow::Result<StoreConfig> {
    match settings {
        StoreSettings::Sqlite { path } => Ok(StoreConfig::Sqlite { path: path.clone() }),
        StoreSettings::Postgres(settings) => {
            Ok(StoreConfig::Postgres(postgres(settings, environment)?))
        }
    }
}

fn postgres(
    settings: &PostgresSettings,
    environment: &Environment,
) -> anyhow::Result<PostgresConfig> {
    let mut config = match &settings.url {
        Some(url) => PostgresConfig::from_url(&url.0).context("store.url")?,
        None => PostgresConfig::new(
            settings.host.as_str(),
            settings.port,
            settings.user.as_str(),
            settings.database.as_str(),
        ),
    };
    if let Some(password) = &settings.password {
        let (reference, environment) = (password.0.clone(), environment.clone());
        config.password = Some(PasswordSource::new(move || environment.secret(&reference)));
    }
    if let Some(mode) = settings.tls {
        config.tls = match mode {
            StoreTlsMode::Disable => TlsMode::Disable,
            StoreTlsMode::Require => TlsMode::Require,
            StoreTlsMode::VerifyCa => TlsMode::VerifyCa,
            StoreTlsMode::VerifyFull => TlsMode::VerifyFull,
        };
    }
    config.ca_pem.clone_from(&settings.ca_pem);
    config.pool = settings.pool;
    config.migrate = settings.migrate;
    Ok(config)
}
