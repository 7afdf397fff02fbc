//! Where the keys of an issuer come from, and how they stay fresh.
//!
//! Promise: a request reads the last good set and waits for nothing; a fetch
//! that fails changes nothing. Owner: one [`Jwks`] per configured source, kept
//! across reloads; only [`freshen`], on a thread beside the data plane,
//! replaces its set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use policy::Timestamp;

use super::key_set::{KeySet, KeySetError};
use crate::upstream::{ClientPool, SendError, Timeouts, Upstream, UpstreamError};

/// Age at which a set is fetched again.
const EVERY: Duration = Duration::from_secs(300);
/// Least time between two fetches, whatever tokens ask for.
const PAUSE: Duration = Duration::from_secs(10);
/// Longest fetch, and its parts.
const FETCH_TIME: Duration = Duration::from_secs(10);
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Largest set in bytes.
const SET_MAX: usize = 1024 * 1024;

/// Why a fetch brought no set; the last good one stays.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The request could not be sent or was not answered.
    #[error("no answer")]
    Send(#[source] SendError),
    /// The answer took too long.
    #[error("no whole answer within {FETCH_TIME:?}")]
    TimedOut,
    /// The answer is no success.
    #[error("it answered {0}")]
    Status(u16),
    /// The answer broke off or is too large.
    #[error("the answer broke off or is larger than {SET_MAX} bytes")]
    Body,
    /// The answer is no set of keys.
    #[error("the answer is no set of keys")]
    Set(#[source] KeySetError),
}

/// The public keys of one issuer.
#[derive(Debug)]
pub struct Jwks {
    source: Source,
    set: ArcSwapOption<KeySet>,
    /// A token named a key that the set does not have.
    wanted: AtomicBool,
    /// When the last fetch began, in Unix milliseconds; 0 = never.
    tried_at: AtomicU64,
}

#[derive(Debug)]
enum Source {
    /// Told by the configuration, which is read again when it changes.
    Text,
    Web {
        upstream: Box<Upstream>,
        uri: Uri,
        allow_private: bool,
    },
}

impl Jwks {
    /// Keys that are known already, as a file holds them.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn of_text(text: &str) -> Result<Self, KeySetError> {
        let set = KeySet::parse(text.as_bytes())?;
        Ok(Jwks {
            source: Source::Text,
            set: ArcSwapOption::from_pointee(set),
            wanted: AtomicBool::new(false),
            tried_at: AtomicU64::new(0),
        })
    }

    /// Keys behind an `http` or `https` address, reached under the same rule
    /// as providers are. Nothing is fetched yet.
    ///
    /// # Errors
    /// Why the address cannot be used.
    pub fn of_address(
        uri: &Uri,
        allow_private: bool,
        clients: &ClientPool,
    ) -> Result<Self, UpstreamError> {
        let timeouts = Timeouts {
            connect: CONNECT_TIME,
            first_byte: FETCH_TIME,
            idle: FETCH_TIME,
            total: FETCH_TIME,
        };
        let upstream = clients.documents("jwks", uri, allow_private, timeouts)?;
        Ok(Jwks {
            source: Source::Web {
                upstream: Box::new(upstream),
                uri: uri.clone(),
                allow_private,
            },
            set: ArcSwapOption::empty(),
            wanted: AtomicBool::new(false),
            tried_at: AtomicU64::new(0),
        })
    }

    /// Whether these are the keys behind that address, so that a reload may
    /// keep them.
    pub fn is_of_address(&self, address: &Uri, private: bool) -> bool {
        match &self.source {
            Source::Text => false,
            Source::Web {
                uri, allow_private, ..
            } => uri == address && *allow_private == private,
        }
    }

    /// The last good set; `None` before the first one came.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.set.load_full()
    }

    /// Says that a token named an unknown key.
    pub(super) fn ask(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether a fetch should begin.
    fn is_due(&self, now: Timestamp) -> bool {
        if matches!(self.source, Source::Text) {
            return false;
        }
        let tried_at = Timestamp(self.tried_at.load(Ordering::Relaxed));
        let waited = now.since(tried_at);
        let soon = self.wanted.load(Ordering::Relaxed) || self.set.load().is_none();
        tried_at.0 == 0 || waited >= EVERY || (soon && waited >= PAUSE)
    }

    /// Fetches the set once; the last good one stays when that fails.
    ///
    /// # Errors
    /// Why nothing came.
    pub async fn refresh(&self, now: Timestamp) -> Result<(), FetchError> {
        let Source::Web { upstream, uri, .. } = &self.source else {
            return Ok(());
        };
        self.tried_at.store(now.0.max(1), Ordering::Relaxed);
        self.wanted.store(false, Ordering::Relaxed);
        let fetched = tokio::time::timeout(FETCH_TIME, fetch(upstream, uri)).await;
        let set = fetched.map_err(|_| FetchError::TimedOut)??;
        self.set.store(Some(Arc::new(set)));
        Ok(())
    }
}

async fn fetch(upstream: &Upstream, uri: &Uri) -> Result<KeySet, FetchError> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = uri.clone();
    let json = header::HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::ACCEPT, json);
    let response = upstream.send(request).await.map_err(FetchError::Send)?;
    let status = response.status();
    if !status.is_success() {
        return Err(FetchError::Status(status.as_u16()));
    }
    let body = Limited::new(response.into_body(), SET_MAX).collect().await;
    let body = body.map_err(|_| FetchError::Body)?.to_bytes();
    KeySet::parse(&body).map_err(FetchError::Set)
}

/// Fetches the set if that is due.
pub(super) async fn freshen(keys: &Jwks, now: Timestamp) {
    if !keys.is_due(now) {
        return;
    }
    match keys.refresh(now).await {
        Ok(()) => tracing::debug!("the keys that verify user tokens are fresh"),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let kept = keys.current().is_some();
            tracing::warn!(%error, cause, kept, "the keys that verify user tokens were not fetched");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_is_due_by_age_and_on_demand_with_a_pause() {
        let uri = Uri::from_static("https://issuer.example/keys?p=a");
        let keys = Jwks::of_address(&uri, false, &ClientPool::new()).unwrap();
        let at = |seconds: u64| Timestamp(1_000_000 + seconds * 1_000);
        assert!(keys.is_due(at(0)), "never tried");
        keys.tried_at.store(at(0).0, Ordering::Relaxed);
        assert!(!keys.is_due(at(9)), "tried just now");
        assert!(keys.is_due(at(10)), "still without a set");
        let set = KeySet::parse(super::super::tests::ED_SET.as_bytes()).unwrap();
        keys.set.store(Some(Arc::new(set)));
        assert!(!keys.is_due(at(299)));
        assert!(keys.is_due(at(300)), "old");
        keys.ask();
        assert!(!keys.is_due(at(9)), "asked for too soon");
        assert!(keys.is_due(at(10)), "asked for");
        assert!(keys.is_of_address(&uri, false));
        assert!(!keys.is_of_address(&uri, true));
    }

    #[test]
    fn only_web_addresses_are_taken() {
        for address in ["ftp://issuer.example/keys", "/keys"] {
            let uri: Uri = address.parse().unwrap();
            assert!(
                Jwks::of_address(&uri, false, &ClientPool::new()).is_err(),
                "{address}"
            );
        }
    }
}
