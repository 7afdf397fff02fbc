use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn config(base_url: &str) -> UpstreamConfig {
    UpstreamConfig {
        name: "test".into(),
        dialect: policy::Dialect::OpenAi,
        base_url: base_url.parse().unwrap(),
        allow_private_addresses: true,
        credentials: vec![Secret::new("sk-canary".to_owned())],
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(5),
            idle: Duration::from_secs(5),
            total: Duration::from_secs(5),
        },
        retries: Retries {
            max: 0,
            backoff_min: Duration::ZERO,
            backoff_max: Duration::ZERO,
        },
        usage_in_stream: true,
        pass_client_credential: false,
        ca_pem: None,
        http2: Http2::Auto,
    }
}

fn upstream(config: UpstreamConfig) -> Upstream {
    ClientPool::new().upstream(config).unwrap()
}

fn post(upstream: &Upstream, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body.into()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = upstream.uri("/chat/completions", None);
    request
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads one request with a Content-Length to its end; None = the client closed.
async fn read_request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() == length {
                return Some(text.into_owned());
            }
        }
    }
}

#[tokio::test]
async fn a_request_arrives_below_the_base_path_with_its_host() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await
            .unwrap();
        request
    });
    let upstream = upstream(config(&format!("http://{address}/base/v1/")));
    let response = upstream.send(post(&upstream, "{}")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "ok"
    );
    let request = server.await.unwrap();
    assert!(
        request.starts_with("POST /base/v1/chat/completions HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains(&format!("host: {address}\r\n")),
        "{request}"
    );
    assert!(request.ends_with("\r\n\r\n{}"), "{request}");
}

#[test]
fn uris_keep_the_base_path_and_the_query() {
    for (base, path, query, uri) in [
        ("https://a.example/v1", "/x", None, "https://a.example/v1/x"),
        (
            "https://a.example",
            "/v1/x",
            Some("beta=true"),
            "https://a.example/v1/x?beta=true",
        ),
        (
            "https://a.example:8443/",
            "/x",
            Some(""),
            "https://a.example:8443/x?",
        ),
        ("http://[::1]:80/a/b/", "/x", None, "http://[::1]:80/a/b/x"),
        (
            "https://a.example/v1",
            "/x",
            Some("not valid"),
            "https://a.example/v1/x",
        ),
    ] {
        assert_eq!(upstream(config(base)).uri(path, query).to_string(), uri);
    }
}

#[test]
fn base_urls_that_cannot_be_sent_to_are_refused() {
    let pool = ClientPool::new();
    for base in [
        "/v1",
        "ftp://a/",
        "https://user:secret@a/",
        "https://a/?x=1",
        "a.example",
    ] {
        let error = pool.upstream(config(base)).unwrap_err();
        assert!(matches!(error, UpstreamError::BaseUrl { .. }), "{base}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let mut without_ca = config("https://a.example");
    without_ca.ca_pem = Some(Arc::from(&b"no certificate"[..]));
    assert!(matches!(
        pool.upstream(without_ca),
        Err(UpstreamError::Ca(_))
    ));
    assert!(pool.is_empty());
}

#[tokio::test]
async fn addresses_inside_are_refused_in_every_spelling() {
    let (listener, address) = listen().await;
    let port = address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0.0.0.0",
        "[::]",
        "169.254.169.254",
        "[fd00:ec2::254]",
    ] {
        let mut config = config(&format!("http://{host}:{port}"));
        config.allow_private_addresses = false;
        let upstream = upstream(config);
        let error = upstream.send(post(&upstream, "{}")).await.unwrap_err();
        assert!(
            matches!(error, SendError::EgressDenied { .. }),
            "{host}: {error:?}"
        );
        assert!(!error.is_retryable());
    }
    // Not one of them reached the listener.
    let accepted = std::future::poll_fn(|context| {
        std::task::Poll::Ready(listener.poll_accept(context).is_ready())
    });
    assert!(!accepted.await);
}

#[tokio::test]
async fn an_early_answer_gets_through_while_the_body_is_sent() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 1024]).await.unwrap();
        let answer = b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 5\r\n\r\nlarge";
        stream.write_all(answer).await.unwrap();
        // Lingers without reading on, as most of the body is still to come.
        stream
    });
    let upstream = upstream(config(&format!("http://{address}")));
    let response = upstream
        .send(post(&upstream, vec![b'x'; 20 << 20]))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "large"
    );
    drop(server.await.unwrap());
}

