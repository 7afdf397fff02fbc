//! `x-ratelimit-*` and `anthropic-ratelimit-*`: where the caller stands.
//!
//! Of several limits the tightest is shown, in the names of the protocol that
//! was called: OpenAI's resets are durations (`6m0s`), Anthropic's are RFC 3339
//! times.

use std::time::Duration;

use pingora::http::ResponseHeader;
use policy::{Rejection, Reservation, Timestamp, Unit};

use crate::api::Shape;

/// Adds the headers of the tightest limit of requests and of tokens.
pub(super) fn insert(
    head: &mut ResponseHeader,
    reservation: &Reservation,
    shape: Shape,
    now: Timestamp,
) -> pingora_core::Result<()> {
    let tightest = reservation.standings(now);
    let shown = [(&REQUESTS, tightest.requests), (&TOKENS, tightest.tokens)];
    for (names, standing) in shown {
        let Some(standing) = standing else { continue };
        let (limit, remaining) = (standing.limit, standing.remaining);
        for (name, value) in pairs(names, shape, limit, remaining, standing.resets_at, now) {
            head.insert_header(name, value)?;
        }
    }
    Ok(())
}

/// The headers of the limit that refused; none for money and concurrency,
/// which have no names in either protocol.
pub(super) fn of_rejection(
    rejection: &Rejection,
    shape: Shape,
    now: Timestamp,
) -> impl Iterator<Item = (&'static str, String)> {
    let names = match rejection.unit {
        Unit::Requests => Some(&REQUESTS),
        Unit::Tokens => Some(&TOKENS),
        Unit::Usd | Unit::Concurrent => None,
    };
    let taken = rejection.used.saturating_add(rejection.reserved);
    let remaining = rejection.limit.saturating_sub(taken);
    let (limit, resets_at) = (rejection.limit, rejection.resets_at);
    let pairs = names.map(|names| pairs(names, shape, limit, remaining, resets_at, now));
    pairs.into_iter().flatten()
}

struct Names {
    openai: [&'static str; 3],
    anthropic: [&'static str; 3],
}

const REQUESTS: Names = Names {
    openai: [
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ],
    anthropic: [
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ],
};

const TOKENS: Names = Names {
    openai: [
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
    ],
    anthropic: [
        "anthropic-ratelimit-tokens-limit",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
    ],
};

fn pairs(
    names: &Names,
    shape: Shape,
    limit: u64,
    remaining: u64,
    resets_at: Timestamp,
    now: Timestamp,
) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let (names, reset) = match shape {
        Shape::OpenAi => (names.openai, duration(resets_at.since(now))),
        Shape::Anthropic => (names.anthropic, resets_at.to_rfc3339()),
    };
    let values = [limit.to_string(), remaining.to_string(), reset];
    names.into_iter().zip(values)
}

/// A duration as OpenAI writes it: `12ms`, `1s`, `6m0s`, `1h2m3s`.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) if seconds == 0 => format!("{}ms", duration.subsec_millis()),
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (ms, text) in [
            (12, "12ms"),
            (1_000, "1s"),
            (59_900, "59s"),
            (360_000, "6m0s"),
            (3_723_000, "1h2m3s"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }
}
