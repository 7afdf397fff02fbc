//! Which user stands behind a request, beside its virtual key.
//!
//! Promise: a user is believed only from a trusted address or a verified
//! token. A header from anywhere else means nothing, and a token that is
//! there and wrong refuses the request: it is never served as nobody's.
//! State: the issuer's keys (`jwks`). Failure: a [`UserProblem`].

mod crypto;
mod jwks;
mod key_set;
#[cfg(test)]
mod tests;
mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;
use policy::{Clock, CounterTable, Snapshot, Timestamp};
use tokio::time::MissedTickBehavior;

use crate::state::Live;

pub use jwks::{FetchError, Jwks};
pub use key_set::{KeySet, KeySetError};
pub use token::{TokenProblem, TokenRule};

/// The header that names a user unless the configuration says otherwise.
pub const DEFAULT_HEADER: &str = "x-tyr-user";

/// Longest name of a user in characters.
pub const NAME_MAX: usize = 128;

/// How users are told apart, from `governance.users`.
#[derive(Clone, Debug)]
pub struct UserRule {
    header: HeaderName,
    trusted_from: Vec<IpNet>,
    token: Option<TokenRule>,
    required: bool,
}

/// Why a text is no name of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// Absent, or another type.
    #[error("the claim is absent or no text")]
    NoText,
    /// Nothing but space.
    #[error("the name is empty")]
    Empty,
    /// More than [`NAME_MAX`] characters.
    #[error("the name is longer than {NAME_MAX} characters")]
    TooLong,
    /// Control characters, or no UTF-8.
    #[error("the name has characters that cannot be printed")]
    Unprintable,
}

/// Why the user of a request is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserProblem {
    /// Every request must have a user, and this one has none.
    #[error("no user: this gateway serves requests of verified users only")]
    Missing,
    /// The header of a trusted sender is no name.
    #[error("the header that names the user is wrong: {0}")]
    BadHeader(NameProblem),
    /// A trusted sender named two users, or a request carries two tokens.
    #[error("two different users or user tokens were sent; send one")]
    Ambiguous,
    /// The token is not accepted.
    #[error(transparent)]
    Token(#[from] TokenProblem),
}

impl Default for UserRule {
    /// Nobody is trusted, so no request has a user.
    fn default() -> Self {
        UserRule {
            header: HeaderName::from_static(DEFAULT_HEADER),
            trusted_from: Vec::new(),
            token: None,
            required: false,
        }
    }
}

impl UserRule {
    /// `header` names users when the connection comes from `trusted_from`; a
    /// token of `token` wins over it; with `required` a request without a user
    /// is refused.
    pub fn new(
        header: HeaderName,
        trusted_from: Vec<IpNet>,
        token: Option<TokenRule>,
        required: bool,
    ) -> Self {
        crypto::install();
        UserRule {
            header,
            trusted_from,
            token,
            required,
        }
    }

    /// The keys that have to be kept fresh.
    pub fn keys(&self) -> Option<Arc<Jwks>> {
        self.token.as_ref().map(|token| Arc::clone(&token.keys))
    }

    /// Whether a header is for the gateway alone and must not reach a provider.
    pub fn is_private(&self, name: &HeaderName) -> bool {
        let token = self.token.as_ref().map(|token| &token.header);
        *name == self.header || token == Some(name)
    }

    /// The user of a request that came over a connection from `peer`;
    /// `own_key`: its virtual key came in `x-tyr-key`.
    ///
    /// # Errors
    /// Why the request must not be served.
    pub fn identify(
        &self,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        own_key: bool,
        now: Timestamp,
    ) -> Result<Option<Arc<str>>, UserProblem> {
        let user = match self.of_token(headers, own_key, now)? {
            Some(user) => Some(user),
            None if self.trusts(peer) => self.of_header(headers)?,
            None => None,
        };
        match user {
            None if self.required => Err(UserProblem::Missing),
            user => Ok(user),
        }
    }

