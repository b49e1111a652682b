//! Who asks, for how long, and below which call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ganglion_actors::{Asker, Caller, Lineage};
use ganglion_api::ArgSource;
use tokio::time::Instant;

/// What a caller may say about a question beside its arguments.
///
/// What it leaves out is: a caller in common with all who do not say, the configured deadline, and the call that the
/// current task does something for, if a module's code asks.
#[derive(Clone, Default)]
pub struct AskContext {
    caller: Option<Caller>,
    until: Option<Instant>,
    below: Option<Lineage>,
    source: Option<Arc<dyn ArgSource>>,
}

impl fmt::Debug for AskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskContext")
            .field("caller", &self.caller)
            .field("until", &self.until)
            .field("below", &self.below)
            .finish_non_exhaustive()
    }
}

impl AskContext {
    /// Nothing is said.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Who asks. Where there is not room for all, callers take turns. Below a call it is whoever asked first.
    #[must_use]
    pub fn caller(mut self, caller: Caller) -> Self {
        self.caller = Some(caller);
        self
    }

    /// How long from now on the answer is of use. The configured deadline, which begins with the question, is the most.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        // Beyond the end of the clock there is no deadline.
        self.until = Instant::now().checked_add(deadline);
        self
    }

    /// The call of a module that caused this question, where the current task is not its own. The question has no more
    /// time than that call, and counts as asked by the same caller.
    #[must_use]
    pub fn below(mut self, call: Lineage) -> Self {
        self.below = Some(call);
        self
    }

    /// Where large arguments are that the caller kept, if arguments come as JSON.
    #[must_use]
    pub fn args_from(mut self, source: Arc<dyn ArgSource>) -> Self {
        self.source = Some(source);
        self
    }

    pub(crate) fn source(&self) -> Option<&Arc<dyn ArgSource>> {
        self.source.as_ref()
    }

    /// Who asks, and the moment after which the answer is of no use, at most `longest` after this one.
    pub(crate) fn begin(self, now: Instant, longest: Duration) -> (Asker, Instant) {
        let above = self.below.or_else(Lineage::here);
        let caller = above.as_ref().map(Lineage::caller).or(self.caller).unwrap_or_default();
        let until = [self.until, above.as_ref().and_then(Lineage::until)];
        let longest = now + longest;
        let until = until.into_iter().flatten().fold(longest, Instant::min);
        let hurried = until < longest;
        let asker = Asker { caller, above, hurried };
        (asker, until)
    }
}
