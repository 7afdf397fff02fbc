//! How long the answers of a model are for one caller, learnt as they come in.
//!
//! Promise: what is foretold for a key and a model is the 90th percentile of
//! about its last 512 answers, rounded up within a quarter of an octave.
//! Lock-free, and of fixed size: 8,192 pairs in 1.6 MB,
//! taken once. When more are active, four pairs share a set of four places and
//! the one longest not heard of gives way. Races cost or add single answers.
//! Nothing here fails.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

#[cfg(test)]
mod tests;

const SETS: usize = 2_048;
const WAYS: usize = 4;
/// Quarters of an octave up to 2^22 tokens; longer answers count as that.
const BUCKETS: usize = 84;
/// After this many answers the weight of all earlier ones is halved, so that
/// together they never weigh more than twice as many.
const HALF_LIFE: u64 = 256;
/// What one answer adds to its bucket: large enough that halving loses
/// nothing that matters, small enough that twice the half-life fits 16 bits.
const WEIGHT: u16 = 64;
/// Fewer answers foretell nothing.
const LEAST_SEEN: u64 = 20;
/// The tag of a place that nobody has.
const FREE: u64 = 0;
/// The tag of a place that is being cleared for its next owner.
const CLEARING: u64 = 1;

/// Answer lengths by key and model.
#[derive(Debug)]
pub struct Predictor {
    sets: Box<[Set]>,
}

/// The places that a pair may have.
#[derive(Debug, Default)]
struct Set {
    /// Counts the answers learnt here; the time by which places are old.
    learnt: AtomicU32,
    places: [Place; WAYS],
}

/// What is known of one pair.
#[derive(Debug)]
struct Place {
    /// The hash of the pair.
    owner: AtomicU64,
    /// The answers it had.
    seen: AtomicU64,
    /// `Set::learnt` at its last answer.
    heard: AtomicU32,
    /// Weight of the answers by their length.
    weights: [AtomicU16; BUCKETS],
}

/// The bucket of an answer of this length.
fn bucket(tokens: u64) -> usize {
    let index = match tokens {
        0..4 => tokens,
        _ => {
            let octave = u64::from(tokens.ilog2());
            (octave - 1) * 4 + (tokens >> (octave - 2) & 3)
        }
    };
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// The longest answer of a bucket, in tokens.
fn longest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    match bucket {
        0..4 => bucket,
        _ => ((bucket % 4 + 5) << (bucket / 4 - 1)) - 1,
    }
}

fn tag(key: &str, model: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, model).hash(&mut hasher);
    // Two tags have a meaning of their own.
    hasher.finish().max(CLEARING + 1)
}

// === impl Predictor ===

impl Default for Predictor {
    fn default() -> Self {
        Self {
            sets: (0..SETS).map(|_| Set::default()).collect(),
        }
    }
}

impl Predictor {
    /// A predictor that has learnt nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in that an answer of `model` for `key` had `output_tokens`.
    pub fn learn(&self, key: &str, model: &str, output_tokens: u64) {
        let tag = tag(key, model);
        let set = self.set(tag);
        let now = set.learnt.fetch_add(1, Ordering::Relaxed);
        if let Some(place) = set.find(tag).or_else(|| set.claim(tag, now)) {
            place.heard.store(now, Ordering::Relaxed);
            place.learn(output_tokens);
        }
    }

    /// The tokens that nine of ten answers of `model` for `key` do not exceed;
    /// `None` until 20 were seen.
    #[must_use]
    pub fn predict(&self, key: &str, model: &str) -> Option<u64> {
        let tag = tag(key, model);
        self.set(tag).find(tag)?.predict()
    }

    fn set(&self, tag: u64) -> &Set {
        // The remainder is below `SETS`, which fits.
        &self.sets[(tag % SETS as u64) as usize]
    }
}

// === impl Set ===

impl Set {
    fn find(&self, tag: u64) -> Option<&Place> {
        self.places
            .iter()
            .find(|place| place.owner.load(Ordering::Acquire) == tag)
    }

    /// Takes the place that is free or was longest not heard of. `None` when
    /// another thread is just taking it.
    fn claim(&self, tag: u64, now: u32) -> Option<&Place> {
        let age = |place: &&Place| match place.owner.load(Ordering::Relaxed) {
            FREE => u32::MAX,
            CLEARING => 0,
            // Wraps with the count itself.
            _ => now.wrapping_sub(place.heard.load(Ordering::Relaxed)),
        };
        let place = self.places.iter().max_by_key(age)?;
        let old = place.owner.load(Ordering::Relaxed);
        if old == CLEARING {
            return None;
        }
        place
            .owner
            .compare_exchange(old, CLEARING, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        place.seen.store(0, Ordering::Relaxed);
        for weight in &place.weights {
            weight.store(0, Ordering::Relaxed);
        }
        place.owner.store(tag, Ordering::Release);
        Some(place)
    }
}

// === impl Place ===

impl Default for Place {
    fn default() -> Self {
        Self {
            owner: AtomicU64::new(FREE),
            seen: AtomicU64::new(0),
            heard: AtomicU32::new(0),
            weights: [const { AtomicU16::new(0) }; BUCKETS],
        }
    }
}

impl Place {
    fn learn(&self, tokens: u64) {
        let add = |weight: u16| Some(weight.saturating_add(WEIGHT));
        let halve = |weight: u16| Some(weight / 2);
        // The closures always give a value.
        let _ =
            self.weights[bucket(tokens)].fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        let seen = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        // One thread sees each count, so one thread halves.
        if seen.is_multiple_of(HALF_LIFE) {
            for weight in &self.weights {
                let _ = weight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, halve);
            }
        }
    }

    fn predict(&self) -> Option<u64> {
        if self.seen.load(Ordering::Relaxed) < LEAST_SEEN {
            return None;
        }
        let weights: [u64; BUCKETS] =
            std::array::from_fn(|index| self.weights[index].load(Ordering::Relaxed).into());
        let total: u64 = weights.iter().sum();
        let mut below = 0;
        let bucket = weights.iter().position(|weight| {
            below += weight;
            // Also of nothing: another thread may just have cleared it.
            *weight > 0 && below * 10 >= total * 9
        });
        bucket.map(longest)
    }
}
