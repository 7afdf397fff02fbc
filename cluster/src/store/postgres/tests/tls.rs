//! What each TLS mode accepts, over a server whose certificate is for `db.test`.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;
use crate::testing::postgres::Identity;

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn identity(issuer: &CertifiedIssuer<'static, KeyPair>, name: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    Identity {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}

/// The reason for which the mode does not connect, or how the connection is encrypted.
fn attempt(
    server: &Postgres,
    database: &str,
    tls: TlsMode,
    ca: Option<&str>,
) -> Result<String, String> {
    let config = PostgresConfig {
        tls,
        ca_pem: ca.map(str::to_owned),
        ..config(server, database)
    };
    let store = PostgresStore::open(&config).map_err(|refused| refused.to_string())?;
    assert_eq!(store.usage_count().unwrap(), 0);
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name = 'tyr' AND datname = current_database()";
    Ok(server.admin(database, encrypted))
}

#[test]
fn each_mode_accepts_what_it_should() {
    let ours = authority("ours");
    let theirs = authority("theirs");
    let (ours_pem, theirs_pem) = (ours.pem(), theirs.pem());
    let named = Postgres::start(Some(&identity(&ours, "127.0.0.1")));
    let misnamed = Postgres::start(Some(&identity(&ours, "db.test")));
    let plain = postgres::shared();
    let (right, wrong) = (Some(&*ours_pem), Some(&*theirs_pem));
    use TlsMode::{Disable, Require, VerifyCa, VerifyFull};
    let table = [
        (&named, Disable, None, Ok("f")),
        (&named, Require, None, Ok("t")),
        (&named, Require, right, Err("verifies nothing")),
        (&named, Disable, right, Err("verifies nothing")),
        (&named, VerifyCa, right, Ok("t")),
        (&named, VerifyCa, wrong, Err("UnknownIssuer")),
        (&named, VerifyCa, None, Err("UnknownIssuer")),
        (&named, VerifyFull, right, Ok("t")),
        (&named, VerifyFull, wrong, Err("UnknownIssuer")),
        (&named, VerifyFull, None, Err("UnknownIssuer")),
        (&misnamed, Require, None, Ok("t")),
        (&misnamed, VerifyCa, right, Ok("t")),
        (&misnamed, VerifyFull, right, Err("not valid for name")),
        (plain, Disable, None, Ok("f")),
        (plain, Require, None, Err("server does not support TLS")),
        (plain, VerifyFull, right, Err("server does not support TLS")),
        (
            &named,
            VerifyFull,
            Some("no PEM"),
            Err("there is none in the PEM text"),
        ),
    ];
    // At once: each refusal takes as long as a start waits.
    thread::scope(|scope| {
        for (row, (server, mode, ca, expected)) in table.into_iter().enumerate() {
            scope.spawn(move || {
                let found = attempt(server, &server.database(), mode, ca);
                match (&found, expected) {
                    (Ok(encrypted), Ok(wanted)) => assert_eq!(encrypted, wanted, "row {row}"),
                    (Err(reason), Err(wanted)) => {
                        assert!(reason.contains(wanted), "row {row}: {reason}");
                    }
                    _ => panic!("row {row}: {found:?}, not {expected:?}"),
                }
            });
        }
    });
}

#[test]
fn a_socket_has_no_tls() {
    let mut config = PostgresConfig::new("/run/postgresql", 5432, "tyr", "tyr");
    config.tls = TlsMode::Require;
    let refused = PostgresStore::open(&config).unwrap_err().to_string();
    assert!(
        refused.ends_with("a Unix socket has no TLS: use tls mode disable"),
        "{refused}"
    );
}
