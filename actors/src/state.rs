//! What a module is doing, and which event leads from one state to the next. Pure.
//!
//! docs/semantics.md has the table of [`ModuleState::next`]; a test compares the two.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::Serialize;

/// What a module is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleState {
    /// It is being made for the first time, or after it was disabled or in quarantine.
    Starting,
    /// It answers.
    Running,
    /// It failed or was told to restart, and is being re-created or waits for that.
    Restarting,
    /// Out of service until it is released: its calls fail.
    Quarantined,
    /// It takes no new calls; those that run go on to their end or their budget.
    Draining,
    /// Ganglion was stopped.
    Stopped,
    /// It is on no route: the config or an operator says so.
    Disabled,
}

impl ModuleState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Running,
        Self::Restarting,
        Self::Quarantined,
        Self::Draining,
        Self::Stopped,
        Self::Disabled,
    ];

    /// The word in JSON, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Quarantined => "quarantined",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Disabled => "disabled",
        }
    }

    /// The state after an event. The same state: nothing is to be done.
    ///
    /// # Errors
    /// A command that cannot be followed in this state, with what to do instead.
    pub fn next(self, event: ModuleEvent) -> Result<Self, Refused> {
        use ModuleEvent as E;
        use ModuleState as S;
        let refused = |hint| Err(Refused { state: self, hint });
        Ok(match (self, event) {
            (S::Stopped, E::Command(_)) => return refused("Ganglion is stopping"),
            (_, E::Stop) | (S::Stopped, _) => S::Stopped,

            // What a state does not name below has come too late and changes nothing.
            (S::Starting | S::Restarting, E::Made) => S::Running,
            (S::Starting | S::Running | S::Restarting, E::Failed) => S::Restarting,
            (S::Starting | S::Running | S::Restarting, E::GaveUp) => S::Quarantined,
            (S::Draining, E::GaveUp) => S::Quarantined,
            (S::Draining, E::DrainedToRestart) => S::Restarting,
            (S::Draining, E::DrainedToDisable) => S::Disabled,
            (state, E::Made | E::Failed | E::GaveUp | E::DrainedToRestart | E::DrainedToDisable) => state,

            (S::Disabled, E::Command(ModuleCommand::Enable)) => S::Starting,
            (S::Quarantined, E::Command(ModuleCommand::Enable)) => return refused("release it"),
            (state, E::Command(ModuleCommand::Enable)) => state,

            (S::Running | S::Draining, E::Command(ModuleCommand::Disable)) => S::Draining,
            (_, E::Command(ModuleCommand::Disable)) => S::Disabled,

            (S::Running | S::Draining, E::Command(ModuleCommand::Restart)) => S::Draining,
            (S::Quarantined, E::Command(ModuleCommand::Restart)) => return refused("release it"),
            (S::Disabled, E::Command(ModuleCommand::Restart)) => return refused("enable it"),
            (state, E::Command(ModuleCommand::Restart)) => state,

            (S::Disabled, E::Command(ModuleCommand::Quarantine)) => return refused("it is on no route"),
            (_, E::Command(ModuleCommand::Quarantine)) => S::Quarantined,

            (S::Quarantined, E::Command(ModuleCommand::Release)) => S::Starting,
            (S::Disabled, E::Command(ModuleCommand::Release)) => return refused("enable it"),
            (state, E::Command(ModuleCommand::Release)) => state,
        })
    }

    /// Whether something is under way that ends by itself soon: making the module, or its last calls.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Starting | Self::Restarting | Self::Draining)
    }
}

impl fmt::Display for ModuleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an operator can tell a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModuleCommand {
    /// Take a disabled module into service.
    Enable,
    /// Take it off all routes, after the calls that run.
    Disable,
    /// Make it anew, after the calls that run.
    Restart,
    /// Take it out of service at once; its calls fail as `quarantined`.
    Quarantine,
    /// End its quarantine.
    Release,
}

impl ModuleCommand {
    /// Every command.
    pub const ALL: [Self; 5] = [
        Self::Enable,
        Self::Disable,
        Self::Restart,
        Self::Quarantine,
        Self::Release,
    ];

    /// The word in paths.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Restart => "restart",
            Self::Quarantine => "quarantine",
            Self::Release => "release",
        }
    }

    /// The command with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.as_str() == word)
    }
}

