//! A verdict that is no result: a module that cannot answer has to be able to say so.

use ganglion_api::{SpamCheckerCallbacks, UserMayCreateRoom, Verdict};

struct M;

async fn answer(_: &M, _: &UserMayCreateRoom) -> Verdict {
    Verdict::Pass
}

fn main() {
    SpamCheckerCallbacks::<M>::new().user_may_create_room(answer);
}
