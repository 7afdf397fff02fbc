//! Certificates made of the secrets: the same authority on every node, without a file.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::{Material, TlsError, uri_of};
use crate::transport::keys::{Derived, Keys};

/// What comes before the 32 bytes of an Ed25519 seed in PKCS #8 (RFC 8410).
const PKCS8_ED25519: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Trusts the authorities of all secrets, with a fresh certificate of the first one.
pub(super) fn material(
    keys: &Keys,
    node: &str,
    provider: &CryptoProvider,
) -> Result<Material, TlsError> {
    let ring = keys.ring();
    let mut roots = RootCertStore::empty();
    for derived in ring.all() {
        let (params, key) = authority(derived)?;
        let certificate = params.self_signed(&key).map_err(made)?;
        roots
            .add(certificate.der().clone())
            .map_err(|error| TlsError::Made(error.to_string()))?;
    }
    let (params, key) = authority(ring.first())?;
    let own = leaf(
        &uri_of(keys.cluster(), node),
        &Issuer::new(params, key),
        provider,
    )?;
    Ok(Material {
        roots: Arc::new(roots),
        own: Arc::new(own),
        read: None,
    })
}

/// The authority of one secret. Its name tells those of two secrets apart.
fn authority(derived: &Derived) -> Result<(CertificateParams, KeyPair), TlsError> {
    let mut pkcs8 = Zeroizing::new([0; 48]);
    pkcs8[..16].copy_from_slice(&PKCS8_ED25519);
    pkcs8[16..].copy_from_slice(derived.authority());
    let der = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).map_err(made)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = called(&format!("tyr cluster {}", derived.id()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok((params, key))
}

fn leaf(
    uri: &str,
    issuer: &Issuer<'_, KeyPair>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(made)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = called("tyr node");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(made)?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = params.signed_by(&key, issuer).map_err(made)?;
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    CertifiedKey::from_der(vec![certificate.der().clone()], der, provider)
        .map_err(|error| TlsError::Made(error.to_string()))
}

fn called(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn made(error: rcgen::Error) -> TlsError {
    TlsError::Made(error.to_string())
}
