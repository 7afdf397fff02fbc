//! Who may call what.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::scope::Scope;
use crate::time::Timestamp;

/// SHA-256 of a key's value; the value itself is not kept.
#[derive(Clone, Copy)]
pub struct KeyHash(pub [u8; 32]);

/// A set of names: nothing, everything, or a list. Names compare exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Names);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    All,
    /// Sorted: small, as there may be a million of these.
    Only(Arc<[Box<str>]>),
}

/// Why a list of names is not an allow-list; its author has to correct it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowListError {
    /// `"*"` beside other names.
    #[error("\"*\" allows everything and must stand alone")]
    WildcardWithNames,
    /// A name written twice.
    #[error("'{0}' is listed twice")]
    Duplicate(String),
}

/// What a key may use of one provider.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The provider's name; one that the snapshot lacks gives nothing.
    pub provider: Arc<str>,
    /// Its models by their client-side names.
    pub models: AllowList,
    /// Share of the requests among the key's providers.
    pub weight: u32,
    /// Limits of this provider as used by this key; their entity is
    /// `key/provider`.
    pub scope: Option<Arc<Scope>>,
}

/// A client credential that we issue. Names its team, customer and providers,
/// so that it outlives a change of everything else.
#[derive(Clone, Debug)]
pub struct VirtualKey {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// How a presented value is recognised.
    pub hash: KeyHash,
    /// Earlier values, each accepted until its time.
    pub retiring: Vec<(KeyHash, Timestamp)>,
    /// Its team.
    pub team: Option<Arc<str>>,
    /// Its own customer; without one, its team's counts
    /// (`Snapshot::customer_of`).
    pub customer: Option<Arc<str>>,
    /// What it may use; empty = nothing.
    pub grants: Vec<Grant>,
    /// Its limits.
    pub scope: Option<Arc<Scope>>,
    /// Switched off keys are recognised and refused.
    pub active: bool,
    /// Refused before this instant.
    pub not_before: Option<Timestamp>,
    /// Refused from this instant on.
    pub expires_at: Option<Timestamp>,
}

// === impl KeyHash ===

impl KeyHash {
    /// The hash of a key's value.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        Self(Sha256::digest(value).into())
    }
}

/// Takes the same time for every pair, so that nothing is learnt from it.
impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyHash {}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

// === impl AllowList ===

impl AllowList {
    /// Allows everything.
    #[must_use]
    pub fn all() -> Self {
        Self(Names::All)
    }

    /// `[]` allows nothing, `["*"]` everything, anything else these names.
    ///
    /// # Errors
    /// `"*"` beside names, or a name written twice.
    pub fn from_names(names: Vec<String>) -> Result<Self, AllowListError> {
        let mut only: Vec<Box<str>> = names.into_iter().map(String::into_boxed_str).collect();
        only.sort_unstable();
        if let Some(twice) = only.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(AllowListError::Duplicate(twice[0].to_string()));
        }
        let wildcard = only.iter().any(|name| &**name == "*");
        match (wildcard, only.len()) {
            (true, 1) => Ok(Self::all()),
            (true, _) => Err(AllowListError::WildcardWithNames),
            (false, _) => Ok(Self(Names::Only(only.into()))),
        }
    }

    /// Whether `name` is in the set.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        match &self.0 {
            Names::All => true,
            Names::Only(names) => names.binary_search_by(|known| (**known).cmp(name)).is_ok(),
        }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::Only(Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allow_lists() {
        check(&[], "gpt", Ok(false));
        check(&["*"], "gpt", Ok(true));
        check(&["gpt"], "gpt", Ok(true));
        check(&["gpt"], "GPT", Ok(false));
        check(&["gpt"], "gpt-4", Ok(false));
        check(&["gpt", "*"], "gpt", Err(AllowListError::WildcardWithNames));
        check(
            &["*", "*"],
            "gpt",
            Err(AllowListError::Duplicate("*".into())),
        );
        check(
            &["a", "b", "a"],
            "a",
            Err(AllowListError::Duplicate("a".into())),
        );
    }

    #[track_caller]
    fn check(names: &[&str], name: &str, expected: Result<bool, AllowListError>) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let allowed = AllowList::from_names(names).map(|list| list.allows(name));
        assert_eq!(allowed, expected);
    }

    #[test]
    fn hash_is_sha256() {
        let hash = KeyHash::of(b"abc");
        assert_eq!(hash.0[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert!(hash == KeyHash::of(b"abc"));
        assert!(hash != KeyHash::of(b"abd"));
        assert_eq!(format!("{hash:?}"), "KeyHash(ba78…)");
    }
}
