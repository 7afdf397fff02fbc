//! Clients behind a balancer that knows which node is ready.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::{Ask, Connection};
use super::fleet::Fleet;
use super::wait::within;

/// Clients at work: each request goes to the next node that is ready and takes the connection. What
/// was begun is never tried again.
pub struct Balanced {
    stop: Arc<AtomicBool>,
    heard: Arc<Heard>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

/// Answers so far.
#[derive(Default)]
struct Heard {
    good: AtomicU64,
    refused: AtomicU64,
}

/// What all clients got.
#[derive(Debug)]
pub struct Sum {
    pub good: u64,
    pub refused: u64,
    /// Everything else, in words.
    pub faults: Vec<String>,
}

impl Balanced {
    /// So many clients of all nodes, each with one request at a time.
    pub fn start(fleet: &Fleet, clients: usize, ask: &Ask) -> Self {
        let nodes = fleet.nodes.iter();
        let to: Arc<[_]> = nodes.map(|node| [node.data, node.admin]).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::new(Heard::default());
        let threads = (0..clients).map(|number| {
            let (stop, heard) = (Arc::clone(&stop), Arc::clone(&heard));
            let (to, ask) = (Arc::clone(&to), ask.clone());
            std::thread::spawn(move || client(&stop, &heard, &to, &ask, number))
        });
        let threads = threads.collect();
        Self {
            stop,
            heard,
            threads,
        }
    }

    /// Good and refused answers so far.
    pub fn heard(&self) -> [u64; 2] {
        [&self.heard.good, &self.heard.refused].map(|count| count.load(Ordering::SeqCst))
    }

    /// Lets each client end the request it is at.
    pub fn stop(self) -> Sum {
        self.stop.store(true, Ordering::SeqCst);
        let clients = self.threads.into_iter();
        let faults = clients.flat_map(|client| client.join().expect("a client"));
        let faults = faults.collect();
        Sum {
            good: self.heard.good.load(Ordering::SeqCst),
            refused: self.heard.refused.load(Ordering::SeqCst),
            faults,
        }
    }
}

fn client(
    stop: &AtomicBool,
    heard: &Heard,
    to: &[[SocketAddr; 2]],
    ask: &Ask,
    number: usize,
) -> Vec<String> {
    let mut faults = Vec::new();
    let mut turn = number;
    while !stop.load(Ordering::SeqCst) {
        within(Duration::from_millis(10), || None::<()>);
        turn += 1;
        let open = (0..to.len()).find_map(|next| open(to[(turn + next) % to.len()]));
        let answer = open.and_then(|mut open| open.try_exchange(ask));
        let of_stream = |text: &str| !text.contains("data: ") || text.contains("data: [DONE]");
        match &answer {
            Some(one) if one.status() == 200 && one.complete && of_stream(&one.text()) => {
                heard.good.fetch_add(1, Ordering::SeqCst);
            }
            Some(one) if one.status() == 429 => {
                heard.refused.fetch_add(1, Ordering::SeqCst);
            }
            other => {
                let seen = other
                    .as_ref()
                    .map(|one| (one.status(), one.complete, one.text()));
                faults.push(format!("{seen:?}"));
            }
        }
    }
    faults
}

/// A connection to a node that wants traffic; it says so a second before it takes none.
fn open([data, admin]: [SocketAddr; 2]) -> Option<Connection> {
    let ready = Connection::try_open(admin).ok()?;
    let answer = { ready }.try_exchange(&Ask::get("/readyz"))?;
    (answer.status() == 200).then_some(())?;
    Connection::try_open(data).ok()
}
