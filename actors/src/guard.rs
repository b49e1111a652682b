//! Runs module code so that neither a panic nor a slow await gets out.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures_util::future::{Either, select};
use ganglion_api::{CallFailure, FailureKind, ModuleError};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::gate::Entrance;
use crate::probe::Site;
use crate::thread::inside;

/// Runs a call until `until`, or until the module is stopped. A call that is ready at its first poll touches neither
/// the timer nor the stop signal.
///
/// # Errors
/// `panicked`, `module_error`, `not_running`, or `deadline_exceeded`: also for an answer that came after `until`, from
/// a call that blocked its thread.
pub(crate) async fn guarded<T>(
    entrance: Entrance<'_>,
    call: impl Future<Output = Result<T, ModuleError>>,
    until: Instant,
    stop: &CancellationToken,
) -> Result<T, CallFailure> {
    // The text of a module's error is the module's code too, so it is taken under the guard.
    let call = async { call.await.map_err(CallFailure::from) };
    let ended = contained(entrance, call, async |polled| {
        match select(pin!(timeout_at(until, polled)), pin!(stop.cancelled())).await {
            Either::Left((ended, _)) => ended.map_err(|_elapsed| FailureKind::DeadlineExceeded),
            Either::Right(_stopped) => Err(FailureKind::NotRunning),
        }
    });
    match ended.await {
        // An error that came too late decides as little as an answer.
        Ok(Ok(_late)) if Instant::now() > until => Err(FailureKind::DeadlineExceeded.into()),
        Ok(Ok(answer)) => answer,
        Ok(Err(kind)) => Err(kind.into()),
        Err(panic) => Err(CallFailure::new(FailureKind::Panicked, panic.0)),
    }
}

/// Runs module code through its entrance, marked as such and under a panic guard, for as long as `within` waits for it.
///
/// # Errors
/// It panicked, or its drop did: what the module keeps may be broken, whatever it answered.
pub(crate) async fn contained<T, E>(
    entrance: Entrance<'_>,
    run: impl Future<Output = T>,
    within: impl AsyncFnOnce(Polled<'_, T>) -> Result<Result<T, Panic>, E>,
) -> Result<Result<T, E>, Panic> {
    let mut run = pin!(Some(run));
    let ended = {
        let polled = pin!(poll_fn(|cx| poll_guarded(entrance, run.as_mut(), cx)));
        within(polled).await
    };
    // The drop of what ran is the module's code too.
    guarded_now(entrance.site, || run.set(None))?;
    match ended {
        Ok(ended) => ended.map(Ok),
        Err(over) => Ok(Err(over)),
    }
}

/// Module code that runs when it is polled; its panic is its result.
pub(crate) type Polled<'a, T> = Pin<&'a mut dyn Future<Output = Result<T, Panic>>>;

fn poll_guarded<F: Future>(
    entrance: Entrance<'_>,
    run: Pin<&mut Option<F>>,
    cx: &mut Context<'_>,
) -> Poll<Result<F::Output, Panic>> {
    let (Some(run), Some(_entered)) = (run.as_pin_mut(), entrance.enter(cx)) else {
        return Poll::Pending;
    };
    match catch_unwind(AssertUnwindSafe(|| run.poll(cx))).map_err(Panic::caught) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    }
}

/// Runs module code that does not wait, marked as such and under a panic guard.
pub(crate) fn guarded_now<T>(site: Site, run: impl FnOnce() -> T) -> Result<T, Panic> {
    let _inside = inside(site);
    catch_unwind(AssertUnwindSafe(run)).map_err(Panic::caught)
}

/// A panic that was caught: its message, if it is text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Panic(pub(crate) Option<String>);

impl Panic {
    pub(crate) fn caught(payload: Box<dyn Any + Send>) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = text.map(str::to_owned);
        // A payload's drop is the module's code too.
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
        Self(text)
    }

    /// The message, for people.
    pub(crate) fn text(&self) -> &str {
        self.0.as_deref().unwrap_or("no message")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::probe::Operation;

    const ENTRANCE: Entrance<'_> = Entrance {
        site: Site {
            incarnation: 1,
            operation: Operation::WEB_RESOURCE,
        },
        gate: None,
        held_up: None,
    };

    #[tokio::test(start_paused = true)]
    async fn each_way_to_give_no_answer_has_its_kind() {
        let until = || Instant::now() + Duration::from_secs(1);
        let panicked = guarded::<()>(
            ENTRANCE,
            async { panic!("index {} out of bounds", 7) },
            until(),
            &CancellationToken::new(),
        )
        .await
        .unwrap_err();
        assert_eq!(panicked.kind, FailureKind::Panicked);
        assert_eq!(panicked.detail.as_deref(), Some("index 7 out of bounds"));

        let failed = guarded::<()>(
            ENTRANCE,
            async { Err(ModuleError::message("no")) },
            until(),
            &CancellationToken::new(),
        )
        .await
        .unwrap_err();
        assert_eq!(
            (failed.kind, failed.detail.as_deref()),
            (FailureKind::ModuleError, Some("no"))
        );

        let hangs = guarded::<()>(ENTRANCE, std::future::pending(), until(), &CancellationToken::new())
            .await
            .unwrap_err();
        assert_eq!(hangs.kind, FailureKind::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_after_the_budget_is_no_answer() {
        let blocks = async |answer| {
            tokio::time::advance(Duration::from_secs(2)).await;
            answer
        };
        for answer in [Ok(()), Err(ModuleError::message("no"))] {
            let until = Instant::now() + Duration::from_secs(1);
            let late = guarded(ENTRANCE, blocks(answer), until, &CancellationToken::new()).await;
            assert_eq!(late.unwrap_err().kind, FailureKind::DeadlineExceeded);
        }
    }

    /// Panics when it is dropped.
    struct PanicsInDrop;

    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("dropped");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_while_a_call_is_dropped_is_a_panic_of_the_module() {
        let until = || Instant::now() + Duration::from_secs(1);
        let hangs = || async {
            let _panics = PanicsInDrop;
            std::future::pending::<Result<(), ModuleError>>().await
        };
        let stopped = CancellationToken::new();
        let exceeded = guarded(ENTRANCE, hangs(), until(), &stopped).await.unwrap_err();
        assert_eq!(
            (exceeded.kind, exceeded.detail.as_deref()),
            (FailureKind::Panicked, Some("dropped"))
        );
        stopped.cancel();
        let ended = guarded(ENTRANCE, hangs(), until(), &stopped).await.unwrap_err();
        assert_eq!(ended.kind, FailureKind::Panicked);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_with_a_payload_that_panics_itself_is_contained() {
        let call = async { std::panic::panic_any(PanicsInDrop) };
        let until = Instant::now() + Duration::from_secs(1);
        let panicked = guarded::<()>(ENTRANCE, call, until, &CancellationToken::new()).await;
        assert_eq!(panicked.unwrap_err().kind, FailureKind::Panicked);
    }
}
