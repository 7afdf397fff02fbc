//! What this node keeps of one other node, besides what membership knows.

use std::collections::VecDeque;
use std::time::Duration;

use policy::Timestamp;

use crate::message::{ConfigurationMark, Hello};
use crate::origin::Origin;
use crate::replication::LinkSync;

/// How many round trips are remembered; the fastest of them tells the clock best.
const SAMPLES: usize = 8;

/// The longest that a link's silence may mean nothing.
const PATIENCE_MOST: Duration = Duration::from_secs(3);

/// One other node.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) link: Option<Link>,
    pub(super) dial: Dial,
    /// Of its build; empty before a link was up.
    pub(super) build: String,
    pub(super) mark: Option<ConfigurationMark>,
    /// The revision of entities that it serves by.
    pub(super) applied: Option<u64>,
    /// After which revision it asked for entities, which the store has not told yet.
    pub(super) wants: Option<u64>,
    /// Since when it has been ahead of this node's entities.
    pub(super) ahead_since: Option<Duration>,
    pub(super) heard: Option<Duration>,
    /// It has not reached the store for longer than a term lasts.
    pub(super) store_away: bool,
}

/// The tries to reach it.
#[derive(Debug, Default)]
pub(super) struct Dial {
    /// Since when an answer is awaited.
    pub(super) pending: Option<Duration>,
    pub(super) failures: u32,
    pub(super) not_before: Duration,
}

/// A link that is up.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) hello: Hello,
    pub(super) since: Duration,
    /// When something last came.
    pub(super) heard: Duration,
    /// Something was sent since it was last looked at.
    pub(super) said: bool,
    /// When that was.
    spoke: Duration,
    /// When it was first heard after it had been silent for too long.
    resumed: Option<Duration>,
    /// How long it may be silent, as of when it was last heard.
    patience: Duration,
    pub(super) sync: LinkSync,
    /// It said that all was sent that was asked for first.
    pub(super) caught_up: bool,
    /// The protocol that both speak.
    pub(super) protocol: u8,
    pub(super) next_ping: Duration,
    pub(super) pings: u64,
    pub(super) samples: Samples,
}

/// Round trips and what they tell of the other clock.
#[derive(Debug, Default)]
pub(super) struct Samples(VecDeque<Sample>);

#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) rtt: Duration,
    /// The other's wall clock less this node's, in milliseconds.
    pub(super) offset_ms: i64,
}

// === impl Link ===

impl Link {
    pub(super) fn new(id: u64, me: Origin, hello: Hello, protocol: u8, now: Duration) -> Self {
        Self {
            id,
            sync: LinkSync::new(me, hello.origin),
            hello,
            since: now,
            heard: now,
            said: false,
            spoke: now,
            resumed: None,
            patience: PATIENCE_MOST,
            caught_up: false,
            protocol,
            next_ping: now,
            pings: 0,
            samples: Samples::default(),
        }
    }

    /// Something came.
    pub(super) fn note_heard(&mut self, least: Duration, now: Duration) {
        if self.silent_for(now) >= self.patience {
            self.resumed = Some(now);
        }
        self.heard = now;
        // Where answers take long, silence means less; what takes long meanwhile changes nothing.
        let usual = self.sync.usual_lag(now) * 2;
        self.patience = usual.min(PATIENCE_MOST).max(least);
    }

    /// Whether it has been silent for longer than it usually is.
    pub(super) fn is_quiet(&self, now: Duration) -> bool {
        self.silent_for(now) >= self.patience
    }

    /// A ping of then was answered, and so all that was sent before the answer has come.
    pub(super) fn note_echo(&mut self, sent: Duration) {
        self.resumed = self.resumed.filter(|resumed| sent < *resumed);
    }

    /// Whether all has come that was sent when it was silent or before the link.
    pub(super) fn is_steady(&self) -> bool {
        self.caught_up && self.resumed.is_none()
    }

    /// Whether nothing has been sent for so long; to be asked often.
    pub(super) fn has_been_silent(&mut self, silence: Duration, now: Duration) -> bool {
        if std::mem::take(&mut self.said) {
            self.spoke = now;
        }
        now.saturating_sub(self.spoke) >= silence
    }

    pub(super) fn silent_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard)
    }
}

// === impl Samples ===

impl Samples {
    /// Takes in an answer; `raw` is this node's own wall clock now.
    pub(super) fn add(&mut self, rtt: Duration, wall: Timestamp, raw: Timestamp) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        let half = i64::try_from(rtt.as_millis() / 2).unwrap_or(i64::MAX);
        let offset_ms = signed(wall)
            .saturating_add(half)
            .saturating_sub(signed(raw));
        self.0.push_back(Sample { rtt, offset_ms });
    }

    /// The one with the fastest round trip.
    pub(super) fn best(&self) -> Option<Sample> {
        self.0.iter().min_by_key(|sample| sample.rtt).copied()
    }

    /// This node's clock was set `ms` ahead.
    pub(super) fn shift(&mut self, ms: i64) {
        for sample in &mut self.0 {
            sample.offset_ms = sample.offset_ms.saturating_sub(ms);
        }
    }
}

/// Milliseconds as a signed number.
pub(super) fn signed(time: Timestamp) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}
