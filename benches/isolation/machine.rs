//! What the machine and this process are like.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the threads of a Ganglion may take to end.
const LAST_THREADS: Duration = Duration::from_secs(5);

/// Waits until then. Early wake-ups go on waiting.
pub(crate) fn wait_until(then: Instant) {
    loop {
        let left = then.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

pub(crate) fn wait(duration: Duration) {
    wait_until(Instant::now() + duration);
}

/// Lets this thread's waits end when they are over, and not up to 50 us later.
pub(crate) fn wait_exactly() {
    #[cfg(target_os = "linux")]
    {
        // Without it the schedule is less exact, in all phases alike.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many threads this process has; `None` where that cannot be seen.
pub(crate) fn threads() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}

/// How many threads are left over `before`, after some time to end.
pub(crate) fn threads_left(before: Option<usize>) -> usize {
    let begun = Instant::now();
    loop {
        let left = match (threads(), before) {
            (Some(now), Some(before)) => now.saturating_sub(before),
            _ => 0,
        };
        if left == 0 || begun.elapsed() >= LAST_THREADS {
            return left;
        }
        wait(Duration::from_millis(5));
    }
}

/// The resident memory of this process in KiB; `None` where that cannot be seen.
pub(crate) fn resident_kib() -> Option<i64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    #[cfg(target_os = "linux")]
    let page = i64::try_from(rustix::param::page_size()).ok()?;
    #[cfg(not(target_os = "linux"))]
    let page = 4096;
    Some(pages * page / 1024)
}

/// How long the threads of this process have run; zero where that cannot be seen.
pub(crate) fn process_time() -> Duration {
    #[cfg(target_os = "linux")]
    return clock(rustix::time::ClockId::ProcessCPUTime);
    #[cfg(not(target_os = "linux"))]
    Duration::ZERO
}

/// How long this thread has run; zero where that cannot be seen.
pub(crate) fn thread_time() -> Duration {
    #[cfg(target_os = "linux")]
    return clock(rustix::time::ClockId::ThreadCPUTime);
    #[cfg(not(target_os = "linux"))]
    Duration::ZERO
}

#[cfg(target_os = "linux")]
fn clock(clock: rustix::time::ClockId) -> Duration {
    Duration::try_from(rustix::time::clock_gettime(clock)).unwrap_or_default()
}

/// The processor's name.
pub(crate) fn processor() -> String {
    let known = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    known.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The compiler on PATH, which cargo has most likely used.
pub(crate) fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map_or_else(
        |_| "rustc of unknown version".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Today, in UTC.
pub(crate) fn date() -> String {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    now.split('T').next().unwrap_or_default().to_owned()
}