#[tokio::test]
async fn a_connection_that_ends_before_the_head_is_closed() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        for partial in ["", "HTTP/1.1 20"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await.unwrap();
            stream.write_all(partial.as_bytes()).await.unwrap();
        }
        let (stream, _) = listener.accept().await.unwrap();
        // Closing with unread bytes and no lingering resets.
        stream.readable().await.unwrap();
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    });
    let upstream = upstream(config(&format!("http://{address}")));
    for case in ["closed", "closed within the head", "reset"] {
        let error = upstream.send(post(&upstream, "{}")).await.unwrap_err();
        assert!(matches!(error, SendError::Closed(_)), "{case}: {error:?}");
        assert!(error.is_retryable());
    }
    server.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_protocol_error() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await.unwrap();
        stream
            .write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            .await
            .unwrap();
        stream.read_to_end(&mut Vec::new()).await
    });
    let upstream = upstream(config(&format!("http://{address}")));
    let error = upstream.send(post(&upstream, "{}")).await.unwrap_err();
    assert!(matches!(error, SendError::Protocol(_)), "{error:?}");
}

#[tokio::test]
async fn refused_and_unresolvable_are_connect_errors_that_name_the_cause() {
    let (listener, address) = listen().await;
    drop(listener);
    let refused = upstream(config(&format!("http://{address}")));
    let error = refused.send(post(&refused, "{}")).await.unwrap_err();
    assert!(matches!(error, SendError::Connect(_)), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");

    let unknown = upstream(config("http://does-not-exist.invalid"));
    let error = unknown.send(post(&unknown, "{}")).await.unwrap_err();
    assert!(matches!(error, SendError::Connect(_)), "{error:?}");
    assert!(
        error.to_string().contains("'does-not-exist.invalid'"),
        "{error}"
    );
}

#[tokio::test]
async fn a_silent_address_ends_in_the_connect_timeout() {
    // A listener whose backlog is full answers no further handshake.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    let full = Duration::from_millis(200);
    while let Ok(stream) = tokio::time::timeout(full, TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
        assert!(waiting.len() < 100, "the backlog never fills");
    }

    let mut config = config(&format!("http://{address}"));
    config.timeouts.connect = Duration::from_millis(300);
    let upstream = upstream(config);
    let error = upstream.send(post(&upstream, "{}")).await.unwrap_err();
    assert!(matches!(error, SendError::ConnectTimeout), "{error:?}");
}

#[tokio::test]
async fn a_silent_tls_peer_ends_in_the_connect_timeout() {
    let (listener, address) = listen().await;
    let mut config = config(&format!("https://{address}"));
    config.timeouts.connect = Duration::from_millis(200);
    let upstream = upstream(config);
    let error = upstream.send(post(&upstream, "{}")).await.unwrap_err();
    assert!(matches!(error, SendError::ConnectTimeout), "{error:?}");
    drop(listener);
}

#[tokio::test]
async fn a_drained_answer_returns_its_connection_to_the_pool() {
    let (listener, address) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                while read_request(&mut stream).await.is_some() {
                    let answer = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\n\r\nslow";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    let pool = ClientPool::new();
    let upstream = pool.upstream(config(&format!("http://{address}"))).unwrap();
    for _ in 0..20 {
        let response = upstream.send(post(&upstream, "{}")).await.unwrap();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);

    // A reload with other retries and credentials keeps the warm connection.
    let mut reloaded = config(&format!("http://{address}/v2"));
    reloaded.retries.max = 7;
    reloaded.credentials.clear();
    let reloaded = Arc::new(pool.upstream(reloaded).unwrap());
    assert_eq!(pool.len(), 1);
    let response = reloaded.send(post(&reloaded, "{}")).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 1);

    // Another way of connecting is another client; unused ones are let go.
    let mut other = config(&format!("http://{address}"));
    other.allow_private_addresses = false;
    pool.upstream(other).unwrap();
    assert_eq!(pool.len(), 2);
    pool.retain(&[reloaded]);
    assert_eq!(pool.len(), 1);
}

/// An authority and a server certificate of it for `localhost`.
fn certificates() -> (Arc<[u8]>, rustls::ServerConfig) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (Arc::from(ca.pem().as_bytes()), server)
}

