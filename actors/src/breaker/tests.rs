use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::thread;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const FAST: Duration = Duration::from_millis(1);
const SLOW: Duration = Duration::from_millis(50);
const OPEN_FOR: Duration = Duration::from_millis(1000);

/// Four calls, two of which may not fail; two slow ones are too many as well.
fn settings() -> BreakerSettings {
    BreakerSettings {
        mode: BreakerMode::Enabled,
        window: 4,
        minimum: 2,
        failure_rate: 0.5,
        slow_rate: 0.5,
        slow_after: Some(SLOW),
        open_for: OPEN_FOR,
    }
}

/// A breaker with a clock that stands still unless it is moved.
struct Bench {
    breaker: Breaker,
    now: Instant,
}

impl Bench {
    fn new(settings: BreakerSettings) -> Self {
        let (breaker, now) = (Breaker::new(settings), Instant::now());
        Self { breaker, now }
    }

    fn admit(&self) -> Option<Pass> {
        self.breaker.admit(self.now)
    }

    fn record(&self, pass: Pass, judged: Judged, took: Duration) {
        self.breaker.record(pass, judged, took, self.now);
    }

    /// One call from beginning to end; whether it was admitted.
    fn call(&self, judged: Judged, took: Duration) -> bool {
        let pass = self.admit();
        if let Some(pass) = pass {
            self.record(pass, judged, took);
        }
        pass.is_some()
    }

    fn succeeds(&self) -> bool {
        self.call(Judged::Success, FAST)
    }

    fn fails(&self) -> bool {
        self.call(Judged::Failure, FAST)
    }

    fn state(&self) -> BreakerState {
        self.breaker.snapshot().state
    }

    /// Calls, failures and slow calls of the window.
    fn window(&self) -> [usize; 3] {
        let snapshot = self.breaker.snapshot();
        [snapshot.calls, snapshot.failures, snapshot.slow]
    }
}

/// An open one.
fn opened(settings: BreakerSettings) -> Bench {
    let bench = Bench::new(settings);
    bench.breaker.trip(bench.now, TripReason::BlockedThread);
    bench
}

/// One whose probe is under way.
fn probed(settings: BreakerSettings) -> (Bench, Pass) {
    let mut bench = opened(settings);
    bench.now += OPEN_FOR;
    let probe = bench.admit().unwrap();
    (bench, probe)
}

/// What happens to a breaker, whose probe, if it has one, is under way.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Calls that begin and end this long after, as many as given, with this result.
    Calls(u32, usize, Judged, Duration),
    /// The probe ends.
    Probe(Judged, Duration),
    Withdrawn,
    Trip,
    Reset,
}

/// From a state, by an event, to a state, with so many calls admitted.
#[rustfmt::skip]
const TRANSITIONS: [(BreakerState, Event, BreakerState, usize); 22] = {
    use BreakerState::{Closed, HalfOpen, Open};
    use Event::{Calls, Probe, Reset, Trip, Withdrawn};
    use Judged::{Failure, Success};
    [
        (Closed, Calls(0, 9, Success, FAST), Closed, 9),
        (Closed, Calls(0, 1, Failure, FAST), Closed, 1),
        (Closed, Calls(0, 1, Success, SLOW), Closed, 1),
        (Closed, Calls(0, 9, Failure, FAST), Open, 2),
        (Closed, Calls(0, 9, Success, SLOW), Open, 2),
        (Closed, Trip, Open, 0),
        (Closed, Reset, Closed, 0),
        (Open, Calls(0, 9, Success, FAST), Open, 0),
        (Open, Calls(999, 9, Success, FAST), Open, 0),
        (Open, Calls(1000, 0, Success, FAST), Open, 0),
        (Open, Calls(1000, 9, Success, FAST), Closed, 9),
        (Open, Calls(1000, 9, Failure, FAST), Open, 1),
        (Open, Calls(1000, 9, Success, SLOW), Open, 1),
        (Open, Trip, Open, 0),
        (Open, Reset, Closed, 0),
        (HalfOpen, Calls(0, 9, Success, FAST), HalfOpen, 0),
        (HalfOpen, Probe(Success, FAST), Closed, 0),
        (HalfOpen, Probe(Failure, FAST), Open, 0),
        (HalfOpen, Probe(Success, SLOW), Open, 0),
        (HalfOpen, Withdrawn, HalfOpen, 0),
        (HalfOpen, Trip, Open, 0),
        (HalfOpen, Reset, Closed, 0),
    ]
};

