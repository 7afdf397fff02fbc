use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pingora::http::ResponseHeader;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{Session, http_proxy};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;

/// Answers every request with its method, path and body.
struct Echo {
    served: Arc<AtomicUsize>,
}

#[async_trait]
impl ProxyHttp for Echo {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(
        &self,
        _: &mut Session,
        (): &mut (),
    ) -> pingora_core::Result<Box<HttpPeer>> {
        unreachable!("the filter answers")
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        (): &mut (),
    ) -> pingora_core::Result<bool> {
        self.served.fetch_add(1, Ordering::SeqCst);
        let head = session.req_header();
        let mut text = format!("{} {} ", head.method, head.uri).into_bytes();
        assert!(head.uri.path() != "/panic", "a request that panics");
        while let Some(part) = session.downstream_session.read_request_body().await? {
            text.extend_from_slice(&part);
        }
        let mut head = ResponseHeader::build(200, None)?;
        head.insert_header("content-length", text.len())?;
        session.write_response_header(Box::new(head), false).await?;
        session.write_response_body(Some(text.into()), true).await?;
        Ok(true)
    }
}

#[derive(Default)]
struct Refusals(Mutex<Vec<&'static str>>);

impl EdgeObserver for Refusals {
    fn refused(&self, reason: &'static str) {
        self.0.lock().unwrap().push(reason);
    }
}

pub(super) struct Edge {
    app: Arc<EdgeApp<HttpProxy<Echo>>>,
    served: Arc<AtomicUsize>,
    refusals: Arc<Refusals>,
    stop: watch::Sender<bool>,
}

impl Edge {
    pub(super) fn new(bounds: EdgeBounds) -> Self {
        Self::with(bounds, |app| app)
    }

    fn with(
        bounds: EdgeBounds,
        change: impl FnOnce(EdgeApp<HttpProxy<Echo>>) -> EdgeApp<HttpProxy<Echo>>,
    ) -> Self {
        let served = Arc::new(AtomicUsize::new(0));
        let echo = Echo {
            served: Arc::clone(&served),
        };
        let proxy = http_proxy(&Arc::new(ServerConf::default()), echo);
        let refusals = Arc::new(Refusals::default());
        let app = EdgeApp::around_proxy(proxy, bounds, Arc::clone(&refusals) as Arc<_>);
        Edge {
            app: Arc::new(change(app)),
            served,
            refusals,
            stop: watch::channel(false).0,
        }
    }

    /// Opens a connection; the task ends when the edge is done with it.
    pub(super) fn connect(&self) -> (DuplexStream, JoinHandle<()>) {
        let (client, server) = tokio::io::duplex(256 * 1024);
        let (app, stop) = (Arc::clone(&self.app), self.stop.subscribe());
        let task = tokio::spawn(async move {
            assert!(app.process_new(Box::new(server), &stop).await.is_none());
        });
        (client, task)
    }

    /// Sends bytes and returns everything that comes back until the end.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let (mut client, task) = self.connect();
        client.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        drop(client);
        task.await.unwrap();
        answer
    }

    /// Says that the node leaves.
    pub(super) fn leave(&self) {
        self.stop.send_replace(true);
    }

    pub(super) fn open(&self) -> usize {
        self.app.connections().open()
    }

    pub(super) fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    fn refusals(&self) -> Vec<&'static str> {
        self.refusals.0.lock().unwrap().clone()
    }
}

/// Reads one answer with a Content-Length.
async fn answer(client: &mut (impl tokio::io::AsyncRead + Unpin)) -> (String, String) {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(
            client.read_buf(&mut bytes).await.unwrap(),
            0,
            "the answer ends early"
        );
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() == length.map_or(0, |length| length.parse().unwrap()) {
            return (head, body.to_owned());
        }
    }
}

