//! What the mock was sent and what it served.
//!
//! Promise: totals are exact; the ring keeps the last 256 requests with hashes of both bodies.
//! State: this value owns all of it; `reset` starts a new generation, and requests still running
//! from an older one no longer count. Bounded: 256 records, request bodies up to 64 KiB.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const RING: usize = 256;
const KEPT_BODY: usize = 64 * 1024;

/// Counters and the ring of one server.
#[derive(Debug)]
pub(crate) struct Stats {
    /// Off: no headers, hashes and bodies (for benchmarks).
    record: bool,
    in_flight: AtomicU64,
    connections_opened: AtomicU64,
    connections_open: AtomicU64,
    output_tokens: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    generation: u64,
    next: u64,
    by_path: BTreeMap<String, u64>,
    by_model: BTreeMap<String, u64>,
    by_status: BTreeMap<u16, u64>,
    by_outcome: BTreeMap<&'static str, u64>,
    input_tokens: u64,
    ring: VecDeque<Record>,
    /// Requests seen per directive `id`.
    times: BTreeMap<String, u64>,
}

/// One request in the ring.
#[derive(Debug, Clone, Serialize)]
struct Record {
    seq: u64,
    method: String,
    path: String,
    query: Option<String>,
    version: String,
    headers: Vec<(String, String)>,
    content_encoding: Option<String>,
    body_len: u64,
    body_sha256: String,
    #[serde(skip)]
    body: Option<Bytes>,
    model: String,
    stream: bool,
    input_tokens: u64,
    #[serde(flatten)]
    end: Ended,
}

/// How a request ended; in the ring also while it runs.
#[derive(Debug, Clone, Serialize)]
struct Ended {
    outcome: &'static str,
    status: u16,
    output_tokens: u64,
    events: u64,
    response_len: u64,
    response_sha256: String,
    /// From the last byte given to the connection (or the request, when none was) to the end.
    last_byte_to_end_ms: Option<f64>,
    duration_ms: Option<f64>,
}

impl Ended {
    fn running() -> Self {
        Self {
            outcome: "in_flight",
            status: 0,
            output_tokens: 0,
            events: 0,
            response_len: 0,
            response_sha256: String::new(),
            last_byte_to_end_ms: None,
            duration_ms: None,
        }
    }
}

/// The head of a request as it came.
pub(crate) struct Seen<'a> {
    pub method: &'a http::Method,
    pub uri: &'a http::Uri,
    pub version: http::Version,
    pub headers: &'a HeaderMap,
}

