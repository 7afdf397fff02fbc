//! `tyr migrate --conf PATH`.

use std::path::Path;
use std::process::ExitCode;

use cluster::StoreConfig;

use super::{conclude, open};

/// Brings the store's schema up to date, also where nodes are told not to.
pub fn migrate(conf: &Path) -> ExitCode {
    let opened = open(conf, |config| match config {
        StoreConfig::Postgres(mut postgres) => {
            postgres.migrate = true;
            StoreConfig::Postgres(postgres)
        }
        other => other,
    });
    conclude(opened.map(|_| "the store's schema is up to date\n".to_owned()))
}
