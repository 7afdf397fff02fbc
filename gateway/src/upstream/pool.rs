//! The HTTP clients behind all providers, with their warm connections.
//!
//! Promise: two providers, or two revisions of one, that reach the same origin
//! in the same way share one client, so a reload keeps connections warm.
//! Owner: the process has one `ClientPool`; the mutex is taken when a
//! configuration is resolved, never by a request.
//!
//! A connection's task runs on the runtime whose request opened it. Runtimes
//! may share the pool: a request on one runtime may use a connection driven by
//! another for as long as that other one lives. The proxy's runtimes live as
//! long as the process serves; after that a lost connection ends as
//! `SendError::Closed`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use policy::Dialect;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::connector::{Bounded, TcpConnector};
use super::egress::EgressRule;
use super::error::UpstreamError;
use super::lanes::Lanes;
use super::{Http2, Retries, Timeouts, Upstream, UpstreamConfig};

/// Providers and their load balancers commonly close idle connections at 60 s;
/// ending ours earlier avoids sending into a closing one.
const IDLE: Duration = Duration::from_secs(55);
/// Idle connections kept for one origin.
const MAX_IDLE: usize = 256;
/// Most bytes one HTTP/1 connection buffers; also bounds an answer's head.
const HTTP1_BUFFER: usize = 64 * 1024;
/// Most unread bytes of one HTTP/2 answer.
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
/// Most unread bytes of one HTTP/2 connection: room for every stream of it, so
/// that clients that do not read cannot hold up the others' answers.
const HTTP2_CONNECTION_WINDOW: u32 = 128 * HTTP2_STREAM_WINDOW;
const HTTP2_SEND_BUFFER: usize = 256 * 1024;
const HTTP2_MAX_HEAD: u32 = 64 * 1024;
/// A silent HTTP/2 connection is pinged this often and given this long to answer.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(20);
const HTTP2_PING_ANSWER: Duration = Duration::from_secs(10);

type HttpClient = legacy::Client<Bounded<HttpsConnector<TcpConnector>>, Full<Bytes>>;
pub(super) type Client = Lanes<HttpClient>;

/// Everything that makes two connections interchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientKey {
    scheme: Scheme,
    authority: Authority,
    ca_pem: Option<Arc<[u8]>>,
    rule: EgressRule,
    connect_timeout: Duration,
    http2: Http2,
}

/// The clients in use, by what they connect to and how.
#[derive(Debug, Default)]
pub struct ClientPool {
    clients: Mutex<HashMap<ClientKey, Client>>,
}

impl ClientPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// A provider's client, new or with the connections of an earlier one.
    /// Opens no connection.
    pub fn upstream(&self, config: UpstreamConfig) -> Result<Upstream, UpstreamError> {
        let key = key(&config)?;
        let mut clients = self.lock();
        let client = match clients.get(&key) {
            Some(client) => client.clone(),
            None => {
                let client = build(&key)?;
                clients.insert(key.clone(), client.clone());
                client
            }
        };
        drop(clients);
        Ok(Upstream::new(config, key, client))
    }

    /// The client behind an `http` or `https` address from which documents are
    /// fetched, reached under the same rule as providers are. Opens no
    /// connection.
    ///
    /// # Errors
    /// Why the address cannot be used.
    pub fn documents(
        &self,
        name: &str,
        uri: &Uri,
        allow_private_addresses: bool,
        timeouts: Timeouts,
    ) -> Result<Upstream, UpstreamError> {
        let mut origin = uri.clone().into_parts();
        origin.path_and_query = Some(PathAndQuery::from_static("/"));
        let base_url = Uri::from_parts(origin).map_err(|_| UpstreamError::BaseUrl {
            url: uri.to_string(),
            reason: "must begin with http:// or https:// and name a host",
        })?;
        self.upstream(UpstreamConfig {
            name: name.into(),
            dialect: Dialect::OpenAi,
            base_url,
            allow_private_addresses,
            credentials: Vec::new(),
            timeouts,
            // Whoever fetches asks again when it is due.
            retries: Retries {
                max: 0,
                backoff_min: Duration::ZERO,
                backoff_max: Duration::ZERO,
            },
            usage_in_stream: false,
            pass_client_credential: false,
            ca_pem: None,
            http2: Http2::Auto,
        })
    }

    /// Lets go of the clients that none of `live` uses. Requests in flight
    /// keep theirs until they end.
    pub fn retain(&self, live: &[Arc<Upstream>]) {
        self.lock()
            .retain(|key, _| live.iter().any(|upstream| upstream.key() == key));
    }

    /// Number of distinct clients held.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no client is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientKey, Client>> {
        // The map is whole after every statement, so a panic elsewhere while
        // the lock was held cannot have left it half changed.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(config: &UpstreamConfig) -> Result<ClientKey, UpstreamError> {
    let (scheme, authority) = origin(&config.base_url)?;
    let rule = match config.allow_private_addresses {
        true => EgressRule::AllowPrivate,
        false => EgressRule::PublicOnly,
    };
    Ok(ClientKey {
        scheme,
        authority,
        ca_pem: config.ca_pem.clone(),
        rule,
        connect_timeout: config.timeouts.connect,
        http2: config.http2,
    })
}