/// What happens to a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModuleEvent {
    /// Its constructor returned.
    Made,
    /// It panicked, blocked its own thread or could not be made, and may try again.
    Failed,
    /// It failed too often, or has too many stuck threads.
    GaveUp,
    /// Its last calls have ended, and it is to be made anew.
    DrainedToRestart,
    /// Its last calls have ended, and it is to be off.
    DrainedToDisable,
    /// An operator said so.
    Command(ModuleCommand),
    /// Ganglion is stopped.
    Stop,
}

impl ModuleEvent {
    /// Every event.
    pub const ALL: [Self; 11] = [
        Self::Made,
        Self::Failed,
        Self::GaveUp,
        Self::DrainedToRestart,
        Self::DrainedToDisable,
        Self::Command(ModuleCommand::Enable),
        Self::Command(ModuleCommand::Disable),
        Self::Command(ModuleCommand::Restart),
        Self::Command(ModuleCommand::Quarantine),
        Self::Command(ModuleCommand::Release),
        Self::Stop,
    ];

    /// The word in docs/semantics.md.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Failed => "failed",
            Self::GaveUp => "gave up",
            Self::DrainedToRestart => "drained (restart)",
            Self::DrainedToDisable => "drained (disable)",
            Self::Command(command) => command.as_str(),
            Self::Stop => "stop",
        }
    }
}

/// A command that cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the module is {state}: {hint}")]
pub struct Refused {
    /// The state that it is in.
    pub state: ModuleState,
    /// What to do instead.
    pub hint: &'static str,
}

/// A state that many threads read.
#[derive(Debug)]
pub(crate) struct StateCell(AtomicU8);

impl StateCell {
    pub(crate) fn new(state: ModuleState) -> Self {
        Self(AtomicU8::new(state as u8))
    }

    pub(crate) fn get(&self) -> ModuleState {
        let state = usize::from(self.0.load(Ordering::Acquire));
        ModuleState::ALL.get(state).copied().unwrap_or(ModuleState::Stopped)
    }

    /// Sets the state; nothing follows on `Stopped`.
    pub(crate) fn set(&self, state: ModuleState) {
        let stopped = ModuleState::Stopped as u8;
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            (now != stopped).then_some(state as u8)
        });
    }

    /// From `Running` to `Restarting`; nothing follows from another state.
    pub(crate) fn fail(&self) {
        let (running, restarting) = (ModuleState::Running as u8, ModuleState::Restarting as u8);
        let _ = self
            .0
            .compare_exchange(running, restarting, Ordering::AcqRel, Ordering::Acquire);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_stands_at_its_number_and_is_its_json() {
        for (number, state) in ModuleState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert_eq!(StateCell::new(state).get(), state);
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    #[test]
    fn nothing_follows_on_stopped() {
        let cell = StateCell::new(ModuleState::Stopped);
        cell.set(ModuleState::Running);
        assert_eq!(cell.get(), ModuleState::Stopped);
        for event in ModuleEvent::ALL {
            let next = ModuleState::Stopped.next(event);
            assert!(next.is_err() || next == Ok(ModuleState::Stopped), "{event:?}");
        }
    }

    /// The table of docs/semantics.md: a row for each state, a column for each event; `-` is no change.
    #[test]
    fn every_edge_is_the_documented_one() {
        let document = include_str!("../../docs/semantics.md");
        let mut rows = document
            .lines()
            .skip_while(|line| !line.starts_with("| state \\ event |"));
        let cells = |line: &str| -> Vec<String> {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
        };
        let header = cells(rows.next().expect("the table of states"));
        let events: Vec<_> = ModuleEvent::ALL.map(ModuleEvent::as_str).to_vec();
        assert_eq!(header[1..], events[..]);
        rows.next();
        for state in ModuleState::ALL {
            let row = cells(rows.next().expect("a row a state"));
            assert_eq!(row[0], state.as_str());
            for (event, documented) in ModuleEvent::ALL.into_iter().zip(&row[1..]) {
                let next = match state.next(event) {
                    Ok(next) if next == state => "-".to_owned(),
                    Ok(next) => next.as_str().to_owned(),
                    Err(_) => "refused".to_owned(),
                };
                assert_eq!(*documented, next, "{state} on {}", event.as_str());
            }
        }
    }
}
