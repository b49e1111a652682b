//! What a module can do wrong.

use std::fmt;
use std::time::Duration;

/// What a call does that misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Misbehave {
    /// It panics.
    Panic,
    /// It returns an error that is for nobody.
    Error,
    /// Its future is never ready, until [`calm`](super::Misbehaviour::calm). The thread is free meanwhile.
    Hang,
    /// It blocks its thread without using the processor, until [`calm`](super::Misbehaviour::calm).
    Block,
    /// It keeps its thread and a processor busy, until [`calm`](super::Misbehaviour::calm).
    Spin,
    /// It waits for this long, with the host's timer where there is one, and then answers as the module does.
    Slow(Duration),
    /// It leaks 64 KiB of memory, and then answers as the module does.
    Leak,
    /// It starts a thousand background calls that do nothing, and then answers as the module does.
    Flood,
    /// It answers something that is no proper answer: by turns a denial, where the callback has one, and a Matrix
    /// error, both with contents that must not go out.
    Garbage,
}

impl Misbehave {
    /// Every one; [`Slow`](Self::Slow) waits for 100 ms.
    pub const ALL: [Self; 9] = [
        Self::Panic,
        Self::Error,
        Self::Hang,
        Self::Block,
        Self::Spin,
        Self::Slow(Duration::from_millis(100)),
        Self::Leak,
        Self::Flood,
        Self::Garbage,
    ];

    /// The word in texts and on command lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Error => "error",
            Self::Hang => "hang",
            Self::Block => "block",
            Self::Spin => "spin",
            Self::Slow(_) => "slow",
            Self::Leak => "leak",
            Self::Flood => "flood",
            Self::Garbage => "garbage",
        }
    }

    /// The one of [`ALL`](Self::ALL) with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|misbehave| misbehave.as_str() == word)
    }
}

impl fmt::Display for Misbehave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a module misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Calls,
    Constructor,
    Drop,
    Background,
}

impl Place {
    /// Whether this can be done there. A constructor and a drop have no future that could hang, and nobody answers for
    /// what a constructor leaks.
    pub(super) const fn fits(self, misbehave: Misbehave) -> bool {
        use Misbehave::{Block, Error, Garbage, Panic, Slow, Spin};
        match self {
            Self::Calls => true,
            Self::Constructor => matches!(misbehave, Panic | Error | Block | Spin | Slow(_)),
            Self::Drop => matches!(misbehave, Panic | Block | Spin | Slow(_)),
            Self::Background => !matches!(misbehave, Garbage),
        }
    }
}