#[test]
fn every_event_leads_from_each_state_to_the_documented_one() {
    for (from, event, to, expected) in TRANSITIONS {
        let (mut bench, probe) = match from {
            BreakerState::Closed => (Bench::new(settings()), None),
            BreakerState::Open => (opened(settings()), None),
            BreakerState::HalfOpen => {
                let (bench, probe) = probed(settings());
                (bench, Some(probe))
            }
        };
        assert_eq!(bench.state(), from, "{from:?}, {event:?}");
        let mut admitted = 0;
        match event {
            Event::Calls(after, calls, judged, took) => {
                bench.now += after * MS;
                admitted = (0..calls).filter(|_| bench.call(judged, took)).count();
            }
            Event::Probe(judged, took) => bench.record(probe.unwrap(), judged, took),
            Event::Withdrawn => bench.breaker.withdraw(probe.unwrap()),
            Event::Trip => bench.breaker.trip(bench.now, TripReason::BlockedThread),
            Event::Reset => bench.breaker.reset(),
        }
        assert_eq!((bench.state(), admitted), (to, expected), "{from:?}, {event:?}");
    }
}

#[test]
fn a_trip_says_why_and_empties_the_window() {
    let tripped = |bench: &Bench, reason, trips| {
        let snapshot = bench.breaker.snapshot();
        assert_eq!((snapshot.reason, snapshot.trips), (Some(reason), trips));
        assert_eq!(bench.window(), [0; 3]);
    };
    let bench = Bench::new(settings());
    assert_eq!(bench.breaker.snapshot().reason, None);
    assert!(bench.succeeds() && bench.fails());
    tripped(&bench, TripReason::FailureRate, 1);
    bench.breaker.reset();
    assert!(bench.succeeds() && bench.call(Judged::Success, SLOW));
    tripped(&bench, TripReason::SlowRate, 2);
    let (bench, probe) = probed(settings());
    tripped(&bench, TripReason::BlockedThread, 1);
    bench.record(probe, Judged::Failure, FAST);
    tripped(&bench, TripReason::ProbeFailed, 2);
}

#[test]
fn a_trip_of_an_open_breaker_prolongs_it_and_is_no_further_one() {
    let mut bench = opened(settings());
    bench.now += OPEN_FOR - MS;
    bench.breaker.trip(bench.now, TripReason::BlockedThread);
    bench.now += MS;
    assert!(bench.admit().is_none());
    bench.now += OPEN_FOR - MS;
    assert!(bench.admit().is_some());
    assert_eq!(bench.breaker.snapshot().trips, 1);
}

#[test]
fn a_failed_probe_opens_for_the_whole_time_again() {
    let (mut bench, probe) = probed(settings());
    bench.now += OPEN_FOR / 2;
    bench.record(probe, Judged::Failure, FAST);
    bench.now += OPEN_FOR - MS;
    assert!(bench.admit().is_none());
    bench.now += MS;
    assert!(bench.succeeds());
    assert_eq!(bench.state(), BreakerState::Closed);
}

#[test]
fn nothing_opens_it_before_the_minimum_and_the_rate_itself_does() {
    let bench = Bench::new(BreakerSettings {
        window: 10,
        minimum: 10,
        failure_rate: 0.3,
        ..settings()
    });
    for _ in 0..3 {
        assert!(bench.fails());
    }
    for _ in 0..6 {
        assert!(bench.succeeds());
    }
    assert_eq!(bench.window(), [9, 3, 0]);
    assert!(bench.succeeds());
    assert_eq!(bench.state(), BreakerState::Open);
}

#[test]
fn the_window_slides_and_old_failures_leave_it() {
    let bench = Bench::new(BreakerSettings {
        window: 70,
        failure_rate: 0.9,
        minimum: 70,
        slow_rate: 1.0,
        ..settings()
    });
    for _ in 0..35 {
        assert!(bench.call(Judged::Failure, SLOW));
    }
    for left in (0..35).rev() {
        assert!(bench.succeeds());
        assert_eq!(bench.window(), [70 - left, 35, 35]);
    }
    for left in (0..35).rev() {
        assert!(bench.succeeds());
        assert_eq!(bench.window(), [70, left, left]);
    }
    assert!(bench.succeeds() && bench.fails() && bench.succeeds());
    assert_eq!(bench.window(), [70, 1, 0]);
}

#[test]
fn a_healthy_breaker_remembers_without_memory() {
    let bench = Bench::new(settings());
    for _ in 0..10 {
        assert!(bench.succeeds());
    }
    assert_eq!(bench.window(), [4, 0, 0]);
    assert!(bench.breaker.spotless.load(Ordering::Relaxed));
    assert!(bench.breaker.lock().window.failed.words.is_empty());
    assert!(bench.fails());
    assert_eq!(bench.window(), [4, 1, 0]);
}

