//! Background calls of modules: their clocks are on the control thread, their runs on the module's home.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ganglion_api::{BackgroundTask, CancelBackgroundCall, Schedule};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::guard::{Panic, contained, guarded_now};
use crate::incarnation::Incarnation;
use crate::probe::Operation;

/// The least interval: a module that asks for none would keep its thread busy for ever.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// The longest delay or interval, in place of longer ones: clocks end.
const MAX_DELAY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How many background calls an incarnation may have. One more is not started: a module that floods its host would take
/// its memory and the time of its threads.
const MAX_BACKGROUND_CALLS: usize = 1024;

/// The time that one run costs an incarnation's share of runs, which is bounded for the same reason.
const RUN_INTERVAL: Duration = Duration::from_micros(100);

/// How many runs may begin at once.
const RUN_BURST: u32 = 100;

/// When the next run of an incarnation's background calls begins, if the pace is kept.
#[derive(Debug)]
pub(crate) struct Pace(Mutex<Instant>);

impl Pace {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// The moment at which one more run may begin, 10 000 a second in the long run.
    fn next(&self, now: Instant) -> Instant {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = now.max(*next);
        *next = begin + RUN_INTERVAL;
        // A burst may run ahead of the pace.
        let ahead = begin.checked_sub(RUN_INTERVAL * RUN_BURST);
        ahead.map_or(now, |ahead| ahead.max(now))
    }
}

/// A background call.
pub(crate) struct Background {
    incarnation: Arc<Incarnation>,
    description: String,
    schedule: Schedule,
    loaded: watch::Receiver<bool>,
    cancelled: CancellationToken,
    // Locked only to make the next run's future, which is our own code.
    task: Arc<Mutex<BackgroundTask>>,
    _counted: Counted,
}

/// One background call of an incarnation, counted until it is dropped.
struct Counted(Arc<Incarnation>);

impl Counted {
    fn new(incarnation: &Arc<Incarnation>) -> Option<Self> {
        let counted = Self(Arc::clone(incarnation));
        let before = counted.counter().fetch_add(1, Ordering::Relaxed);
        (before < MAX_BACKGROUND_CALLS).then_some(counted)
    }

    fn counter(&self) -> &AtomicUsize {
        &self.0.background_calls
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // What the task captured is dropped by the module's code.
        let nothing: BackgroundTask = Box::new(|| Box::pin(async { Ok(()) }));
        let task = std::mem::replace(&mut self.task, Arc::new(Mutex::new(nothing)));
        self.incarnation.discard(Box::new(task));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counter().fetch_sub(1, Ordering::Relaxed);
    }
}

struct Cancel(CancellationToken);

impl CancelBackgroundCall for Cancel {
    fn cancel(&self) {
        self.0.cancel();
    }
}

/// How a run ended. The text of an error is taken where it ran: it is the module's code, and so is the error's drop.
type Ended = Result<Result<(), String>, Panic>;

/// The first tick after `now`; a run that took longer than the interval skips ticks and keeps their phase.
fn next_tick(last: Instant, interval: Duration, now: Instant) -> Instant {
    let missed = now.saturating_duration_since(last).as_nanos() / interval.as_nanos();
    last + interval * u32::try_from(missed).unwrap_or(u32::MAX - 1).saturating_add(1)
}

impl Background {
    /// Starts a background call. It ends when it is cancelled, or its incarnation is retired.
    pub(crate) fn start(
        incarnation: &Arc<Incarnation>,
        loaded: watch::Receiver<bool>,
        description: String,
        schedule: Schedule,
        task: BackgroundTask,
    ) -> Arc<dyn CancelBackgroundCall> {
        let cancelled = incarnation.retired().child_token();
        let cancel = Arc::new(Cancel(cancelled.clone()));
        let Some(counted) = Counted::new(incarnation) else {
            if !incarnation.flooded.swap(true, Ordering::Relaxed) {
                let module = incarnation.module().id();
                tracing::error!(
                    module,
                    description,
                    "background calls are not started: the module has {MAX_BACKGROUND_CALLS}; said once"
                );
            }
            return cancel;
        };
        let call = Self {
            incarnation: Arc::clone(incarnation),
            description,
            schedule,
            loaded,
            cancelled: cancelled.clone(),
            task: Arc::new(Mutex::new(task)),
            _counted: counted,
        };
        // A control thread that has ended runs nothing, and that is what a stopped module's background calls should do.
        incarnation.pool().control().spawn(async move {
            cancelled.run_until_cancelled_owned(call.run()).await;
        });
        cancel
    }