impl Stats {
    pub(crate) fn new(record: bool) -> Arc<Self> {
        Arc::new(Self {
            record,
            in_flight: AtomicU64::new(0),
            connections_opened: AtomicU64::new(0),
            connections_open: AtomicU64::new(0),
            output_tokens: AtomicU64::new(0),
            inner: Mutex::new(Inner::default()),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection until the value is dropped.
    pub(crate) fn connection(self: &Arc<Self>) -> Connection {
        self.connections_opened.fetch_add(1, Relaxed);
        self.connections_open.fetch_add(1, Relaxed);
        Connection {
            stats: Arc::clone(self),
        }
    }

    /// Starts a request's entry.
    pub(crate) fn begin(self: &Arc<Self>, seen: &Seen<'_>) -> Entry {
        self.in_flight.fetch_add(1, Relaxed);
        let mut inner = self.inner();
        let (seq, generation) = (inner.next, inner.generation);
        inner.next += 1;
        count(&mut inner.by_path, seen.uri.path());
        if self.record {
            if inner.ring.len() == RING {
                inner.ring.pop_front();
            }
            inner.ring.push_back(record(seq, seen));
        }
        drop(inner);
        let now = Instant::now();
        Entry {
            stats: Arc::clone(self),
            seq,
            generation,
            started: now,
            last_byte: now,
            hash: self.record.then(Sha256::new),
            status: 0,
            output_tokens: 0,
            events: 0,
            length: 0,
            outcome: "cancelled",
        }
    }

    /// How many requests carried this directive `id` before this one.
    pub(crate) fn seen_before(&self, id: &str) -> u64 {
        let mut inner = self.inner();
        let n = inner.times.entry(id.to_owned()).or_default();
        *n += 1;
        *n - 1
    }

    /// Forgets everything but what is open now.
    pub(crate) fn reset(&self) {
        let mut inner = self.inner();
        let generation = inner.generation + 1;
        *inner = Inner {
            generation,
            ..Inner::default()
        };
        drop(inner);
        self.output_tokens.store(0, Relaxed);
        self.connections_opened
            .store(self.connections_open.load(Relaxed), Relaxed);
    }

    /// The request body with this number, while the ring still has it.
    pub(crate) fn body(&self, seq: u64) -> Option<Bytes> {
        let inner = self.inner();
        inner.ring.iter().find(|r| r.seq == seq)?.body.clone()
    }

    pub(crate) fn to_json(&self) -> Value {
        let inner = self.inner();
        json!({
            "requests": inner.next,
            "in_flight": self.in_flight.load(Relaxed),
            "by_path": inner.by_path,
            "by_model": inner.by_model,
            "by_status": inner.by_status,
            "outcomes": inner.by_outcome,
            "cancelled": inner.by_outcome.get("cancelled").copied().unwrap_or(0),
            "served": {
                "input_tokens": inner.input_tokens,
                "output_tokens": self.output_tokens.load(Relaxed),
            },
            "connections": {
                "opened": self.connections_opened.load(Relaxed),
                "open": self.connections_open.load(Relaxed),
            },
            "last": inner.ring.back(),
            "recent": inner.ring,
        })
    }
}

fn count(map: &mut BTreeMap<String, u64>, key: &str) {
    if let Some(n) = map.get_mut(key) {
        *n += 1;
    } else {
        map.insert(key.to_owned(), 1);
    }
}

fn record(seq: u64, seen: &Seen<'_>) -> Record {
    let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    Record {
        seq,
        method: seen.method.to_string(),
        path: seen.uri.path().to_owned(),
        query: seen.uri.query().map(str::to_owned),
        version: format!("{:?}", seen.version),
        headers: seen
            .headers
            .iter()
            .map(|(n, v)| (n.to_string(), text(v)))
            .collect(),
        content_encoding: seen.headers.get("content-encoding").map(text),
        body_len: 0,
        body_sha256: String::new(),
        body: None,
        model: String::new(),
        stream: false,
        input_tokens: 0,
        end: Ended::running(),
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stats: Arc<Stats>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stats.connections_open.fetch_sub(1, Relaxed);
    }
}

/// One request from its head to its end. Dropped without `end`: the client left, `cancelled`.
#[derive(Debug)]
pub(crate) struct Entry {
    stats: Arc<Stats>,
    seq: u64,
    generation: u64,
    started: Instant,
    last_byte: Instant,
    hash: Option<Sha256>,
    status: u16,
    output_tokens: u64,
    events: u64,
    length: u64,
    outcome: &'static str,
}

impl Entry {
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The body arrived whole.
    pub(crate) fn body(&mut self, body: &Bytes) {
        self.last_byte = Instant::now();
        if !self.stats.record {
            return;
        }
        let hash = hex::encode(Sha256::digest(body));
        self.update(|record| {
            record.body_len = body.len() as u64;
            record.body_sha256 = hash;
            record.body = (body.len() <= KEPT_BODY).then(|| body.clone());
        });
    }

    /// The body was understood.
    pub(crate) fn asked(&mut self, model: &str, stream: bool) {
        let mut inner = self.stats.inner();
        if inner.generation == self.generation {
            count(&mut inner.by_model, model);
        }
        drop(inner);
        self.update(|record| {
            record.model = model.to_owned();
            record.stream = stream;
        });
    }

    /// An answer with usage is being given.
    pub(crate) fn input_tokens(&mut self, tokens: u64) {
        let mut inner = self.stats.inner();
        if inner.generation == self.generation {
            inner.input_tokens += tokens;
        }
        drop(inner);
        self.update(|record| record.input_tokens = tokens);
    }

    /// The head is decided.
    pub(crate) fn status(&mut self, status: u16) {
        self.status = status;
    }

    /// These bytes of the answer's body go to the connection.
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        self.last_byte = Instant::now();
        self.length += bytes.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
    }

    /// An event went out whole; it carried so many output tokens.
    pub(crate) fn event(&mut self, tokens: u64) {
        self.events += 1;
        self.served(tokens);
    }

    /// So many output tokens went out.
    pub(crate) fn served(&mut self, tokens: u64) {
        self.output_tokens += tokens;
        if tokens > 0 {
            self.stats.output_tokens.fetch_add(tokens, Relaxed);
        }
    }

    /// What to call the end: `finished` or `fault`.
    pub(crate) fn end(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }

    fn update(&self, change: impl FnOnce(&mut Record)) {
        if !self.stats.record {
            return;
        }
        let mut inner = self.stats.inner();
        if inner.generation != self.generation {
            return;
        }
        if let Some(record) = inner.ring.iter_mut().rev().find(|r| r.seq == self.seq) {
            change(record);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.stats.in_flight.fetch_sub(1, Relaxed);
        let millis = |since: Instant| since.elapsed().as_secs_f64() * 1000.0;
        let end = Ended {
            outcome: self.outcome,
            status: self.status,
            output_tokens: self.output_tokens,
            events: self.events,
            response_len: self.length,
            response_sha256: self
                .hash
                .take()
                .map(|h| hex::encode(h.finalize()))
                .unwrap_or_default(),
            last_byte_to_end_ms: Some(millis(self.last_byte)),
            duration_ms: Some(millis(self.started)),
        };
        let mut inner = self.stats.inner();
        if inner.generation != self.generation {
            return;
        }
        *inner.by_status.entry(self.status).or_default() += 1;
        *inner.by_outcome.entry(self.outcome).or_default() += 1;
        if let Some(record) = inner.ring.iter_mut().rev().find(|r| r.seq == self.seq) {
            record.end = end;
        }
    }
}
