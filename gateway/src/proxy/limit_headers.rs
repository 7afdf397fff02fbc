//! `x-ratelimit-*` and `anthropic-ratelimit-*`: where the caller stands.
//!
//! Of the limits of all scopes the tightest is shown, those of the upstream
//! choice among them, in the names of the protocol that was called: OpenAI's
//! resets are durations (`6m0s`), Anthropic's are RFC 3339 times. `x-tyr-limit`
//! says whose limit it is.

use std::time::Duration;

use pingora::http::ResponseHeader;
use policy::{Judged, Rejection, Reservation, Standing, Timestamp, Unit};

use crate::api::Shape;

/// Adds the headers of the tightest limit of requests and of tokens.
pub(super) fn insert(
    head: &mut ResponseHeader,
    reservation: &Reservation,
    shape: Shape,
    now: Timestamp,
) -> pingora_core::Result<()> {
    let tightest = reservation.standings(now);
    let shown = [
        (&REQUESTS, tightest.requests.as_ref()),
        (&TOKENS, tightest.tokens.as_ref()),
    ];
    for (names, standing) in shown {
        let Some(standing) = standing else { continue };
        for (name, value) in of_standing(names, standing, shape, now) {
            head.insert_header(name, value)?;
        }
    }
    let all = shown.into_iter().filter_map(|(_, standing)| standing);
    if let Some(standing) = tightest_of(all) {
        head.insert_header(LIMIT, label(standing))?;
    }
    Ok(())
}

/// Names the limit that the numbers belong to.
pub(super) const LIMIT: &str = "x-tyr-limit";

/// `scope/name/unit/every`, as refusals write it.
fn label(standing: &Standing) -> String {
    let mut label = format!("{}/{}/{}", standing.scope, standing.name, standing.unit);
    if let Some(period) = &standing.period {
        label.push_str(&format!("/{period}"));
    }
    if let Some(name) = &standing.limit_name {
        label.push_str(&format!("/{name}"));
    }
    label
}

/// The one with the smallest part left.
fn tightest_of<'a>(all: impl Iterator<Item = &'a Standing>) -> Option<&'a Standing> {
    all.min_by(|a, b| {
        let part = |of: &Standing, other: &Standing| {
            u128::from(of.remaining) * u128::from(other.limit.max(1))
        };
        part(a, b).cmp(&part(b, a))
    })
}

fn of_standing(
    names: &Names,
    standing: &Standing,
    shape: Shape,
    now: Timestamp,
) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let (limit, remaining) = (standing.limit, standing.remaining);
    pairs(names, shape, limit, remaining, standing.resets_at, now)
}

/// The headers of the tightest limits beside one that refused, in the units
/// that it does not tell of.
pub(super) fn beside(
    rejection: &Rejection,
    judged: &[Judged],
    shape: Shape,
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    for (unit, names) in [(Unit::Requests, &REQUESTS), (Unit::Tokens, &TOKENS)] {
        let of_unit = judged
            .iter()
            .filter(|judged| judged.standing.unit == unit && !judged.shadow)
            .map(|judged| &judged.standing);
        if let Some(standing) = tightest_of(of_unit).filter(|_| unit != rejection.unit) {
            headers.extend(of_standing(names, standing, shape, now));
        }
    }
    headers
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
