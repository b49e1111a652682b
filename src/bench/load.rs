//! The load: callers that ask, on threads of their own.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use super::histogram::Latencies;
use super::machine::cores;
use super::pace::Pace;
use super::questions::{Question, Questions};
use super::record::Record;
use crate::ganglion::Ganglion;

/// How long a schedule that is behind may take to catch up, after it should be over.
const CATCH_UP: Duration = Duration::from_secs(5);

/// How often who waits for the schedule looks whether all is over.
const LOOK: Duration = Duration::from_millis(50);

/// Where the warm-up begins in the order of questions: far from what is counted.
const WARM_UP_FROM: u64 = 1 << 40;

/// Threads that ask. As those of the listeners of `serve`, there is one a core, and each has a runtime of its own.
pub(crate) struct Callers {
    threads: Vec<CallerThread>,
}

struct CallerThread {
    runtime: Handle,
    /// Of this thread alone, so nobody waits for it while there is load.
    record: Arc<Mutex<Record>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Callers {
    /// Starts one thread a core.
    ///
    /// # Errors
    /// The system has no threads to give.
    pub(crate) fn start() -> io::Result<Self> {
        let threads = (0..cores()).map(CallerThread::start);
        Ok(Self {
            threads: threads.collect::<io::Result<_>>()?,
        })
    }

    fn of(&self, nth: usize) -> &CallerThread {
        &self.threads[nth % self.threads.len()]
    }

    /// Forgets what was noted.
    pub(crate) fn forget(&self) {
        drop(self.take_record());
    }

