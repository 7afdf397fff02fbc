use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

fn secret(number: u8) -> Vec<u8> {
    vec![number; 32]
}

fn keys(cluster: &str, secrets: &[u8]) -> Keys {
    let secrets: Vec<_> = secrets.iter().map(|&number| secret(number)).collect();
    Keys::new(cluster, &secrets, &[]).unwrap()
}

fn trust(cluster: &str, secrets: &[u8], node: &str) -> Trust {
    Trust::new(keys(cluster, secrets), node, None).unwrap()
}

/// What each side says of a handshake: dialler, then dialled with the URI that it saw.
async fn shake(
    dialler: Arc<ClientConfig>,
    dialled: Arc<ServerConfig>,
) -> (Result<(), String>, Result<PeerName, String>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = ServerName::try_from("tyr").unwrap();
    let dialling = async {
        use tokio::io::AsyncReadExt;
        let stream = TlsConnector::from(dialler).connect(name, near).await;
        let mut stream = stream.map_err(|error| error.to_string())?;
        // In TLS 1.3 a dialler learns only from what comes next that it was refused.
        let read = stream.read_u8().await;
        read.map(|_| ()).map_err(|error| error.to_string())
    };
    let answering = async {
        use tokio::io::AsyncWriteExt;
        let stream = TlsAcceptor::from(dialled).accept(far).await;
        let mut stream = stream.map_err(|error| error.to_string())?;
        let seen = PeerName::of(stream.get_ref().1.peer_certificates());
        stream
            .write_u8(1)
            .await
            .map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        seen.ok_or_else(|| "no name".to_owned())
    };
    tokio::join!(dialling, answering)
}

async fn meet(
    dialler: &Trust,
    expects: &str,
    dialled: &Trust,
) -> (Result<(), String>, Result<PeerName, String>) {
    shake(dialler.client(expects).unwrap(), dialled.server().unwrap()).await
}

#[tokio::test]
async fn nodes_of_one_secret_know_each_other() {
    let (a, b) = (trust("tyr", &[1], "a"), trust("tyr", &[1], "b"));
    let (dialled, seen) = meet(&a, "b", &b).await;
    assert_eq!(dialled, Ok(()));
    let seen = seen.unwrap();
    assert!(seen.is("tyr", "a"));
    assert!(!seen.is("tyr", "b") && !seen.is("other", "a"));
}

#[tokio::test]
async fn a_node_of_another_secret_is_refused_both_ways() {
    let (ours, theirs) = (trust("tyr", &[1], "a"), trust("tyr", &[2], "b"));
    for (dialler, expects, dialled) in [(&ours, "b", &theirs), (&theirs, "a", &ours)] {
        let (dialling, answering) = meet(dialler, expects, dialled).await;
        assert!(dialling.is_err() && answering.is_err());
    }
}

/// A dialler that checks nothing, to see that the dialled node does.
fn careless(of: &Trust) -> Arc<ClientConfig> {
    let material = of.shared.material.load();
    Arc::new(
        careless_with(of)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&material.own)))),
    )
}

fn careless_with(
    of: &Trust,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::clone(&of.shared.provider);
    let algorithms = provider.signature_verification_algorithms;
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Careless { algorithms }))
}

#[derive(Debug)]
struct Careless {
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
}

impl rustls::client::danger::ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn a_stranger_that_checks_nothing_is_still_refused() {
    let ours = trust("tyr", &[1], "a");
    let same = trust("tyr", &[1], "b");
    let (dialled, seen) = shake(careless(&same), ours.server().unwrap()).await;
    assert!(dialled.is_ok() && seen.is_ok(), "the careless one works");
    for stranger in [trust("tyr", &[2], "b"), trust("other", &[1], "b")] {
        let (dialled, seen) = shake(careless(&stranger), ours.server().unwrap()).await;
        assert!(dialled.is_err() && seen.is_err());
    }
    let none = Arc::new(careless_with(&ours).with_no_client_auth());
    let (dialled, seen) = shake(none, ours.server().unwrap()).await;
    assert!(dialled.is_err() && seen.is_err());
}

