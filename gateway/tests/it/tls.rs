//! TLS on both sides: what clients are shown, what is agreed on, when the
//! certificate changes, and that providers are verified before anything is
//! sent to them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::Version;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::conf::OPENAI_SECRET;
use crate::harness::tls::{Authority, Identity, Session, TlsProvider};
use crate::harness::upstream::{chat_chunk, chat_end};
use crate::harness::{Ask, Conf, Connection, Node, Upstream, eventually};

const CHAT: &str = "/v1/chat/completions";
/// The name that the gateway's certificate carries.
const NAME: &str = "tyr.test";

fn chat() -> Ask {
    let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]});
    Ask::post(CHAT, &body)
}

/// A gateway behind TLS with its provider in the clear.
struct Served {
    authority: Authority,
    identity: Identity,
    files: TempDir,
    upstream: Upstream,
    node: Node,
}

impl Served {
    fn start() -> Self {
        Self::before(Upstream::chat())
    }

    fn before(upstream: Upstream) -> Self {
        let authority = Authority::new();
        let identity = authority.issue(&[NAME]);
        let files = tempfile::tempdir().expect("a folder for the certificate");
        identity.write(files.path());
        let path = files.path().display();
        let line = format!("tls: {{cert: {path}/tls.crt, key: {path}/tls.key}}");
        let node = Node::start(&Conf::for_upstream(upstream.address).server(&line));
        Self {
            authority,
            identity,
            files,
            upstream,
            node,
        }
    }

    fn open(&self, protocols: &[&str]) -> Session {
        Session::open(self.node.data, NAME, &self.authority, protocols).expect("a session")
    }
}

#[test]
fn alpn_chooses_http_2_or_http_1() {
    let served = Served::start();
    let offers: [(&[&str], Option<&str>); 4] = [
        (&["h2", "http/1.1"], Some("h2")),
        (&["h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ];
    for (offer, agreed) in offers {
        let mut session = served.open(offer);
        assert_eq!(session.protocol.as_deref(), agreed, "{offer:?}");
        for _ in 0..2 {
            let answer = session.ask(chat());
            assert_eq!(answer.status(), 200, "{offer:?}: {}", answer.text());
            assert!(answer.complete && answer.text().contains("pong"));
        }
    }
    assert_eq!(served.upstream.count(), 8);
    let records = served.node.records_exactly(8);
    assert!(records.iter().all(|record| record.end_reason == "success"));
}

#[test]
fn large_bodies_pass_over_tls() {
    let served = Served::start();
    let large = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "w".repeat(3 << 20)}]});
    for offer in [["h2"], ["http/1.1"]] {
        let answer = served.open(&offer).ask(Ask::post(CHAT, &large));
        assert_eq!(answer.status(), 200, "{offer:?}: {}", answer.text());
    }
    for seen in served.upstream.seen() {
        assert_eq!(seen.json(), large, "as it was sent");
    }
}

#[test]
fn streams_pass_over_tls() {
    let events: Vec<String> = [chat_chunk("ping"), chat_chunk("pong")]
        .into_iter()
        .chain(chat_end(10, 5))
        .chain(["[DONE]".to_string()])
        .map(|data| format!("data: {data}\n\n"))
        .collect();
    let sent = events.clone();
    let served = Served::before(Upstream::start(move |exchange| {
        exchange.stream();
        for event in &sent {
            exchange.chunk(event.as_bytes());
        }
        exchange.end();
    }));
    let body = json!({"model": "gpt-4o-mini", "stream": true,
        "stream_options": {"include_usage": true}, "messages": []});
    for offer in [["h2"], ["http/1.1"]] {
        let answer = served.open(&offer).ask(Ask::post(CHAT, &body));
        assert_eq!((answer.status(), answer.complete), (200, true), "{offer:?}");
        assert_eq!(answer.text(), events.concat(), "{offer:?}");
    }
}

#[test]
fn a_client_refuses_a_name_or_an_authority_that_does_not_fit() {
    let served = Served::start();
    let stranger = Authority::new();
    for (name, authority) in [("other.test", &served.authority), (NAME, &stranger)] {
        let refused = Session::open(served.node.data, name, authority, &["http/1.1"]);
        let error = refused.err().expect("the certificate does not fit");
        assert!(error.to_string().contains("certificate"), "{name}: {error}");
    }
    let mut session = served.open(&["http/1.1"]);
    assert_eq!(session.ask(chat()).status(), 200, "others are served");
}

#[test]
fn plain_text_on_the_tls_port_is_not_served() {
    let served = Served::start();
    let mut connection = Connection::open(served.node.data);
    connection.ask(&chat());
    connection.patience(Duration::from_secs(15));
    let status = connection.try_answer().map(|answer| answer.status());
    assert_eq!(status.unwrap_or(0), 0, "no answer in the clear");
    assert_eq!(served.upstream.count(), 0);
}

