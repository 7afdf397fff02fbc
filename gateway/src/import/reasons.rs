//! Why a field has no counterpart: by the section it stands in, or by its own
//! name. Each format has its tables and says which of the two goes first.

/// Sections by path, or fields by name, each with the reason.
pub(super) type Reasons = &'static [(&'static str, &'static str)];

/// The reason of a field that neither table knows.
pub(super) const NONE: &str = "has no counterpart";

/// The reason of the section that `path` is or stands in.
pub(super) fn of_section(sections: Reasons, path: &str) -> Option<&'static str> {
    let below = |section: &str| {
        path.strip_prefix(section)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let found = sections.iter().find(|(section, _)| below(section));
    found.map(|(_, why)| *why)
}

/// The reason of the field that `path` ends with.
pub(super) fn of_field(fields: Reasons, path: &str) -> Option<&'static str> {
    let last = path.rsplit('.').next().unwrap_or(path);
    let last = last.split('[').next().unwrap_or(last);
    let found = fields.iter().find(|(field, _)| *field == last);
    found.map(|(_, why)| *why)
}
