//! What the machine and this process are like.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the threads of a Ganglion may take to end.
const LAST_THREADS: Duration = Duration::from_secs(5);

/// Waits until then. Early wake-ups go on waiting.
pub fn wait_until(then: Instant) {
    loop {
        let left = then.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// Waits.
pub fn wait(duration: Duration) {
    wait_until(Instant::now() + duration);
}

/// Lets this thread's waits end when they are over, and not up to 50 us later.
pub fn wait_exactly() {
    #[cfg(target_os = "linux")]
    {
        // Without it the schedule is less exact, in all phases alike.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    }
}

/// How many threads run at once.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many threads this process has; `None` where that cannot be seen.
#[must_use]
pub fn threads() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}

/// How many threads are left over `before`, after some time to end.
#[must_use]
pub fn threads_left(before: Option<usize>) -> usize {
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
#[must_use]
pub fn resident_kib() -> Option<i64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    #[cfg(target_os = "linux")]
    let page = i64::try_from(rustix::param::page_size()).ok()?;
    #[cfg(not(target_os = "linux"))]
    let page = 4096;
    Some(pages * page / 1024)
}

/// How long the threads of this process have run; zero where that cannot be seen.
#[must_use]
pub fn process_time() -> Duration {
    #[cfg(target_os = "linux")]
    return clock(rustix::time::ClockId::ProcessCPUTime);
    #[cfg(not(target_os = "linux"))]
    Duration::ZERO
}

/// How long this thread has run; zero where that cannot be seen.
#[must_use]
pub fn thread_time() -> Duration {
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
#[must_use]
pub fn processor() -> String {
    let known = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    known.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The compiler on PATH, which cargo has most likely used.
#[must_use]
pub fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map_or_else(
        |_| "rustc of unknown version".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Today, in UTC.
#[must_use]
pub fn date() -> String {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    now.split('T').next().unwrap_or_default().to_owned()
}

/// What was run, and where.
#[must_use]
pub fn place(command: &str) -> String {
    format!(
        "`{command}`, {date}, {cores} cores, {processor}, {compiler}.",
        date = date(),
        cores = cores(),
        processor = processor(),
        compiler = compiler(),
    )
}

/// A package with its version, as the lock file has it.
#[must_use]
pub fn package(name: &str) -> String {
    const LOCK: &str = include_str!("../../Cargo.lock");
    let entry = LOCK.split("[[package]]").find(|entry| {
        let mut lines = entry.trim_start().lines();
        lines.next() == Some(&format!("name = {name:?}"))
    });
    let version = entry.and_then(|entry| entry.lines().find_map(|line| line.strip_prefix("version = ")));
    format!("{name} {}", version.map_or("?", |version| version.trim_matches('"')))
}
