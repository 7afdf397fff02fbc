//! The operator's own certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::{Material, TlsError, peer};
use crate::config::TlsFiles;

/// What the files hold.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

pub(super) fn read(files: &TlsFiles) -> Result<Contents, TlsError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| TlsError::Read {
            path: path.clone(),
            source,
        })
    };
    Ok(Contents {
        ca: read(&files.ca)?,
        cert: read(&files.cert)?,
        key: Zeroizing::new(read(&files.key)?),
    })
}

/// Makes `contents` of `files` ready for use. The certificate has to carry the URI `expected`.
pub(super) fn material(
    files: &TlsFiles,
    contents: Contents,
    expected: &str,
    provider: &CryptoProvider,
) -> Result<Material, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca, &contents.ca)? {
        roots.add(certificate).map_err(refused(&files.ca))?;
    }
    let chain = certificates(&files.cert, &contents.cert)?;
    let found = peer::uri_in(&chain[0]);
    if found.as_deref() != Some(expected) {
        return Err(TlsError::Name {
            path: files.cert.clone(),
            found: found.unwrap_or_else(|| "no URI".to_owned()),
            expected: expected.to_owned(),
        });
    }
    let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(refused(&files.key))?;
    let own = CertifiedKey::from_der(chain, key, provider).map_err(refused(&files.key))?;
    Ok(Material {
        roots: Arc::new(roots),
        own: Arc::new(own),
        read: Some(contents),
    })
}

/// One or more.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = read.map_err(refused(path))?;
    if found.is_empty() {
        return Err(refused(path)("it holds no certificate"));
    }
    Ok(found)
}

fn refused<E: ToString>(path: &Path) -> impl Fn(E) -> TlsError {
    move |error| TlsError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