#[tokio::test]
async fn another_cluster_with_the_same_secret_is_refused() {
    let (ours, theirs) = (trust("tyr", &[1], "a"), trust("other", &[1], "b"));
    let (dialling, _) = meet(&ours, "b", &theirs).await;
    assert!(dialling.is_err());
}

#[tokio::test]
async fn another_node_than_the_one_that_was_dialled_is_refused() {
    let (a, b) = (trust("tyr", &[1], "a"), trust("tyr", &[1], "b"));
    let (dialling, answering) = meet(&a, "c", &b).await;
    assert!(dialling.is_err() && answering.is_err());
}

#[tokio::test]
async fn a_certificate_of_any_secret_of_the_ring_is_accepted() {
    let (old, both) = (trust("tyr", &[1], "a"), trust("tyr", &[2, 1], "b"));
    // The one that has only the old secret does not know the authority of the new one.
    let (dialling, _) = meet(&old, "b", &both).await;
    assert!(dialling.is_err());
    old.shared.keys.replace(&[secret(1), secret(2)]).unwrap();
    old.renew();
    let (dialling, answering) = meet(&old, "b", &both).await;
    assert!(dialling.is_ok() && answering.is_ok());
    let (dialling, answering) = meet(&both, "a", &old).await;
    assert!(dialling.is_ok() && answering.is_ok());
}

#[tokio::test]
async fn without_a_secret_nodes_of_one_machine_know_each_other() {
    let (a, b) = (trust("tyr", &[], "a"), trust("tyr", &[], "b"));
    let (dialling, answering) = meet(&a, "b", &b).await;
    assert!(dialling.is_ok() && answering.is_ok());
    let (dialling, _) = meet(&trust("tyr", &[1], "c"), "b", &b).await;
    assert!(dialling.is_err());
}

#[test]
fn no_two_names_share_a_uri() {
    assert_eq!(uri_of("tyr", "n-1.a_b"), "spiffe://tyr/node/n-1.a_b");
    assert_eq!(uri_of("a/b", "c d%é"), "spiffe://a%2Fb/node/c%20d%25%C3%A9");
}

/// An authority of an operator, in files.
struct Operator {
    folder: tempfile::TempDir,
    params: CertificateParams,
    key: KeyPair,
}

