//! One connection: password, TLS, session settings.
//!
//! Promise: the password is read anew for each connection and kept nowhere; a connection that is
//! handed out has the settings of [`SESSION`] and is to a server that takes writes.
//! Failure: a reason in words, without the password.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::config::{PasswordSource, PostgresConfig};
use super::tls;
use crate::error::StoreError;
use crate::store::News;

/// For a whole connection: address, TLS, password, session.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For the TCP handshake alone: two tries a connection, as the system repeats the first packet
/// after a second.
const TCP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long what was sent may stay without an answer of the other side's kernel.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

// A statement that hangs must not hang its caller, nor keep its locks when the caller has gone. A
// commit must last: usage files are removed on the strength of it.
const SESSION: &str = "
    SET statement_timeout = '5s';
    SET idle_in_transaction_session_timeout = '10s';
    SET default_transaction_isolation = 'read committed';
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'";

/// Makes connections.
pub(super) struct Connector {
    /// Without the password.
    server: Config,
    password: Option<PasswordSource>,
    tls: Option<MakeRustlsConnect>,
    /// Why the password could not be read the last time.
    unread: Mutex<Option<String>>,
}

/// A connection outside of the pool, closed when dropped.
pub(super) struct Direct {
    pub(super) client: Client,
    task: JoinHandle<()>,
}

/// For the pool.
pub(super) struct Pooled(pub(super) Arc<Connector>);

/// A fault of the database in one line: what it said and its code, and the causes.
#[derive(Debug)]
pub(super) struct Fault(tokio_postgres::Error);

// === impl Connector ===

impl Connector {
    pub(super) fn new(config: &PostgresConfig) -> Result<Self, StoreError> {
        let tls = tls::client_config(config)?.map(MakeRustlsConnect::new);
        if tls.is_some() && config.host.starts_with('/') {
            let reason = "a Unix socket has no TLS: use tls mode disable";
            return Err(StoreError::failed("prepare TLS", reason));
        }
        let mut server = Config::new();
        server
            .host(&config.host)
            .port(config.port)
            .user(&config.user)
            .dbname(&config.database)
            .application_name("tyr")
            .connect_timeout(TCP_TIMEOUT)
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .ssl_mode(match tls {
                Some(_) => SslMode::Require,
                None => SslMode::Disable,
            });
        Ok(Self {
            server,
            password: config.password.clone(),
            tls,
            unread: Mutex::default(),
        })
    }

    /// A connection of its own, within [`CONNECT_TIMEOUT`].
    pub(super) async fn direct(self: &Arc<Self>) -> Result<Direct, String> {
        self.direct_for(None).await
    }

    /// The same; each notification that comes over it is told.
    pub(super) async fn direct_for(self: &Arc<Self>, news: Option<News>) -> Result<Direct, String> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect(news)).await {
            Ok(Ok((client, task))) => Ok(Direct { client, task }),
            Ok(Err(error)) => Err(self.reason(error)),
            Err(_) => Err(self.timed_out()),
        }
    }

    /// Why the last connection failed, in words.
    pub(super) fn reason(&self, error: tokio_postgres::Error) -> String {
        let fault = Fault(error);
        match &*self.unread.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(unread) => format!("{fault}; the password cannot be read: {unread}"),
            None => fault.to_string(),
        }
    }

    pub(super) fn timed_out(&self) -> String {
        format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())
    }

    async fn connect(
        &self,
        news: Option<News>,
    ) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let mut server = self.server.clone();
        if let Some(password) = self.password().await {
            server.password(password);
        }
        let (client, task) = match &self.tls {
            Some(tls) => {
                let (client, connection) = server.connect(tls.clone()).await?;
                (client, serve(connection, news))
            }
            None => {
                let (client, connection) = server.connect(NoTls).await?;
                (client, serve(connection, news))
            }
        };
        client.batch_execute(SESSION).await?;
        Ok((client, task))
    }

    /// Without one that was to be read, the server is asked all the same: it refuses if it needs it.
    async fn password(&self) -> Option<String> {
        let source = self.password.clone()?;
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let read = read.unwrap_or_else(|_| Err("reading it panicked".to_owned()));
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(password) => {
                *unread = None;
                Some(password)
            }
            Err(reason) => {
                *unread = Some(reason);
                None
            }
        }
    }
}

/// Drives the connection until its client is dropped or the server ends it.
fn serve<S>(mut connection: Connection<Socket, S>, news: Option<News>) -> JoinHandle<()>
where
    S: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(_))) => {
                    if let Some(news) = &news {
                        news.tell();
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(error = %Fault(error), "a connection to Postgres ended");
                    return;
                }
                None => return,
            }
        }
    })
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("server", &self.server)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

// === impl Direct ===

impl Direct {
    /// Waits until the server has ended it.
    pub(super) async fn ended(&mut self) {
        // An error would be a panic of the task, which ends it, too.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Pooled ===

type Connecting<'a> = Pin<
    Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + 'a>,
>;

impl deadpool_postgres::Connect for Pooled {
    fn connect(&self, _server: &Config) -> Connecting<'_> {
        Box::pin(self.0.connect(None))
    }
}

// === impl Fault ===

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(said) = self.0.as_db_error() {
            return write!(f, "{} ({})", said.message(), said.code().code());
        }
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}
