//! The body of an answer: one piece of JSON, or events with their pace and their faults.
//!
//! Promise: events are made when they are due, not before, so a stream of any length costs little.
//! Every event is one body frame; hyper flushes whenever the next one is not ready yet.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::control::{Fault, StreamFault};
use crate::server::Wire;
use crate::stats::Entry;

/// Time for the bytes already sent to reach the client before a reset throws away what is left.
const BEFORE_RESET: Duration = Duration::from_millis(25);

/// One event of a stream, as written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub bytes: Bytes,
    /// Output tokens it carries.
    pub tokens: u64,
    /// Content, which waits its turn; the others follow at once.
    pub paced: bool,
}

impl Event {
    /// `data: …` alone, as OpenAI writes chat.
    pub(crate) fn data(json: &str) -> Self {
        Self::raw(format!("data: {json}\n\n"))
    }

    /// `event: …` and `data: …`.
    pub(crate) fn named(name: &str, json: &str) -> Self {
        Self::raw(format!("event: {name}\ndata: {json}\n\n"))
    }

    fn raw(text: String) -> Self {
        Self {
            bytes: Bytes::from(text),
            tokens: 0,
            paced: false,
        }
    }

    /// Marks content of so many output tokens.
    pub(crate) fn carrying(mut self, tokens: u64) -> Self {
        self.tokens = tokens;
        self.paced = true;
        self
    }
}

/// The events of one stream.
pub(crate) type Events = Box<dyn Iterator<Item = Event> + Send>;

/// How events are spaced and written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    pub before_first: Duration,
    pub interval: Duration,
    pub crlf: bool,
    pub comments: bool,
}

type Framed = Poll<Option<Result<Frame<Bytes>, Broken>>>;

/// The body handed to hyper.
#[derive(Debug)]
pub(crate) enum MockBody {
    Whole(Box<WholeBody>),
    Events(Box<EventBody>),
}

/// The connection breaks in the middle of a body.
#[derive(Debug)]
pub(crate) struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the mock breaks this answer on purpose")
    }
}

impl std::error::Error for Broken {}

impl MockBody {
    pub(crate) fn whole(bytes: Bytes, tokens: u64, entry: Option<Entry>) -> Self {
        Self::Whole(Box::new(WholeBody {
            bytes: Some(bytes),
            tokens,
            entry,
            cut: None,
            breaking: None,
        }))
    }

    /// Announces `bytes` but breaks the connection after `cut` of them.
    pub(crate) fn cut(bytes: Bytes, cut: usize, entry: Entry) -> Self {
        let cut = cut.min(bytes.len());
        Self::Whole(Box::new(WholeBody {
            bytes: Some(bytes),
            tokens: 0,
            entry: Some(entry),
            cut: Some(cut),
            breaking: None,
        }))
    }

    pub(crate) fn events(
        events: Events,
        pace: Pace,
        fault: Fault,
        error: Event,
        entry: Entry,
        wire: Arc<Wire>,
    ) -> Self {
        let interval = pace.interval;
        Self::Events(Box::new(EventBody {
            events,
            wait: (!pace.before_first.is_zero()).then(|| Box::pin(sleep(pace.before_first))),
            pace,
            fault,
            error,
            entry,
            wire,
            held: None,
            pieces: VecDeque::new(),
            sent: 0,
            next_at: None,
            interval,
            phase: Phase::Running,
        }))
    }
}