#[test]
fn results_from_before_a_trip_a_reset_or_a_new_probe_change_nothing() {
    let bench = Bench::new(settings());
    let [before_trip, late] = [0; 2].map(|_| bench.admit().unwrap());
    bench.breaker.trip(bench.now, TripReason::BlockedThread);
    let tripped = bench.breaker.snapshot();
    bench.record(before_trip, Judged::Failure, FAST);
    assert_eq!(bench.breaker.snapshot(), tripped);
    bench.breaker.reset();
    let [first, second] = [0; 2].map(|_| bench.admit().unwrap());
    bench.record(late, Judged::Failure, FAST);
    assert_eq!(bench.window(), [0; 3]);
    bench.breaker.reset();
    bench.record(first, Judged::Failure, FAST);
    bench.record(second, Judged::Failure, FAST);
    assert_eq!(bench.window(), [0; 3]);

    // A call of before succeeds beside the probe: that says nothing about now.
    let mut bench = Bench::new(settings());
    let before = bench.admit().unwrap();
    bench.breaker.trip(bench.now, TripReason::BlockedThread);
    bench.now += OPEN_FOR;
    let probe = bench.admit().unwrap();
    bench.record(before, Judged::Success, FAST);
    assert_eq!(bench.state(), BreakerState::HalfOpen);
    bench.record(probe, Judged::Success, FAST);
    bench.record(probe, Judged::Failure, FAST);
    assert_eq!((bench.state(), bench.window()), (BreakerState::Closed, [0; 3]));
}

#[test]
fn a_probe_that_was_withdrawn_leaves_its_place_to_the_next_caller() {
    let (bench, probe) = probed(settings());
    bench.breaker.withdraw(probe);
    let next = bench.admit().unwrap();
    assert!(bench.admit().is_none());
    // Neither counts any more.
    bench.breaker.withdraw(probe);
    bench.record(probe, Judged::Failure, FAST);
    assert!(bench.admit().is_none());
    bench.record(next, Judged::Success, FAST);
    assert_eq!(bench.state(), BreakerState::Closed);
    // Withdrawing what is no probe is nothing.
    bench.breaker.withdraw(bench.admit().unwrap());
    assert_eq!((bench.state(), bench.window()), (BreakerState::Closed, [0; 3]));
}

#[test]
fn a_lost_probe_does_not_hold_the_breaker_half_open() {
    let (mut bench, lost) = probed(settings());
    bench.now += OPEN_FOR - MS;
    assert!(bench.admit().is_none());
    bench.now += MS;
    let next = bench.admit().unwrap();
    assert!(bench.admit().is_none());
    bench.record(lost, Judged::Success, FAST);
    assert_eq!(bench.state(), BreakerState::HalfOpen);
    bench.record(next, Judged::Success, FAST);
    assert_eq!(bench.state(), BreakerState::Closed);

    // Late but not yet replaced: it still tells how the module is.
    let (mut bench, late) = probed(settings());
    bench.now += 10 * OPEN_FOR;
    bench.record(late, Judged::Success, FAST);
    assert_eq!(bench.state(), BreakerState::Closed);
}

#[test]
fn of_many_threads_one_makes_the_probe() {
    const THREADS: usize = 8;
    let mut bench = opened(settings());
    for round in 1..=50 {
        bench.now += OPEN_FOR;
        let (admitted, barrier) = (AtomicUsize::new(0), Barrier::new(THREADS));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    let pass = bench.admit();
                    // Nobody is done before all have asked.
                    barrier.wait();
                    if let Some(probe) = pass {
                        admitted.fetch_add(1, Ordering::Relaxed);
                        bench.record(probe, Judged::Failure, FAST);
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 1);
        assert_eq!(bench.breaker.snapshot().trips, 1 + round);
    }
}

#[test]
fn what_many_threads_record_is_all_counted() {
    let window = 4000;
    let bench = Bench::new(BreakerSettings {
        window,
        minimum: window,
        failure_rate: 1.0,
        slow_rate: 1.0,
        ..settings()
    });
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for call in 0..window / 4 {
                    if call % 10 == 0 {
                        bench.fails()
                    } else {
                        bench.succeeds()
                    };
                }
            });
        }
    });
    assert_eq!(bench.window(), [window, window / 10, 0]);
}

