//! What of a module is free: permits for its calls, and places on the workers.
//!
//! All of it is one number on a cache line of its own, so that a call takes what it needs in one step and gives it back in
//! another. Workers that ask one module pass that line to and fro, which takes longer than everything else that guards the call.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// Which part of the permits is for gating calls alone: a quarter, rounded down.
pub(crate) const RESERVED: usize = 4;

/// How often a thread looks for a place again before it waits for one. Most modules answer in less time than that takes.
const LOOKS: usize = 64;

/// Something of a module, taken for a call or for one visit to its code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken(u64);

impl Taken {
    /// How many bits it has.
    pub(crate) const BITS: u32 = 3;
    const PLACE: u64 = 1;
    const PERMIT: u64 = 2;
    const GATING: u64 = 4;

    /// A place on a worker.
    pub(crate) const fn place() -> Self {
        Self(Self::PLACE)
    }

    /// A permit, for a gating call or another.
    pub(crate) const fn of_permit(gating: bool) -> Self {
        Self(Self::PERMIT | if gating { Self::GATING } else { 0 })
    }

    /// This, and a place on a worker.
    pub(crate) const fn and_place(self) -> Self {
        Self(self.0 | Self::PLACE)
    }

    /// This without its permit.
    pub(crate) const fn without_permit(self) -> Self {
        Self(self.0 & Self::PLACE)
    }

    /// As the lowest bits of a number.
    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    /// From the lowest bits of a number.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    /// Whether a place is among it.
    pub(crate) const fn has_place(self) -> bool {
        self.0 & Self::PLACE != 0
    }

    /// Whether a permit is among it, and then whether it is for a gating call.
    pub(crate) fn permit(self) -> Option<bool> {
        (self.0 & Self::PERMIT != 0).then_some(self.0 & Self::GATING != 0)
    }
}

/// How many there are of each: permits, those of them that calls may take that are not gating, places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) permits: u32,
    pub(crate) others: u32,
    pub(crate) places: u32,
}

impl Amount {
    const PERMIT_BITS: u32 = 24;
    const PLACE_BITS: u32 = 16;

    fn from_bits(bits: u64) -> Self {
        let part = |from: u32, bits_of_it: u32| {
            let part = bits >> from & ((1 << bits_of_it) - 1);
            u32::try_from(part).unwrap_or_default()
        };
        Self {
            permits: part(0, Self::PERMIT_BITS),
            others: part(Self::PERMIT_BITS, Self::PERMIT_BITS),
            places: part(2 * Self::PERMIT_BITS, Self::PLACE_BITS),
        }
    }

    fn to_bits(self) -> u64 {
        let Self {
            permits,
            others,
            places,
        } = self;
        u64::from(permits) | u64::from(others) << Self::PERMIT_BITS | u64::from(places) << (2 * Self::PERMIT_BITS)
    }

    /// What this takes.
    fn of(taken: Taken) -> Self {
        let permit = taken.permit();
        Self {
            permits: u32::from(permit.is_some()),
            others: u32::from(permit == Some(false)),
            places: u32::from(taken.has_place()),
        }
    }

    fn has(self, wanted: Self) -> Result<(), Lacks> {
        if self.permits < wanted.permits || self.others < wanted.others {
            Err(Lacks::Permit)
        } else if self.places < wanted.places {
            Err(Lacks::Place)
        } else {
            Ok(())
        }
    }
}

/// What is not free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lacks {
    Permit,
    Place,
}

/// What of one module is free.
#[derive(Debug)]
pub(crate) struct Stock {
    free: CachePadded<AtomicU64>,
    /// With nothing taken.
    whole: Amount,
}

impl Stock {
    /// The stock of a module that so many calls may have running, a quarter of them gating ones; with so many places on the
    /// workers, where it takes them.
    pub(crate) fn new(max_in_flight: usize, places: Option<usize>) -> Self {
        let number = |number: usize, bits: u32| u32::try_from(number).unwrap_or(u32::MAX).min((1 << bits) - 1);
        let whole = Amount {
            permits: number(max_in_flight, Amount::PERMIT_BITS),
            others: number(max_in_flight - max_in_flight / RESERVED, Amount::PERMIT_BITS),
            places: number(places.unwrap_or_default(), Amount::PLACE_BITS),
        };
        Self {
            free: CachePadded::new(AtomicU64::new(whole.to_bits())),
            whole,
        }
    }

