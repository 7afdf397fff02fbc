//! Reading who the other end is, and refusing whoever is not of this cluster.
//!
//! A node's name in a certificate is the URI `spiffe://<cluster>/node/<name>`, the only URI in it.
//! Bytes of the two names other than letters, digits, `.`, `_` and `-` are percent-encoded, so no
//! two names share a URI.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The URI of a node whose certificate was verified, and what it showed for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerName {
    uri: String,
    /// Its own certificate first.
    chain: Arc<[CertificateDer<'static>]>,
}

impl PeerName {
    /// Of the certificates that a verified peer showed.
    pub(crate) fn of(certificates: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let certificates = certificates?;
        let uri = uri_in(certificates.first()?)?;
        let chain = certificates.iter().cloned();
        let chain = chain.map(CertificateDer::into_owned).collect();
        Some(Self { uri, chain })
    }

    #[cfg(test)]
    pub(crate) fn named(cluster: &str, node: &str) -> Self {
        let (uri, chain) = (uri_of(cluster, node), Arc::default());
        Self { uri, chain }
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Whether an authority among `roots` stands for it now, to dial or to be dialled.
    pub(super) fn is_of(
        &self,
        roots: &RootCertStore,
        callers: &dyn ClientCertVerifier,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> bool {
        let Some((own, others)) = self.chain.split_first() else {
            return false;
        };
        let now = UnixTime::now();
        let verified = ParsedCertificate::try_from(own).and_then(|own| {
            let all = algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&own, roots, others, now, all)
        });
        verified.is_ok() || callers.verify_client_cert(own, others, now).is_ok()
    }

    /// Whether this is the node called `node` of `cluster`.
    pub(crate) fn is(&self, cluster: &str, node: &str) -> bool {
        self.uri == uri_of(cluster, node)
    }
}

/// The URI that names a node.
pub(crate) fn uri_of(cluster: &str, node: &str) -> String {
    format!("spiffe://{}/node/{}", encoded(cluster), encoded(node))
}

fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                text.push(char::from(byte))
            }
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The URI in a certificate, if there is exactly one.
pub(super) fn uri_in(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
    let uri = uris.next()?;
    uris.next().is_none().then_some(uri)
}

fn not_this_node() -> Error {
    Error::InvalidCertificate(CertificateError::NotValidForName)
}

/// Checks the node that was dialled.
#[derive(Debug)]
pub(super) struct Called {
    roots: Arc<RootCertStore>,
    uri: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Called {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        uri: String,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self {
            roots,
            uri,
            algorithms,
        }
    }
}

impl ServerCertVerifier for Called {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        if uri_in(end_entity).as_ref() != Some(&self.uri) {
            return Err(not_this_node());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Checks nodes that dial in. Which of them it is, its hello has to say rightly.
#[derive(Debug)]
pub(super) struct Callers {
    chain: Arc<dyn ClientCertVerifier>,
    /// What the URIs of all nodes begin with.
    prefix: String,
}

impl Callers {
    pub(super) fn new(chain: Arc<dyn ClientCertVerifier>, cluster: &str) -> Self {
        let prefix = uri_of(cluster, "");
        Self { chain, prefix }
    }
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Names of authorities help nobody here, and would tell a stranger how many there are.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        match uri_in(end_entity) {
            Some(uri) if uri.starts_with(&self.prefix) => Ok(verified),
            _ => Err(not_this_node()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