    async fn run(mut self) {
        // The sender lives as long as the modules; without it there is nothing to run.
        if self.loaded.wait_for(|loaded| *loaded).await.is_err() {
            return;
        }
        match self.schedule {
            Schedule::Now => self.once().await,
            Schedule::After(delay) => {
                sleep(delay.min(MAX_DELAY)).await;
                self.once().await;
            }
            Schedule::Every(interval) => {
                let interval = interval.clamp(MIN_INTERVAL, MAX_DELAY);
                let mut tick = Instant::now() + interval;
                loop {
                    sleep_until(tick).await;
                    self.once().await;
                    tick = next_tick(tick, interval, Instant::now());
                }
            }
        }
    }

    /// One run. An error is logged, as in Synapse; after a panic the module is made anew.
    async fn once(&self) {
        let (module, description) = (self.incarnation.module().id(), self.description.as_str());
        let now = Instant::now();
        let begin = self.incarnation.pace.next(now);
        if begin > now {
            sleep_until(begin).await;
        }
        let home = self.incarnation.home();
        let (done, ended) = oneshot::channel();
        let (task, cancelled) = (Arc::clone(&self.task), self.cancelled.clone());
        let incarnation = Arc::clone(&self.incarnation);
        home.arbiter().spawn_fn(move || {
            actix::spawn(async move {
                if let Some(run) = run_once(&incarnation, &task, &cancelled).await {
                    // Nobody waits any more for a run whose thread was given up.
                    let _ = done.send(run);
                }
                // It may be the last to hold what the task captured.
                let site = incarnation.site(Operation::BACKGROUND_CALL);
                let _ = guarded_now(site, || drop(task));
            });
        });
        match home.given_up().run_until_cancelled(ended).await {
            Some(Ok(Ok(Ok(())))) => {}
            Some(Ok(Ok(Err(error)))) => {
                tracing::error!(module, description, error, "background call failed");
            }
            Some(Ok(Err(panic))) => self.incarnation.panicked(Operation::BACKGROUND_CALL, panic.text()),
            Some(Err(_)) | None => {
                tracing::error!(module, description, "background call is lost with its thread");
            }
        }
    }
}

/// Runs the task once, on this thread; `None` if it was cancelled.
async fn run_once(
    incarnation: &Incarnation,
    task: &Mutex<BackgroundTask>,
    cancelled: &CancellationToken,
) -> Option<Ended> {
    let run = async {
        let run = (task.lock().unwrap_or_else(PoisonError::into_inner))();
        run.await.map_err(|error| error.to_string())
    };
    let entrance = incarnation.entrance(Operation::BACKGROUND_CALL);
    let ended = contained(entrance, run, async |polled| {
        cancelled.run_until_cancelled(polled).await.ok_or(())
    });
    match ended.await {
        Ok(Ok(ended)) => Some(Ok(ended)),
        Ok(Err(())) => None,
        Err(panic) => Some(Err(panic)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_begin_at_once_up_to_a_burst_and_then_at_their_pace() {
        let (pace, now) = (Pace::new(), Instant::now());
        let waits: Vec<_> = (0..300).map(|_| pace.next(now) - now).collect();
        assert!(waits[..101].iter().all(Duration::is_zero), "{waits:?}");
        assert!(waits.is_sorted() && waits[299] == 199 * RUN_INTERVAL, "{waits:?}");
        // Later, one burst is there again.
        let later = now + Duration::from_secs(10);
        let waits: Vec<_> = (0..101).map(|_| pace.next(later) - later).collect();
        assert!(waits.iter().all(Duration::is_zero), "{waits:?}");
        assert!(pace.next(later) > later);
    }

    #[test]
    fn a_slow_loop_skips_ticks_and_keeps_its_phase() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let tick = |last: f64, now: f64| {
            let at = |seconds| start + Duration::from_secs_f64(seconds);
            (next_tick(at(last), second, at(now)) - start).as_secs_f64()
        };
        assert_eq!((tick(1.0, 1.0), tick(1.0, 1.9), tick(1.0, 3.5)), (2.0, 2.0, 4.0));
    }
}
