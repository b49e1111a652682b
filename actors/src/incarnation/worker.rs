//! What the modules have on one worker.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use actix::{Actor as _, Addr};

use super::{Incarnation, Place};
use crate::admission::{Ledger, Reclaim};
use crate::module_actor::ModuleActor;
use crate::thread::ModuleThread;

/// A module's part on one worker.
struct Part {
    incarnation: u32,
    replica: Option<Addr<ModuleActor>>,
    ledger: Arc<Ledger>,
}

/// All modules' parts on one worker. It stays on its thread.
pub struct Worker {
    thread: Arc<ModuleThread>,
    parts: RefCell<Vec<Option<Part>>>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker({:?})", self.thread)
    }
}

impl Worker {
    /// The modules' parts on this thread, which is the current one.
    #[must_use]
    pub fn new(thread: Arc<ModuleThread>) -> Self {
        Self {
            thread,
            parts: RefCell::default(),
        }
    }

    /// The part of a module, begun anew with each incarnation.
    pub(super) fn part(&self, incarnation: &Incarnation) -> (Option<Addr<ModuleActor>>, Arc<Ledger>) {
        if let Place::Thread { ledger, .. } = &incarnation.place {
            return (None, Arc::clone(ledger));
        }
        let mut parts = self.parts.borrow_mut();
        let index = incarnation.module.index();
        if parts.len() <= index {
            parts.resize_with(index + 1, || None);
        }
        let part = parts[index]
            .take()
            .filter(|part| part.incarnation == incarnation.number);
        let part = part.unwrap_or_else(|| self.begin(incarnation));
        let found = (part.replica.clone(), Arc::clone(&part.ledger));
        parts[index] = Some(part);
        found
    }

    fn begin(&self, incarnation: &Incarnation) -> Part {
        let ledger = incarnation.module.admission().ledger();
        self.thread.keep(Arc::clone(&ledger) as Arc<dyn Reclaim>);
        let replica = matches!(incarnation.place, Place::Actor)
            .then(|| ModuleActor::new(incarnation.this.clone(), incarnation.ended.clone()).start());
        Part {
            incarnation: incarnation.number,
            replica,
            ledger,
        }
    }
}
