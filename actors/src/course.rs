//! The course of one call, as those see it who wait for it on another thread: whether it is to blame for its hang.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::time::Instant;

/// The course of one call. If the call ends as `deadline_exceeded`, it says whether the call itself hung, or others kept it
/// from its answer.
#[derive(Debug)]
pub struct Course {
    /// When half of the budget is over. Code that begins later had to wait for others.
    begin_by: Instant,
    /// Others took its time.
    spared: AtomicBool,
    /// It would go on, and may not: its module runs on as many workers as it may.
    held_up: AtomicBool,
    /// Its code is not on its thread: it has not begun, or has come back and waits.
    away: AtomicBool,
    /// Nobody else held it up when its budget was over.
    own: AtomicBool,
}

impl Course {
    /// That of a call with this budget. `whole`: it has the module's whole `call_timeout` for itself.
    #[must_use]
    pub fn new(now: Instant, until: Instant, whole: bool) -> Self {
        let half = until.saturating_duration_since(now) / 2;
        Self::beginning_by(now + half, whole)
    }

    /// That of a call whose code has begun at once and has come back since, to wait.
    #[must_use]
    pub fn begun(until: Instant, whole: bool) -> Self {
        Self::beginning_by(until, whole)
    }

    fn beginning_by(begin_by: Instant, whole: bool) -> Self {
        Self {
            begin_by,
            spared: AtomicBool::new(!whole),
            held_up: AtomicBool::new(false),
            away: AtomicBool::new(true),
            own: AtomicBool::new(false),
        }
    }

    /// Others took its time: whatever becomes of it, it is no hang of its own.
    pub(crate) fn spare(&self) {
        self.spared.store(true, Ordering::Relaxed);
    }

    /// For the way into its code.
    pub(crate) fn held_up(&self) -> &AtomicBool {
        &self.held_up
    }

    /// Runs its code, which begins now.
    pub async fn follow<T>(&self, code: impl Future<Output = T>, until: Instant) -> T {
        let mut code = pin!(code);
        let mut begun = false;
        // Dropped before the code is: a drop that blocks is the call's own doing.
        let _dropping = Dropping(self);
        let followed = poll_fn(|cx| {
            // It was away before each poll.
            self.away.store(false, Ordering::Release);
            let now = Instant::now();
            let late = now > until;
            if !begun && now > self.begin_by {
                self.spare();
            }
            begun = true;
            let polled = code.as_mut().poll(cx);
            match &polled {
                Poll::Pending => self.away.store(true, Ordering::Release),
                // It was ready in time perhaps, and others held its thread.
                Poll::Ready(_) if late => self.spare(),
                Poll::Ready(_) => {}
            }
            polled
        });
        followed.await
    }

    /// Whether its code holds its thread: it was called there and has not come back.
    pub(crate) fn holds_thread(&self) -> bool {
        !self.away.load(Ordering::Acquire)
    }

    /// Its budget is over. If it waits and its thread is free, then nobody else holds it up; a thread that has ended is as
    /// one that is busy.
    pub(crate) fn is_over(&self, thread_is_busy: bool) {
        if !thread_is_busy {
            self.own.store(true, Ordering::Release);
        }
    }

    /// Whether its hang is its own, if it did not answer within its budget: its code began at once, with its whole budget,
    /// and holds its thread or waits for something that does not come. One that merely shares a thread with a call that
    /// blocks, or may not go on beside one, is innocent.
    #[must_use]
    pub fn hangs(&self) -> bool {
        let others_did = self.spared.load(Ordering::Relaxed) || self.held_up.load(Ordering::Acquire);
        !others_did && (self.holds_thread() || self.own.load(Ordering::Acquire))
    }
}

/// The code of a call is dropped, or has come to its end.
struct Dropping<'a>(&'a Course);

impl Drop for Dropping<'_> {
    fn drop(&mut self) {
        self.0.away.store(false, Ordering::Release);
    }
}

/// Waits for something, and says whether it was there at once.
pub(crate) async fn at_once<T>(future: impl Future<Output = T>) -> (T, bool) {
    let (mut future, mut at_once) = (pin!(future), true);
    let output = poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        at_once &= polled.is_ready();
        polled
    });
    let output = output.await;
    (output, at_once)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{advance, sleep, timeout_at};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn course(whole: bool) -> (Course, Instant) {
        let now = Instant::now();
        (Course::new(now, now + 100 * MS, whole), now + 100 * MS)
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_innocent_until_its_budget_is_over() {
        let (course, until) = course(true);
        let mut call = Box::pin(timeout_at(until, course.follow(std::future::pending::<()>(), until)));
        assert!(!course.hangs(), "it has not begun");
        assert!(futures_util::poll!(&mut call).is_pending());
        assert!(!course.hangs());
        course.is_over(true);
        assert!(!course.hangs(), "another holds the thread");
        assert!(call.as_mut().await.is_err());
        drop(call);
        assert!(course.hangs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_on_a_free_thread_hangs() {
        let (course, until) = course(true);
        let mut call = Box::pin(course.follow(std::future::pending::<()>(), until));
        assert!(futures_util::poll!(&mut call).is_pending());
        course.is_over(false);
        assert!(course.hangs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_its_thread_hangs() {
        let (course, until) = course(true);
        let code = async {
            assert!(course.hangs());
            sleep(MS).await;
            assert!(course.hangs(), "asked by another thread meanwhile");
        };
        course.follow(code, until).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_took_the_time_of_is_spared() {
        let (cut_short, until) = course(false);
        cut_short.follow(async {}, until).await;
        assert!(!cut_short.hangs());

        let (begun_late, until) = course(true);
        advance(60 * MS).await;
        begun_late.follow(async {}, until).await;
        assert!(!begun_late.hangs());

        let (held_up, until) = course(true);
        let mut call = Box::pin(held_up.follow(sleep(MS), until));
        assert!(futures_util::poll!(&mut call).is_pending());
        advance(200 * MS).await;
        assert!(futures_util::poll!(&mut call).is_ready());
        drop(call);
        assert!(!held_up.hangs(), "its answer was there, and it was not polled");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_noticed() {
        assert_eq!(at_once(async { 7 }).await, (7, true));
        assert_eq!(at_once(sleep(MS)).await, ((), false));
    }
}
