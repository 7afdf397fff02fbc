//! Refusals of writes as answers.

use http::StatusCode;

use super::{Source, WriteRefusal};
use crate::admin::answer::Failure;

impl From<WriteRefusal> for Failure {
    fn from(refusal: WriteRefusal) -> Self {
        let conflict = |kind, message: String| Failure::new(StatusCode::CONFLICT, kind, message);
        match refusal {
            WriteRefusal::Invalid(problems) => Failure::invalid_body(problems),
            WriteRefusal::NotFound => super::unknown(),
            WriteRefusal::Exists { source } => {
                let by = match source {
                    Source::File { place } => format!("in the file at {place}"),
                    Source::Api => "through the API".to_owned(),
                };
                conflict("exists", format!("this name is taken: it was made {by}"))
            }
            WriteRefusal::FileOwned { place } => {
                let message = format!("it is defined in the file at {place}; change it there");
                conflict("file_owned", message)
            }
            WriteRefusal::Stale { found } => {
                let found = found.map_or("gone".to_owned(), |revision| revision.to_string());
                let message = format!("it was changed at the same time; its revision is {found}");
                conflict("stale", message)
            }
            WriteRefusal::InUse { by } => {
                let message = format!("it is used by {}; change these first", by.join(", "));
                conflict("in_use", message)
            }
            WriteRefusal::NoEncryptionKey => {
                let message = "a secret cannot be kept without a key: configure encryption.keys";
                conflict("no_encryption_key", message.to_owned())
            }
            WriteRefusal::Store(reason) => {
                tracing::warn!(reason, "admin API could not write to the store");
                Failure::unavailable(format!("nothing was changed: {reason}"))
            }
        }
    }
}
