//! What misbehaves, where, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::misbehave::{Misbehave, Place};
use super::switch::{Epoch, Switch};
use crate::failure::ModuleError;
use crate::module_api::{ModuleHost, Schedule};

/// How much [`Misbehave::Leak`] leaks.
const LEAK: usize = 64 * 1024;

/// How many background calls [`Misbehave::Flood`] starts.
const FLOOD: usize = 1000;

/// What a module does wrong, and in which of its calls: in every one unless a method says otherwise.
///
/// Calls are those of all callbacks and web resources of all instances, counted together from 1; the count goes on when
/// a module is made again. A call is counted when it is polled first. Of [`on_call`](Self::on_call),
/// [`every`](Self::every) and [`for_key`](Self::for_key) the last one counts; so it does of
/// [`in_constructor`](Self::in_constructor), [`in_drop`](Self::in_drop) and [`in_background`](Self::in_background).
///
/// Clones share the counts, and are calm together.
#[derive(Debug, Clone)]
pub struct Misbehaviour {
    misbehave: Misbehave,
    when: When,
    place: Place,
    shared: Arc<Shared>,
}

/// Which calls misbehave.
#[derive(Debug, Clone)]
enum When {
    Always,
    OnCall(u64),
    Every(u64),
    ForKey(Arc<str>),
}

#[derive(Debug, Default)]
struct Shared {
    calls: AtomicU64,
    misbehaved: AtomicU64,
    switch: Switch,
}

/// A call that is to misbehave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Occasion {
    pub(super) misbehave: Misbehave,
    /// Which call it is.
    call: u64,
    /// Which one of those that misbehaved, from 1.
    pub(super) nth: u64,
    epoch: Epoch,
}

impl Misbehaviour {
    /// Every call misbehaves in this way.
    #[must_use]
    pub fn new(misbehave: Misbehave) -> Self {
        Self {
            misbehave,
            when: When::Always,
            place: Place::Calls,
            shared: Arc::default(),
        }
    }

    /// Only this call misbehaves, counted from 1. There is no call 0.
    #[must_use]
    pub fn on_call(mut self, number: u64) -> Self {
        self.when = When::OnCall(number);
        self
    }

    /// Every call misbehaves whose number is a multiple of this. With 0 none does.
    #[must_use]
    pub fn every(mut self, number: u64) -> Self {
        self.when = When::Every(number);
        self
    }

    /// Those calls misbehave whose args, as JSON, have this very text as a value anywhere: for example a user's id. The
    /// args of a web resource are the parameters of its query, those of a constructor are the config; drops and
    /// background calls have none.
    #[must_use]
    pub fn for_key(mut self, text: impl Into<Arc<str>>) -> Self {
        self.when = When::ForKey(text.into());
        self
    }

    /// The constructor misbehaves instead of calls, before the module's own is called; constructions are counted. What
    /// needs a future or an answer does nothing there: [`Hang`](Misbehave::Hang), [`Leak`](Misbehave::Leak),
    /// [`Flood`](Misbehave::Flood), [`Garbage`](Misbehave::Garbage). [`Slow`](Misbehave::Slow) blocks the thread.
    #[must_use]
    pub fn in_constructor(mut self) -> Self {
        self.place = Place::Constructor;
        self
    }

    /// Dropping the instance misbehaves instead of calls, before the module's own is dropped; drops are counted.
    /// [`Panic`](Misbehave::Panic) (not while the thread panics already), [`Block`](Misbehave::Block),
    /// [`Spin`](Misbehave::Spin) and [`Slow`](Misbehave::Slow), which blocks the thread, do something there.
    #[must_use]
    pub fn in_drop(mut self) -> Self {
        self.place = Place::Drop;
        self
    }

