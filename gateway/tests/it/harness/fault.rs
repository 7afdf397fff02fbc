//! What stands between nodes, or between a node and its database: relays that pass bytes on, and
//! a proxy that by a seed loses, delays and doubles datagrams, and delays and breaks connections.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What becomes of datagrams, and of connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Lost, of a hundred.
    pub loss: u64,
    /// Sent twice, of a hundred.
    pub doubled: u64,
    /// Each is late by up to this; so they overtake each other.
    pub jitter: Duration,
    /// Each piece of what goes over a connection is late by up to this, and those after it with it.
    pub stall: Duration,
    /// Connections broken, of a thousand pieces.
    pub broken: u64,
}

type Shared = Arc<Mutex<Weather>>;

fn at_present(weather: &Shared) -> Weather {
    *weather.lock().expect("no panic while it is held")
}

/// Numbers by xorshift.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// A time up to `most`.
    fn time(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(0);
        Duration::from_micros(self.roll(micros + 1))
    }
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
        Self::in_weather(at, to, Shared::default(), 1)
    }

    fn in_weather(at: SocketAddr, to: SocketAddr, weather: Shared, seed: u64) -> Self {
        let listener = TcpListener::bind(at).expect("the relay's address");
        let address = listener.local_addr().expect("an address");
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let opened = Arc::clone(&open);
        thread::spawn(move || {
            for (number, near) in (0..).zip(listener.incoming().map_while(Result::ok)) {
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
                let weather = Arc::clone(&weather);
                thread::spawn(move || pass(near, to, &weather, seed + 2 * number));
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

fn pass(near: TcpStream, to: SocketAddr, weather: &Shared, seed: u64) {
    // Whoever is not there is not there for the caller, either.
    let Ok(far) = TcpStream::connect(to) else {
        return;
    };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let (Ok(near_again), Ok(far_again)) = (near.try_clone(), far.try_clone()) else {
        return;
    };
    let there = Arc::clone(weather);
    let back = thread::spawn(move || copy(far_again, near_again, &there, seed + 1));
    copy(near, far, weather, seed);
    back.join().ok();
}

fn copy(mut from: TcpStream, mut to: TcpStream, weather: &Shared, seed: u64) {
    let mut dice = Dice::new(seed);
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let now = at_present(weather);
        if dice.roll(1_000) < now.broken {
            break;
        }
        thread::sleep(dice.time(now.stall));
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
    from.shutdown(Shutdown::Both).ok();
}

/// Stands before one node: what comes to it has weather.
pub struct Gossip {
    weather: Shared,
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
        let weather = Shared::default();
        let relay = |port: u16| {
            let (at, to) = ((at, port).into(), (node, port).into());
            Relay::in_weather(at, to, Arc::clone(&weather), seed + u64::from(port))
        };
        let [exchanges, streams] = ports.map(relay);
        let gossip = Self {
            weather,
            end: Arc::default(),
            seen: Arc::default(),
            _exchanges: exchanges,
            streams: Some(streams),
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
                dice: Dice::new(seed),
                waiting: BinaryHeap::new(),
                number: 0,
            };
            while !end.load(Ordering::SeqCst) {
                let now = at_present(&weather);
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
    dice: Dice,
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
        if self.dice.roll(100) < weather.loss {
            return true;
        }
        let copies = if self.dice.roll(100) < weather.doubled {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let late = self.dice.time(weather.jitter);
            self.number += 1;
            self.waiting.push(Reverse((
                Instant::now() + late,
                self.number,
                buffer[..count].to_vec(),
            )));
        }
        true
    }
}
