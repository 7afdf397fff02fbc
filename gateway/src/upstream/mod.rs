//! The one client through which requests reach providers.
//!
//! Promise: a request goes to the provider's own `base_url` and nowhere else:
//! the address is judged after resolution, redirects are not followed, proxies
//! of the environment are ignored, certificates are always verified. An answer
//! that arrives while the request is still being sent gets through. Failures
//! before the head of an answer are `SendError`s.

mod connector;
mod egress;
mod error;
mod lanes;
mod pool;
mod secret;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri, Version};
use http_body_util::Full;

pub use egress::EgressRule;
pub use error::{SendError, UpstreamError};
pub use lanes::AnswerBody;
pub use pool::ClientPool;
pub use secret::Secret;

/// Everything about reaching one provider, resolved from the configuration.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// The provider's name, for logs and metrics.
    pub name: Arc<str>,
    /// The wire it speaks.
    pub dialect: policy::Dialect,
    /// Where it is: scheme, host and the path that all endpoints stand below.
    pub base_url: Uri,
    /// Whether it may be on a private or local network.
    pub allow_private_addresses: bool,
    /// Its keys; the index is that of the credential in `policy::Provider`.
    pub credentials: Vec<Secret>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// How often and how fast to try again.
    pub retries: Retries,
    /// Whether usage is asked for in streams that did not ask themselves.
    pub usage_in_stream: bool,
    /// Whether the client's own credential is passed on.
    pub pass_client_credential: bool,
    /// Further certificate authorities, PEM.
    pub ca_pem: Option<Arc<[u8]>>,
    /// Which HTTP to speak.
    pub http2: Http2,
}

/// How long one attempt may take; applied by the caller, except `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name, TCP and TLS together.
    pub connect: Duration,
    /// From the request's start to the head of the answer.
    pub first_byte: Duration,
    /// Longest silence between two parts of an answer.
    pub idle: Duration,
    /// The whole attempt.
    pub total: Duration,
}

/// Extra attempts within one choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Attempts after the first.
    pub max: u32,
    /// First pause.
    pub backoff_min: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
}

/// Which HTTP a provider is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Http2 {
    /// What TLS negotiates; HTTP/1.1 without TLS.
    Auto,
    /// HTTP/2 without asking.
    PriorKnowledge,
    /// HTTP/1.1 only.
    Never,
}

/// One provider, ready to be sent to. Made by `ClientPool::upstream`.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// As resolved.
    pub config: UpstreamConfig,
    key: pool::ClientKey,
    client: pool::Client,
}

impl Upstream {
    fn new(config: UpstreamConfig, key: pool::ClientKey, client: pool::Client) -> Self {
        Upstream {
            config,
            key,
            client,
        }
    }

    fn key(&self) -> &pool::ClientKey {
        &self.key
    }

    /// Sends one request whose URI came from `uri` and returns the answer's
    /// head; the body follows as it arrives. Dropping the future, or the body
    /// before its end, cancels the request at the provider. Only the connect
    /// timeout applies here; the others are the caller's.
    ///
    /// An HTTP/1 connection goes back to the pool when the body was read to
    /// its end. The connection's task runs on the current runtime.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<AnswerBody>, SendError> {
        // The connection decides the version; a request that was received as
        // HTTP/2 may leave as HTTP/1.1.
        *request.version_mut() = Version::HTTP_11;
        let (client, seat) = self.client.take();
        let response = client.request(request).await?;
        Ok(response.map(|body| AnswerBody::new(body, seat)))
    }

    /// `path` (with its leading slash) below the base URL. A query that no URI
    /// can carry is left out.
    pub fn uri(&self, path: &str, query: Option<&str>) -> Uri {
        let base = self.config.base_url.path().trim_end_matches('/');
        let target = match query {
            Some(query) => format!("{base}{path}?{query}"),
            None => format!("{base}{path}"),
        };
        let target = PathAndQuery::try_from(target)
            .or_else(|_| PathAndQuery::try_from(format!("{base}{path}")))
            .unwrap_or_else(|_| PathAndQuery::from_static("/"));
        let mut parts = self.config.base_url.clone().into_parts();
        parts.path_and_query = Some(target);
        Uri::from_parts(parts).unwrap_or_else(|_| self.config.base_url.clone())
    }
}
