//! What the other nodes of a cluster are told.

use std::fmt::Debug;

use cluster::{Change, ConfigurationMark, Entity};

use crate::config::file::SecretText;

/// The other nodes, as the configuration needs them. No call waits.
pub trait Fleet: Send + Sync + Debug {
    /// These were written here and are in the store.
    fn announce(&self, entities: Vec<Entity>);

    /// The key with this hash (hexadecimal) is refused here, and is to be
    /// everywhere.
    fn revoke(&self, hash: &str, change: &Change);

    /// A revocation that a peer told of is in force here.
    fn revocation_applied(&self, hash: &str);

    /// This node serves by everything that was written up to this revision.
    fn applied(&self, revision: u64);

    /// What the file says, for comparison.
    fn set_configuration(&self, mark: ConfigurationMark);

    /// The cluster's secrets as the file has them now: the first seals.
    fn set_secrets(&self, secrets: &[SecretText]);
}