#[tokio::test]
async fn requests_are_served_one_after_another_on_one_connection() {
    let edge = Edge::new(EdgeBounds::default());
    let (mut client, task) = edge.connect();
    for path in ["/one", "/two", "/three"] {
        let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        // In two pieces, so that a head is completed by a later read.
        let (head, rest) = request.split_at(12);
        client.write_all(head.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        client.write_all(rest.as_bytes()).await.unwrap();
        let (head, body) = answer(&mut client).await;
        assert!(head.contains("connection: keep-alive"), "{head}");
        assert_eq!(body, format!("POST {path} hello"));
    }
    drop(client);
    task.await.unwrap();
    assert_eq!(edge.served(), 3);
    assert_eq!(edge.open(), 0);
}

#[tokio::test]
async fn large_bodies_arrive_whole_with_and_without_a_length() {
    let edge = Edge::new(EdgeBounds::default());
    let body = "0123456789abcdef".repeat(200_000);
    let plain = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    for request in [plain, chunked] {
        let (client, task) = edge.connect();
        let (mut read, mut write) = tokio::io::split(client);
        let sent = tokio::spawn(async move {
            write.write_all(request.as_bytes()).await.unwrap();
            write
        });
        let (_, echoed) = answer(&mut read).await;
        assert!(echoed == format!("POST / {body}"), "the body differs");
        drop((read, sent.await.unwrap()));
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_short_http10_request_is_answered() {
    let edge = Edge::new(EdgeBounds::default());
    let answer = edge.exchange(b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1."), "{answer}");
    assert!(answer.ends_with("GET / "), "{answer}");
}

#[tokio::test]
async fn refused_heads_are_answered_and_nothing_is_served() {
    let edge = Edge::new(EdgeBounds::default());
    let long = "x".repeat(70_000);
    for (request, status, reason) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "two_lengths"),
        ("GET / HTTP/1.1\nHost: a\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "bare_line_feed"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), 405, "connect_not_allowed"),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "uri_too_long"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431, "head_too_large"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100)), 431, "too_many_headers"),
    ] {
        let answer = edge.exchange(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        assert!(answer.contains(r#""type":"invalid_request_error""#), "{answer}");
        assert_eq!(edge.refusals().last(), Some(&reason));
    }
    let request = "POST /anthropic/v1/messages HTTP/1.1\r\nHost: a\r\nX_Y: z\r\n\r\n";
    let answer = edge.exchange(request.as_bytes()).await;
    assert!(answer.contains(r#""type":"error""#), "{answer}");
    assert_eq!(edge.served(), 0);
    assert_eq!(edge.open(), 0);
}

#[tokio::test]
async fn a_later_head_on_a_connection_is_judged_too() {
    let edge = Edge::new(EdgeBounds::default());
    let (mut client, task) = edge.connect();
    client
        .write_all(b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    answer(&mut client).await;
    client
        .write_all(b"GET /two HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        .await
        .unwrap();
    let (head, _) = answer(&mut client).await;
    assert!(head.starts_with("http/1.1 400 "), "{head}");
    drop(client);
    task.await.unwrap();
    assert_eq!(edge.served(), 1);

    // The preface belongs to the start of a connection.
    let (mut client, task) = edge.connect();
    client
        .write_all(b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    answer(&mut client).await;
    client.write_all(PREFACE).await.unwrap();
    let (head, _) = answer(&mut client).await;
    assert!(head.starts_with("http/1.1 505 "), "{head}");
    drop(client);
    task.await.unwrap();
}

#[tokio::test]
async fn a_pipelined_request_never_escapes_the_judgement() {
    let edge = Edge::new(EdgeBounds::default());
    let two =
        b"GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    let answer = edge.exchange(two).await;
    assert!(answer.contains("GET /one"), "{answer}");
    assert_eq!(edge.served(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_ends_at_one_deadline_however_it_trickles() {
    let edge = Edge::new(EdgeBounds::default());
    let (mut client, task) = edge.connect();
    let began = Instant::now();
    let trickle = async {
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: "
            .iter()
            .chain([b'y'; 1000].iter())
        {
            tokio::time::advance(Duration::from_millis(500)).await;
            if client.write_all(&[*byte]).await.is_err() || edge.refusals().len() == 1 {
                break;
            }
        }
        let (head, _) = answer(&mut client).await;
        assert!(head.starts_with("http/1.1 408 "), "{head}");
    };
    trickle.await;
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(10) && took < Duration::from_secs(12),
        "{took:?}"
    );
    drop(client);
    task.await.unwrap();
    assert_eq!(edge.refusals(), ["head_timeout"]);
}

#[tokio::test(start_paused = true)]
async fn silent_and_idle_connections_end() {
    let edge = Edge::new(EdgeBounds::default());
    // Nothing at all, and an HTTP/2 preface that never ends.
    for (sent, answered) in [(&b""[..], false), (&PREFACE[..18], true)] {
        let (mut client, task) = edge.connect();
        let began = Instant::now();
        client.write_all(sent).await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 10);
        assert_eq!(all.starts_with(b"HTTP/1.1 408"), answered);
        drop(client);
        task.await.unwrap();
    }
    // Between two requests the longer idle time applies.
    let (mut client, task) = edge.connect();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    answer(&mut client).await;
    let began = Instant::now();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(began.elapsed().as_secs(), 60);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn leaving_ends_idle_connections_after_a_last_call() {
    let edge = Edge::new(EdgeBounds::default());
    let (silent, silent_task) = edge.connect();
    let (mut idle, idle_task) = edge.connect();
    let (mut late, late_task) = edge.connect();
    for client in [&mut idle, &mut late] {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        client.write_all(request).await.unwrap();
        answer(client).await;
    }
    edge.leave();
    let began = Instant::now();
    tokio::time::advance(LAST_CALL / 2).await;
    // A request that was on its way is served, and is the last one.
    let request = b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n";
    late.write_all(request).await.unwrap();
    let (head, body) = answer(&mut late).await;
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(body, "GET /last ");
    late_task.await.unwrap();
    assert!(began.elapsed() < LAST_CALL);

    silent_task.await.unwrap();
    idle_task.await.unwrap();
    assert!(began.elapsed() < LAST_CALL * 2, "{:?}", began.elapsed());
    drop((silent, idle));
}

#[tokio::test]
async fn an_exchange_counts_from_the_first_byte_to_the_last() {
    let edge = Edge::new(EdgeBounds::default());
    let connections = edge.app.connections();
    let (mut client, task) = edge.connect();
    while edge.open() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(connections.exchanges(), 0, "a silent connection is none");
    client.write_all(b"GET / HT").await.unwrap();
    while connections.exchanges() == 0 {
        tokio::task::yield_now().await;
    }
    edge.leave();
    let rest = b"TP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(rest).await.unwrap();
    let (head, _) = answer(&mut client).await;
    assert!(head.contains("connection: close"), "{head}");
    task.await.unwrap();
    assert_eq!((connections.exchanges(), edge.open()), (0, 0));
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once() {
    let edge = Edge::new(EdgeBounds {
        max_connections: 1,
        ..EdgeBounds::default()
    });
    let (first, first_task) = edge.connect();
    while edge.open() == 0 {
        tokio::task::yield_now().await;
    }
    let (mut second, second_task) = edge.connect();
    second_task.await.unwrap();
    assert_eq!(second.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(edge.refusals(), ["max_connections"]);
    drop(first);
    first_task.await.unwrap();
    assert!(
        edge.exchange(b"GET / HTTP/1.0\r\n\r\n")
            .await
            .ends_with("GET / ")
    );
}

#[tokio::test]
async fn a_panic_ends_one_connection_and_gives_its_place_back() {
    let edge = Edge::new(EdgeBounds {
        max_connections: 1,
        ..EdgeBounds::default()
    });
    let (mut client, task) = edge.connect();
    client
        .write_all(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(edge.open(), 0);
    assert!(
        edge.exchange(b"GET / HTTP/1.0\r\n\r\n")
            .await
            .ends_with("GET / ")
    );
}

async fn over_http2<S>(stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let body = Bytes::from(vec![b'x'; 2 << 20]);
    for path in ["/one", "/two"] {
        let request = http::Request::post(format!("http://a{path}"))
            .body(Full::new(body.clone()))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        let echoed = response.into_body().collect().await.unwrap().to_bytes();
        assert!(
            echoed.ends_with(&body) && echoed.starts_with(b"POST "),
            "{}",
            echoed.len()
        );
    }
    drop(sender);
    driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn http2_without_tls_is_served_on_the_same_port() {
    let edge = Edge::new(EdgeBounds::default());
    let (client, task) = edge.connect();
    over_http2(client).await;
    task.await.unwrap();
    assert_eq!(edge.served(), 2);
    assert_eq!(edge.open(), 0);
}

/// An edge with TLS, and how a client trusts it.
fn tls_edge(folder: &tempfile::TempDir) -> (Edge, rustls::ClientConfig, Arc<TlsIdentity>) {
    let (certificate, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    write_pair(&certificate, &key);
    let identity = TlsIdentity::load(&certificate, &key).unwrap();
    let config = identity.server_config().unwrap();
    let edge = Edge::with(EdgeBounds::default(), |app| app.with_tls(config));
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&certificate).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (edge, client, identity)
}

fn write_pair(certificate: &std::path::Path, key: &std::path::Path) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(certificate, cert.pem()).unwrap();
    std::fs::write(key, signing_key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn tls_serves_http1_and_http2_by_alpn() {
    let folder = tempfile::tempdir().unwrap();
    let (edge, client, _) = tls_edge(&folder);
    for alpn in ["h2", "http/1.1", ""] {
        let mut client = client.clone();
        if !alpn.is_empty() {
            client.alpn_protocols = vec![alpn.into()];
        }
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let (stream, task) = edge.connect();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        if alpn == "h2" {
            over_http2(stream).await;
        } else {
            stream
                .write_all(b"GET /tls HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
                .unwrap();
            assert_eq!(answer(&mut stream).await.1, "GET /tls ");
            drop(stream);
        }
        task.await.unwrap();
    }
    assert_eq!(edge.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_tls_handshake_and_its_preface_have_a_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let (edge, mut client, _) = tls_edge(&folder);
    let (silent, task) = edge.connect();
    let began = Instant::now();
    task.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!(edge.refusals(), ["tls_handshake"]);
    drop(silent);

    client.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let (stream, task) = edge.connect();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    stream.write_all(&PREFACE[..10]).await.unwrap();
    task.await.unwrap();
}

#[test]
fn a_reload_takes_a_new_pair_and_keeps_the_old_one_on_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (_, _, identity) = tls_edge(&folder);
    let (certificate, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let served = || identity.certificate();
    let first = served();
    std::fs::write(&key, "no key").unwrap();
    assert!(matches!(identity.reload(), Err(TlsError::Pem { .. })));
    assert_eq!(served(), first);
    write_pair(&certificate, &key);
    identity.reload().unwrap();
    let second = served();
    assert_ne!(second, first);
    // A key that belongs to another certificate.
    write_pair(&folder.path().join("other.pem"), &key);
    assert!(matches!(identity.reload(), Err(TlsError::Pair(_))));
    assert_eq!(served(), second);
}