#[test]
fn a_certificate_is_changed_by_sighup_and_open_connections_stay() {
    let served = Served::start();
    let mut before = served.open(&["h2"]);
    assert_eq!(before.certificate, served.identity.der());
    let renewed = served.authority.issue(&[NAME]);
    renewed.write(served.files.path());
    served.node.process.signal("HUP");
    eventually("the new certificate is shown", || {
        (served.open(&["h2"]).certificate == renewed.der()).then_some(())
    });
    assert_eq!(before.ask(chat()).status(), 200, "the old connection works");
    assert_eq!(served.open(&["http/1.1"]).ask(chat()).status(), 200);
}

#[test]
fn a_broken_certificate_keeps_the_old_one() {
    let served = Served::start();
    let other = served.authority.issue(&[NAME]);
    let torn = Identity {
        certificate: other.certificate,
        key: served.identity.key.clone(),
    };
    torn.write(served.files.path());
    served.node.process.signal("HUP");
    served.node.await_log(&["certificate", "the old one stays"]);
    let mut session = served.open(&["h2"]);
    assert_eq!(session.certificate, served.identity.der());
    assert_eq!(session.ask(chat()).status(), 200);
}

/// The configuration for a provider behind TLS, which trusts `ca` if there is one.
fn towards(provider: SocketAddr, ca: Option<&Path>) -> Conf {
    let mut conf = Conf::for_upstream(provider);
    let tls = ca.map(|path| format!("    tls: {{ca: file.{}}}\n", path.display()));
    conf.providers = conf.providers.replace("http://", "https://").replace(
        "    allow_private_addresses: true\n",
        &format!(
            "    allow_private_addresses: true\n    retries: {{max: 0}}\n{}",
            tls.unwrap_or_default()
        ),
    );
    conf
}

fn written(authority: &Authority, folder: &TempDir) -> std::path::PathBuf {
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, authority.pem()).expect("the file is written");
    path
}

#[test]
fn a_provider_of_a_private_authority_is_reached_over_both_protocols() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a folder for the authority");
    let ca = written(&authority, &folder);
    let identity = authority.issue(&["127.0.0.1"]);
    let offers: [(&[&str], Version); 3] = [
        (&["h2", "http/1.1"], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ];
    for (offer, version) in offers {
        let provider = TlsProvider::start(&identity, offer);
        let node = Node::start(&towards(provider.address, Some(&ca)));
        for _ in 0..2 {
            let answer = node.ask(&chat());
            assert_eq!(answer.status(), 200, "{offer:?}: {}", answer.text());
        }
        let bearer = format!("Bearer {OPENAI_SECRET}");
        for seen in provider.seen() {
            assert_eq!((seen.version, seen.path.as_str()), (version, CHAT));
            assert_eq!(seen.authorization.as_ref(), Some(&bearer));
        }
        assert_eq!((provider.seen().len(), provider.refused()), (2, 0));
        let records = node.records_exactly(2);
        assert!(records.iter().all(|record| record.output == 5));
    }
}

/// A provider that cannot be verified gets nothing, and the client a 502.
#[track_caller]
fn is_refused(what: &str, identity: &Identity, ca: Option<&Path>) {
    let provider = TlsProvider::start(identity, &["h2", "http/1.1"]);
    let node = Node::start(&towards(provider.address, ca));
    let answer = node.ask(&chat());
    assert_eq!(answer.status(), 502, "{what}: {}", answer.text());
    assert!(
        !answer.text().contains(OPENAI_SECRET) && !node.process.log().contains(OPENAI_SECRET),
        "{what}"
    );
    eventually("the handshake is broken off", || {
        (provider.refused() > 0).then_some(())
    });
    assert!(provider.seen().is_empty(), "{what}: {:?}", provider.seen());
    let record = node.records_exactly(1).remove(0);
    let found = (
        record.end_reason.as_str(),
        record.basis.as_str(),
        record.cost_nano_usd,
    );
    assert_eq!(found, ("upstream_error", "none", 0), "{what}: {record:?}");
}

#[test]
fn a_provider_that_cannot_be_verified_is_sent_nothing() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().expect("a folder for the authority");
    let ca = written(&authority, &folder);
    let ours = authority.issue(&["127.0.0.1"]);
    is_refused("an authority nobody knows", &ours, None);
    let theirs = stranger.issue(&["127.0.0.1"]);
    is_refused("another authority", &theirs, Some(&ca));
    let elsewhere = authority.issue(&["other.test"]);
    is_refused("a certificate for another name", &elsewhere, Some(&ca));
}
