//! A breaker stands before one callback of a module: after too many failures it refuses calls for a while.
//!
//! It is on the way of every call. A healthy one is one atomic load to pass, and, once its window is full of good
//! calls, one more to record the next good call; the lock is for the rest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// The longest window, in calls.
const MAX_WINDOW: usize = 10_000;

/// What a breaker does with what it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerMode {
    /// It counts, and refuses calls while it is open.
    #[default]
    Enabled,
    /// It counts calls and trips, stays closed and refuses nothing.
    MetricsOnly,
    /// It counts nothing and refuses nothing.
    Disabled,
}

impl BreakerMode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Enabled, Self::MetricsOnly, Self::Disabled];

    /// The word in JSON, config and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::MetricsOnly => "metrics_only",
            Self::Disabled => "disabled",
        }
    }
}

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// What it does with what it counts.
    pub mode: BreakerMode,
    /// How many calls it looks back on, 1 to 10 000. What is outside counts as the nearest of these.
    pub window: usize,
    /// How many calls the window must hold before the rates mean anything; at most the window.
    pub minimum: usize,
    /// The share of failures among the calls of the window that opens it, above 0 and at most 1.
    pub failure_rate: f64,
    /// The share of slow calls that opens it, above 0 and at most 1.
    pub slow_rate: f64,
    /// A call that took as long or longer is slow, also if it succeeded. `None`: no call is slow.
    pub slow_after: Option<Duration>,
    /// How long it refuses before it tries one call. A probe that says nothing for as long loses its place.
    pub open_for: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            mode: BreakerMode::Enabled,
            window: 100,
            minimum: 20,
            failure_rate: 0.5,
            slow_rate: 1.0,
            slow_after: None,
            open_for: Duration::from_secs(10),
        }
    }
}

/// What a breaker does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Healthy: every call passes.
    Closed,
    /// Refusing. It stays so, also when its time is over, until the next call comes and becomes the probe.
    Open,
    /// One call, the probe, tries whether the module is well again; all others are refused.
    HalfOpen,
}

impl BreakerState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word in JSON and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Why a breaker opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TripReason {
    /// Too many calls failed.
    FailureRate,
    /// Too many calls were slow.
    SlowRate,
    /// The probe failed or was slow.
    ProbeFailed,
    /// The module blocked its thread.
    BlockedThread,
}

/// What a breaker counted, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BreakerSnapshot {
    /// What it does.
    pub state: BreakerState,
    /// How many calls the window holds.
    pub calls: usize,
    /// How many of them failed.
    pub failures: usize,
    /// How many of them were slow, failed ones too.
    pub slow: usize,
    /// How often it opened since the start, or would have if it were enabled.
    pub trips: u64,
    /// Why it last did; null if it never did.
    pub reason: Option<TripReason>,
}

/// What a call that was made counts as. The caller decides which failures are the module's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// The module did its work, whatever it answered.
    Success,
    /// It did not.
    Failure,
}

/// The right to make one call. It is no guard: give it back, once, with [`Breaker::record`] or [`Breaker::withdraw`].
/// One that is forgotten holds nothing for longer than `open_for`.
#[must_use = "the breaker waits for the result of a probe"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pass {
    /// The epoch that the call belongs to; results of another one are stale.
    epoch: u64,
    probe: bool,
}

/// The breaker of one callback of one module.
#[derive(Debug)]
pub(crate) struct Breaker {
    settings: BreakerSettings,
    phase: Phase,
    /// The window is full of calls that neither failed nor were slow: one more changes nothing.
    spotless: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    window: Window,
    /// Since when calls are refused: the moment of the trip, or that of the probe. `None` while it is half open: the
    /// place of the probe is free.
    refusing_since: Option<Instant>,
    trips: u64,
    reason: Option<TripReason>,
}

