//! How far from the present a cell of another process may be. Pure.
//!
//! Promise: whatever a node with a wrong clock tells, or one that lies, what it tells counts for
//! [`CLOCK_TOLERANCE_MS`] longer than its window at most, and is kept for a year at most.
//! Failure: a cell that is further ahead is refused; it counts nowhere but where it was made.

use policy::{CounterId, Timestamp};

/// How far clocks of nodes may be apart for them to count together, in milliseconds. A cell whose
/// window begins later than that is of a clock that is wrong: it would count in every window until
/// its own.
pub(super) const CLOCK_TOLERANCE_MS: u64 = 60_000;

/// How long a cell of requests in flight is kept after it last changed, in milliseconds: no time
/// ends it, and who was killed says no more that they are over.
pub(super) const ENDED_KEPT_MS: u64 = 24 * 3_600 * 1_000;

/// How long a cell of a counter that this version does not know is kept at most, in milliseconds:
/// no window is longer than a year.
const UNKNOWN_KEPT_MS: u64 = 367 * 24 * 3_600 * 1_000;

/// Whether a cell is of a window that no clock near the right one can be in.
pub(super) fn is_ahead(id: &CounterId, epoch: i64, now: Timestamp) -> bool {
    epoch > id.epoch(Timestamp(now.0.saturating_add(CLOCK_TOLERANCE_MS)))
}

/// How long a cell may be kept, whatever its origin says.
pub(super) fn kept_until(id: Option<&CounterId>, epoch: i64, now: Timestamp) -> Timestamp {
    let after = |millis| Timestamp(now.0.saturating_add(millis));
    match id {
        None => after(UNKNOWN_KEPT_MS),
        Some(id) => id.expires_at(epoch).unwrap_or(after(ENDED_KEPT_MS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn id(text: &str) -> CounterId {
        text.parse().expect("a counter")
    }

    #[test]
    fn a_window_that_begins_within_the_tolerance_is_not_ahead() {
        for text in [
            "virtual_key/a/requests/1m/sliding",
            "virtual_key/a/requests/1m/fixed",
            "virtual_key/a/usd/1d/calendar",
            "virtual_key/a/usd/1M/calendar",
        ] {
            let id = id(text);
            let at = |millis| id.epoch(Timestamp(NOW.0 + millis));
            assert!(!is_ahead(&id, at(0), NOW), "{text}");
            assert!(!is_ahead(&id, at(CLOCK_TOLERANCE_MS), NOW), "{text}");
            assert!(
                is_ahead(&id, at(CLOCK_TOLERANCE_MS) + 1, NOW),
                "{text}: the window after"
            );
            assert!(is_ahead(&id, i64::MAX, NOW), "{text}");
        }
    }

    #[test]
    fn no_cell_is_kept_for_ever() {
        let running = id("virtual_key/a/concurrent/-/fixed");
        assert_eq!(kept_until(Some(&running), 0, NOW).0, NOW.0 + ENDED_KEPT_MS);
        assert_eq!(kept_until(None, 0, NOW).0, NOW.0 + UNKNOWN_KEPT_MS);
        let day = id("virtual_key/a/usd/1d/calendar");
        let epoch = day.epoch(NOW);
        assert_eq!(
            Some(kept_until(Some(&day), epoch, NOW)),
            day.expires_at(epoch)
        );
    }
}
