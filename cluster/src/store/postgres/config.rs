//! Where the database is and how it is spoken to, as the node is told.
//!
//! Promise: nothing here shows a password, neither in `Debug` nor in an error.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// A Postgres database. [`PostgresConfig::new`] and [`PostgresConfig::from_url`] fill in the
/// defaults; every field may be set afterwards.
#[derive(Clone)]
pub struct PostgresConfig {
    /// A name, an address, or a folder of a Unix socket (it starts with `/`; no TLS there).
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
    /// `None`: the server asks for none.
    pub password: Option<PasswordSource>,
    /// Default: `VerifyFull`, and `Disable` for the same machine (see [`TlsMode::default_for`]).
    pub tls: TlsMode,
    /// Certificates (PEM) that the server's is judged by, instead of the public ones.
    pub ca_pem: Option<String>,
    /// Most connections at once, at least 1. Default: 4. One more is open for moments, when the node
    /// starts or finds the database back and looks at its schema.
    pub pool: usize,
    /// Whether a start brings the schema up to date (default), or refuses an older one.
    pub migrate: bool,
}

/// Gives the password anew for each connection, so that it may change while the node runs.
#[derive(Clone)]
pub struct PasswordSource(Arc<dyn Fn() -> Result<String, String> + Send + Sync>);

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// In the clear.
    Disable,
    /// Encrypted, with whoever answers.
    Require,
    /// Encrypted, and the certificate is of the right authority, for whatever name.
    VerifyCa,
    /// Encrypted, and the certificate is of the right authority and for this host.
    VerifyFull,
}

/// A connection URL cannot be used. The message repeats nothing of the URL: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostgresUrlError {
    #[error("expected postgres://user:password@host:port/database")]
    Form,
    #[error("the user is missing: postgres://USER@host/database")]
    NoUser,
    #[error("the port is not a number from 1 to 65535")]
    Port,
    #[error("several hosts are not supported: name one")]
    SeveralHosts,
    #[error("a % is not followed by two hexadecimal digits, or the text is not UTF-8")]
    Escape,
    #[error("sslmode must be disable, require, verify-ca or verify-full")]
    SslMode,
    #[error("the only options are sslmode, host, application_name and connect_timeout")]
    Option,
}

const DEFAULT_POOL: usize = 4;
const DEFAULT_PORT: u16 = 5432;

// === impl PostgresConfig ===

impl PostgresConfig {
    /// The defaults: no password, TLS by host, 4 connections, migrations on.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        user: impl Into<String>,
        database: impl Into<String>,
    ) -> Self {
        let host = host.into();
        Self {
            tls: TlsMode::default_for(&host),
            host,
            port,
            user: user.into(),
            database: database.into(),
            password: None,
            ca_pem: None,
            pool: DEFAULT_POOL,
            migrate: true,
        }
    }

    /// `postgres://user:password@host:port/database?sslmode=verify-full`. Reserved characters are
    /// written as `%XX`; a socket folder is `?host=/run/postgresql`. `application_name` and
    /// `connect_timeout` are passed over: the node sets its own.
    pub fn from_url(url: &str) -> Result<Self, PostgresUrlError> {
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .ok_or(PostgresUrlError::Form)?;
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = authority.rsplit_once('@').ok_or(PostgresUrlError::NoUser)?;
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        let user = unescaped(user)?;
        if user.is_empty() {
            return Err(PostgresUrlError::NoUser);
        }
        let (host, port) = host_and_port(place)?;
        let mut config = Self::new(host, port, user.clone(), unescaped(database)?);
        if config.database.is_empty() {
            config.database = user;
        }
        config.password = match password {
            Some(password) => Some(PasswordSource::fixed(unescaped(password)?)),
            None => None,
        };
        config.read_options(options)?;
        match config.host.is_empty() {
            true => Err(PostgresUrlError::Form),
            false => Ok(config),
        }
    }

    fn read_options(&mut self, options: &str) -> Result<(), PostgresUrlError> {
        let mut mode = None;
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').ok_or(PostgresUrlError::Option)?;
            match name {
                "sslmode" => {
                    mode = Some(TlsMode::from_word(value).ok_or(PostgresUrlError::SslMode)?)
                }
                "host" => {
                    self.host = unescaped(value)?;
                    self.tls = TlsMode::default_for(&self.host);
                }
                "application_name" | "connect_timeout" => {}
                _ => return Err(PostgresUrlError::Option),
            }
        }
        self.tls = mode.unwrap_or(self.tls);
        Ok(())
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("password", &self.password)
            .field("tls", &self.tls)
            .field("ca_pem", &self.ca_pem.is_some())
            .field("pool", &self.pool)
            .field("migrate", &self.migrate)
            .finish()
    }
}

