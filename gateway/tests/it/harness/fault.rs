//! What stands between nodes, or between a node and its database: relays that pass bytes on, and
//! a proxy that loses, delays and doubles datagrams by a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What becomes of datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Lost, of a hundred.
    pub loss: u64,
    /// Sent twice, of a hundred.
    pub doubled: u64,
    /// Each is late by up to this; so they overtake each other.
    pub jitter: Duration,
}

/// Passes connections on for as long as the value lives.
pub struct Relay {
    pub address: SocketAddr,
    end: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    /// Passes what comes to `at` on to `to`.
    pub fn start(at: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).expect("the relay's address");
        let address = listener.local_addr().expect("an address");
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let opened = Arc::clone(&open);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(again) = near.try_clone() else {
                    continue;
                };
                opened
                    .lock()
                    .expect("no panic while it is held")
                    .push(again);
                thread::spawn(move || pass(near, to));
            }
        });
        Self { address, end, open }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        TcpStream::connect(self.address).ok();
        for open in self
            .open
            .lock()
            .expect("no panic while it is held")
            .drain(..)
        {
            open.shutdown(Shutdown::Both).ok();
        }
    }
}

fn pass(near: TcpStream, to: SocketAddr) {
    // Whoever is not there is not there for the caller, either.
    let Ok(far) = TcpStream::connect(to) else {
        return;
    };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let (Ok(near_again), Ok(far_again)) = (near.try_clone(), far.try_clone()) else {
        return;
    };
    let back = thread::spawn(move || copy(far_again, near_again));
    copy(near, far);
    back.join().ok();
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
    from.shutdown(Shutdown::Both).ok();
}

/// Stands before one node's gossip: datagrams have weather, connections pass.
pub struct Gossip {
    weather: Arc<Mutex<Weather>>,
    end: Arc<AtomicBool>,
    pub seen: Arc<AtomicU64>,
    /// Exchanges of gossip over TCP.
    _exchanges: Relay,
    /// Streams between nodes; `None`: blocked.
    streams: Option<Relay>,
}

impl Gossip {
    /// Before `node`, at `at`, on both ports of the cluster.
    pub fn start(at: Ipv4Addr, node: Ipv4Addr, ports: [u16; 2], seed: u64) -> Self {
        let udp = UdpSocket::bind((at, ports[0])).expect("the proxy's address");
        udp.set_read_timeout(Some(Duration::from_millis(1)))
            .expect("a timeout");
        let gossip = Self {
            weather: Arc::default(),
            end: Arc::default(),
            seen: Arc::default(),
            _exchanges: Relay::start((at, ports[0]).into(), (node, ports[0]).into()),
            streams: Some(Relay::start((at, ports[1]).into(), (node, ports[1]).into())),
        };
        let (weather, end, seen) = (
            Arc::clone(&gossip.weather),
            Arc::clone(&gossip.end),
            Arc::clone(&gossip.seen),
        );
        let to = SocketAddr::from((node, ports[0]));
        thread::spawn(move || {
            let mut sky = Sky {
                udp,
                to,
                dice: seed | 1,
                waiting: BinaryHeap::new(),
                number: 0,
            };
            while !end.load(Ordering::SeqCst) {
                let now = *weather.lock().expect("no panic while it is held");
                if sky.turn(now) {
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        gossip
    }

    /// Ends the streams to this node and lets nobody make new ones.
    pub fn block_streams(&mut self) {
        self.streams = None;
    }

    pub fn set(&self, weather: Weather) {
        *self.weather.lock().expect("no panic while it is held") = weather;
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
    }
}

struct Sky {
    udp: UdpSocket,
    to: SocketAddr,
    dice: u64,
    waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    number: u64,
}

impl Sky {
    /// Sends what is due and takes at most one datagram; whether there was one.
    fn turn(&mut self, weather: Weather) -> bool {
        while self
            .waiting
            .peek()
            .is_some_and(|Reverse(first)| first.0 <= Instant::now())
        {
            if let Some(Reverse((_, _, bytes))) = self.waiting.pop() {
                self.udp.send_to(&bytes, self.to).ok();
            }
        }
        let mut buffer = [0; 2048];
        let Ok((count, _)) = self.udp.recv_from(&mut buffer) else {
            return false;
        };
        if self.roll(100) < weather.loss {
            return true;
        }
        let copies = if self.roll(100) < weather.doubled {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let jitter = u64::try_from(weather.jitter.as_micros()).unwrap_or(0);
            let late = Duration::from_micros(self.roll(jitter + 1));
            self.number += 1;
            self.waiting.push(Reverse((
                Instant::now() + late,
                self.number,
                buffer[..count].to_vec(),
            )));
        }
        true
    }

    /// A number below `sides`, by xorshift.
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }
}
