//! How often each address has failed to log in, within a bounded memory.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Addresses share a place where there are more of them.
const PLACES: usize = 4096;
/// Failures of one address in a [`WINDOW`] before it is not listened to.
const MOST: u64 = 30;
const WINDOW: Duration = Duration::from_secs(60);
/// Bits of a place that hold the count; the window's number stands above them.
const COUNT_BITS: u32 = 24;

/// Counts of this window.
#[derive(Debug)]
pub(super) struct Failures {
    began: Instant,
    hasher: RandomState,
    places: Box<[AtomicU64]>,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            hasher: RandomState::new(),
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Failures {
    /// For how long an address is not listened to that has failed too often.
    pub(super) fn wait(&self, address: Option<IpAddr>) -> Option<Duration> {
        self.wait_at(address, self.began.elapsed())
    }

    /// The address has failed once more.
    pub(super) fn count(&self, address: Option<IpAddr>) {
        self.count_at(address, self.began.elapsed());
    }

    fn wait_at(&self, address: Option<IpAddr>, now: Duration) -> Option<Duration> {
        let window = window_of(now);
        let place = self.place(address).load(Ordering::Relaxed);
        let (counted_in, count) = (place >> COUNT_BITS, place & ((1 << COUNT_BITS) - 1));
        let over = WINDOW.saturating_mul(u32::try_from(window).unwrap_or(u32::MAX));
        (counted_in == window && count >= MOST).then(|| over.saturating_sub(now))
    }

    fn count_at(&self, address: Option<IpAddr>, now: Duration) {
        let window = window_of(now);
        let counted = |place: u64| {
            let known = if place >> COUNT_BITS == window {
                place
            } else {
                window << COUNT_BITS
            };
            let is_full = known & ((1 << COUNT_BITS) - 1) >= MOST;
            Some(known + u64::from(!is_full))
        };
        let place = self.place(address);
        let _ = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }

    fn place(&self, address: Option<IpAddr>) -> &AtomicU64 {
        // Whoever has one IPv6 address has 2^64 of them.
        let address = address.map(|address| match address {
            IpAddr::V6(long) => (long.to_bits() >> 64) as u64,
            IpAddr::V4(short) => u64::from(short.to_bits()),
        });
        let hash = self.hasher.hash_one(address);
        &self.places[(hash % PLACES as u64) as usize]
    }
}

/// The number of the window that `now` lies in; no place has none, as the first is 1.
fn window_of(now: Duration) -> u64 {
    now.as_secs() / WINDOW.as_secs() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_too_often_waits_for_the_next_minute_and_others_do_not() {
        let failures = Failures::default();
        let (one, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let now = Duration::from_secs(10);
        for _ in 0..MOST {
            assert_eq!(failures.wait_at(Some(one), now), None);
            failures.count_at(Some(one), now);
        }
        assert_eq!(
            failures.wait_at(Some(one), now),
            Some(Duration::from_secs(50))
        );
        assert_eq!(failures.wait_at(Some(other), now), None);
        assert_eq!(failures.wait_at(Some(one), Duration::from_secs(61)), None);
        // What is counted never runs over into the window's number.
        for _ in 0..100 {
            failures.count_at(Some(one), now);
        }
        assert_eq!(
            failures.wait_at(Some(one), now),
            Some(Duration::from_secs(50))
        );
    }

    #[test]
    fn neighbours_of_one_ipv6_network_are_one_address() {
        let failures = Failures::default();
        let now = Duration::ZERO;
        for host in 0..MOST {
            let address = std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(host));
            failures.count_at(Some(address.into()), now);
        }
        let another = std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) | 0xffff);
        assert!(failures.wait_at(Some(another.into()), now).is_some());
    }
}
