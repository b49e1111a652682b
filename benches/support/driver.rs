//! Callers on a thread: they ask again as soon as they are answered, a number of them side by side.

use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::ArbiterHandle;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

struct Order {
    count: u64,
    in_flight: usize,
    done: std::sync::mpsc::Sender<Duration>,
}

/// Asks on the thread of an arbiter, in tasks, whenever it is told to. What it asks with stays on that thread from one
/// round to the next.
#[derive(Debug)]
pub struct Driver(UnboundedSender<Order>);

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Order({} x {})", self.in_flight, self.count)
    }
}

impl Driver {
    /// Goes to the thread and sets up there what `ask` is given each time.
    pub fn start<S, B, A>(place: &ArbiterHandle, set_up: B, ask: A) -> Self
    where
        S: 'static,
        B: AsyncFnOnce() -> S + Send + 'static,
        A: AsyncFn(&S) + Send + 'static,
    {
        let (orders, mut ordered) = unbounded_channel::<Order>();
        place.spawn_fn(move || {
            actix::spawn(async move {
                let row = Rc::new((set_up().await, ask));
                while let Some(Order { count, in_flight, done }) = ordered.recv().await {
                    let begun = Instant::now();
                    let callers: Vec<_> = shares(count, in_flight).map(|share| spawn(&row, share)).collect();
                    for caller in callers {
                        caller.await.expect("a caller was given a wrong answer");
                    }
                    // Nobody waits if another driver of the same row has failed.
                    let _ = done.send(begun.elapsed());
                }
            });
        });
        Self(orders)
    }

    /// Asks so often, so many side by side, and says how long it took.
    ///
    /// # Panics
    /// An answer was wrong.
    #[must_use]
    pub fn run(&self, count: u64, in_flight: usize) -> Duration {
        run_all(std::slice::from_ref(self), count, in_flight)
    }
}

fn spawn<S: 'static, A: AsyncFn(&S) + 'static>(row: &Rc<(S, A)>, share: u64) -> tokio::task::JoinHandle<()> {
    let row = Rc::clone(row);
    actix::spawn(async move {
        let (state, ask) = &*row;
        for _ in 0..share {
            ask(state).await;
        }
    })
}

/// What each of so many callers does of the whole.
fn shares(count: u64, callers: usize) -> impl Iterator<Item = u64> {
    let callers = callers as u64;
    (0..callers).map(move |caller| count / callers + u64::from(caller < count % callers))
}

/// Lets several drivers share the work; `in_flight` is that of all of them together.
///
/// # Panics
/// An answer was wrong.
#[must_use]
pub fn run_all(drivers: &[Driver], count: u64, in_flight: usize) -> Duration {
    let (done, all_done) = std::sync::mpsc::channel();
    let begun = Instant::now();
    for (driver, count) in drivers.iter().zip(shares(count, drivers.len())) {
        let order = Order {
            count,
            in_flight: in_flight / drivers.len(),
            done: done.clone(),
        };
        driver.0.send(order).expect("the driver runs");
    }
    drop(done);
    let times: Vec<Duration> = all_done.iter().collect();
    assert_eq!(times.len(), drivers.len(), "a caller was given a wrong answer");
    match *times {
        // Without the way to the thread and back.
        [time] => time,
        _ => begun.elapsed(),
    }
}
