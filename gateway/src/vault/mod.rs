//! Secrets at rest: sealed before they reach a store or a file.
//!
//! Promise: a secret of an entity made through the API leaves this process
//! only as `sealed:v1:…`, encrypted with the first key of `encryption.keys` and
//! bound to the cell it belongs to, so that a value copied to another entity or
//! field, or altered, does not open. All keys open. Neither a key nor a secret
//! is ever part of a message or of `Debug`.
//!
//! Owner of the keys is `KeyRing`. It does no I/O. What cannot be opened is an
//! error that names the cell and the id of the missing key; nothing is replaced
//! by an empty value.

mod body;
mod ring;
mod sealed;
#[cfg(test)]
mod tests;

pub use body::{BodyError, Cell, Unkept, keep_unchanged, key_ids, mask_body};
pub use ring::{KeyRing, KeyRingError, WorkingKey};
pub use sealed::{OpenError, Place, SealError, is_sealed, key_id};

/// What stands in place of a secret that is shown; on a write: unchanged.
pub const MASK: &str = "***";
