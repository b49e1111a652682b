//! A callback that does not exist.

use ganglion_api::{ModuleError, SpamCheckerCallbacks, UserMayCreateRoom, Verdict};

struct M;

async fn answer(_: &M, _: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
    Ok(Verdict::Pass)
}

fn main() {
    SpamCheckerCallbacks::<M>::new().user_may_create_rooms(answer);
}