    /// What is free.
    pub(crate) fn free(&self) -> Amount {
        Amount::from_bits(self.free.load(Ordering::SeqCst))
    }

    /// How many permits are out.
    pub(crate) fn permits_out(&self) -> usize {
        self.whole.permits.saturating_sub(self.free().permits) as usize
    }

    /// Takes all of this.
    ///
    /// # Errors
    /// Some of it is not free; nothing is taken.
    pub(crate) fn take(&self, taken: Taken) -> Result<(), Lacks> {
        let wanted = Amount::of(taken);
        // Often nothing is taken, and a guess that is right is a step less than a look.
        let mut free = self.whole;
        loop {
            free.has(wanted)?;
            let bits = free.to_bits();
            let left = bits - wanted.to_bits();
            match self.free.compare_exchange_weak(bits, left, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(()),
                Err(found) => free = Amount::from_bits(found),
            }
        }
    }

    /// Takes all of this; looks for a place on a worker a few times, as it may be free in a moment.
    ///
    /// # Errors
    /// Some of it is not free; nothing is taken.
    pub(crate) fn take_soon(&self, taken: Taken) -> Result<(), Lacks> {
        let mut took = self.take(taken);
        for _ in 0..LOOKS {
            if took != Err(Lacks::Place) {
                break;
            }
            spin_loop();
            if self.free().places > 0 {
                took = self.take(taken);
            }
        }
        took
    }

    /// Gives back what was taken.
    pub(crate) fn give(&self, taken: Taken) {
        self.free.fetch_add(Amount::of(taken).to_bits(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn anything() -> impl Strategy<Value = Taken> {
        prop_oneof![
            Just(Taken::place()),
            any::<bool>().prop_map(Taken::of_permit),
            any::<bool>().prop_map(|gating| Taken::of_permit(gating).and_place()),
        ]
    }

    proptest! {
        #[test]
        fn what_is_taken_is_there_and_comes_back(
            (max_in_flight, places) in (1..9_usize, 1..4_usize),
            steps in prop::collection::vec((anything(), any::<prop::sample::Index>(), any::<bool>()), 0..60),
        ) {
            let stock = Stock::new(max_in_flight, Some(places));
            let mut out: Vec<Taken> = Vec::new();
            for (wanted, which, gives) in steps {
                if gives && !out.is_empty() {
                    stock.give(out.swap_remove(which.index(out.len())));
                    continue;
                }
                let count = |of: &dyn Fn(&Taken) -> bool| out.iter().filter(|taken| of(taken)).count();
                let permits = count(&|taken| taken.permit().is_some());
                let others = count(&|taken| taken.permit() == Some(false));
                let free = match wanted.permit() {
                    Some(true) => permits < max_in_flight,
                    Some(false) => permits < max_in_flight && others < max_in_flight - max_in_flight / RESERVED,
                    None => true,
                };
                let place = !wanted.has_place() || count(&|taken| taken.has_place()) < places;
                let expected = match (free, place) {
                    (false, _) => Err(Lacks::Permit),
                    (true, false) => Err(Lacks::Place),
                    (true, true) => Ok(()),
                };
                prop_assert_eq!(stock.take(wanted), expected);
                if expected.is_ok() {
                    out.push(wanted);
                }
            }
            prop_assert_eq!(stock.permits_out(), out.iter().filter(|taken| taken.permit().is_some()).count());
            out.into_iter().for_each(|taken| stock.give(taken));
            prop_assert_eq!(stock.free(), stock.whole);
        }
    }

    #[test]
    fn who_lacks_a_place_only_gets_it_as_soon_as_it_is_free() {
        let stock = Stock::new(1, Some(1));
        assert_eq!(stock.take(Taken::place()), Ok(()));
        let wanted = Taken::of_permit(true).and_place();
        assert_eq!(stock.take_soon(wanted), Err(Lacks::Place));
        stock.give(Taken::place());
        assert_eq!(stock.take_soon(wanted), Ok(()));
        assert_eq!(stock.take_soon(wanted), Err(Lacks::Permit));
    }

    #[test]
    fn more_than_can_be_counted_is_as_much_as_can_be_counted() {
        let stock = Stock::new(usize::MAX, Some(usize::MAX));
        assert_eq!(stock.take(Taken::of_permit(false).and_place()), Ok(()));
        assert_eq!(stock.permits_out(), 1);
    }
}