fn origin(base: &Uri) -> Result<(Scheme, Authority), UpstreamError> {
    let refuse = |reason| UpstreamError::BaseUrl {
        url: base.to_string(),
        reason,
    };
    let scheme = match base.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => scheme.clone(),
        _ => return Err(refuse("must begin with http:// or https://")),
    };
    let authority = base.authority().ok_or_else(|| refuse("names no host"))?;
    if authority.as_str().contains('@') {
        let url = format!("{scheme}://…@{}", authority.host());
        let reason = "must not carry a user or password";
        return Err(UpstreamError::BaseUrl { url, reason });
    }
    if authority.host().is_empty() {
        return Err(refuse("names no host"));
    }
    if base.query().is_some() {
        return Err(refuse("must not carry a query"));
    }
    Ok((scheme, authority.clone()))
}

fn build(key: &ClientKey) -> Result<Client, UpstreamError> {
    let tcp = TcpConnector {
        rule: key.rule,
        timeout: key.connect_timeout,
    };
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls(key.ca_pem.as_deref())?)
        .https_or_http();
    let https = match key.http2 {
        Http2::Auto => https.enable_all_versions().wrap_connector(tcp),
        Http2::PriorKnowledge => https.enable_http2().wrap_connector(tcp),
        Http2::Never => https.enable_http1().wrap_connector(tcp),
    };
    let connector = Bounded {
        inner: https,
        timeout: key.connect_timeout,
    };
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .retry_canceled_requests(true)
        .http1_max_buf_size(HTTP1_BUFFER)
        .http2_only(key.http2 == Http2::PriorKnowledge)
        .http2_adaptive_window(false)
        .http2_initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .http2_max_send_buf_size(HTTP2_SEND_BUFFER)
        .http2_max_header_list_size(HTTP2_MAX_HEAD)
        .http2_keep_alive_interval(HTTP2_PING_EVERY)
        .http2_keep_alive_timeout(HTTP2_PING_ANSWER)
        .http2_keep_alive_while_idle(true);
    let many = match key.http2 {
        Http2::Auto => key.scheme == Scheme::HTTPS,
        Http2::PriorKnowledge => true,
        Http2::Never => false,
    };
    Ok(match many {
        true => Lanes::several(|| builder.build(connector.clone())),
        false => Lanes::single(builder.build(connector)),
    })
}

/// Certificates are verified always; an own authority is added to the public
/// ones, and nothing switches verification off.
fn tls(ca_pem: Option<&[u8]>) -> Result<ClientConfig, UpstreamError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(pem) = ca_pem {
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| UpstreamError::Ca(error.to_string()))?;
            roots.add(certificate)?;
            found += 1;
        }
        if found == 0 {
            return Err(UpstreamError::Ca("holds no certificate".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
