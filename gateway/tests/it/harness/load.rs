//! Several clients at work for as long as a test wants, who remember all that they got.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use super::client::{Ask, Connection};

/// One good answer.
#[derive(Clone, Debug)]
pub struct Served {
    pub request_id: String,
    /// When its last byte was read.
    pub at: Instant,
}

/// Everything of one client.
#[derive(Debug, Default)]
pub struct Diary {
    pub served: Vec<Served>,
    /// The first thing that went wrong, and when; the client ended then.
    pub fault: Option<(Instant, String)>,
}

/// Clients that ask without end, each on a connection of its own.
pub struct Load {
    signs: Arc<Signs>,
    threads: Vec<JoinHandle<Diary>>,
}

#[derive(Default)]
struct Signs {
    stop: AtomicBool,
    served: AtomicU64,
    faults: AtomicU64,
}

impl Load {
    /// One client for each of `asks`.
    pub fn start(to: SocketAddr, asks: Vec<Ask>) -> Self {
        let signs = Arc::new(Signs::default());
        let clients = asks.into_iter().map(|ask| {
            let signs = Arc::clone(&signs);
            std::thread::spawn(move || signs.client(to, &ask))
        });
        let threads = clients.collect();
        Self { signs, threads }
    }

    /// How many good answers there were.
    pub fn served(&self) -> u64 {
        self.signs.served.load(Ordering::SeqCst)
    }

    /// Whether something went wrong.
    pub fn is_disturbed(&self) -> bool {
        self.signs.faults.load(Ordering::SeqCst) > 0
    }

    /// Lets each client end the request it is at.
    pub fn stop(self) -> Vec<Diary> {
        self.signs.stop.store(true, Ordering::SeqCst);
        let clients = self.threads.into_iter();
        clients
            .map(|client| client.join().expect("a client"))
            .collect()
    }
}

impl Signs {
    fn client(&self, to: SocketAddr, ask: &Ask) -> Diary {
        let mut diary = Diary::default();
        let mut connection = None;
        while !self.stop.load(Ordering::SeqCst) {
            match call(&mut connection, to, ask) {
                Ok(served) => {
                    diary.served.push(served);
                    self.served.fetch_add(1, Ordering::SeqCst);
                }
                Err(fault) => {
                    self.faults.fetch_add(1, Ordering::SeqCst);
                    diary.fault = Some((Instant::now(), fault));
                    break;
                }
            }
        }
        diary
    }
}

/// One request, on the connection that is there unless it was to be closed.
fn call(connection: &mut Option<Connection>, to: SocketAddr, ask: &Ask) -> Result<Served, String> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::try_open(to).map_err(|error| error.to_string())?,
    };
    let answer = open
        .try_exchange(ask)
        .ok_or("the connection ended without an answer")?;
    if answer.status() != 200 || !answer.complete {
        return Err(format!("{answer:?}"));
    }
    let is_stream = answer
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("text/event-stream"));
    if is_stream && !answer.text().trim_end().ends_with("data: [DONE]") {
        return Err(format!("a stream without its end: {}", answer.text()));
    }
    // Of its own only where the client's id is shown, too.
    let request_id = answer.header("x-tyr-record-id");
    let request_id = request_id.or(answer.header("x-request-id"));
    let request_id = request_id.ok_or("no request id")?;
    let served = Served {
        request_id: request_id.to_string(),
        at: Instant::now(),
    };
    if answer.header("connection") != Some("close") {
        *connection = Some(open);
    }
    Ok(served)
}