impl Body for MockBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Framed {
        match self.get_mut() {
            Self::Whole(body) => body.poll(cx),
            Self::Events(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.bytes.is_none() && body.cut.is_none(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => {
                SizeHint::with_exact(body.bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Events(_) => SizeHint::default(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct WholeBody {
    bytes: Option<Bytes>,
    tokens: u64,
    entry: Option<Entry>,
    cut: Option<usize>,
    breaking: Option<Pin<Box<Sleep>>>,
}

impl WholeBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Framed {
        if let Some(wait) = &mut self.breaking {
            ready!(wait.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Broken)));
        }
        let Some(mut bytes) = self.bytes.take() else {
            return Poll::Ready(None);
        };
        if let Some(cut) = self.cut {
            bytes.truncate(cut);
            self.breaking = Some(Box::pin(sleep(BEFORE_RESET)));
        }
        if let Some(mut entry) = self.entry.take() {
            entry.sent(&bytes);
            entry.served(self.tokens);
            entry.end(if self.cut.is_some() {
                "fault"
            } else {
                "finished"
            });
        }
        if bytes.is_empty() && self.cut.is_none() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Running,
    /// Nothing more comes; with a time set in `wait`, running goes on after it.
    Stalled,
    /// The next poll resets the connection.
    Resetting,
    /// The next poll is an error to hyper.
    Dropping,
    Done,
}

/// A stream in progress.
pub(crate) struct EventBody {
    events: Events,
    pace: Pace,
    fault: Fault,
    /// Written where an error event is asked for.
    error: Event,
    entry: Entry,
    wire: Arc<Wire>,
    /// Next event, waiting for its time.
    held: Option<Event>,
    /// Rest of an event that leaves in pieces.
    pieces: VecDeque<Bytes>,
    sent: u64,
    next_at: Option<Instant>,
    interval: Duration,
    wait: Option<Pin<Box<Sleep>>>,
    phase: Phase,
}

impl fmt::Debug for EventBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBody")
            .field("sent", &self.sent)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl EventBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Framed {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(cx));
                self.wait = None;
                if self.phase == Phase::Stalled {
                    self.phase = Phase::Running;
                }
            }
            match self.phase {
                Phase::Running => {}
                Phase::Stalled => return Poll::Pending,
                Phase::Resetting => {
                    self.entry.end("fault");
                    self.phase = Phase::Done;
                    self.wire.reset();
                    return Poll::Ready(Some(Err(Broken)));
                }
                Phase::Dropping => {
                    self.entry.end("fault");
                    self.phase = Phase::Done;
                    return Poll::Ready(Some(Err(Broken)));
                }
                Phase::Done => return Poll::Ready(None),
            }
            if let Some(piece) = self.pieces.pop_front() {
                self.wait_for(self.fault.trickle_interval.unwrap_or_default());
                return self.frame(piece);
            }
            if let Some(frame) = self.due_fault() {
                return frame;
            }
            if self.phase != Phase::Running {
                continue;
            }
            let Some(event) = self.held.take().or_else(|| self.events.next()) else {
                self.entry.end("finished");
                self.phase = Phase::Done;
                return Poll::Ready(None);
            };
            if event.paced && self.too_early() {
                self.held = Some(event);
                continue;
            }
            return self.write(event);
        }
    }

    fn wait_for(&mut self, time: Duration) {
        if !time.is_zero() {
            self.wait = Some(Box::pin(sleep(time)));
        }
    }

    /// Whether the next content event has to wait for its time; sets the wait.
    fn too_early(&mut self) -> bool {
        if self.interval.is_zero() {
            return false;
        }
        let now = Instant::now();
        match self.next_at {
            Some(at) if at > now => {
                self.wait = Some(Box::pin(sleep_until(at)));
                true
            }
            Some(at) => {
                self.next_at = Some(at + self.interval);
                false
            }
            None => {
                self.next_at = Some(now + self.interval);
                false
            }
        }
    }

    fn frame(&mut self, bytes: Bytes) -> Framed {
        self.entry.sent(&bytes);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn write(&mut self, event: Event) -> Framed {
        self.sent += 1;
        self.entry.event(event.tokens);
        let mut bytes = event.bytes;
        if self.pace.comments {
            bytes = [b": keep-alive\n\n", bytes.as_ref()].concat().into();
        }
        if self.pace.crlf {
            bytes = String::from_utf8_lossy(&bytes).replace('\n', "\r\n").into();
        }
        if let Some(size) = self.fault.trickle {
            while bytes.len() > size {
                self.pieces.push_back(bytes.split_to(size));
            }
            self.pieces.push_back(bytes);
            bytes = self.pieces.pop_front().unwrap_or_default();
            self.wait_for(self.fault.trickle_interval.unwrap_or_default());
        }
        self.frame(bytes)
    }

    /// Carries out the stream fault when its event count is reached; once.
    fn due_fault(&mut self) -> Option<Framed> {
        let (after, kind) = self.fault.stream?;
        if self.sent < after {
            return None;
        }
        self.fault.stream = None;
        match kind {
            StreamFault::Reset => {
                self.phase = Phase::Resetting;
                self.wait_for(BEFORE_RESET);
            }
            StreamFault::Drop => {
                self.phase = Phase::Dropping;
                self.wait_for(BEFORE_RESET);
            }
            StreamFault::Stall => {
                self.phase = Phase::Stalled;
                if let Some(time) = self.fault.stall {
                    self.wait_for(time);
                }
            }
            StreamFault::EndClean => {
                self.entry.end("fault");
                self.phase = Phase::Done;
            }
            StreamFault::ErrorEvent => {
                self.entry.end("fault");
                self.events = Box::new(std::iter::empty());
                self.phase = Phase::Done;
                let error = self.error.bytes.clone();
                return Some(self.frame(error));
            }
            StreamFault::HalfEvent => {
                let next = self.held.take().or_else(|| self.events.next());
                let mut half = next.map_or_else(Bytes::new, |event| event.bytes);
                half.truncate(half.len() / 2);
                self.phase = Phase::Dropping;
                self.wait_for(BEFORE_RESET);
                return Some(self.frame(half));
            }
        }
        None
    }
}
