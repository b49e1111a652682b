//! What a module is doing.

use std::sync::atomic::{AtomicU8, Ordering};

use serde::Serialize;

/// What a module is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleState {
    /// Its constructor has not returned.
    Starting,
    /// It answers.
    Running,
    /// It was stopped for good.
    Stopped,
}

/// A state that many threads read.
#[derive(Debug)]
pub(crate) struct StateCell(AtomicU8);

impl StateCell {
    pub(crate) fn new(state: ModuleState) -> Self {
        Self(AtomicU8::new(state as u8))
    }

    pub(crate) fn get(&self) -> ModuleState {
        match self.0.load(Ordering::Acquire) {
            0 => ModuleState::Starting,
            1 => ModuleState::Running,
            _ => ModuleState::Stopped,
        }
    }

    pub(crate) fn set(&self, state: ModuleState) {
        self.0.store(state as u8, Ordering::Release);
    }
}
