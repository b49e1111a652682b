//! What a thread is doing right now, for the watchdog: whose code it runs, and since which poll.
//!
//! Written by its own thread at every poll of module code, read by the watchdog alone. Neither takes a lock or reads a
//! clock.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use ganglion_api::{Callback, CallbackSpec, reference};

/// What a module was asked to do, as a small number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation(u16);

impl Operation {
    /// A request to a web resource.
    pub(crate) const WEB_RESOURCE: Self = Self(1000);
    /// A background call.
    pub(crate) const BACKGROUND_CALL: Self = Self(1001);
    /// The computation of a cached function.
    pub(crate) const CACHED_FUNCTION: Self = Self(1002);
    /// The constructor.
    pub(crate) const CONSTRUCTOR: Self = Self(1003);
    /// The drop of the instance.
    pub(crate) const DROP: Self = Self(1004);

    /// The call of a callback.
    pub(crate) fn callback<C: Callback>() -> Self {
        // There are some fifty callbacks.
        Self(u16::try_from(C::INDEX).unwrap_or(u16::MAX))
    }

    /// The number.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The callback, if it is one.
    pub(crate) fn spec(self) -> Option<&'static CallbackSpec> {
        reference().get(usize::from(self.0))
    }

    /// The word in logs and snapshots.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::WEB_RESOURCE => "web_resource",
            Self::BACKGROUND_CALL => "background_call",
            Self::CACHED_FUNCTION => "cached_function",
            Self::CONSTRUCTOR => "constructor",
            Self::DROP => "drop",
            other => other.spec().map_or("unknown", |spec| spec.name),
        }
    }

    /// Whether it is a request to a web resource.
    pub(crate) fn is_web_resource(self) -> bool {
        self == Self::WEB_RESOURCE
    }
}

/// Whose code, and which part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) incarnation: u32,
    pub(crate) operation: Operation,
}

impl Site {
    fn to_bits(self) -> u64 {
        u64::from(self.incarnation) << 16 | u64::from(self.operation.0)
    }

    fn from_bits(bits: u64) -> Self {
        let low = |bits: u64| u16::try_from(bits & 0xffff).unwrap_or_default();
        Self {
            incarnation: u32::try_from(bits >> 16).unwrap_or_default(),
            operation: Operation(low(bits)),
        }
    }
}

/// One visit of a thread to module code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Visit {
    /// Grows with every visit.
    pub(crate) number: u64,
    pub(crate) site: Site,
}

/// What a thread is doing right now.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    // Odd while module code runs.
    number: AtomicU64,
    site: AtomicU64,
}

impl Probe {
    /// Its own thread enters module code. The number of the visit, which is never 0.
    pub(crate) fn enter(&self, site: Site) -> u64 {
        self.site.store(site.to_bits(), Ordering::Relaxed);
        // One writer: a load and a store are enough.
        let number = self.number.load(Ordering::Relaxed);
        // Entered again without leaving is another visit.
        let entered = (number | 1).wrapping_add((number & 1) * 2);
        self.number.store(entered, Ordering::Release);
        entered
    }

    /// Its own thread is back.
    pub(crate) fn leave(&self) {
        let number = self.number.load(Ordering::Relaxed);
        self.number.store((number | 1).wrapping_add(1), Ordering::Release);
    }

    /// Whether a visit goes on right now.
    pub(crate) fn is_visiting(&self) -> bool {
        self.number.load(Ordering::Relaxed) & 1 == 1
    }

    /// The visit that goes on right now.
    pub(crate) fn visit(&self) -> Option<Visit> {
        let number = self.number.load(Ordering::Acquire);
        let site = Site::from_bits(self.site.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let unchanged = number == self.number.load(Ordering::Relaxed);
        (number & 1 == 1 && unchanged).then_some(Visit { number, site })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_visit_has_a_number_of_its_own() {
        let probe = Probe::default();
        assert_eq!(probe.visit(), None);
        let site = Site {
            incarnation: 70_000,
            operation: Operation::DROP,
        };
        probe.enter(site);
        let first = probe.visit().unwrap();
        assert_eq!(first.site, site);
        probe.leave();
        assert_eq!(probe.visit(), None);
        probe.enter(site);
        let second = probe.visit().unwrap();
        assert_ne!(first.number, second.number);
        // Entered again without leaving: another visit too.
        probe.enter(site);
        assert_ne!(probe.visit().unwrap().number, second.number);
    }
}
