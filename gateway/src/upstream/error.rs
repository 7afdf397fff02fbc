//! What can go wrong between this node and a provider, before the head of an
//! answer is there.
//!
//! Promise: the cause is kept, so a log line names it; the variant alone tells
//! a caller whether another attempt makes sense.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use hyper_util::client::legacy;
use thiserror::Error;

/// Why a provider cannot be used as configured.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// `base_url` is not something requests can be sent to.
    #[error("base_url '{url}': {reason}")]
    BaseUrl {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The extra certificate authorities cannot be read.
    #[error("ca: {0}")]
    Ca(String),
    /// The TLS library refused the settings.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a request got no answer. Only for `Connect`, `ConnectTimeout` and
/// `EgressDenied` is it sure that the provider has not seen the request.
#[derive(Debug, Error)]
pub enum SendError {
    /// No connection: the name, the address, TCP or TLS failed.
    #[error("connecting failed: {}", Causes(.0))]
    Connect(#[source] legacy::Error),
    /// No connection within the connect timeout, TLS included.
    #[error("connecting took longer than the connect timeout")]
    ConnectTimeout,
    /// The name leads to an address that this provider may not be at.
    #[error(
        "the address {address} is not a public one; `allow_private_addresses` permits private networks"
    )]
    EgressDenied {
        /// The address that was refused.
        address: IpAddr,
    },
    /// The connection ended before the head of an answer.
    #[error("the connection ended before an answer: {}", Causes(.0))]
    Closed(#[source] legacy::Error),
    /// The provider's answer is not HTTP.
    #[error("the answer is not valid HTTP: {}", Causes(.0))]
    Protocol(#[source] legacy::Error),
}

impl SendError {
    /// Whether another attempt at the same provider can end differently: not
    /// when its address was refused. After `Closed` and `Protocol` the provider
    /// may have worked on the first one; whether that matters is the caller's
    /// to judge.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, SendError::EgressDenied { .. })
    }

    /// A short constant for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            SendError::Connect(_) => "connect",
            SendError::ConnectTimeout => "connect_timeout",
            SendError::EgressDenied { .. } => "egress_denied",
            SendError::Closed(_) => "closed",
            SendError::Protocol(_) => "protocol",
        }
    }
}

impl From<legacy::Error> for SendError {
    fn from(error: legacy::Error) -> Self {
        match find::<ConnectProblem>(&error) {
            Some(ConnectProblem::TimedOut { .. }) => return SendError::ConnectTimeout,
            Some(ConnectProblem::Denied { address }) => {
                return SendError::EgressDenied { address: *address };
            }
            _ => {}
        }
        if error.is_connect() {
            return SendError::Connect(error);
        }
        match find::<hyper::Error>(&error) {
            Some(cause) if cause.is_parse() => SendError::Protocol(error),
            _ => SendError::Closed(error),
        }
    }
}

/// Why no TCP connection came about.
#[derive(Debug, Error)]
pub(super) enum ConnectProblem {
    #[error("the URL names no host")]
    NoHost,
    #[error("'{host}' cannot be resolved: {source}")]
    Unresolved { host: String, source: io::Error },
    #[error("'{host}' has no address")]
    NoAddress { host: String },
    #[error("{address} is not allowed")]
    Denied { address: IpAddr },
    #[error("{address}: {source}")]
    Dial { address: IpAddr, source: io::Error },
    #[error("no connection within {} ms", after.as_millis())]
    TimedOut { after: Duration },
}

/// The first cause of type `T` in the chain.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), cause_of)
}

fn cause_of<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let error: &'a (dyn Error + 'static) = *error;
    // An `io::Error` around another error names that one's source as its own
    // and so hides the wrapped error itself: step into it.
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// Every cause on one line; the libraries' own texts name only the outermost.
struct Causes<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        for cause in causes(self.0).skip(1) {
            let text = cause.to_string();
            if text != last {
                write!(f, ": {text}")?;
                last = text;
            }
        }
        Ok(())
    }
}
