//! Clients that ask at a pace, whatever they are told, and remember each answer: what a limit let
//! through, and when.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::{Ask, Connection};
use super::wait::within;

/// One answer: when it was complete, and its status; 0 without any.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    pub at: Instant,
    pub status: u16,
}

/// Clients at work.
pub struct Pressure {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Heard>>>,
}

impl Pressure {
    /// For each target one client that asks once in `pace`.
    pub fn start(targets: &[SocketAddr], ask: &Ask, pace: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = targets.iter().map(|to| {
            let (stop, to, ask) = (Arc::clone(&stop), *to, ask.clone());
            std::thread::spawn(move || client(&stop, to, &ask, pace))
        });
        let threads = clients.collect();
        Self { stop, threads }
    }

    /// Ends the clients; what each heard.
    pub fn stop(self) -> Vec<Vec<Heard>> {
        self.stop.store(true, Ordering::SeqCst);
        let clients = self.threads.into_iter();
        clients
            .map(|client| client.join().expect("a client"))
            .collect()
    }

    /// Lets the clients work for this long, and ends them.
    pub fn for_a(self, time: Duration) -> Vec<Vec<Heard>> {
        within(time, || None::<()>);
        self.stop()
    }
}

fn client(stop: &AtomicBool, to: SocketAddr, ask: &Ask, pace: Duration) -> Vec<Heard> {
    let mut heard = Vec::new();
    let mut connection: Option<Connection> = None;
    let begun = Instant::now();
    let mut next = Duration::ZERO;
    while !stop.load(Ordering::SeqCst) {
        let wait = next.saturating_sub(begun.elapsed());
        within(wait, || stop.load(Ordering::SeqCst).then_some(()));
        next += pace;
        let open = connection.take().or_else(|| Connection::try_open(to).ok());
        let answer = open.and_then(|mut open| {
            let answer = open.try_exchange(ask)?;
            if answer.header("connection") != Some("close") {
                connection = Some(open);
            }
            Some(answer.status())
        });
        heard.push(Heard {
            at: Instant::now(),
            status: answer.unwrap_or(0),
        });
    }
    heard
}

/// How many answers had this status.
pub fn count(heard: &[Vec<Heard>], status: u16) -> u64 {
    let all = heard.iter().flatten();
    all.filter(|one| one.status == status).count() as u64
}

/// The most good answers of all clients together in any interval of this length.
pub fn most_within(heard: &[Vec<Heard>], length: Duration) -> u64 {
    let mut good: Vec<Instant> = heard
        .iter()
        .flatten()
        .filter(|one| one.status == 200)
        .map(|one| one.at)
        .collect();
    good.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (last, at) in good.iter().enumerate() {
        while at.duration_since(good[first]) >= length {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most as u64
}
