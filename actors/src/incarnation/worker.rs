//! What the modules have on one worker.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor as _, Addr};

use super::{Incarnation, Place};
use crate::admission::{Ledger, Permit, Reclaim};
use crate::clock::{Clock, Moment};
use crate::handle::ModuleHandle;
use crate::module_actor::ModuleActor;
use crate::tally::Tally;
use crate::thread::ModuleThread;

/// A module's part on one worker.
pub(super) struct Part {
    incarnation: u32,
    /// Its actor here, if its tier has one.
    pub(super) replica: Option<Addr<ModuleActor>>,
    /// The permits of its calls that run on this thread, or on its own.
    pub(super) ledger: Arc<Ledger>,
    /// Its calls from here, through all incarnations.
    pub(super) tally: Arc<Tally>,
}

/// All modules' parts on one thread.
pub(crate) struct Parts {
    thread: Arc<ModuleThread>,
    of_modules: RefCell<Vec<Option<Rc<Part>>>>,
}

impl Parts {
    /// Keeps a permit beyond the poll that it was taken for; `None` if its thread was given up, and it was given back.
    pub(crate) fn keep_permit(&self, module: &ModuleHandle, gating: bool) -> Option<Permit> {
        if !self.thread.watched.keep_permit() {
            return None;
        }
        let parts = self.of_modules.borrow();
        parts.get(module.index())?.as_ref()?.ledger.lend(gating).ok()
    }
}

/// A worker, for who runs on it. It stays on its thread.
pub struct Worker {
    clock: Clock,
    parts: Rc<Parts>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker({:?})", self.parts.thread)
    }
}

impl Worker {
    /// The modules' parts on this thread, which is the current one.
    #[must_use]
    pub fn new(thread: Arc<ModuleThread>) -> Self {
        let clock = if thread.is_current() {
            Clock::tokio()
        } else {
            Clock::counting()
        };
        let parts = Parts {
            thread,
            of_modules: RefCell::default(),
        };
        Self {
            clock,
            parts: Rc::new(parts),
        }
    }

    /// Its thread.
    pub(super) fn thread(&self) -> &Arc<ModuleThread> {
        &self.parts.thread
    }

    /// The modules' parts.
    pub(super) fn parts(&self) -> &Rc<Parts> {
        &self.parts
    }

    /// Whether no module's code runs on it right now, and it is not about to end: asked on its own thread.
    #[must_use]
    pub fn is_free(&self) -> bool {
        let watched = &self.thread().watched;
        !watched.probe.is_visiting() && !watched.is_retired()
    }

    /// The present moment.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// The part of a module, begun anew with each incarnation.
    pub(super) fn part(&self, incarnation: &Incarnation) -> Rc<Part> {
        let mut parts = self.parts.of_modules.borrow_mut();
        let index = incarnation.module.index();
        if parts.len() <= index {
            parts.resize_with(index + 1, || None);
        }
        match &parts[index] {
            Some(part) if part.incarnation == incarnation.number => Rc::clone(part),
            before => {
                let tally = before.as_ref().map(|before| Arc::clone(&before.tally));
                let part = Rc::new(self.begin(incarnation, tally));
                parts[index] = Some(Rc::clone(&part));
                part
            }
        }
    }

    fn begin(&self, incarnation: &Incarnation, tally: Option<Arc<Tally>>) -> Part {
        let ledger = match &incarnation.place {
            Place::Thread { ledger, .. } => Arc::clone(ledger),
            _ => {
                let ledger = incarnation.module.admission().ledger();
                self.thread().keep(Arc::clone(&ledger) as Arc<dyn Reclaim>);
                ledger
            }
        };
        let replica = matches!(incarnation.place, Place::Actor)
            .then(|| ModuleActor::new(incarnation.this.clone(), incarnation.ended.clone()).start());
        Part {
            incarnation: incarnation.number,
            replica,
            ledger,
            tally: tally.unwrap_or_else(|| incarnation.module.counters().tally()),
        }
    }
}