/// Default port when none is written. An IPv6 address stands in brackets.
fn host_and_port(place: &str) -> Result<(String, u16), PostgresUrlError> {
    if place.contains(',') {
        return Err(PostgresUrlError::SeveralHosts);
    }
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(PostgresUrlError::Form)?;
            if !port.is_empty() && !port.starts_with(':') {
                return Err(PostgresUrlError::Form);
            }
            (host, port.strip_prefix(':'))
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(PostgresUrlError::Port),
        },
    };
    Ok((unescaped(host)?, port))
}

fn unescaped(text: &str) -> Result<String, PostgresUrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or(PostgresUrlError::Escape)?;
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).map_err(|_| PostgresUrlError::Escape)?;
        bytes.push(byte[0]);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| PostgresUrlError::Escape)
}

// === impl PasswordSource ===

impl PasswordSource {
    /// Asked at each connection, on a thread that may block. An error must not hold the secret.
    pub fn new(read: impl Fn() -> Result<String, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Always the same.
    pub fn fixed(password: String) -> Self {
        Self::new(move || Ok(password.clone()))
    }

    pub(super) fn read(&self) -> Result<String, String> {
        (self.0)()
    }
}

impl fmt::Debug for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

// === impl TlsMode ===

impl TlsMode {
    /// `Disable` for a Unix socket, `localhost` and loopback addresses, else `VerifyFull`.
    pub fn default_for(host: &str) -> Self {
        let address = host.parse::<IpAddr>();
        let near = host.starts_with('/')
            || host == "localhost"
            || address.is_ok_and(|address| address.is_loopback());
        if near {
            Self::Disable
        } else {
            Self::VerifyFull
        }
    }

    /// The mode of a word as in `sslmode` and in the node's configuration.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "disable" => Some(Self::Disable),
            "require" => Some(Self::Require),
            "verify-ca" => Some(Self::VerifyCa),
            "verify-full" => Some(Self::VerifyFull),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_every_part() {
        let url = "postgres://ty%40r:p%2Fw@db.example:6432/gate?sslmode=verify-ca";
        let config = PostgresConfig::from_url(url).unwrap();
        let place = (config.host.as_str(), config.port);
        assert_eq!(place, ("db.example", 6432));
        assert_eq!((&*config.user, &*config.database), ("ty@r", "gate"));
        assert_eq!(config.password.as_ref().unwrap().read().unwrap(), "p/w");
        assert_eq!(
            (config.tls, config.pool, config.migrate),
            (TlsMode::VerifyCa, 4, true)
        );
        assert!(!format!("{config:?}").contains("p/w"));

        let near = PostgresConfig::from_url("postgresql://tyr@[::1]").unwrap();
        assert_eq!(
            (&*near.host, near.port, &*near.database),
            ("::1", 5432, "tyr")
        );
        assert_eq!(
            (near.tls, near.password.is_none()),
            (TlsMode::Disable, true)
        );
        let socket = PostgresConfig::from_url("postgres://tyr@/x?host=/run/pg").unwrap();
        assert_eq!((&*socket.host, socket.tls), ("/run/pg", TlsMode::Disable));
        let far = PostgresConfig::from_url("postgres://tyr@10.0.0.1/x").unwrap();
        assert_eq!(far.tls, TlsMode::VerifyFull);
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_repeating_it() {
        let cases = [
            ("mysql://a@b/c", PostgresUrlError::Form),
            ("postgres://a@/c", PostgresUrlError::Form),
            ("postgres://a:secret@[::1]5433/c", PostgresUrlError::Form),
            ("postgres://host/secret", PostgresUrlError::NoUser),
            ("postgres://:secret@host/c", PostgresUrlError::NoUser),
            ("postgres://a:secret@host:0/c", PostgresUrlError::Port),
            ("postgres://a:secret@host:x/c", PostgresUrlError::Port),
            (
                "postgres://a:secret@h1,h2/c",
                PostgresUrlError::SeveralHosts,
            ),
            ("postgres://a:se%cret@h/c", PostgresUrlError::Escape),
            ("postgres://a:%ff@h/c", PostgresUrlError::Escape),
            (
                "postgres://a:secret@h/c?sslmode=prefer",
                PostgresUrlError::SslMode,
            ),
            ("postgres://a:se?cret=secret@h/c", PostgresUrlError::NoUser),
            ("postgres://a:b@h/c?secret=1", PostgresUrlError::Option),
        ];
        for (url, expected) in cases {
            let refused = PostgresConfig::from_url(url).unwrap_err();
            assert_eq!(refused, expected, "{url}");
            assert!(!refused.to_string().contains("secret"), "{refused}");
        }
    }
}
