//! How many workers a module may run on at the same moment: all but one.
//!
//! A module that blocks whatever thread it gets would else block all workers before the first of them is known to be
//! stuck. With one left, its neighbours go on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

use crate::probe::Site;
use crate::stock::{Stock, Taken};
use crate::thread::{Inside, inside};

/// The places of one module on the workers. One is taken for each poll of its code.
#[derive(Debug)]
pub(crate) struct Gate {
    stock: Arc<Stock>,
    /// How many wait, so that who leaves need not lock for nobody.
    waiting: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
}

impl Gate {
    /// How many places a module has on this many workers; a single worker needs no gate.
    pub(crate) fn places(workers: usize) -> Option<usize> {
        workers.checked_sub(1).filter(|places| *places > 0)
    }

    /// The gate before the places of this stock.
    pub(crate) fn new(stock: &Arc<Stock>) -> Self {
        Self {
            stock: Arc::clone(stock),
            waiting: AtomicUsize::new(0),
            wakers: Mutex::default(),
        }
    }

    /// Takes a place, if one is free.
    fn take(&self) -> bool {
        self.stock.take(Taken::place()).is_ok()
    }

    /// Takes a place, or has the task woken when there may be one.
    fn enter(&self, cx: &mut Context<'_>) -> bool {
        if self.take() {
            return true;
        }
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        self.waiting.store(wakers.len(), Ordering::SeqCst);
        drop(wakers);
        // Who left in between has not seen this one.
        self.take()
    }

    /// Gives a place back.
    pub(crate) fn leave(&self) {
        self.stock.give(Taken::place());
        self.came_back();
    }

    /// A place came back to the stock.
    pub(crate) fn came_back(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.store(0, Ordering::SeqCst);
        let woken = std::mem::take(&mut *wakers);
        drop(wakers);
        // All of them: one may be gone by now.
        woken.into_iter().for_each(Waker::wake);
    }
}

/// The way into a module's code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entrance<'a> {
    pub(crate) site: Site,
    /// `None` where the module has a thread for itself, or there is one worker.
    pub(crate) gate: Option<&'a Gate>,
    /// Set while who wants to enter may not.
    pub(crate) held_up: Option<&'a AtomicBool>,
}

/// Module code runs on this thread until this is dropped.
pub(crate) struct Entered<'a> {
    inside: Inside,
    gate: Option<&'a Gate>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // A thread that was given up meanwhile has lost its place already.
        if let Some(gate) = self.gate
            && self.inside.let_go_of_place()
        {
            gate.leave();
        }
    }
}

impl<'a> Entrance<'a> {
    /// Enters; `None` if the module runs on as many workers as it may. Then the task is woken when that has changed.
    pub(crate) fn enter(self, cx: &mut Context<'_>) -> Option<Entered<'a>> {
        let Self { site, gate, held_up } = self;
        if let Some(gate) = gate {
            let entered = gate.enter(cx);
            if let Some(held_up) = held_up {
                held_up.store(!entered, Ordering::Release);
            }
            if !entered {
                return None;
            }
        }
        let inside = inside(site);
        if gate.is_some() {
            inside.hold_place();
        }
        Some(Entered { inside, gate })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn one_worker_is_left_and_who_waits_is_woken_by_who_leaves() {
        let gate = Gate::new(&Arc::new(Stock::new(1, Gate::places(3))));
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &mut Context::from_waker(&waker);
        assert!(gate.enter(cx) && gate.enter(cx));
        assert!(!gate.enter(cx) && !gate.enter(cx));
        gate.leave();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(gate.enter(cx));
        gate.leave();
        gate.leave();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_single_worker_needs_no_gate() {
        assert_eq!((Gate::places(1), Gate::places(2)), (None, Some(1)));
    }
}