impl Breaker {
    /// A closed breaker with an empty window.
    pub(crate) fn new(settings: BreakerSettings) -> Self {
        let window = settings.window.clamp(1, MAX_WINDOW);
        let minimum = settings.minimum.clamp(1, window);
        Self {
            settings: BreakerSettings {
                window,
                minimum,
                ..settings
            },
            phase: Phase::default(),
            spotless: AtomicBool::new(false),
            inner: Mutex::default(),
        }
    }

    /// Asks for a call. `None`: it is refused, as `breaker_open`.
    pub(crate) fn admit(&self, now: Instant) -> Option<Pass> {
        self.admit_at_once().or_else(|| self.admit_probe(now))
    }

    /// Asks for a call that is no probe. `None`: it is for [`admit`](Self::admit) to say.
    pub(crate) fn admit_at_once(&self) -> Option<Pass> {
        let (state, epoch) = self.phase.get();
        (state == BreakerState::Closed).then_some(Pass { epoch, probe: false })
    }

    #[cold]
    fn admit_probe(&self, now: Instant) -> Option<Pass> {
        let mut inner = self.lock();
        let (state, epoch) = self.phase.get();
        if state == BreakerState::Closed {
            // It closed since the caller looked.
            return Some(Pass { epoch, probe: false });
        }
        let refuses = inner
            .refusing_since
            .is_some_and(|since| now.saturating_duration_since(since) < self.settings.open_for);
        if refuses {
            return None;
        }
        inner.refusing_since = Some(now);
        // An epoch of its own: what a lost probe says later is stale.
        let epoch = self.phase.enter(BreakerState::HalfOpen);
        Some(Pass { epoch, probe: true })
    }

    /// Whether a call that was let pass may still begin: not if the breaker has opened since.
    pub(crate) fn still_passes(&self, pass: Pass) -> bool {
        let (state, epoch) = self.phase.get();
        epoch == pass.epoch || state == BreakerState::Closed
    }

    /// Notes how a call ended. One from before the last trip, reset or probe changes nothing. True if the breaker opened
    /// for it, or would have in the mode `metrics_only`.
    pub(crate) fn record(&self, pass: Pass, judged: Judged, took: Duration, now: impl Into<Instant>) -> bool {
        let slow = self.settings.slow_after.is_some_and(|after| took >= after);
        let good = judged == Judged::Success && !slow;
        let nothing_changes = good && !pass.probe && self.spotless.load(Ordering::Relaxed);
        if nothing_changes || self.settings.mode == BreakerMode::Disabled {
            return false;
        }
        let now = now.into();
        let mut inner = self.lock();
        let (state, epoch) = self.phase.get();
        if epoch != pass.epoch {
            return false;
        }
        let trips = inner.trips;
        match state {
            BreakerState::Closed => {
                let window = &mut inner.window;
                window.push(self.settings.window, judged == Judged::Failure, slow);
                let spotless = window.calls == self.settings.window && window.failed.ones + window.slow.ones == 0;
                self.spotless.store(spotless, Ordering::Relaxed);
                if let Some(reason) = self.too_many(&inner.window) {
                    self.open(&mut inner, now, reason);
                }
            }
            BreakerState::HalfOpen if good => self.close(&mut inner),
            BreakerState::HalfOpen => self.open(&mut inner, now, TripReason::ProbeFailed),
            // Opening begins an epoch in which nothing is admitted.
            BreakerState::Open => {}
        }
        inner.trips != trips
    }

    /// Gives a pass back: the call was not made. If it was the probe, its place is free for the next caller.
    pub(crate) fn withdraw(&self, pass: Pass) {
        if !pass.probe {
            return;
        }
        let mut inner = self.lock();
        let (state, epoch) = self.phase.get();
        if state == BreakerState::HalfOpen && epoch == pass.epoch {
            inner.refusing_since = None;
            self.phase.enter(BreakerState::HalfOpen);
        }
    }

    /// Opens it, whatever the window holds. One that is open already refuses from now on for the whole time again; that
    /// is no further trip.
    pub(crate) fn trip(&self, now: Instant, reason: TripReason) {
        self.open(&mut self.lock(), now, reason);
    }