    fn of_token(
        &self,
        headers: &HeaderMap,
        own_key: bool,
        now: Timestamp,
    ) -> Result<Option<Arc<str>>, UserProblem> {
        let Some(rule) = &self.token else {
            return Ok(None);
        };
        // Without a key of its own the header holds the virtual key.
        if rule.header == header::AUTHORIZATION && !own_key {
            return Ok(None);
        }
        match one(headers, &rule.header, token_of)? {
            Some(token) => Ok(Some(rule.user(token, now)?)),
            None => Ok(None),
        }
    }

    fn of_header(&self, headers: &HeaderMap) -> Result<Option<Arc<str>>, UserProblem> {
        match one(headers, &self.header, |value| value.as_bytes())? {
            Some(value) => name(value).map(Some).map_err(UserProblem::BadHeader),
            None => Ok(None),
        }
    }

    fn trusts(&self, peer: Option<IpAddr>) -> bool {
        // A socket that takes both families shows IPv4 as mapped IPv6.
        let peer = peer.map(|peer| peer.to_canonical());
        peer.is_some_and(|peer| self.trusted_from.iter().any(|net| net.contains(&peer)))
    }
}

/// How often it is looked whether keys are due, and how many looks pass until
/// users that are gone are forgotten.
const LOOK: Duration = Duration::from_secs(1);
const LOOKS_TO_SWEEP: u32 = 60;

/// Keeps the issuer's keys fresh and forgets users that have nothing to count
/// any more, with their counters, for ever; dropped to stop it. Not for a
/// thread that serves requests.
pub async fn tend(live: Arc<ArcSwap<Live>>, counters: Arc<CounterTable>, clock: Arc<dyn Clock>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0;
    loop {
        look.tick().await;
        // Not held across a fetch: a reload may go on meanwhile.
        let now = clock.now();
        let (keys, policy) = {
            let live = live.load();
            (live.users.keys(), live.policy.clone())
        };
        looks += 1;
        if looks == LOOKS_TO_SWEEP {
            looks = 0;
            forget(&policy, &counters, now);
        }
        drop(policy);
        if let Some(keys) = keys {
            jwks::freshen(&keys, now).await;
        }
    }
}

/// Users come and go by names that clients send: what is left of those that
/// are gone would otherwise grow until the next reload.
fn forget(policy: &Snapshot, counters: &CounterTable, now: Timestamp) {
    if let Some(users) = policy.users() {
        users.sweep(now);
        counters.drop_idle(now);
    }
}

/// The name of a user as a request could come with it.
///
/// # Errors
/// Why it is none.
pub fn possible(text: &str) -> Result<Arc<str>, NameProblem> {
    name(text.as_bytes())
}

/// The one value of a header; empty ones count as absent.
fn one<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    read: fn(&'a HeaderValue) -> &'a [u8],
) -> Result<Option<&'a [u8]>, UserProblem> {
    let values = headers.get_all(name).iter();
    let mut values = values
        .map(|value| read(value).trim_ascii())
        .filter(|value| !value.is_empty());
    let first = values.next();
    match values.all(|value| Some(value) == first) {
        true => Ok(first),
        false => Err(UserProblem::Ambiguous),
    }
}

/// A token with or without its scheme (RFC 6750, section 2.1). Another scheme
/// carries no token.
fn token_of(value: &HeaderValue) -> &[u8] {
    let bytes = value.as_bytes().trim_ascii();
    match bytes.iter().position(|byte| *byte == b' ') {
        None => bytes,
        Some(end) if bytes[..end].eq_ignore_ascii_case(b"bearer") => &bytes[end..],
        Some(_) => &[],
    }
}

/// The name of a user, judged.
fn name(value: &[u8]) -> Result<Arc<str>, NameProblem> {
    let text = std::str::from_utf8(value).map_err(|_| NameProblem::Unprintable)?;
    let text = text.trim();
    if text.is_empty() {
        return Err(NameProblem::Empty);
    }
    if text.chars().any(char::is_control) {
        return Err(NameProblem::Unprintable);
    }
    if text.chars().count() > NAME_MAX {
        return Err(NameProblem::TooLong);
    }
    Ok(text.into())
}
