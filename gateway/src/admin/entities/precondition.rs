//! Entity tags, and what a write expects to find.
//!
//! An entity of the store has its revision as its tag; one of the file, which
//! has none that outlives the process, a hash of what is shown.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Shown, Source, WriteRefusal};
use crate::admin::answer::{Failure, entity_tag};

/// What a write expects of the entity, from `If-Match` and `If-None-Match`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Precondition {
    /// Tags of which the entity must have one.
    any_of: Option<Vec<String>>,
    /// The entity must not be there.
    absent: bool,
}

/// The tag of an entity, quotes included.
pub(super) fn tag(shown: &Shown) -> HeaderValue {
    match shown.source {
        Source::Api => HeaderValue::from_str(&format!("\"{}\"", shown.revision))
            .expect("digits between quotes are a header value"),
        Source::File { .. } => entity_tag(&shown.body),
    }
}

impl Precondition {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let any_of = match headers.contains_key(header::IF_MATCH) {
            true => Some(tags(headers)?),
            false => None,
        };
        let absent = match headers.get(header::IF_NONE_MATCH) {
            None => false,
            Some(value) if value.as_bytes().trim_ascii() == b"*" => true,
            Some(_) => {
                let message = "If-None-Match of a write can only be *";
                return Err(Failure::invalid(message));
            }
        };
        Ok(Precondition { any_of, absent })
    }

    /// Refuses what cannot hold of an entity that is being made.
    pub(super) fn for_new(&self) -> Result<(), Failure> {
        match self.any_of {
            Some(_) => Err(failed("If-Match asks for an entity that is there already")),
            None => Ok(()),
        }
    }

    /// Holds the expectation against what is there.
    pub(super) fn judge(&self, found: Option<&Shown>) -> Result<(), Failure> {
        match (found, &self.any_of) {
            (Some(_), _) if self.absent => {
                Err(failed("If-None-Match asks that it is not there, but it is"))
            }
            (None, Some(_)) => Err(failed("If-Match asks for an entity that is not there")),
            (Some(found), Some(tags)) => {
                let tag = tag(found);
                let is_one = |one: &String| one == "*" || one.as_bytes() == tag.as_bytes();
                match tags.iter().any(is_one) {
                    true => Ok(()),
                    false => Err(stale(Some(found.revision))),
                }
            }
            _ => Ok(()),
        }
    }

    /// The revision that the write must still find; none when it may find any.
    pub(super) fn revision(&self, found: Option<&Shown>) -> Option<u64> {
        let tags = self.any_of.as_ref()?;
        let any = tags.iter().any(|tag| tag == "*");
        found.filter(|_| !any).map(|found| found.revision)
    }

    /// A refusal of the write, in the words of what was expected.
    pub(super) fn explain(&self, refusal: WriteRefusal) -> Failure {
        match refusal {
            WriteRefusal::Exists { .. } if self.absent => {
                failed("If-None-Match asks that it is not there, but it is")
            }
            WriteRefusal::Stale { found } => stale(found),
            other => other.into(),
        }
    }
}

fn tags(headers: &HeaderMap) -> Result<Vec<String>, Failure> {
    let mut tags = Vec::new();
    for value in headers.get_all(header::IF_MATCH) {
        let text = value
            .to_str()
            .map_err(|_| Failure::invalid("If-Match is not an entity tag"))?;
        tags.extend(text.split(',').map(|tag| tag.trim().to_owned()));
    }
    Ok(tags)
}

fn stale(found: Option<u64>) -> Failure {
    failed(match found {
        Some(revision) => {
            format!("it has changed since: its revision is {revision}; read it again")
        }
        None => "it is not there any more".to_owned(),
    })
}

fn failed(message: impl Into<String>) -> Failure {
    let status = StatusCode::PRECONDITION_FAILED;
    Failure::new(status, "precondition_failed", message)
}
