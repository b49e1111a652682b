//! Background calls of modules.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::ArbiterHandle;
use futures_util::FutureExt as _;
use ganglion_api::{BackgroundTask, CancelBackgroundCall, Schedule};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::guard::panic_text;

/// The least interval: a module that asks for none would keep its worker busy for ever.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// A background call and what it waits for.
pub(crate) struct Background {
    pub(crate) module: Arc<str>,
    pub(crate) description: String,
    pub(crate) schedule: Schedule,
    pub(crate) loaded: watch::Receiver<bool>,
    pub(crate) cancelled: CancellationToken,
}

struct Cancel(CancellationToken);

impl CancelBackgroundCall for Cancel {
    fn cancel(&self) {
        self.0.cancel();
    }
}

/// Starts a background call on a worker.
pub(crate) fn start(home: &ArbiterHandle, call: Background, task: BackgroundTask) -> Arc<dyn CancelBackgroundCall> {
    let cancelled = call.cancelled.clone();
    // Made on the worker, since a module's future stays on its thread. A worker that has ended runs nothing, and
    // that is what a stopped module's background calls should do.
    home.spawn_fn(move || {
        actix::spawn(async move {
            let cancelled = call.cancelled.clone();
            cancelled.run_until_cancelled(call.run(task)).await;
        });
    });
    Arc::new(Cancel(cancelled))
}

/// The first tick after `now`; a run that took longer than the interval skips ticks and keeps their phase.
fn next_tick(last: Instant, interval: Duration, now: Instant) -> Instant {
    let missed = now.saturating_duration_since(last).as_nanos() / interval.as_nanos();
    last + interval * u32::try_from(missed).unwrap_or(u32::MAX - 1).saturating_add(1)
}

impl Background {
    async fn run(mut self, mut task: BackgroundTask) {
        // The sender lives as long as the modules; without it there is nothing to run.
        if self.loaded.wait_for(|loaded| *loaded).await.is_err() {
            return;
        }
        match self.schedule {
            Schedule::Now => self.once(&mut task).await,
            Schedule::After(delay) => {
                sleep(delay).await;
                self.once(&mut task).await;
            }
            Schedule::Every(interval) => {
                let interval = interval.max(MIN_INTERVAL);
                let mut tick = Instant::now() + interval;
                loop {
                    sleep_until(tick).await;
                    self.once(&mut task).await;
                    tick = next_tick(tick, interval, Instant::now());
                }
            }
        }
    }

    /// One run; what goes wrong is logged, as in Synapse.
    async fn once(&self, task: &mut BackgroundTask) {
        let (module, description) = (&*self.module, self.description.as_str());
        match AssertUnwindSafe(async { task().await }).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(module, description, %error, "background call failed");
            }
            Err(panic) => {
                let reason = panic_text(&*panic).unwrap_or_default();
                tracing::error!(module, description, reason, "background call panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use ganglion_api::ModuleError;

    use super::*;

    fn background(schedule: Schedule) -> (Background, watch::Sender<bool>) {
        let (sender, loaded) = watch::channel(true);
        let call = Background {
            module: "m".into(),
            description: "test".into(),
            schedule,
            loaded,
            cancelled: CancellationToken::new(),
        };
        (call, sender)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_loop_skips_ticks_and_keeps_its_phase_and_survives_failures() {
        let (call, _sender) = background(Schedule::Every(Duration::from_secs(1)));
        let runs = Arc::new(Mutex::new(Vec::new()));
        let (seen, start) = (Arc::clone(&runs), Instant::now());
        let task: BackgroundTask = Box::new(move || {
            let seen = Arc::clone(&seen);
            Box::pin(async move {
                seen.lock().unwrap().push(start.elapsed().as_secs());
                sleep(Duration::from_millis(2500)).await;
                if seen.lock().unwrap().len() == 1 {
                    panic!("the first run");
                }
                Err(ModuleError::message("the others"))
            })
        });
        let cancelled = call.cancelled.clone();
        tokio::join!(
            async {
                cancelled.run_until_cancelled(call.run(task)).await;
            },
            async {
                sleep(Duration::from_secs(8)).await;
                cancelled.cancel();
            }
        );
        assert_eq!(*runs.lock().unwrap(), [1, 4, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_runs_before_all_modules_are_loaded() {
        let (mut call, _) = background(Schedule::Now);
        let (sender, loaded) = watch::channel(false);
        call.loaded = loaded;
        let ran = Arc::new(Mutex::new(false));
        let seen = Arc::clone(&ran);
        let task: BackgroundTask = Box::new(move || {
            let seen = Arc::clone(&seen);
            Box::pin(async move {
                *seen.lock().unwrap() = true;
                Ok(())
            })
        });
        let mut run = Box::pin(call.run(task));
        assert!(futures_util::poll!(&mut run).is_pending());
        assert!(!*ran.lock().unwrap());
        sender.send(true).unwrap();
        run.await;
        assert!(*ran.lock().unwrap());
    }
}
