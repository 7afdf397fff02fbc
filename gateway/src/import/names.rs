//! Names of ours for what a source calls by an id or in any script.

use std::collections::BTreeSet;

use super::source::{At, Notes};

/// Names of one kind that are given already.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

/// Which characters a name may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// Printable ASCII, spaces inside.
    Any,
    /// Letters, digits, `.`, `_`, `-`.
    Provider,
}

impl Names {
    /// `wanted`, changed where it would not do or is taken; a change is noted.
    pub(super) fn take(
        &mut self,
        notes: &mut Notes,
        at: &At,
        wanted: &str,
        alphabet: Alphabet,
    ) -> String {
        let (fits, most): (fn(char) -> bool, usize) = match alphabet {
            Alphabet::Any => (|c| c.is_ascii_graphic() || c == ' ', 120),
            Alphabet::Provider => (|c| c.is_ascii_alphanumeric() || "._-".contains(c), 56),
        };
        let word = |c: char| if fits(c) { c } else { '_' };
        let stem: String = wanted.trim().chars().map(word).take(most).collect();
        let stem = match stem.trim_end() {
            "" => "unnamed",
            stem => stem,
        };
        let stem = match alphabet == Alphabet::Provider
            && !stem.starts_with(|c: char| c.is_ascii_alphanumeric())
        {
            true => format!("p{stem}"),
            false => stem.to_owned(),
        };
        let mut name = stem.clone();
        let mut number = 1;
        while !self.0.insert(name.clone()) {
            number += 1;
            name = format!("{stem}-{number}");
        }
        if name != wanted {
            notes.at(at, format!("is called `{name}` here"));
        }
        name
    }
}

/// Whether a model can have that name here.
pub(super) fn is_model(name: &str) -> bool {
    (1..=200).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_graphic())
        && !name.contains('*')
}
