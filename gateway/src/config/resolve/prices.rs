//! `catalogue`: where prices come from that the file does not have.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::{Checks, ResolveInto};
use crate::config::file::File;
use crate::config::problem::FieldPath;
use crate::config::reference::{Written, written};
use crate::prices::{PriceSource, Wanted};

/// Shortest time between two fetches.
const LEAST: Duration = Duration::from_secs(1);

/// A source, not reached yet.
pub(super) struct SourcePlan {
    place: Place,
    every: Duration,
}

enum Place {
    Web {
        uri: Uri,
        allow_private: bool,
    },
    File(PathBuf),
    /// A reference that is not read.
    Unread,
}

pub(super) fn source(checks: &mut Checks<'_>, file: &File) -> Option<SourcePlan> {
    let catalogue = file.catalogue.as_ref()?;
    let at = FieldPath::root().key("catalogue");
    let every = catalogue.every.get();
    if every < LEAST {
        checks.problem(&at.key("every"), "must be a second or more");
    }
    let at = at.key("source");
    // As for certificates: `file.PATH` is the name of the file, for the list
    // is read by who needs it.
    let text = match written(&catalogue.source.0) {
        Ok(Written::File(path)) => {
            let place = Place::File(PathBuf::from(path));
            return Some(SourcePlan { place, every });
        }
        _ => checks.read(&at, &catalogue.source.0),
    };
    let place = match text {
        None => Place::Unread,
        Some(text) if !text.contains("://") => Place::File(PathBuf::from(text)),
        Some(text) => match text.parse::<Uri>() {
            Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) => Place::Web {
                uri,
                allow_private: catalogue.allow_private_addresses,
            },
            _ => {
                checks.problem(
                    &at,
                    "expected `https://…`, `http://…` or the path of a file",
                );
                Place::Unread
            }
        },
    };
    Some(SourcePlan { place, every })
}

impl SourcePlan {
    /// Where lists come from; `Err` says why that cannot be used.
    pub(super) fn build(&self, into: &ResolveInto<'_>) -> Result<Option<PriceSource>, String> {
        match &self.place {
            Place::Unread => Ok(None),
            Place::File(path) => Ok(Some(PriceSource::of_file(path, self.every))),
            Place::Web { uri, allow_private } => {
                PriceSource::of_address(uri, *allow_private, self.every, into.clients)
                    .map(Some)
                    .map_err(|error| error.to_string())
            }
        }
    }
}

/// Gives a model the price that the list says, and the longest answer if the
/// file says none. A model that the list does not know keeps its unknown price.
pub(super) fn from_list(
    model: &mut policy::Model,
    catalogue_name: Option<&str>,
    provider: &policy::Provider,
    into: &ResolveInto<'_>,
) {
    let Some(previous) = into.previous else {
        return;
    };
    let wanted = Wanted {
        catalogue_name,
        provider: &provider.name,
        dialect: provider.dialect,
        upstream_name: &model.upstream_name,
    };
    if let Some(listed) = previous.pricing.list.find(&wanted) {
        model.price = listed.price;
        model.max_output_tokens = model.max_output_tokens.or(listed.max_output_tokens);
    }
}
