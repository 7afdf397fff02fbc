//! The ways a request ends without a whole answer of the provider.

use std::future::Future;

use pingora_core::ErrorType;
use pingora_core::protocols::http::ServerSession;

use super::reject::Refusal;

/// Most bytes after a body that are taken one by one to see a client leave.
const STRAY_BYTES_MAX: usize = 16 * 1024;

/// Why the walk of a request stops.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nothing was sent yet: the gateway answers itself.
    Refuse(Box<Refusal>),
    /// The client has left; nobody reads an answer.
    ClientGone,
    /// The answer has begun and cannot be ended well: the connection is cut.
    Cut,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refuse(Box::new(refusal))
    }
}

/// Waits for `future` as long as the client is there. The request's body must
/// have been read.
pub(super) async fn unless_gone<F: Future>(
    session: &mut ServerSession,
    future: F,
) -> Result<F::Output, Stop> {
    tokio::select! {
        biased;
        output = future => Ok(output),
        () = gone(session) => Err(Stop::ClientGone),
    }
}

/// Ends when the client has left. A byte after the body is no leaving: some
/// clients send a line end too many, and a pipelined request is answered by
/// closing the connection after this answer.
pub(super) async fn gone(session: &mut ServerSession) {
    for _ in 0..STRAY_BYTES_MAX {
        match session.read_body_or_idle(true).await {
            // Pingora's word for "data after the end of the body". A byte of
            // what follows has been taken, so it cannot be served.
            Err(error) if *error.etype() == ErrorType::ConnectError => session.set_keepalive(None),
            _ => return,
        }
    }
    std::future::pending().await
}
