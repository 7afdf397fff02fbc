//! What the network does to packets, between every two nodes and in each direction.

use std::time::Duration;

use super::chance::Chance;

/// What a path does to what is sent on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Weather {
    /// Least delay, one way.
    pub(super) delay: Duration,
    /// Up to this much more; packets overtake each other within it.
    pub(super) jitter: Duration,
    /// Part of the packets that is lost.
    pub(super) loss: f64,
    /// Part that arrives twice.
    pub(super) twice: f64,
}

/// A stream's first wait for what it sent again.
const RESEND: Duration = Duration::from_millis(200);

/// The paths between nodes, and which of them are cut.
#[derive(Debug)]
pub(super) struct Paths {
    nodes: usize,
    weather: Weather,
    /// Added to the delay of a path, in both directions: nodes stand at different places.
    distance: Vec<Duration>,
    /// Since when a path is cut.
    cut: Vec<Option<Duration>>,
}

// === impl Weather ===

impl Weather {
    /// One data centre.
    pub(super) const LOCAL: Self = Self {
        delay: Duration::from_micros(500),
        jitter: Duration::from_micros(1_500),
        loss: 0.0,
        twice: 0.0,
    };

    /// The longest a packet that is not lost takes.
    pub(super) fn longest(&self) -> Duration {
        self.delay + self.jitter
    }
}

// === impl Paths ===

impl Paths {
    pub(super) fn new(nodes: usize, weather: Weather) -> Self {
        Self {
            nodes,
            weather,
            distance: vec![Duration::ZERO; nodes],
            cut: vec![None; nodes * nodes],
        }
    }

    pub(super) fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    pub(super) fn weather(&self) -> Weather {
        self.weather
    }

    /// Puts a node this far away from the others.
    pub(super) fn set_distance(&mut self, node: usize, distance: Duration) {
        self.distance[node] = distance;
    }

    pub(super) fn cut(&mut self, from: usize, to: usize, now: Duration) {
        let cut = &mut self.cut[from * self.nodes + to];
        cut.get_or_insert(now);
    }

    pub(super) fn heal(&mut self) {
        self.cut.fill(None);
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut_since(from, to).is_some()
    }

    /// Since when one of the two directions is cut.
    pub(super) fn pair_cut_since(&self, one: usize, other: usize) -> Option<Duration> {
        let ways = [self.cut_since(one, other), self.cut_since(other, one)];
        ways.into_iter().flatten().min()
    }

    fn cut_since(&self, from: usize, to: usize) -> Option<Duration> {
        self.cut[from * self.nodes + to]
    }

    /// When the copies of a datagram arrive, none if it is lost.
    pub(super) fn datagram(&self, from: usize, to: usize, chance: &mut Chance) -> Vec<Duration> {
        let mut copies = Vec::new();
        let twice = chance.happens(self.weather.twice);
        for _ in 0..1 + usize::from(twice) {
            let delay = self.delay(from, to, chance);
            if !self.is_cut(from, to) && !chance.happens(self.weather.loss) {
                copies.push(delay);
            }
        }
        copies
    }

    /// How long a stretch of a stream takes when its lost packets are sent again.
    pub(super) fn stretch(&self, from: usize, to: usize, chance: &mut Chance) -> Duration {
        let mut delay = self.delay(from, to, chance);
        let mut wait = RESEND;
        // Most losses are repaired by what follows within a round trip; a chain of them is not.
        while chance.happens(self.weather.loss) && wait < Duration::from_secs(2) {
            delay += wait;
            wait *= 2;
        }
        delay
    }

    /// The longest that a stretch without loss takes between any two nodes.
    pub(super) fn longest(&self) -> Duration {
        let distances = self.distance.iter().copied();
        self.weather.longest() + distances.max().unwrap_or_default() * 2
    }

    fn delay(&self, from: usize, to: usize, chance: &mut Chance) -> Duration {
        let jitter = chance.time(Duration::ZERO, self.weather.jitter);
        self.weather.delay + jitter + self.distance[from] + self.distance[to]
    }
}