#[test]
fn one_that_only_measures_counts_trips_and_refuses_nothing() {
    let bench = Bench::new(BreakerSettings {
        mode: BreakerMode::MetricsOnly,
        ..settings()
    });
    let stale = bench.admit().unwrap();
    assert!(bench.fails());
    assert_eq!(bench.window(), [1, 1, 0]);
    for trips in 1..=3 {
        assert!(bench.fails());
        if trips > 1 {
            assert!(bench.fails());
        }
        let snapshot = bench.breaker.snapshot();
        assert_eq!((snapshot.state, snapshot.trips), (BreakerState::Closed, trips));
        assert_eq!(
            (snapshot.reason, bench.window()),
            (Some(TripReason::FailureRate), [0; 3])
        );
    }
    bench.record(stale, Judged::Failure, FAST);
    assert_eq!(bench.window(), [0; 3]);
    bench.breaker.trip(bench.now, TripReason::BlockedThread);
    let snapshot = bench.breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.trips), (BreakerState::Closed, 4));
    assert_eq!(snapshot.reason, Some(TripReason::BlockedThread));
}

#[test]
fn a_disabled_one_counts_nothing_and_refuses_nothing() {
    let bench = Bench::new(BreakerSettings {
        mode: BreakerMode::Disabled,
        ..settings()
    });
    let untouched = bench.breaker.snapshot();
    for _ in 0..10 {
        assert!(bench.fails());
    }
    bench.breaker.trip(bench.now, TripReason::BlockedThread);
    assert!(bench.succeeds());
    assert_eq!(bench.breaker.snapshot(), untouched);
}

#[test]
fn without_a_limit_no_call_is_slow() {
    let bench = Bench::new(BreakerSettings {
        slow_after: None,
        ..settings()
    });
    for _ in 0..4 {
        assert!(bench.call(Judged::Success, Duration::MAX));
    }
    assert_eq!(bench.window(), [4, 0, 0]);
}

#[test]
fn settings_that_make_no_sense_neither_panic_nor_open_it_for_nothing() {
    for (window, minimum, rate, open_for) in [
        (0, 0, 0.0, Duration::ZERO),
        (usize::MAX, usize::MAX, f64::NAN, Duration::MAX),
        (3, 9, -1.0, Duration::MAX),
    ] {
        let bench = Bench::new(BreakerSettings {
            window,
            minimum,
            failure_rate: rate,
            slow_rate: rate,
            open_for,
            ..settings()
        });
        for _ in 0..100 {
            assert!(bench.succeeds());
        }
        assert!(bench.fails());
        bench.fails();
    }
}

#[test]
fn words_are_those_of_the_documents() {
    for mode in BreakerMode::ALL {
        assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
    }
    let (bench, _probe) = probed(settings());
    assert_eq!(
        serde_json::to_value(bench.breaker.snapshot()).unwrap(),
        serde_json::json!({
            "state": "half_open", "calls": 0, "failures": 0, "slow": 0, "trips": 1, "reason": "blocked_thread",
        })
    );
}

/// What is done to both, the breaker and the model.
#[derive(Debug, Clone)]
enum Step {
    Admit,
    Record(prop::sample::Index, Judged, Duration),
    Withdraw(prop::sample::Index),
    Wait(Duration),
    Trip,
    Reset,
}

/// A breaker without rings, bits and epochs: a list of outcomes, and a list of the calls that still count.
struct Model {
    settings: BreakerSettings,
    state: BreakerState,
    outcomes: Vec<(Judged, bool)>,
    /// The calls under way; `None` for one that does not count any more.
    calls: Vec<Option<Kind>>,
    since: Option<Instant>,
    trips: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Probe,
}

impl Model {
    fn admit(&mut self, now: Instant) -> bool {
        let kind = if self.state == BreakerState::Closed {
            Kind::Plain
        } else if self.since.is_none_or(|since| now - since >= self.settings.open_for) {
            self.calls.fill(None);
            self.state = BreakerState::HalfOpen;
            self.since = Some(now);
            Kind::Probe
        } else {
            return false;
        };
        self.calls.push(Some(kind));
        true
    }

    fn record(&mut self, kind: Option<Kind>, judged: Judged, took: Duration, now: Instant) {
        let slow = self.settings.slow_after.is_some_and(|after| took >= after);
        match kind {
            None => {}
            Some(_) if self.settings.mode == BreakerMode::Disabled => {}
            Some(Kind::Probe) if judged == Judged::Success && !slow => self.enter(BreakerState::Closed, now),
            Some(Kind::Probe) => self.trip(now),
            Some(Kind::Plain) => {
                self.outcomes.push((judged, slow));
                let [calls, failures, slow] = self.counts().map(|count| count as f64);
                let enough = calls >= self.settings.minimum as f64;
                let failing = failures / calls >= self.settings.failure_rate;
                if enough && (failing || slow / calls >= self.settings.slow_rate) {
                    self.trip(now);
                }
            }
        }
    }

