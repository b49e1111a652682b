//! A bool where a verdict is wanted.

use ganglion_api::{ModuleError, SpamCheckerCallbacks, UserMayCreateRoom};

struct M;

async fn answer(_: &M, _: &UserMayCreateRoom) -> Result<bool, ModuleError> {
    Ok(true)
}

fn main() {
    SpamCheckerCallbacks::<M>::new().user_may_create_room(answer);
}
