//! How many registrations come from one place.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

/// How many places are remembered at once: some megabytes. Whoever has a large network could fill any table, and must not
/// close the registration for others by it.
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
            ipv4_prefix,
            ipv6_prefix,
        }
    }

    /// Counts a registration for each place that it came from. Without an address it counts nowhere.
    pub(super) fn count(&self, addresses: &[IpAddr]) -> Pace {
        let places: BTreeSet<IpNet> = addresses.iter().map(|address| self.place(*address)).collect();
        // Each is asked, also if one has said no: a registration is no less one for the others.
        let too_fast = places
            .iter()
            .filter(|place| self.limiter.check_key(place).is_err())
            .count();
        if too_fast == 0 { Pace::Fine } else { Pace::TooFast }
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

    /// Forgets places from which as many may come as if none ever had. Says how many had to be forgotten before that, for
    /// want of room.
    pub(super) fn forget_quiet(&self) {
        self.limiter.retain_recent();
        let forgotten = std::mem::take(&mut self.places.lock().forgotten);
        if forgotten > 0 {
            tracing::warn!(
                forgotten,
                places = MAX_PLACES,
                "RegistrationGuard: registrations come from more places than can be counted, those nearest to quiet were forgotten"
            );
        }
    }
}

/// What the limiter knows of each place.
#[derive(Debug, Clone, Default)]
struct Places(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Until when each place has used up what it has, as the limiter counts.
    used_up: HashMap<IpNet, Nanos>,
    /// The same in this order: the first is nearest to quiet.
    by_quiet: BTreeSet<(Nanos, IpNet)>,
    /// How many places made room for others since the last time that this was said.
    forgotten: u64,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn set(&mut self, place: IpNet, used_up: Nanos) {
        if let Some(before) = self.used_up.insert(place, used_up) {
            self.by_quiet.remove(&(before, place));
        } else if self.used_up.len() > MAX_PLACES
            && let Some((_, quiet)) = self.by_quiet.pop_first()
        {
            self.used_up.remove(&quiet);
            self.forgotten += 1;
        }
        self.by_quiet.insert((used_up, place));
    }
}

impl StateStore for Places {
    type Key = IpNet;

    fn measure_and_replace<T, F, E>(&self, place: &IpNet, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut known = self.lock();
        let (outcome, used_up) = measure(known.used_up.get(place).copied())?;
        known.set(*place, used_up);
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<IpNet> for Places {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut known = self.lock();
        known.used_up.retain(|_, used_up| *used_up > drop_below);
        known.by_quiet.retain(|(used_up, _)| *used_up > drop_below);
        // After a flood the memory is given back.
        known.used_up.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.lock().used_up.len()
    }

    fn is_empty(&self) -> bool {
        self.lock().used_up.is_empty()
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
        let count = || rate.count(&[ipv4(1)]);
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
        assert_eq!(rate.count(&[ipv6("2001:db8::1")]), Pace::Fine);
        assert_eq!(rate.count(&[ipv6("2001:db8::2")]), Pace::TooFast);
        assert_eq!(rate.count(&[ipv6("2001:db8:0:1::1")]), Pace::Fine);
        // Two addresses of one place are one registration there.
        assert_eq!(rate.count(&[ipv6("2001:db8:2::1"), ipv6("2001:db8:2::2")]), Pace::Fine);
        assert_eq!(rate.count(&[ipv4(1), ipv6("2001:db8::3")]), Pace::TooFast);
        assert_eq!(rate.count(&[ipv4(1)]), Pace::TooFast);
        assert_eq!(rate.count(&[]), Pace::Fine);
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_a_new_place_takes_that_of_the_one_nearest_to_quiet() {
        let rate = rate(2);
        let places = u32::try_from(MAX_PLACES).unwrap();
        // The first has used up all, the second was there before all others.
        for _ in 0..2 {
            assert_eq!(rate.count(&[ipv4(0)]), Pace::Fine);
        }
        assert_eq!(rate.count(&[ipv4(1)]), Pace::Fine);
        tokio::time::advance(Duration::from_secs(1)).await;
        for number in 2..=places {
            assert_eq!(rate.count(&[ipv4(number)]), Pace::Fine);
        }
        assert_eq!((rate.places.len(), rate.places.lock().forgotten), (MAX_PLACES, 1));
        // It counts from the beginning again, at the cost of another one.
        assert_eq!(
            [ipv4(1), ipv4(1), ipv4(1), ipv4(0)].map(|address| rate.count(&[address])),
            [Pace::Fine, Pace::Fine, Pace::TooFast, Pace::TooFast]
        );
        assert_eq!((rate.places.len(), rate.places.lock().forgotten), (MAX_PLACES, 2));
        assert_eq!(rate.places.lock().by_quiet.len(), MAX_PLACES);
        rate.forget_quiet();
        assert_eq!((rate.places.len(), rate.places.lock().forgotten), (MAX_PLACES, 0));
        tokio::time::advance(HOUR * 2).await;
        rate.forget_quiet();
        assert!(rate.places.is_empty() && rate.places.lock().by_quiet.is_empty());
    }
}
