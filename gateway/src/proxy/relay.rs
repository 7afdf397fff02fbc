//! The provider's answer to the client, as it comes.
//!
//! Event streams leave by whole events, everything else by chunks. Nothing is
//! read from the provider while the client does not take what it has, so a
//! slow reader costs a bounded amount of memory; a client that leaves ends the
//! upstream call at once, also while no byte flows. A provider lost in the
//! middle of a stream ends it with an error event, never with a clean end.

use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::EndReason;
use http::header;
use pingora_core::protocols::http::ServerSession;
use tokio::sync::watch;
use tokio::time::Sleep;

use super::answer;
use super::attempt::{Answer, Body};
use super::context::RequestContext;
use super::encoding::{Coding, Tap};
use super::meter::{EventSplitter, Meter};
use super::settle::Account;
use super::stop::{Stop, gone};
use super::stream_error;
use crate::api::Endpoint;
use crate::clock;

/// Most bytes of an unfinished event that are held.
const EVENT_MAX: usize = 1024 * 1024;

/// How long the last event may take to leave once the time is over.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What a provider has left to send after its finish reason is read for the
/// sake of its usage, although the client has left.
const USAGE_WAIT: Duration = Duration::from_secs(2);
const USAGE_BYTES_MAX: usize = 64 * 1024;

/// A comment that every client skips (WHATWG HTML, section 9.2.6).
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// What the relay waits for next.
enum Step {
    Data(Bytes),
    /// The provider ended its answer well.
    End,
    /// The provider's connection broke, or its time is over.
    Lost(Lost),
    /// Nothing happened for a while.
    Quiet,
}

/// How a provider was lost in the middle of its answer.
#[derive(Clone, Copy)]
struct Lost {
    /// For the caller and the log.
    why: &'static str,
    end: EndReason,
}

const CONNECTION: Lost = Lost {
    why: "its connection was lost",
    end: EndReason::UpstreamError,
};
const SILENT: Lost = Lost {
    why: "it stayed silent for too long",
    end: EndReason::Timeout,
};
const OVERTIME: Lost = Lost {
    why: "the time for the whole request is over",
    end: EndReason::Timeout,
};
const LARGE_EVENT: Lost = Lost {
    why: "it sent an event larger than 1 MiB",
    end: EndReason::UpstreamError,
};
const SHUTDOWN: Lost = Lost {
    why: "the gateway is shutting down",
    end: EndReason::Shutdown,
};
const EARLY_END: Lost = Lost {
    why: "it ended the stream before its last event",
    end: EndReason::UpstreamError,
};

/// One answer on its way.
struct Relay<'a> {
    session: &'a mut ServerSession,
    account: &'a mut Account,
    body: Body,
    request_id: &'a str,
    /// When the provider last sent something.
    heard: Instant,
    idle: Duration,
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
    /// Silence towards the client after which a comment is due; zero is never.
    keep_alive: Duration,
    told: Instant,
    /// Says `true` when the grace of a drain is over.
    cut: watch::Receiver<bool>,
}

/// Relays an answer whose head has come to its end.
pub(super) async fn relay(
    session: &mut ServerSession,
    ctx: &mut RequestContext,
    from: Answer,
) -> Result<(), Stop> {
    let keep_alive = ctx.live.bounds.keep_alive;
    let (request_id, record_id) = (ctx.request_id.clone(), ctx.record_id.clone());
    let caller = answer::Caller {
        shape: ctx.shape,
        request: &request_id,
        record: &record_id,
    };
    let draining = ctx.services.readiness.is_draining();
    let _stream = ctx.services.metrics.stream();
    let cut = ctx.services.cut.clone();
    let now = ctx.services.clock.now();
    let Some(account) = &mut ctx.account else {
        return Err(Stop::Cut);
    };
    let (parts, body) = (from.parts, from.body);
    let events = is_event_stream(&parts.headers);
    let encoded = parts.headers.get(header::CONTENT_ENCODING);
    let coding = Coding::parse(encoded.map(header::HeaderValue::as_bytes));
    account.status = parts.status.as_u16();
    account.upstream_request_id = super::headers::upstream_request_id(&parts.headers)
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    let endpoint = account.call.ask.endpoint;
    if parts.status.is_success() {
        account.meter = Some(match events {
            true => Meter::for_stream(endpoint, from.hide_usage),
            false => Meter::for_json(endpoint),
        });
    }
    let head = answer::relayed_head(session, account, &parts, events, caller, now);
    if draining {
        session.set_keepalive(None);
    }
    answer::write_head(session, head).await?;
    account.overhead += from.head_at.elapsed();
    let idle = from.upstream.config.timeouts.idle;
    let heard = clock::monotonic();
    let plain = coding == Some(Coding::Identity);
    let mut relay = Relay {
        session,
        account,
        body,
        request_id: &request_id,
        heard,
        idle,
        deadline: from.deadline,
        timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        keep_alive: if events && plain {
            keep_alive
        } else {
            Duration::ZERO
        },
        told: heard,
        cut,
    };
    relay.arm();
    if events && plain {
        return relay.events(endpoint).await;
    }
    // Only a body that can be read can be judged for being whole.
    let judged =
        relay.account.meter.is_some() && coding.is_some() && (events || is_json(&parts.headers));
    relay.chunks(coding.and_then(Tap::new), judged).await
}

