//! Where a price list comes from.
//!
//! Promise: an address is reached under the same rule as providers are: it is
//! judged after resolution, redirects are not followed, certificates are
//! verified. What comes is bounded before it is read.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};

use super::list::{ListError, RAW_MAX, name_of};
use crate::upstream::{ClientPool, SendError, Timeouts, Upstream, UpstreamError};

/// Longest fetch, and its first part.
const FETCH_TIME: Duration = Duration::from_secs(60);
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Longest name that a server may give a version of the list, in bytes.
const ETAG_MAX: usize = 256;

/// Why no list came; the last good one stays.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The request could not be sent or was not answered.
    #[error("no answer: {0}")]
    Send(#[source] SendError),
    /// The answer took too long.
    #[error("no whole answer within {FETCH_TIME:?}")]
    TimedOut,
    /// The answer sends elsewhere.
    #[error("it answered {0}, and redirects are not followed")]
    Redirect(u16),
    /// The answer is no success.
    #[error("it answered {0}")]
    Status(u16),
    /// The answer is compressed, which was not asked for.
    #[error("the answer is in an encoding that was not asked for")]
    Encoded,
    /// The answer broke off or is too large.
    #[error("the answer broke off or is larger than 16 MiB")]
    Body,
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    File(#[source] io::Error),
    /// What came is no list of prices.
    #[error(transparent)]
    List(#[from] ListError),
    /// What came was lost on its way through this process.
    #[error("this process could not read it")]
    Lost,
}

/// What a source gave.
#[derive(Debug)]
pub enum Fetched {
    /// The version that was named is still the one.
    Unchanged,
    /// This.
    List {
        /// As it came.
        raw: Vec<u8>,
        /// What the server names this version.
        etag: Option<String>,
    },
}

/// A source and how often it is asked, from `catalogue`.
#[derive(Clone, Debug)]
pub struct PriceSource {
    /// The time between two fetches.
    pub every: Duration,
    name: [u8; 32],
    place: Place,
}

#[derive(Clone)]
enum Place {
    Web { upstream: Box<Upstream>, uri: Uri },
    File(PathBuf),
}

/// What changes when a file does; `None`: it is not there.
pub(super) type Stamp = Option<(SystemTime, u64)>;

// === impl PriceSource ===

impl PriceSource {
    /// A list in a file.
    pub fn of_file(path: &Path, every: Duration) -> Self {
        Self {
            every,
            name: name_of(&path.to_string_lossy()),
            place: Place::File(path.to_owned()),
        }
    }

    /// A list behind an `http` or `https` address. Nothing is fetched yet.
    ///
    /// # Errors
    /// Why the address cannot be used.
    pub fn of_address(
        uri: &Uri,
        allow_private: bool,
        every: Duration,
        clients: &ClientPool,
    ) -> Result<Self, UpstreamError> {
        let timeouts = Timeouts {
            connect: CONNECT_TIME,
            first_byte: FETCH_TIME,
            idle: FETCH_TIME,
            total: FETCH_TIME,
        };
        let upstream = clients.documents("catalogue", uri, allow_private, timeouts)?;
        Ok(Self {
            every,
            name: name_of(&uri.to_string()),
            place: Place::Web {
                upstream: Box::new(upstream),
                uri: uri.clone(),
            },
        })
    }

    /// What lists of this source are known by.
    pub(super) fn name(&self) -> &[u8; 32] {
        &self.name
    }

    /// Whether it is a file of this machine.
    pub fn is_file(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    /// Tells versions of a file apart without reading it; always the same for
    /// an address.
    pub(super) fn stamp(&self) -> Stamp {
        match &self.place {
            Place::Web { .. } => None,
            Place::File(path) => {
                let metadata = fs::metadata(path).ok()?;
                Some((metadata.modified().ok()?, metadata.len()))
            }
        }
    }

    /// The list, unless its version is still `etag`.
    ///
    /// # Errors
    /// Why none came.
    pub async fn fetch(&self, etag: Option<&str>) -> Result<Fetched, FetchError> {
        match &self.place {
            Place::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read(&path)).await;
                let raw = read.map_err(|_| FetchError::Lost)?;
                let raw = raw.map_err(FetchError::File)?;
                Ok(Fetched::List { raw, etag: None })
            }
            Place::Web { upstream, uri } => {
                let fetch = fetch(upstream, uri, etag);
                let fetched = tokio::time::timeout(FETCH_TIME, fetch).await;
                fetched.map_err(|_| FetchError::TimedOut)?
            }
        }
    }

    /// The file's list, for a start that has no other. Blocks.
    ///
    /// # Errors
    /// Why none came; nothing comes from an address.
    pub fn read_file(&self) -> Result<Vec<u8>, FetchError> {
        match &self.place {
            Place::File(path) => read(path).map_err(FetchError::File),
            Place::Web { .. } => Err(FetchError::Lost),
        }
    }
}

/// Without user, password and query of an address.
impl fmt::Display for PriceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Web { uri, .. } => {
                let scheme = uri.scheme_str().unwrap_or_default();
                let host = uri.host().unwrap_or_default();
                match uri.port_u16() {
                    Some(port) => write!(f, "{scheme}://{host}:{port}{}", uri.path()),
                    None => write!(f, "{scheme}://{host}{}", uri.path()),
                }
            }
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Web { .. } => "Web",
            Place::File(_) => "File",
        })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let most = u64::try_from(RAW_MAX).unwrap_or(u64::MAX);
    let mut raw = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut raw)?;
    match raw.len() <= RAW_MAX {
        true => Ok(raw),
        false => Err(io::Error::other("larger than 16 MiB")),
    }
}

async fn fetch(upstream: &Upstream, uri: &Uri, etag: Option<&str>) -> Result<Fetched, FetchError> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("tyr"));
    if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
        headers.insert(header::IF_NONE_MATCH, etag);
    }
    let response = upstream.send(request).await.map_err(FetchError::Send)?;
    let status = response.status();
    if status == StatusCode::NOT_MODIFIED && etag.is_some() {
        return Ok(Fetched::Unchanged);
    }
    if status.is_redirection() {
        return Err(FetchError::Redirect(status.as_u16()));
    }
    if status != StatusCode::OK {
        return Err(FetchError::Status(status.as_u16()));
    }
    if is_encoded(response.headers()) {
        return Err(FetchError::Encoded);
    }
    let etag = etag_of(response.headers());
    let body = Limited::new(response.into_body(), RAW_MAX).collect().await;
    let raw = body.map_err(|_| FetchError::Body)?.to_bytes().to_vec();
    Ok(Fetched::List { raw, etag })
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let encoding = headers.get(header::CONTENT_ENCODING);
    encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn etag_of(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get(header::ETAG)?.to_str().ok()?;
    (etag.len() <= ETAG_MAX).then(|| etag.to_owned())
}