    /// What was noted since the last time; nothing is noted any more.
    pub(super) fn take_record(&self) -> Record {
        let mut all = Record::default();
        for thread in &self.threads {
            let record = std::mem::take(&mut *lock(&thread.record));
            all.merge(&record);
        }
        all
    }
}

impl CallerThread {
    fn start(nth: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(format!("caller {nth}"))
            .spawn(move || {
                // Over when it is told so, or when there is nobody left to tell.
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            runtime: handle,
            record: Arc::default(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for CallerThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stretch of load, as all who take part in it see it.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    over: AtomicBool,
    next: AtomicU64,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

impl Phase {
    /// One whose questions nobody counts.
    pub(crate) fn warm_up() -> Arc<Self> {
        Arc::new(Self {
            next: AtomicU64::new(WARM_UP_FROM),
            ..Self::default()
        })
    }

    /// The one that counts: it begins with the first question.
    pub(crate) fn counted() -> Arc<Self> {
        Arc::default()
    }

    /// Nothing more is asked; what is open is waited for.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether it was ended before its time.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// How many questions were open at once, at most.
    pub(super) fn most_open(&self) -> usize {
        self.most_open.load(Ordering::SeqCst)
    }

    fn opened(&self) {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_open.fetch_max(open, Ordering::Relaxed);
    }

    fn closed(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How a schedule was kept.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// How many questions it had.
    pub(super) ticks: u64,
    /// Those that were not asked: it could not be caught up with, or it was ended.
    pub(super) not_asked: u64,
    /// Those that had to wait since too many were open.
    pub(super) held_back: u64,
    /// How much later than they were due questions were asked. It is part of their latency.
    pub(super) slip: Latencies,
}

/// What to ask, and how fast.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) ganglion: Ganglion,
    pub(crate) questions: Arc<Questions>,
    /// How many questions may be open.
    pub(crate) in_flight: usize,
    pub(crate) pace: Pace,
}

impl Load {
    /// Asks for this long, and waits until all is decided.
    ///
    /// # Cancellation
    /// Questions that are open stay so, and are noted if they are decided.
    pub(crate) async fn run(&self, callers: &Callers, phase: &Arc<Phase>, duration: Duration) -> Option<Schedule> {
        match self.pace {
            Pace::Closed => {
                self.closed(callers, phase, duration).await;
                None
            }
            Pace::Rate(rate) => Some(self.open(callers, phase, rate, duration).await),
        }
    }

    async fn closed(&self, callers: &Callers, phase: &Arc<Phase>, duration: Duration) {
        let until = Instant::now() + duration;
        let tasks: Vec<_> = (0..self.in_flight)
            .map(|nth| {
                let thread = callers.of(nth);
                let (load, phase, record) = (self.clone(), Arc::clone(phase), Arc::clone(&thread.record));
                thread
                    .runtime
                    .spawn(async move { load.ask_until(until, &phase, &record).await })
            })
            .collect();
        for task in tasks {
            // It ends with its last question; there is nothing in it that panics.
            let _ = task.await;
        }
    }

    /// One caller of a closed loop.
    async fn ask_until(&self, until: Instant, phase: &Phase, record: &Mutex<Record>) {
        loop {
            // Made before its time begins.
            let question = self.question(phase.next.fetch_add(1, Ordering::Relaxed));
            let begun = Instant::now();
            if begun >= until || phase.is_over() {
                return;
            }
            ask(question, begun, phase, record).await;
        }
    }

    fn question(&self, nth: u64) -> Question {
        self.questions.nth(&self.ganglion, nth)
    }

    async fn open(&self, callers: &Callers, phase: &Arc<Phase>, rate: f64, duration: Duration) -> Schedule {
        let places = Arc::new(Semaphore::new(self.in_flight));
        let scheduler = Scheduler {
            load: self.clone(),
            phase: Arc::clone(phase),
            places: Arc::clone(&places),
            callers: callers
                .threads
                .iter()
                .map(|thread| (thread.runtime.clone(), Arc::clone(&thread.record)))
                .collect(),
            until: Instant::now() + duration + CATCH_UP,
            waiter: Handle::current(),
        };
        let ticks = self.pace.ticks(duration).unwrap_or_default();
        let kept = tokio::task::spawn_blocking(move || scheduler.run(rate, ticks)).await;
        // All places are free when all is decided.
        let all = u32::try_from(self.in_flight).unwrap_or(u32::MAX);
        let _ = places.acquire_many(all).await;
        kept.unwrap_or_default()
    }
}

/// Asks, and takes down what came out and how long after this moment.
async fn ask(question: Question, since: Instant, phase: &Phase, record: &Mutex<Record>) {
    phase.opened();
    let answered = question.asked.await;
    let latency = since.elapsed();
    phase.closed();
    lock(record).note(question.position, latency, &answered);
}

/// Asks on a schedule that waits for nobody, on a thread of its own.
struct Scheduler {
    load: Load,
    phase: Arc<Phase>,
    places: Arc<Semaphore>,
    callers: Vec<(Handle, Arc<Mutex<Record>>)>,
    /// What is not asked by then is not asked.
    until: Instant,
    waiter: Handle,
}

impl Scheduler {
    fn run(&self, rate: f64, ticks: u64) -> Schedule {
        wait_exactly();
        let mut schedule = Schedule {
            ticks,
            ..Schedule::default()
        };
        let begin = Instant::now();
        for tick in 0..ticks {
            // Made before it is due.
            let question = self.load.question(self.phase.next.fetch_add(1, Ordering::Relaxed));
            let due = begin + Pace::due(rate, tick);
            if !self.ask_at(due, question, &mut schedule) {
                schedule.not_asked = ticks - tick;
                break;
            }
        }
        schedule
    }

    /// Whether it could be asked.
    fn ask_at(&self, due: Instant, question: Question, schedule: &mut Schedule) -> bool {
        if !self.wait_until(due) {
            return false;
        }
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) => {
                schedule.held_back += 1;
                self.waiter.block_on(self.place())
            }
        };
        let Some(place) = place else {
            return false;
        };
        schedule.slip.record(due.elapsed());
        let nth = usize::try_from(schedule.slip.count()).unwrap_or_default();
        let (runtime, record) = &self.callers[nth % self.callers.len()];
        let (phase, record) = (Arc::clone(&self.phase), Arc::clone(record));
        runtime.spawn(async move {
            // From the moment that it was due: what comes late is late.
            ask(question, due, &phase, &record).await;
            drop(place);
        });
        true
    }

    /// Waits for a place, as long as it makes sense.
    async fn place(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        loop {
            let place = tokio::time::timeout(LOOK, Arc::clone(&self.places).acquire_owned()).await;
            if let Ok(place) = place {
                return place.ok();
            }
            if self.phase.is_over() || Instant::now() >= self.until {
                return None;
            }
        }
    }

    /// Whether that moment came before the end.
    fn wait_until(&self, due: Instant) -> bool {
        loop {
            let now = Instant::now();
            if self.phase.is_over() || now >= self.until {
                return false;
            }
            let left = due.saturating_duration_since(now);
            if left.is_zero() {
                return true;
            }
            std::thread::park_timeout(left.min(LOOK));
        }
    }
}

/// Lets this thread's waits end when they are over, and not up to 50 µs later.
fn wait_exactly() {
    #[cfg(target_os = "linux")]
    {
        // Without it the schedule is less exact, which shows in its slip.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    }
}

#[cfg(test)]
mod tests;
