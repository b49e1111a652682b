//! The watchdog: a thread that sees which module blocks which thread, gives the thread up and puts a fresh one in its
//! place.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crate::handle::ModuleHandle;
use crate::incarnation::Incarnation;
use crate::probe::{Operation, Visit};
use crate::thread::{Blame, ModuleThread, Watched};
use crate::worker::{Pool, Role};

/// The time between two looks. A blocked thread is seen at most two of them after its module's `call_timeout`.
const TICK: Duration = Duration::from_millis(20);

/// How long module code may run before calls that have not begun go elsewhere. Seen at the second look, at most.
const SUSPECT_AFTER: Duration = Duration::from_millis(10);

/// How long instances may take to be dropped when the host stops.
const LAST_DROPS: Duration = Duration::from_secs(2);

/// How long a call of an incarnation may last that nobody knows any more.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(1);

/// Starts the watchdog. It ends some time after the sender of `stopped` is dropped.
///
/// # Errors
/// The operating system gave no thread.
pub(crate) fn start(pool: Arc<Pool>, stopped: Receiver<()>) -> io::Result<()> {
    let watch = move || {
        let mut watchdog = Watchdog {
            pool,
            seen: HashMap::new(),
            left: Vec::new(),
        };
        while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            let looked = catch_unwind(AssertUnwindSafe(|| {
                watchdog.look(Instant::now());
                watchdog.pool.drop_unused();
            }));
            if looked.is_err() {
                // A defect of our own: the panic's message is in the log. It must not end the watch.
                tracing::error!("the watchdog panicked and goes on");
            }
        }
        watchdog.last_drops();
    };
    Builder::new().name("ganglion watch".into()).spawn(watch).map(drop)
}

struct Watchdog {
    pool: Arc<Pool>,
    /// The visit that each thread was seen in, and when first.
    seen: HashMap<u64, (Visit, Instant)>,
    /// Workers that were given up and have not ended.
    left: Vec<Arc<Watched>>,
}

impl Watchdog {
    fn look(&mut self, now: Instant) {
        self.look_after_those_left();
        let threads = self.pool.threads();
        self.seen
            .retain(|number, _| threads.iter().any(|(_, thread)| thread.number == *number));
        for (role, thread) in threads {
            if thread.has_ended() {
                // One may have been told to since the list was made.
                if !thread.is_retired() {
                    self.ended(&role, &thread);
                }
            } else if let Some(visit) = thread.probe.visit() {
                self.visiting(&role, &thread, visit, now);
            } else {
                self.seen.remove(&thread.number);
                thread.set_suspect(false);
            }
        }
    }

    /// A worker that was given up may come back, and begin one more call before it learns of that. What it took for that is
    /// given back at once too.
    fn look_after_those_left(&mut self) {
        self.left.retain(|thread| !thread.has_ended());
        for thread in &self.left {
            if let Some(visit) = thread.probe.visit()
                && let Some(incarnation) = self.pool.incarnation(visit.site.incarnation)
            {
                incarnation.module().lost_worker(thread, visit);
            }
        }
    }

    /// A thread runs module code.
    fn visiting(&mut self, role: &Role, thread: &Arc<Watched>, visit: Visit, now: Instant) {
        let seen = self.seen.entry(thread.number).or_insert((visit, now));
        if seen.0 != visit {
            *seen = (visit, now);
        }
        let since = seen.1;
        let lasts = now.saturating_duration_since(since);
        thread.set_suspect(lasts >= SUSPECT_AFTER);
        let incarnation = self.pool.incarnation(visit.site.incarnation);
        let limits = incarnation.as_ref().map(|incarnation| *incarnation.module().limits());
        let limit = limits.map_or(UNKNOWN_LIMIT, |limits| match visit.site.operation {
            Operation::CONSTRUCTOR => limits.start_timeout,
            _ => limits.call_timeout,
        });
        if lasts >= limit {
            self.blocked(role, thread, visit, incarnation.as_deref());
        }
    }

    /// A thread is blocked. It cannot be killed, so it is left behind.
    fn blocked(&mut self, role: &Role, thread: &Arc<Watched>, visit: Visit, incarnation: Option<&Incarnation>) {
        let Ok(fresh) = self.substitute(role, thread) else {
            return;
        };
        let operation = visit.site.operation;
        let module = incarnation.map(|incarnation| incarnation.module().clone());
        let id = module.as_ref().map(ModuleHandle::module_id);
        tracing::error!(
            module = id.as_deref().unwrap_or("unknown"),
            operation = operation.as_str(),
            thread = thread.name,
            "module blocks its thread, which is given up"
        );
        if let Some(module) = &module {
            module.blocked(thread);
            if let Role::Worker(..) = role {
                // Before a fresh worker takes calls.
                module.trip(operation);
            }
        }
        if let Some(incarnation) = incarnation {
            incarnation.left_thread();
        }
        self.give_up(role, thread, fresh, Blame { module: id });
        if let Role::Worker(..) = role {
            self.left.push(Arc::clone(thread));
            // Last: its next calls find the breaker open.
            if let Some(module) = &module {
                module.lost_worker(thread, visit);
            }
        }
    }

    /// A thread ended that nobody told to: a module stopped its system.
    fn ended(&self, role: &Role, thread: &Arc<Watched>) {
        if let Ok(fresh) = self.substitute(role, thread) {
            tracing::error!(thread = thread.name, "thread ended unexpectedly");
            self.give_up(role, thread, fresh, Blame { module: None });
        }
    }

    /// A fresh thread for a worker's place. Without one the old one stays, until the next look.
    fn substitute(&self, role: &Role, thread: &Watched) -> Result<Option<Arc<ModuleThread>>, ()> {
        let Role::Worker(worker, _) = role else {
            return Ok(None);
        };
        match self.pool.start_worker(*worker) {
            Ok(fresh) => Ok(Some(fresh)),
            Err(error) => {
                tracing::error!(%error, thread = thread.name, "no thread to replace a worker");
                Err(())
            }
        }
    }

    fn give_up(&self, role: &Role, thread: &Arc<Watched>, fresh: Option<Arc<ModuleThread>>, blame: Blame) {
        self.pool.forget(thread);
        match role {
            Role::Worker(worker, stuck) => {
                if let Some(fresh) = fresh {
                    self.pool.replace(*worker, &fresh);
                }
                stuck.give_up(blame);
            }
            Role::Own(stuck) => stuck.give_up(blame),
            Role::Short => thread.give_up(),
        }
    }

    /// The host has stopped: gives instances some time to be dropped. What is used then by a stuck thread stays.
    fn last_drops(&self) {
        let begun = Instant::now();
        while !self.pool.is_empty() && begun.elapsed() < LAST_DROPS {
            self.pool.drop_unused();
            std::thread::park_timeout(TICK);
        }
        self.pool.leak_rest();
    }
}