    /// Closes it with an empty window, as after the start. Trips stay counted.
    pub(crate) fn reset(&self) {
        self.close(&mut self.lock());
    }

    /// What it counted.
    pub(crate) fn snapshot(&self) -> BreakerSnapshot {
        let inner = self.lock();
        BreakerSnapshot {
            state: self.phase.get().0,
            calls: inner.window.calls,
            failures: inner.window.failed.ones,
            slow: inner.window.slow.ones,
            trips: inner.trips,
            reason: inner.reason,
        }
    }

    /// Why the window is one to open for, if it is.
    fn too_many(&self, window: &Window) -> Option<TripReason> {
        if window.calls < self.settings.minimum {
            return None;
        }
        // A rate of zero must not open it for nothing.
        let reaches = |ones: usize, rate: f64| ones > 0 && ones as f64 / window.calls as f64 >= rate;
        if reaches(window.failed.ones, self.settings.failure_rate) {
            Some(TripReason::FailureRate)
        } else if reaches(window.slow.ones, self.settings.slow_rate) {
            Some(TripReason::SlowRate)
        } else {
            None
        }
    }

    fn open(&self, inner: &mut Inner, now: Instant, reason: TripReason) {
        match self.settings.mode {
            BreakerMode::Enabled => {
                let (state, _) = self.phase.get();
                self.begin(inner, BreakerState::Open);
                inner.refusing_since = Some(now);
                if state != BreakerState::Open {
                    inner.trips += 1;
                }
            }
            BreakerMode::MetricsOnly => {
                self.begin(inner, BreakerState::Closed);
                inner.trips += 1;
            }
            BreakerMode::Disabled => return,
        }
        inner.reason = Some(reason);
    }

    fn close(&self, inner: &mut Inner) {
        self.begin(inner, BreakerState::Closed);
        inner.refusing_since = None;
    }

    /// Begins an epoch with an empty window.
    fn begin(&self, inner: &mut Inner, state: BreakerState) {
        inner.window = Window::default();
        // Before the phase: whoever is admitted to the new epoch must see it.
        self.spotless.store(false, Ordering::Relaxed);
        self.phase.enter(state);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// State and epoch in one word, so that one load reads both. It is written under the breaker's lock only.
#[derive(Debug, Default)]
struct Phase(AtomicU64);

impl Phase {
    fn get(&self) -> (BreakerState, u64) {
        let word = self.0.load(Ordering::Acquire);
        let state = match word & 3 {
            0 => BreakerState::Closed,
            1 => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        };
        (state, word >> 2)
    }

    /// Begins the next epoch, and says which.
    fn enter(&self, state: BreakerState) -> u64 {
        let epoch = self.get().1 + 1;
        self.0.store(epoch << 2 | state as u64, Ordering::Release);
        epoch
    }
}

/// The last calls: two bits each, in rings. There is a breaker for every callback of every module, and most have
/// nothing to remember.
#[derive(Debug, Default)]
struct Window {
    calls: usize,
    next: usize,
    failed: Bits,
    slow: Bits,
}

impl Window {
    /// Notes a call, and forgets the oldest one of a full window.
    fn push(&mut self, size: usize, failed: bool, slow: bool) {
        self.failed.set(self.next, failed, size);
        self.slow.set(self.next, slow, size);
        self.next = (self.next + 1) % size;
        self.calls = size.min(self.calls + 1);
    }
}

/// Bits that are counted. Nothing is allocated before the first one.
#[derive(Debug, Default)]
struct Bits {
    words: Box<[u64]>,
    ones: usize,
}

impl Bits {
    fn set(&mut self, index: usize, one: bool, size: usize) {
        if self.words.is_empty() {
            if !one {
                return;
            }
            self.words = vec![0; size.div_ceil(64)].into_boxed_slice();
        }
        let (word, mask) = (&mut self.words[index / 64], 1 << (index % 64));
        self.ones -= usize::from(*word & mask != 0);
        *word &= !mask;
        if one {
            *word |= mask;
            self.ones += 1;
        }
    }
}

#[cfg(test)]
mod tests;