    /// Every instance gets one background call that misbehaves, at once when background calls run, instead of calls;
    /// these runs are counted. [`Garbage`](Misbehave::Garbage) does nothing there.
    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.place = Place::Background;
        self
    }

    /// How many calls there were, those included that were well-behaved.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// How many of them misbehaved.
    #[must_use]
    pub fn misbehaved(&self) -> u64 {
        self.shared.misbehaved.load(Ordering::SeqCst)
    }

    /// How many calls block, spin or hang at this moment.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.switch.running()
    }

    /// Ends it: threads that block or spin and futures that hang go on at once and then answer as the module does, and
    /// no later call misbehaves. Calls are still counted.
    pub fn calm(&self) {
        self.shared.switch.set_calm(true);
    }

    /// Misbehaves again, after [`calm`](Self::calm).
    pub fn resume(&self) {
        self.shared.switch.set_calm(false);
    }

    /// Calls [`calm`](Self::calm) when the guard is dropped, so that a test which fails ends all the same.
    pub fn calm_on_drop(&self) -> CalmOnDrop {
        CalmOnDrop(self.clone())
    }

    /// Counts a call at this place, and says whether it misbehaves. `has_text` says whether the args have a text.
    pub(super) fn seen(&self, place: Place, has_text: impl FnOnce(&str) -> bool) -> Option<Occasion> {
        if place != self.place {
            return None;
        }
        let call = self.shared.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let epoch = self.shared.switch.misbehaving()?;
        let chosen = match &self.when {
            When::Always => true,
            When::OnCall(number) => call == *number,
            When::Every(number) => call.is_multiple_of(*number),
            When::ForKey(text) => has_text(text),
        };
        (chosen && place.fits(self.misbehave)).then(|| Occasion {
            misbehave: self.misbehave,
            call,
            nth: self.shared.misbehaved.fetch_add(1, Ordering::SeqCst) + 1,
            epoch,
        })
    }

    /// Whether a background call is to be started.
    pub(super) fn is_in_background(&self) -> bool {
        self.place == Place::Background
    }

    /// Misbehaves where there is a future. [`Misbehave::Garbage`] is the caller's part: an answer has a type.
    pub(super) async fn misbehave(&self, occasion: Occasion, host: &dyn ModuleHost) -> Result<(), ModuleError> {
        match occasion.misbehave {
            Misbehave::Hang => self.shared.switch.hang(occasion.epoch).await,
            Misbehave::Slow(duration) => host.sleep(duration).await,
            Misbehave::Leak => leak(),
            Misbehave::Flood => flood(host),
            _ => return self.misbehave_blocking(occasion),
        }
        Ok(())
    }

    /// Misbehaves where there is no future; what needs one does nothing.
    pub(super) fn misbehave_blocking(&self, occasion: Occasion) -> Result<(), ModuleError> {
        let (switch, call) = (&self.shared.switch, occasion.call);
        match occasion.misbehave {
            Misbehave::Panic => panic!("misbehaviour: a panic on purpose, on call {call}"),
            Misbehave::Error => {
                let text = format!("misbehaviour: an error on purpose, on call {call}");
                return Err(ModuleError::message(text));
            }
            Misbehave::Block => switch.block(occasion.epoch),
            Misbehave::Spin => switch.spin(occasion.epoch),
            Misbehave::Slow(duration) => switch.pause(occasion.epoch, duration),
            Misbehave::Hang | Misbehave::Leak | Misbehave::Flood | Misbehave::Garbage => {}
        }
        Ok(())
    }
}

/// Makes it calm when it is dropped: see [`Misbehaviour::calm_on_drop`].
#[derive(Debug)]
#[must_use = "it is calm as soon as this is dropped"]
pub struct CalmOnDrop(Misbehaviour);

impl Drop for CalmOnDrop {
    fn drop(&mut self) {
        self.0.calm();
    }
}

fn leak() {
    // Not zeroes: those would be pages that nobody has touched. Seen by nobody, the memory might not be there at all.
    std::mem::forget(std::hint::black_box(vec![1_u8; LEAK]));
}

fn flood(host: &dyn ModuleHost) {
    for _ in 0..FLOOD {
        let nothing = Box::new(|| Box::pin(async { Ok(()) }) as _);
        host.background("misbehaviour: flood".to_owned(), Schedule::Now, nothing);
    }
}
