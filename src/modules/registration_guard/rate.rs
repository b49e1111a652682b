//! How many registrations come from one place.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ganglion_api::ModuleError;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};
use ipnet::IpNet;
use tokio::time::Instant;

/// How often places are forgotten that have been quiet for long enough to be as good as new.
pub(super) const FORGET_EVERY: Duration = Duration::from_secs(60);

/// How many places are remembered at once: some megabytes. Whoever has a large network could fill any table.
const MAX_PLACES: usize = 100_000;

/// Whether a registration may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// There were not too many.
    Fine,
    /// There were too many from one of its places.
    TooFast,
}

/// Counts registrations by place, which is a prefix of an address: so many may come at once, and after them one whenever
/// its share of the time is over.
#[derive(Debug)]
pub(super) struct Rate {
    limiter: RateLimiter<IpNet, Places, Ticks, NoOpMiddleware<Duration>>,
    places: Places,
    /// How many registrations found no room since the last time that this was said.
    turned_away: AtomicU64,
    ipv4_prefix: u8,
    ipv6_prefix: u8,
}

impl Rate {
    /// The prefixes are those of a config that was checked; so are the numbers, of which a share is not nothing.
    pub(super) fn new(registrations: NonZeroU32, per: Duration, ipv4_prefix: u8, ipv6_prefix: u8) -> Self {
        let share = (per / registrations.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(share).expect("a share is not zero");
        let places = Places::default();
        Self {
            limiter: RateLimiter::new(quota.allow_burst(registrations), places.clone(), Ticks::default()),
            places,
            turned_away: AtomicU64::new(0),
            ipv4_prefix,
            ipv6_prefix,
        }
    }

    /// Counts a registration for each place that it came from. Without an address it counts nowhere.
    ///
    /// # Errors
    /// A place is new, and there is no room for another one.
    pub(super) fn count(&self, addresses: &[IpAddr]) -> Result<Pace, ModuleError> {
        let places: BTreeSet<IpNet> = addresses.iter().map(|address| self.place(*address)).collect();
        if !self.places.have_room_for(&places) {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            return Err(ModuleError::message(format!(
                "registrations from {MAX_PLACES} places are counted, there is no room for another place"
            )));
        }
        // Each is asked, also if one has said no: a registration is no less one for the others.
        let too_fast = places
            .iter()
            .filter(|place| self.limiter.check_key(place).is_err())
            .count();
        Ok(if too_fast == 0 { Pace::Fine } else { Pace::TooFast })
    }

    fn place(&self, address: IpAddr) -> IpNet {
        let prefix = match address {
            IpAddr::V4(_) => self.ipv4_prefix,
            IpAddr::V6(_) => self.ipv6_prefix,
        };
        IpNet::new(address, prefix)
            .expect("the config's prefixes are checked")
            .trunc()
    }

    /// Forgets places from which as many may come as if none ever had. Says if there was no room meanwhile.
    pub(super) fn forget_quiet(&self) {
        self.limiter.retain_recent();
        let registrations = self.turned_away.swap(0, Ordering::Relaxed);
        if registrations > 0 {
            tracing::error!(
                registrations,
                places = MAX_PLACES,
                "RegistrationGuard: no room to count registrations from more places; its failure policy decided"
            );
        }
    }
}

/// When each place has used up what it has, as the limiter counts.
#[derive(Debug, Clone, Default)]
struct Places(Arc<Mutex<HashMap<IpNet, Nanos>>>);

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpNet, Nanos>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls at the same time may each see the last room: then there are as many more as there are such calls.
    fn have_room_for(&self, places: &BTreeSet<IpNet>) -> bool {
        let known = self.lock();
        let fresh = places.iter().filter(|place| !known.contains_key(place)).count();
        known.len() + fresh <= MAX_PLACES
    }
}

impl StateStore for Places {
    type Key = IpNet;

    fn measure_and_replace<T, F, E>(&self, place: &IpNet, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut known = self.lock();
        let (outcome, used_up) = measure(known.get(place).copied())?;
        known.insert(*place, used_up);
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<IpNet> for Places {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut known = self.lock();
        known.retain(|_, used_up| *used_up > drop_below);
        // After a flood the memory is given back.
        known.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

/// Tokio's clock, which tests pause, since a moment of its own.
#[derive(Debug)]
struct Ticks {
    begin: Instant,
}

impl Default for Ticks {
    fn default() -> Self {
        Self { begin: Instant::now() }
    }
}

impl Clock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.begin.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn rate(registrations: u32) -> Rate {
        Rate::new(NonZeroU32::new(registrations).unwrap(), HOUR, 32, 64)
    }

    fn ipv4(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_come_at_once_and_then_one_for_each_share_of_the_time() {
        let rate = rate(3);
        let count = || rate.count(&[ipv4(1)]).unwrap();
        assert_eq!(
            [count(), count(), count(), count()],
            [Pace::Fine, Pace::Fine, Pace::Fine, Pace::TooFast]
        );
        tokio::time::advance(HOUR / 3 - Duration::from_secs(1)).await;
        assert_eq!(count(), Pace::TooFast);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!([count(), count()], [Pace::Fine, Pace::TooFast]);
        tokio::time::advance(HOUR).await;
        assert_eq!(
            [count(), count(), count(), count()],
            [Pace::Fine, Pace::Fine, Pace::Fine, Pace::TooFast]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_a_prefix_and_each_place_counts() {
        let rate = rate(1);
        let ipv6 = |text: &str| IpAddr::from(text.parse::<Ipv6Addr>().unwrap());
        assert_eq!(rate.count(&[ipv6("2001:db8::1")]).unwrap(), Pace::Fine);
        assert_eq!(rate.count(&[ipv6("2001:db8::2")]).unwrap(), Pace::TooFast);
        assert_eq!(rate.count(&[ipv6("2001:db8:0:1::1")]).unwrap(), Pace::Fine);
        // Two addresses of one place are one registration there.
        assert_eq!(
            rate.count(&[ipv6("2001:db8:2::1"), ipv6("2001:db8:2::2")]).unwrap(),
            Pace::Fine
        );
        assert_eq!(rate.count(&[ipv4(1), ipv6("2001:db8::3")]).unwrap(), Pace::TooFast);
        assert_eq!(rate.count(&[ipv4(1)]).unwrap(), Pace::TooFast);
        assert_eq!(rate.count(&[]).unwrap(), Pace::Fine);
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_a_new_place_is_an_error_until_others_are_quiet() {
        let rate = rate(2);
        for number in 0..u32::try_from(MAX_PLACES).unwrap() {
            assert_eq!(rate.count(&[ipv4(number)]).unwrap(), Pace::Fine);
        }
        rate.count(&[ipv4(u32::MAX)]).unwrap_err();
        // Those that are known go on to be counted.
        assert_eq!(rate.count(&[ipv4(7)]).unwrap(), Pace::Fine);
        assert_eq!(rate.count(&[ipv4(7)]).unwrap(), Pace::TooFast);
        rate.forget_quiet();
        rate.count(&[ipv4(u32::MAX)]).unwrap_err();
        tokio::time::advance(HOUR).await;
        rate.forget_quiet();
        assert_eq!(rate.places.len(), 1);
        assert_eq!(rate.count(&[ipv4(u32::MAX)]).unwrap(), Pace::Fine);
    }
}
