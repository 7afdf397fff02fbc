//! The lines of the last-good file. Their words are part of the format: add, never rename.

use policy::Timestamp;
use serde::{Deserialize, Serialize};

use crate::entity::{Change, Entity};
use crate::frame;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The entity is so since its revision.
    Entity(Entity),
    /// Every entity up to this revision was seen.
    Seen(u64),
    /// The key with this hash is revoked, and the store does not know yet.
    Pending(String, Change),
    /// The store knows of the revocation of this hash.
    Brought(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Text<'a> {
    Entity {
        kind: String,
        name: String,
        revision: u64,
        changed_at_ms: u64,
        /// As a string, so that it comes back byte for byte.
        #[serde(borrow)]
        body: Option<std::borrow::Cow<'a, str>>,
    },
    Seen {
        revision: u64,
    },
    Pending {
        hash: String,
        at_ms: u64,
        actor: String,
        peer: String,
        action: String,
        kind: String,
        name: String,
        before: Option<String>,
        after: Option<String>,
    },
    Brought {
        hash: String,
    },
}

/// Appends the line to `buffer`.
pub(super) fn encode(line: &Line, buffer: &mut Vec<u8>) {
    let text = match line {
        Line::Entity(entity) => Text::Entity {
            kind: entity.kind.clone(),
            name: entity.name.clone(),
            revision: entity.revision,
            changed_at_ms: entity.changed_at.0,
            body: entity.body.as_deref().map(Into::into),
        },
        Line::Seen(revision) => Text::Seen {
            revision: *revision,
        },
        Line::Pending(hash, change) => {
            let change = change.clone();
            Text::Pending {
                hash: hash.clone(),
                at_ms: change.at.0,
                actor: change.actor,
                peer: change.peer,
                action: change.action,
                kind: change.kind,
                name: change.name,
                before: change.before,
                after: change.after,
            }
        }
        Line::Brought(hash) => Text::Brought { hash: hash.clone() },
    };
    frame::append(buffer, |json| {
        serde_json::to_writer(json, &text).expect("texts and numbers only, into a Vec");
    });
}

/// The line's value, or `None` when it is damaged. `line` has no newline.
pub(super) fn decode(line: &[u8]) -> Option<Line> {
    let text = serde_json::from_slice(frame::json(line)?).ok()?;
    Some(match text {
        Text::Entity {
            kind,
            name,
            revision,
            changed_at_ms,
            body,
        } => Line::Entity(Entity {
            kind,
            name,
            revision,
            body: body.map(|body| body.into_owned().into()),
            changed_at: Timestamp(changed_at_ms),
        }),
        Text::Seen { revision } => Line::Seen(revision),
        Text::Pending {
            hash,
            at_ms,
            actor,
            peer,
            action,
            kind,
            name,
            before,
            after,
        } => {
            let change = Change {
                at: Timestamp(at_ms),
                actor,
                peer,
                action,
                kind,
                name,
                before,
                after,
            };
            Line::Pending(hash, change)
        }
        Text::Brought { hash } => Line::Brought(hash),
    })
}
