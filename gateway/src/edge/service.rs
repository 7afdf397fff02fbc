//! The data service: the edge on its listening sockets.
//!
//! Promise: when its own watch says that the node leaves, the sockets are
//! closed, HTTP/2 clients get GOAWAY and connections without a request end;
//! the server's own signal does not reach it. The sockets can be handed to
//! another process at any time before.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use pingora_core::apps::HttpServerApp;
use pingora_core::listeners::ListenerConfig;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service as PingoraService;
use pingora_core::services::listening::Service;

use super::EdgeApp;

/// A service that ends by its own watch.
pub struct DataService<A> {
    inner: Service<EdgeApp<A>>,
    leaving: ShutdownWatch,
    sockets: ListeningSockets,
}

impl<A> fmt::Debug for DataService<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataService").finish_non_exhaustive()
    }
}

impl<A> DataService<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    /// `app` on no socket yet, until `leaving` says `true`.
    pub fn new(app: EdgeApp<A>, leaving: ShutdownWatch) -> Self {
        DataService {
            inner: Service::new("tyr data".to_owned(), app),
            leaving,
            sockets: ListeningSockets::default(),
        }
    }

    /// Listens there once the service is started.
    pub fn add_listener(&mut self, listener: ListenerConfig) {
        self.inner.add_listener(listener);
    }

    /// The sockets, for handing them over.
    pub fn sockets(&self) -> ListeningSockets {
        self.sockets.clone()
    }
}

#[async_trait]
impl<A> PingoraService for DataService<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        _server: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        if let Some(fds) = &fds {
            // A service is started once; a second table would be the same.
            let _ = self.sockets.0.set(Arc::clone(fds));
        }
        let leaving = self.leaving.clone();
        PingoraService::start_service(&mut self.inner, fds, leaving, listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        PingoraService::name(&self.inner)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        PingoraService::listen_addresses(&self.inner)
    }
}

/// The listening sockets of a data service.
#[derive(Clone, Default)]
pub struct ListeningSockets(Arc<OnceLock<ListenFds>>);

impl fmt::Debug for ListeningSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListeningSockets").finish_non_exhaustive()
    }
}

/// Why the sockets were not handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// The service does not listen yet.
    #[error("there are no listening sockets yet")]
    NotListening,
    /// Nobody took them.
    #[error("no process takes the sockets at {path}: {reason}")]
    NotTaken {
        /// Where they were offered.
        path: String,
        /// What the system said.
        reason: String,
    },
}

impl ListeningSockets {
    /// Sends the sockets to the process that waits at `path`. Both listen on
    /// them from then on. Blocks for some seconds while nobody is there.
    pub fn hand_over(&self, path: &Path) -> Result<(), HandOverError> {
        let table = self.0.get().ok_or(HandOverError::NotListening)?.lock();
        if table.is_empty() {
            return Err(HandOverError::NotListening);
        }
        let path = path.display().to_string();
        match table.send_to_sock(path.as_str()) {
            Ok(_) => Ok(()),
            Err(error) => Err(HandOverError::NotTaken {
                path,
                reason: error.to_string(),
            }),
        }
    }
}