impl Operator {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            folder: tempfile::tempdir().unwrap(),
            params,
            key: KeyPair::generate().unwrap(),
        }
    }

    /// Writes the files of a node; those of one name anew each time.
    fn issue(&self, file: &str, uris: &[&str]) -> TlsFiles {
        let path = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        let mut params = CertificateParams::default();
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names = uris.iter().map(uri).collect();
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let authority = self.params.self_signed(&self.key).unwrap();
        write(&path("ca"), &authority.pem());
        write(&path("cert"), &certificate.pem());
        write(&path("key"), &key.serialize_pem());
        TlsFiles {
            ca: path("ca"),
            cert: path("cert"),
            key: path("key"),
        }
    }

    fn trust(&self, node: &str) -> Result<Trust, TlsError> {
        let uri = uri_of("tyr", node);
        Trust::new(keys("tyr", &[1]), node, Some(self.issue(node, &[&uri])))
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn certificates_of_the_operator_replace_those_of_the_secret() {
    let operator = Operator::new();
    let (a, b) = (operator.trust("a").unwrap(), operator.trust("b").unwrap());
    let (dialling, answering) = meet(&a, "b", &b).await;
    assert!(dialling.is_ok() && answering.is_ok());
    let built_in = trust("tyr", &[1], "c");
    let (dialling, _) = meet(&a, "c", &built_in).await;
    assert!(dialling.is_err());
    let (dialling, answering) = meet(&built_in, "a", &a).await;
    assert!(dialling.is_err() && answering.is_err());
}

#[test]
fn a_certificate_of_the_operator_has_to_name_this_node_and_nothing_else() {
    let operator = Operator::new();
    let refused = |uris: &[&str]| {
        let files = operator.issue("a", uris);
        matches!(
            Trust::new(keys("tyr", &[1]), "a", Some(files)),
            Err(TlsError::Name { .. })
        )
    };
    assert!(refused(&[]));
    assert!(refused(&["spiffe://tyr/node/b"]));
    assert!(refused(&["spiffe://other/node/a"]));
    assert!(refused(&["spiffe://tyr/node/a", "spiffe://tyr/node/b"]));
}

#[tokio::test]
async fn changed_files_are_used_for_the_next_handshake_and_bad_ones_are_not() {
    let operator = Operator::new();
    let (a, b) = (operator.trust("a").unwrap(), operator.trust("b").unwrap());
    let own = |trust: &Trust| trust.shared.material.load().own.cert[0].clone();
    let before = own(&b);
    b.read_again();
    assert_eq!(own(&b), before, "nothing changed");
    operator.issue("b", &[&uri_of("tyr", "b")]);
    b.read_again();
    assert_ne!(own(&b), before);
    let (dialling, answering) = meet(&a, "b", &b).await;
    assert!(dialling.is_ok() && answering.is_ok());
    let good = own(&b);
    let files = operator.issue("b", &[&uri_of("tyr", "x")]);
    b.read_again();
    assert_eq!(own(&b), good, "another node's certificate");
    write(&files.cert, "junk");
    b.read_again();
    assert_eq!(own(&b), good, "no certificate");
    std::fs::remove_file(&files.key).unwrap();
    b.read_again();
    assert_eq!(own(&b), good, "no file");
}

/// Whether a link with `peer` would end now.
async fn ends(trust: &Trust, peer: &PeerName) -> bool {
    let ended = tokio::time::timeout(std::time::Duration::ZERO, trust.ends_for(peer));
    ended.await.is_ok()
}

#[tokio::test]
async fn whom_the_operator_no_longer_vouches_for_is_told_from_the_others() {
    let (old, new) = (Operator::new(), Operator::new());
    let (a, b) = (old.trust("a").unwrap(), old.trust("b").unwrap());
    let seen = meet(&a, "b", &b).await.1.unwrap();
    assert!(!ends(&b, &seen).await);
    // Another certificate of one's own changes nothing for others.
    old.issue("b", &[&uri_of("tyr", "b")]);
    b.read_again();
    assert!(!ends(&b, &seen).await);
    let roots = |b: &Trust| b.shared.files.clone().unwrap().ca;
    let (mut both, others) = (std::fs::read_to_string(roots(&b)).unwrap(), new.trust("b"));
    let only = std::fs::read_to_string(roots(&others.unwrap())).unwrap();
    both.push_str(&only);
    write(&roots(&b), &both);
    b.read_again();
    assert!(!ends(&b, &seen).await);
    write(&roots(&b), &only);
    b.read_again();
    assert!(ends(&b, &seen).await);
}

#[tokio::test]
async fn a_certificate_may_stand_on_others_between_it_and_the_authority() {
    let root = Operator::new();
    let mut between = Operator::new();
    between.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let issuer = Issuer::from_params(&root.params, &root.key);
    let signed = between.params.signed_by(&between.key, &issuer).unwrap();
    let authority = root.params.self_signed(&root.key).unwrap();
    let node = |name: &str, with_chain: bool| {
        let files = between.issue(name, &[&uri_of("tyr", name)]);
        write(&files.ca, &authority.pem());
        if with_chain {
            let own = std::fs::read_to_string(&files.cert).unwrap();
            write(&files.cert, &format!("{own}{}", signed.pem()));
        }
        Trust::new(keys("tyr", &[1]), name, Some(files)).unwrap()
    };
    let (a, b) = (node("a", true), node("b", true));
    let (dialling, answering) = meet(&a, "b", &b).await;
    assert_eq!(dialling, Ok(()));
    let seen = answering.unwrap();
    assert!(!ends(&b, &seen).await, "also when it is checked again");
    let (dialling, _) = meet(&a, "c", &node("c", false)).await;
    assert!(dialling.is_err(), "nobody knows the one between");
    // Another authority instead.
    let files = b.shared.files.clone().unwrap();
    let other = Operator::new();
    write(
        &files.ca,
        &other.params.self_signed(&other.key).unwrap().pem(),
    );
    b.read_again();
    assert!(ends(&b, &seen).await);
}