async fn tls_server(config: rustls::ServerConfig) -> SocketAddr {
    let (listener, address) = listen().await;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that refuses the certificate ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            if read_request(&mut stream).await.is_some() {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret";
                stream.write_all(answer).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn certificates_are_verified_against_the_authorities_and_the_name() {
    let (ca, server) = certificates();
    let port = tls_server(server).await.port();
    let mut trusted = config(&format!("https://localhost:{port}"));
    trusted.ca_pem = Some(Arc::clone(&ca));
    let trusted = upstream(trusted);
    let response = trusted.send(post(&trusted, "{}")).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "secret"
    );

    let mut wrong_name = config(&format!("https://127.0.0.1:{port}"));
    wrong_name.ca_pem = Some(ca);
    let unknown_authority = config(&format!("https://localhost:{port}"));
    for refused in [wrong_name, unknown_authority] {
        let refused = upstream(refused);
        let error = refused.send(post(&refused, "{}")).await.unwrap_err();
        assert!(matches!(error, SendError::Connect(_)), "{error:?}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

/// An HTTP/2 server without TLS that echoes bodies and allows `streams` at once
/// on a connection; returns how many connections it had.
async fn http2_server(
    streams: u32,
    respond_after: Arc<tokio::sync::Semaphore>,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let gate = Arc::clone(&respond_after);
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let gate = Arc::clone(&gate);
                async move {
                    assert_eq!(request.version(), Version::HTTP_2);
                    let body = request.into_body().collect().await?.to_bytes();
                    gate.acquire().await.unwrap().forget();
                    Ok::<_, hyper::Error>(Response::new(Full::new(body)))
                }
            });
            let executor = hyper_util::rt::TokioExecutor::new();
            let connection = hyper::server::conn::http2::Builder::new(executor)
                .max_concurrent_streams(streams)
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (address, connections)
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    let open = Arc::new(tokio::sync::Semaphore::new(100));
    let (address, connections) = http2_server(100, open).await;
    let mut config = config(&format!("http://{address}"));
    config.http2 = Http2::PriorKnowledge;
    let upstream = upstream(config);
    // More than the windows, so that flow control works both ways.
    let body = Bytes::from(vec![b'x'; 3 << 20]);
    for _ in 0..3 {
        let response = upstream.send(post(&upstream, body.clone())).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            body
        );
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_providers_limit_of_streams_holds_nothing_up() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (address, connections) = http2_server(64, Arc::clone(&gate)).await;
    let mut config = config(&format!("http://{address}"));
    config.http2 = Http2::PriorKnowledge;
    let upstream = upstream(config);
    // All are at the provider at the same time, though one connection takes 64.
    let sends: Vec<_> = (0..200)
        .map(|_| {
            let upstream = upstream.clone();
            tokio::spawn(async move {
                let request = post(&upstream, "{}");
                upstream
                    .send(request)
                    .await
                    .unwrap()
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
            })
        })
        .collect();
    while connections.load(Ordering::SeqCst) < 4 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(200);
    for send in sends {
        assert_eq!(send.await.unwrap().to_bytes(), "{}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 4);
}
