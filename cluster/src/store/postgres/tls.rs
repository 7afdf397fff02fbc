//! TLS towards the database: rustls with ring, and what each mode verifies.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use super::config::{PostgresConfig, TlsMode};
use crate::error::StoreError;

/// `None` in the clear.
pub(super) fn client_config(config: &PostgresConfig) -> Result<Option<ClientConfig>, StoreError> {
    if config.ca_pem.is_some() && matches!(config.tls, TlsMode::Disable | TlsMode::Require) {
        // Whoever names an authority wants it asked.
        let reason = "a CA is given and this mode verifies nothing: use verify-ca or verify-full";
        return Err(StoreError::failed("prepare TLS", reason));
    }
    if config.tls == TlsMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|source| StoreError::failed("prepare TLS", source))?;
    if config.tls == TlsMode::VerifyFull {
        let roots = roots(config.ca_pem.as_deref())?;
        return Ok(Some(
            builder.with_root_certificates(roots).with_no_client_auth(),
        ));
    }
    let roots = match config.tls {
        TlsMode::VerifyCa => Some(roots(config.ca_pem.as_deref())?),
        _ => None,
    };
    let verifier = Arc::new(Lenient { roots, provider });
    Ok(Some(
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth(),
    ))
}

fn roots(ca_pem: Option<&str>) -> Result<RootCertStore, StoreError> {
    let Some(pem) = ca_pem else {
        return Ok(RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        });
    };
    const ACTION: &str = "read the CA certificates";
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|source| StoreError::failed(ACTION, source))?;
        roots
            .add(certificate)
            .map_err(|source| StoreError::failed(ACTION, source))?;
    }
    match roots.is_empty() {
        true => Err(StoreError::failed(ACTION, "there is none in the PEM text")),
        false => Ok(roots),
    }
}

/// Verifies that the server has the key of its certificate and, with roots, that these vouch for it;
/// never for which name.
#[derive(Debug)]
struct Lenient {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if let Some(roots) = &self.roots {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let certificate = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
