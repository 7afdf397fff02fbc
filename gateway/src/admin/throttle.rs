//! Slows down whoever guesses admin tokens.
//!
//! Ten wrong tokens from an address within a minute close the API to that
//! address until the minute is over, right tokens included: a guess that turns
//! out right would otherwise get through. Memory is bounded; an address pushed
//! out by others starts anew.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policy::Timestamp;

/// Wrong tokens an address may send within [`WINDOW`].
pub(super) const ALLOWED_FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered at a time.
const MAX_ADDRESSES: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Throttle {
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    since: Timestamp,
    count: u32,
}

impl Throttle {
    /// How long `address` has to wait, if it has to.
    pub(super) fn wait(&self, address: IpAddr, now: Timestamp) -> Option<Duration> {
        let failures = self.locked().get(&group(address)).copied()?;
        let left = WINDOW.checked_sub(now.since(failures.since))?;
        (failures.count >= ALLOWED_FAILURES && !left.is_zero()).then_some(left)
    }

    /// Notes a wrong token.
    pub(super) fn failed(&self, address: IpAddr, now: Timestamp) {
        let mut all = self.locked();
        let address = group(address);
        let is_over = |failures: &Failures| now.since(failures.since) >= WINDOW;
        if !all.contains_key(&address) && all.len() >= MAX_ADDRESSES {
            all.retain(|_, failures| !is_over(failures));
        }
        if !all.contains_key(&address) && all.len() >= MAX_ADDRESSES {
            let oldest = all.iter().min_by_key(|(_, failures)| failures.since);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                all.remove(&oldest);
            }
        }
        let fresh = Failures {
            since: now,
            count: 0,
        };
        let failures = all.entry(address).or_insert(fresh);
        if is_over(failures) {
            *failures = fresh;
        }
        failures.count = failures.count.saturating_add(1);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<IpAddr, Failures>> {
        // Every change of the map is whole before anything can panic.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One subscriber of IPv6 owns a /64 and could change address per guess.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_000_000 + seconds * 1_000)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_eleventh_try_within_a_minute_waits_for_its_end() {
        let throttle = Throttle::default();
        let guesser = address("192.0.2.1");
        for second in 0..10 {
            assert_eq!(throttle.wait(guesser, at(second)), None);
            throttle.failed(guesser, at(second));
        }
        assert_eq!(
            throttle.wait(guesser, at(20)),
            Some(Duration::from_secs(40))
        );
        assert_eq!(throttle.wait(address("192.0.2.2"), at(20)), None);
        assert_eq!(throttle.wait(guesser, at(60)), None);
        throttle.failed(guesser, at(60));
        assert_eq!(throttle.wait(guesser, at(61)), None);
    }

    #[test]
    fn a_prefix_of_ipv6_is_one_address() {
        let throttle = Throttle::default();
        for n in 0..10 {
            throttle.failed(address(&format!("2001:db8::{n}")), at(0));
        }
        assert!(throttle.wait(address("2001:db8::ffff"), at(1)).is_some());
        assert_eq!(throttle.wait(address("2001:db8:0:1::1"), at(1)), None);
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..20_000_u32 {
            throttle.failed(IpAddr::V4(n.into()), at(0));
        }
        assert_eq!(throttle.locked().len(), MAX_ADDRESSES);
    }
}