/// Whether the decoded copy is complete so far.
fn sound(tap: &Option<Tap>) -> bool {
    tap.as_ref().is_none_or(Tap::is_sound)
}

fn is_json(headers: &http::HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

/// Waits until requests are cut; for ever when nobody can say so any more.
async fn cut_off(cut: &mut watch::Receiver<bool>) {
    if cut.wait_for(|cut| *cut).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn is_event_stream(headers: &http::HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let name = b"text/event-stream";
        let bytes = value.as_bytes();
        bytes.len() >= name.len() && bytes[..name.len()].eq_ignore_ascii_case(name)
    })
}

impl Relay<'_> {
    /// An event stream: each event leaves with the read that completes it.
    async fn events(mut self, endpoint: Endpoint) -> Result<(), Stop> {
        let mut splitter = EventSplitter::new(EVENT_MAX);
        match self.all_events(&mut splitter, endpoint).await {
            Err(Stop::ClientGone) => {
                self.after_leaving(&mut splitter).await;
                Err(Stop::ClientGone)
            }
            other => other,
        }
    }

    async fn all_events(
        &mut self,
        splitter: &mut EventSplitter,
        endpoint: Endpoint,
    ) -> Result<(), Stop> {
        let lost = loop {
            match self.next().await? {
                Step::Data(chunk) => {
                    let fits = splitter.push(chunk);
                    while let Some(batch) = splitter.next_batch() {
                        self.tell(batch).await?;
                        self.account.top_up();
                    }
                    if fits.is_err() {
                        break LARGE_EVENT;
                    }
                }
                Step::Quiet => self.write(KEEP_ALIVE.clone()).await?,
                Step::Lost(lost) => break lost,
                Step::End => {
                    // Some servers leave out the last event's blank line.
                    let rest = splitter.take_remainder().map(|rest| self.read(rest));
                    if self.is_whole() {
                        self.write(rest.unwrap_or_default()).await?;
                        return self.finish(self.whole_end()).await;
                    }
                    break EARLY_END;
                }
            }
        };
        if self.account.meter.as_ref().is_some_and(Meter::saw_terminal) {
            // The client has everything; what failed is only the goodbye.
            return self.finish(self.whole_end()).await;
        }
        tracing::warn!(
            request_id = self.request_id,
            why = lost.why,
            "an upstream stream was lost"
        );
        self.account.end = lost.end;
        let meter = self.account.meter.as_ref();
        let position = meter.and_then(Meter::responses_position);
        let event = stream_error::event(endpoint, self.request_id, lost.why, position);
        self.write(event).await?;
        self.finish(lost.end).await
    }

    /// Settles what a client left behind that may have had all it wanted.
    async fn after_leaving(&mut self, splitter: &mut EventSplitter) {
        let seen = |relay: &Self| match &relay.account.meter {
            Some(meter) => (meter.saw_terminal(), meter.saw_finish(), meter.reported()),
            None => (true, false, None),
        };
        let (terminal, finished, reported) = seen(self);
        if !terminal && finished && reported.is_none() {
            // The answer is complete and only its bill is missing.
            let _ = tokio::time::timeout(USAGE_WAIT, self.read_usage(splitter)).await;
        }
        let end = match terminal {
            true => self.whole_end(),
            false => EndReason::ClientGone,
        };
        self.account.settle(end);
    }

    async fn read_usage(&mut self, splitter: &mut EventSplitter) {
        let mut left = USAGE_BYTES_MAX;
        while let Some(Ok(frame)) = self.body.frame().await {
            let Ok(data) = frame.into_data() else {
                continue;
            };
            left = left.saturating_sub(data.len());
            if left == 0 || splitter.push(data).is_err() {
                return;
            }
            while let Some(batch) = splitter.next_batch() {
                let _ = self.read(batch);
            }
            if self
                .account
                .meter
                .as_ref()
                .is_none_or(|meter| meter.reported().is_some())
            {
                return;
            }
        }
    }

    /// Anything else: chunk by chunk, cut if the provider is lost.
    async fn chunks(mut self, mut tap: Option<Tap>, judged: bool) -> Result<(), Stop> {
        loop {
            match self.next().await? {
                Step::Data(chunk) => {
                    if let Some(meter) = &mut self.account.meter {
                        match &mut tap {
                            Some(tap) => meter.on_chunk(&tap.push(&chunk)),
                            None => meter.on_chunk(&chunk),
                        }
                    }
                    self.first_byte();
                    self.write(chunk).await?;
                }
                Step::Quiet => {}
                Step::Lost(lost) => return Err(self.cut(lost)),
                // Without a length, an answer that was cut short ends like one
                // that was not; only its own form tells.
                Step::End if judged && sound(&tap) && !self.is_whole() => {
                    return Err(self.cut(EARLY_END));
                }
                Step::End => return self.finish(self.whole_end()).await,
            }
        }
    }

    fn cut(&mut self, lost: Lost) -> Stop {
        let why = lost.why;
        tracing::warn!(
            request_id = self.request_id,
            why,
            "an upstream answer was lost"
        );
        self.account.end = lost.end;
        Stop::Cut
    }

    /// Whether the stream may end here.
    fn is_whole(&self) -> bool {
        match &self.account.meter {
            Some(meter) => meter.saw_terminal() || meter.saw_finish(),
            None => true,
        }
    }

    /// Sends whole events, less what the client did not ask for.
    async fn tell(&mut self, events: Bytes) -> Result<(), Stop> {
        let events = self.read(events);
        self.first_byte();
        self.write(events).await
    }

    /// Meters events; gives back those for the client.
    fn read(&mut self, events: Bytes) -> Bytes {
        match &mut self.account.meter {
            Some(meter) => meter.on_events(events),
            None => events,
        }
    }

    fn first_byte(&mut self) {
        if self.account.first_byte.is_none() {
            self.account.first_byte = Some(self.account.elapsed());
        }
    }

    /// How an answer ends that was relayed whole: an error perhaps.
    fn whole_end(&self) -> EndReason {
        let failed = self.account.meter.as_ref().is_some_and(Meter::saw_error);
        match self.account.status {
            200..=299 if !failed => EndReason::Success,
            _ => EndReason::UpstreamError,
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Stop> {
        if bytes.is_empty() {
            return Ok(());
        }
        // An error event after the deadline still has a moment to leave.
        let limit = self.deadline.max(clock::monotonic() + LAST_WORD);
        let limit = tokio::time::Instant::from_std(limit);
        let writing = self.session.write_response_body(bytes, false);
        let sent = tokio::time::timeout_at(limit, writing).await;
        self.told = clock::monotonic();
        match sent {
            Ok(sent) => sent.map_err(|_| Stop::ClientGone),
            Err(_) => {
                self.account.end = EndReason::Timeout;
                Err(Stop::Cut)
            }
        }
    }

    async fn finish(&mut self, end: EndReason) -> Result<(), Stop> {
        self.account.end = end;
        // Once the last event was relayed the request has succeeded, whether
        // or not the client stays for the end of the framing.
        self.account.settle(end);
        let sent = self.session.write_response_body(Bytes::new(), true).await;
        sent.map_err(|_| Stop::ClientGone)
    }

    /// The next thing that happens, or `ClientGone`.
    async fn next(&mut self) -> Result<Step, Stop> {
        // A client that knows the length has its answer before we know the
        // end; looking whether it is still there would eat its next request.
        if self.body.is_over() {
            return Ok(Step::End);
        }
        // A fast provider always has something ready, and the timer below
        // would never be looked at.
        if clock::monotonic() >= self.deadline {
            return Ok(Step::Lost(OVERTIME));
        }
        loop {
            tokio::select! {
                biased;
                frame = self.body.frame() => match frame {
                    None => return Ok(Step::End),
                    Some(Err(())) => return Ok(Step::Lost(CONNECTION)),
                    Some(Ok(frame)) => {
                        self.heard = clock::monotonic();
                        // Trailers are of the hop to the provider; they end here.
                        if let Ok(data) = frame.into_data() {
                            return Ok(Step::Data(data));
                        }
                    }
                },
                () = gone(self.session) => return Err(Stop::ClientGone),
                () = cut_off(&mut self.cut) => return Ok(Step::Lost(SHUTDOWN)),
                () = &mut self.timer => if let Some(step) = self.on_timer() {
                    return Ok(step);
                },
            }
        }
    }

    /// The timer is set to the earliest of three dates, which move while it
    /// runs; looking again when it fires is cheaper than moving it each time.
    fn on_timer(&mut self) -> Option<Step> {
        let now = clock::monotonic();
        if now >= self.deadline {
            return Some(Step::Lost(OVERTIME));
        }
        if now >= self.heard + self.idle {
            return Some(Step::Lost(SILENT));
        }
        let due = !self.keep_alive.is_zero() && now >= self.told + self.keep_alive;
        if due {
            self.told = now;
        }
        self.arm();
        due.then_some(Step::Quiet)
    }

    fn arm(&mut self) {
        let mut next = self.deadline.min(self.heard + self.idle);
        if !self.keep_alive.is_zero() {
            next = next.min(self.told + self.keep_alive);
        }
        self.timer
            .as_mut()
            .reset(tokio::time::Instant::from_std(next));
    }
}
