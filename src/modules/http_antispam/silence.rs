//! Which questions the server gives no verdict on.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// The callbacks whose last question had no verdict. Each by itself: a server that knows some of them only would otherwise
/// fall silent and answer again with every other question.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<BTreeSet<&'static str>>);

impl Silence {
    /// Notes how a question ended; whether the one before it ended otherwise.
    pub(super) fn is_news(&self, callback: &'static str, has_failed: bool) -> bool {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if has_failed {
            silent.insert(callback)
        } else {
            silent.remove(callback)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_answers_some_callbacks_only_is_news_once() {
        let silence = Silence::default();
        let both = || [silence.is_news("knows", false), silence.is_news("does_not", true)];
        assert_eq!(
            [both(), both(), both()],
            [[false, true], [false, false], [false, false]]
        );
        assert!(silence.is_news("does_not", false) && !silence.is_news("does_not", false));
        assert!(silence.is_news("does_not", true));
    }
}
