//! What became of the questions, by callback and module.

use std::time::Duration;

use ganglion_actors::ModuleId;
use ganglion_api::{FailureKind, VerdictKind};
use ganglion_dispatcher::{Step, StepResult};

use super::histogram::Latencies;
use super::questions::{Answered, Verdict};

/// What one thread of callers saw.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// By the callback's position in the questions; what was never asked is not there.
    pub(super) callbacks: Vec<Option<CallbackRecord>>,
}

/// What became of the questions about one callback.
#[derive(Debug, Default)]
pub(super) struct CallbackRecord {
    /// From the question, or the moment it was due, to its decision.
    pub(super) chain: Latencies,
    /// The part of that in which no module was at it.
    pub(super) dispatch: Latencies,
    pub(super) denied: u64,
    pub(super) errors: u64,
    /// In the order in which they were asked first.
    pub(super) modules: Vec<ModuleRecord>,
}

/// What one module did for one callback.
#[derive(Debug)]
pub(super) struct ModuleRecord {
    pub(super) id: ModuleId,
    /// How often it was asked.
    pub(super) calls: u64,
    /// The calls that reached it, or waited for it.
    pub(super) latency: Latencies,
    /// How long all of its calls took together.
    pub(super) total: Duration,
    /// By [`FailureKind`], in the order of [`FailureKind::ALL`].
    pub(super) failures: [u64; FailureKind::ALL.len()],
    /// How often its answer, or its failure, was the outcome.
    pub(super) decided: u64,
    /// How often it denied.
    pub(super) denied: u64,
}

impl Record {
    /// Takes down one question: the callback's position, how long it took, and what came out.
    pub(super) fn note(&mut self, position: usize, latency: Duration, answered: &Answered) {
        if self.callbacks.len() <= position {
            self.callbacks.resize_with(position + 1, || None);
        }
        self.callbacks[position].get_or_insert_default().note(latency, answered);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if self.callbacks.len() < other.callbacks.len() {
            self.callbacks.resize_with(other.callbacks.len(), || None);
        }
        for (own, other) in self.callbacks.iter_mut().zip(&other.callbacks) {
            if let Some(other) = other {
                own.get_or_insert_default().merge(other);
            }
        }
    }

    /// How many questions there were.
    pub(super) fn calls(&self) -> u64 {
        self.callbacks
            .iter()
            .flatten()
            .map(|callback| callback.chain.count())
            .sum()
    }
}

impl CallbackRecord {
    fn note(&mut self, latency: Duration, answered: &Answered) {
        let modules: Duration = answered.steps.iter().map(|step| step.duration).sum();
        self.chain.record(latency);
        self.dispatch.record(latency.saturating_sub(modules));
        self.denied += u64::from(answered.verdict == Verdict::Denied);
        self.errors += u64::from(answered.verdict == Verdict::Error);
        for step in &answered.steps {
            self.module(&step.module).note(step);
        }
        if let Some(decided_by) = &answered.decided_by {
            self.module(decided_by).decided += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.chain.merge(&other.chain);
        self.dispatch.merge(&other.dispatch);
        self.denied += other.denied;
        self.errors += other.errors;
        for module in &other.modules {
            self.module(&module.id).merge(module);
        }
    }

    fn module(&mut self, id: &ModuleId) -> &mut ModuleRecord {
        let known = self.modules.iter().position(|module| module.id == *id);
        let position = known.unwrap_or_else(|| {
            self.modules.push(ModuleRecord::new(id));
            self.modules.len() - 1
        });
        &mut self.modules[position]
    }
}

impl ModuleRecord {
    fn new(id: &ModuleId) -> Self {
        Self {
            id: *id,
            calls: 0,
            latency: Latencies::default(),
            total: Duration::ZERO,
            failures: [0; FailureKind::ALL.len()],
            decided: 0,
            denied: 0,
        }
    }

    fn note(&mut self, step: &Step) {
        match step.result {
            StepResult::Skipped => return,
            StepResult::Failed(kind) => self.failures[kind as usize] += 1,
            StepResult::Verdict(VerdictKind::Deny | VerdictKind::ShadowBan) => self.denied += 1,
            _ => {}
        }
        self.calls += 1;
        self.total += step.duration;
        if reached(step) {
            self.latency.record(step.duration);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.total += other.total;
        self.latency.merge(&other.latency);
        for (own, other) in self.failures.iter_mut().zip(other.failures) {
            *own += other;
        }
        self.decided += other.decided;
        self.denied += other.denied;
    }
}

/// Whether a call got to its module or waited for it. What is turned away at the door takes no time, and would make a
/// module look the faster the worse it is.
fn reached(step: &Step) -> bool {
    use FailureKind::{BreakerOpen, NotRunning, Quarantined};
    match step.result {
        StepResult::Failed(BreakerOpen | NotRunning | Quarantined) => false,
        // The deadline passed before its turn came.
        StepResult::Failed(_) => !step.duration.is_zero(),
        _ => true,
    }
}
