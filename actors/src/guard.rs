//! Runs module code so that neither a panic nor a slow await gets out.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::pin;

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use ganglion_api::{CallFailure, FailureKind, ModuleError};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Runs a call until `until`, or until the module is stopped. A call that is ready at its first poll touches neither
/// the timer nor the stop signal.
///
/// # Errors
/// `panicked`, `module_error`, `not_running`, or `deadline_exceeded`: also for an answer that came after `until`, from
/// a call that blocked its thread.
pub(crate) async fn guarded<T>(
    call: impl Future<Output = Result<T, ModuleError>>,
    until: Instant,
    stop: &CancellationToken,
) -> Result<T, CallFailure> {
    // The text of a module's error is the module's code too, so it is taken under the guard.
    let call = async { call.await.map_err(CallFailure::from) };
    let call = pin!(timeout_at(until, AssertUnwindSafe(call).catch_unwind()));
    let Either::Left((ended, _)) = select(call, pin!(stop.cancelled())).await else {
        return Err(FailureKind::NotRunning.into());
    };
    match ended {
        // An error that came too late decides as little as an answer.
        Ok(Ok(_late)) if Instant::now() > until => Err(FailureKind::DeadlineExceeded.into()),
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => Err(CallFailure::new(FailureKind::Panicked, panic_text(&*panic))),
        Err(_elapsed) => Err(FailureKind::DeadlineExceeded.into()),
    }
}

/// The message of a panic, if it is text.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> Option<String> {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_way_to_give_no_answer_has_its_kind() {
        let until = || Instant::now() + Duration::from_secs(1);
        let panicked = guarded::<()>(
            async { panic!("index {} out of bounds", 7) },
            until(),
            &CancellationToken::new(),
        )
        .await
        .unwrap_err();
        assert_eq!(panicked.kind, FailureKind::Panicked);
        assert_eq!(panicked.detail.as_deref(), Some("index 7 out of bounds"));

        let failed = guarded::<()>(
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

        let hangs = guarded::<()>(std::future::pending(), until(), &CancellationToken::new())
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
            let late = guarded(blocks(answer), until, &CancellationToken::new()).await;
            assert_eq!(late.unwrap_err().kind, FailureKind::DeadlineExceeded);
        }
    }
}
