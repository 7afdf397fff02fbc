//! A provider's credential in memory.
//!
//! Promise: the text never reaches a log, a page or a file by accident: there
//! is no `Display` and no serialisation, `Debug` shows stars, and the memory is
//! wiped when the last owner goes.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A text that only `expose` shows. Clones share one copy.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Takes the text over; the caller keeps no copy.
    pub fn new(text: String) -> Self {
        Secret(Arc::new(Zeroizing::new(text)))
    }

    /// The text itself, for the one header that carries it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_shows_nothing_of_the_text() {
        let secret = Secret::new("sk-very-secret".to_owned());
        assert_eq!(format!("{secret:?} {secret:#?}"), "*** ***");
        assert_eq!(secret.clone().expose(), "sk-very-secret");
    }
}
