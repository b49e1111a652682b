//! How strongly a module is isolated.

use std::fmt;

use serde::Serialize;

/// How strongly a native module is isolated. Each tier survives what the one before it does, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// In the dispatcher's task, under a panic guard and a deadline. Survives a panic and a slow await; a worker that
    /// the module blocks is replaced.
    Inline,
    /// As an actor on every dispatch worker, without a change of threads; all of them share one instance. Survives the
    /// same, with a mailbox of its own and restarts from its factory.
    #[default]
    Actor,
    /// As an actor on a thread of its own. Survives blocking and spinning too, without taking a worker: the thread is
    /// replaced. Threads that were left behind are counted and bounded.
    Thread,
}

impl Tier {
    /// Every tier, the weakest first.
    pub const ALL: [Self; 3] = [Self::Inline, Self::Actor, Self::Thread];

    /// The word in JSON, config and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Actor => "actor",
            Self::Thread => "thread",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_has_one_word_everywhere() {
        for tier in Tier::ALL {
            assert_eq!(serde_json::to_value(tier).unwrap(), tier.as_str());
        }
        assert_eq!(Tier::default(), Tier::Actor);
    }
}
