//! TLS on both sides of the gateway: an authority of the test, a client that
//! trusts it, and a provider with a certificate of it.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::Version;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::client::{Answer, Ask};
use super::h2c;
use super::upstream::chat_completion;

/// A certificate authority that nobody else knows.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate for these names or addresses.
    pub fn issue(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_string()).collect();
        self.sign(&CertificateParams::new(names).expect("names"))
    }

    /// A certificate that names a node of a cluster.
    pub fn issue_node(&self, cluster: &str, node: &str) -> Identity {
        let name = format!("spiffe://{cluster}/node/{node}");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(name.try_into().expect("plain letters"))];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.0).expect("a certificate");
        Identity {
            certificate: leaf.pem(),
            key: key.serialize_pem(),
        }
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(self.0.der().clone())
            .expect("an authority's certificate");
        roots
    }
}

impl Identity {
    /// Writes `tls.crt` and `tls.key`, each at once.
    pub fn write(&self, folder: &Path) {
        for (name, text) in [("tls.crt", &self.certificate), ("tls.key", &self.key)] {
            let new = folder.join("new.pem");
            fs::write(&new, text).expect("the file is written");
            fs::rename(&new, folder.join(name)).expect("the file is replaced");
        }
    }

    /// The certificate as it goes over the wire.
    pub fn der(&self) -> Vec<u8> {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        der.expect("a certificate").to_vec()
    }

    fn server_config(&self, protocols: &[&str]) -> rustls::ServerConfig {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key");
        let mut config = rustls::ServerConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(self.der())], key)
            .expect("certificate and key belong together");
        config.alpn_protocols = wire_names(protocols);
        config
    }
}

fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn wire_names(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// One verified client connection.
pub struct Session {
    runtime: Runtime,
    sender: Sender,
    name: String,
    /// What ALPN agreed on.
    pub protocol: Option<String>,
    /// What the server showed.
    pub certificate: Vec<u8>,
}

impl Session {
    /// Connects as a client that looks for `name` and offers `protocols`.
    pub fn open(
        address: SocketAddr,
        name: &str,
        authority: &Authority,
        protocols: &[&str],
    ) -> io::Result<Self> {
        let mut config = rustls::ClientConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        config.alpn_protocols = wire_names(protocols);
        let server = ServerName::try_from(name.to_string()).expect("a name");
        let runtime = runtime();
        let (sender, protocol, certificate) = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await?;
            let connector = TlsConnector::from(Arc::new(config));
            let stream = connector.connect(server, stream).await?;
            let state = stream.get_ref().1;
            let protocol = state.alpn_protocol();
            let protocol = protocol.map(|name| String::from_utf8_lossy(name).into_owned());
            let shown = state.peer_certificates().expect("it was verified")[0].to_vec();
            let sender = speak(stream, protocol.as_deref()).await;
            io::Result::Ok((sender, protocol, shown))
        })?;
        Ok(Self {
            runtime,
            sender,
            name: name.to_string(),
            protocol,
            certificate,
        })
    }

    /// One exchange on this connection.
    #[track_caller]
    pub fn ask(&mut self, ask: Ask) -> Answer {
        let (sender, name) = (&mut self.sender, &self.name);
        self.runtime.block_on(async {
            let response = match sender {
                Sender::One(sender) => {
                    let request = h2c::request("", ask.header("host", name));
                    sender.send_request(request).await
                }
                Sender::Two(sender) => {
                    let request = h2c::request(&format!("https://{name}"), ask);
                    sender.send_request(request).await
                }
            };
            h2c::answer(response.expect("an answer")).await
        })
    }
}

type Stream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

async fn speak(stream: Stream, protocol: Option<&str>) -> Sender {
    if protocol == Some("h2") {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("an HTTP/2 handshake");
        tokio::spawn(connection);
        return Sender::Two(sender);
    }
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .expect("an HTTP/1.1 connection");
    tokio::spawn(connection);
    Sender::One(sender)
}

/// One request as the provider saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub version: Version,
    pub path: String,
    pub authorization: Option<String>,
}

#[derive(Default)]
struct Book {
    seen: Vec<Seen>,
    /// Connections whose handshake failed.
    refused: usize,
}

/// A provider behind TLS that answers chat requests; lasts as long as the test.
pub struct TlsProvider {
    pub address: SocketAddr,
    book: Arc<Mutex<Book>>,
}

impl TlsProvider {
    /// Listens with this certificate and offers `protocols` by ALPN.
    pub fn start(identity: &Identity, protocols: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        listener.set_nonblocking(true).expect("a socket for tokio");
        let acceptor = TlsAcceptor::from(Arc::new(identity.server_config(protocols)));
        let book = Arc::new(Mutex::new(Book::default()));
        let shared = Arc::clone(&book);
        std::thread::spawn(move || runtime().block_on(accept(listener, acceptor, shared)));
        Self { address, book }
    }

    /// Everything it was sent, in order.
    pub fn seen(&self) -> Vec<Seen> {
        locked(&self.book).seen.clone()
    }

    /// How many clients broke the handshake off.
    pub fn refused(&self) -> usize {
        locked(&self.book).refused
    }
}

fn locked(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, book: Arc<Mutex<Book>>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, book) = (acceptor.clone(), Arc::clone(&book));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                locked(&book).refused += 1;
                return;
            };
            let service = service_fn(|request| serve(request, Arc::clone(&book)));
            let server = auto::Builder::new(TokioExecutor::new());
            server
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

async fn serve(
    request: http::Request<hyper::body::Incoming>,
    book: Arc<Mutex<Book>>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let authorization = request.headers().get("authorization");
    let seen = Seen {
        version: request.version(),
        path: request.uri().path().to_string(),
        authorization: authorization
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
    };
    locked(&book).seen.push(seen);
    request.into_body().collect().await.ok();
    let body = chat_completion("pong", 10, 5).to_string();
    let response = http::Response::builder().header("content-type", "application/json");
    Ok(response
        .body(Full::new(Bytes::from(body)))
        .expect("a well-formed answer"))
}