    fn withdraw(&mut self, kind: Option<Kind>) {
        if kind == Some(Kind::Probe) {
            self.since = None;
        }
    }

    fn trip(&mut self, now: Instant) {
        match self.settings.mode {
            BreakerMode::Enabled => {
                self.trips += u64::from(self.state != BreakerState::Open);
                self.enter(BreakerState::Open, now);
            }
            BreakerMode::MetricsOnly => {
                self.trips += 1;
                self.enter(BreakerState::Closed, now);
            }
            BreakerMode::Disabled => {}
        }
    }

    fn enter(&mut self, state: BreakerState, now: Instant) {
        self.outcomes.clear();
        self.calls.fill(None);
        self.state = state;
        self.since = Some(now);
    }

    fn counts(&self) -> [usize; 3] {
        let last = self.outcomes.iter().rev().take(self.settings.window);
        let failures = last.clone().filter(|(judged, _)| *judged == Judged::Failure).count();
        let slow = last.clone().filter(|(_, slow)| *slow).count();
        [last.count(), failures, slow]
    }
}

fn any_settings() -> impl Strategy<Value = BreakerSettings> {
    let rate = || prop::sample::select(vec![0.1, 0.3, 0.5, 0.75, 1.0]);
    let mode = prop_oneof![
        4 => Just(BreakerMode::Enabled),
        2 => Just(BreakerMode::MetricsOnly),
        1 => Just(BreakerMode::Disabled),
    ];
    let window = (1..10_usize).prop_flat_map(|window| (Just(window), 1..=window));
    (mode, window, rate(), rate(), any::<bool>()).prop_map(
        |(mode, (window, minimum), failure_rate, slow_rate, slow)| BreakerSettings {
            mode,
            window,
            minimum,
            failure_rate,
            slow_rate,
            slow_after: slow.then_some(SLOW),
            open_for: OPEN_FOR,
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let judged = prop_oneof![3 => Just(Judged::Success), 1 => Just(Judged::Failure)];
    let took = prop_oneof![5 => Just(FAST), 1 => Just(SLOW)];
    prop_oneof![
        30 => Just(Step::Admit),
        30 => (any::<prop::sample::Index>(), judged, took)
            .prop_map(|(call, judged, took)| Step::Record(call, judged, took)),
        2 => any::<prop::sample::Index>().prop_map(Step::Withdraw),
        6 => prop::sample::select(vec![MS, OPEN_FOR / 2, OPEN_FOR]).prop_map(Step::Wait),
        1 => Just(Step::Trip),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_list_of_outcomes_does(
        settings in any_settings(),
        steps in prop::collection::vec(any_step(), 0..200),
    ) {
        let mut bench = Bench::new(settings);
        let mut passes: Vec<Pass> = Vec::new();
        let mut model = Model {
            settings,
            state: BreakerState::Closed,
            outcomes: Vec::new(),
            calls: Vec::new(),
            since: None,
            trips: 0,
        };
        for step in steps {
            match step {
                Step::Admit => {
                    let pass = bench.admit();
                    prop_assert_eq!(pass.is_some(), model.admit(bench.now));
                    passes.extend(pass);
                }
                Step::Record(call, judged, took) if !passes.is_empty() => {
                    let call = call.index(passes.len());
                    bench.record(passes.swap_remove(call), judged, took);
                    let kind = model.calls.swap_remove(call);
                    model.record(kind, judged, took, bench.now);
                }
                Step::Withdraw(call) if !passes.is_empty() => {
                    let call = call.index(passes.len());
                    bench.breaker.withdraw(passes.swap_remove(call));
                    let kind = model.calls.swap_remove(call);
                    model.withdraw(kind);
                }
                Step::Record(..) | Step::Withdraw(_) => {}
                Step::Wait(pause) => bench.now += pause,
                Step::Trip => {
                    bench.breaker.trip(bench.now, TripReason::BlockedThread);
                    model.trip(bench.now);
                }
                Step::Reset => {
                    bench.breaker.reset();
                    model.enter(BreakerState::Closed, bench.now);
                }
            }
            let snapshot = bench.breaker.snapshot();
            prop_assert_eq!((snapshot.state, snapshot.trips), (model.state, model.trips));
            prop_assert_eq!(bench.window(), model.counts());
        }
    }
}
