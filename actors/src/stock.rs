//! What of a module is free: permits for its calls, and places on the workers.
//!
//! All of it is one number on a cache line of its own, so that a call takes what it needs in one step and gives it back in
//! another. Workers that ask one module pass that line to and fro, and nothing else that is written at every call.

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
    pub(crate) permits: u64,
    pub(crate) others: u64,
    pub(crate) places: u64,
}

impl Amount {
    const PERMITS: Part = Part { from: 0, bits: 20 };
    const OTHERS: Part = Part { from: 21, bits: 20 };
    const PLACES: Part = Part { from: 42, bits: 16 };
    /// A bit above each part. It is set before something is taken off, and gone if there was less.
    const GUARDS: u64 = Self::PERMITS.guard() | Self::OTHERS.guard() | Self::PLACES.guard();

    const fn from_bits(bits: u64) -> Self {
        Self {
            permits: Self::PERMITS.of(bits),
            others: Self::OTHERS.of(bits),
            places: Self::PLACES.of(bits),
        }
    }

    const fn to_bits(self) -> u64 {
        self.permits << Self::PERMITS.from | self.others << Self::OTHERS.from | self.places << Self::PLACES.from
    }

    /// What this takes.
    fn of(taken: Taken) -> Self {
        let permit = taken.permit();
        Self {
            permits: u64::from(permit.is_some()),
            others: u64::from(permit == Some(false)),
            places: u64::from(taken.has_place()),
        }
    }
}

/// Some bits of a number.
#[derive(Clone, Copy)]
struct Part {
    from: u32,
    bits: u32,
}

impl Part {
    const fn most(self) -> u64 {
        (1 << self.bits) - 1
    }

    const fn of(self, number: u64) -> u64 {
        number >> self.from & self.most()
    }

    const fn guard(self) -> u64 {
        1 << (self.from + self.bits)
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
    whole: u64,
}

impl Stock {
    /// The stock of a module that so many calls may have running, a quarter of them gating ones; with so many places on the
    /// workers, where it takes them.
    pub(crate) fn new(max_in_flight: usize, places: Option<usize>) -> Self {
        let number = |number: usize, part: Part| u64::try_from(number).unwrap_or(u64::MAX).min(part.most());
        let whole = Amount {
            permits: number(max_in_flight, Amount::PERMITS),
            others: number(max_in_flight - max_in_flight / RESERVED, Amount::OTHERS),
            places: number(places.unwrap_or_default(), Amount::PLACES),
        };
        let whole = whole.to_bits();
        Self {
            free: CachePadded::new(AtomicU64::new(whole)),
            whole,
        }
    }

    /// What is free.
    pub(crate) fn free(&self) -> Amount {
        Amount::from_bits(self.free.load(Ordering::SeqCst))
    }

    /// How many permits are out.
    pub(crate) fn permits_out(&self) -> usize {
        let out = Amount::from_bits(self.whole)
            .permits
            .saturating_sub(self.free().permits);
        usize::try_from(out).unwrap_or(usize::MAX)
    }

    /// Takes all of this.
    ///
    /// # Errors
    /// Some of it is not free; nothing is taken.
    pub(crate) fn take(&self, taken: Taken) -> Result<(), Lacks> {
        let wanted = Amount::of(taken).to_bits();
        // Often nothing is taken, and a guess that is right is a step less than a look.
        let mut free = self.whole;
        loop {
            let left = (free | Amount::GUARDS) - wanted;
            if left & Amount::GUARDS != Amount::GUARDS {
                let only_a_place = left & Amount::GUARDS == Amount::GUARDS - Amount::PLACES.guard();
                return Err(if only_a_place { Lacks::Place } else { Lacks::Permit });
            }
            let left = left & !Amount::GUARDS;
            match self
                .free
                .compare_exchange_weak(free, left, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => return Ok(()),
                Err(found) => free = found,
            }
        }
    }

    /// Takes all of this; looks for a place on a worker a few times, as it may be free in a moment.
    ///
    /// # Errors
    /// Some of it is not free; nothing is taken.
    pub(crate) fn take_soon(&self, taken: Taken) -> Result<(), Lacks> {
        match self.take(taken) {
            Err(Lacks::Place) => self.look_again(taken),
            took => took,
        }
    }

    #[cold]
    fn look_again(&self, taken: Taken) -> Result<(), Lacks> {
        for _ in 0..LOOKS {
            spin_loop();
            if self.free().places > 0 {
                let took = self.take(taken);
                if took != Err(Lacks::Place) {
                    return took;
                }
            }
        }
        Err(Lacks::Place)
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
            prop_assert_eq!(stock.free(), Amount::from_bits(stock.whole));
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
