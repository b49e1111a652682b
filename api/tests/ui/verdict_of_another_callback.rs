//! A registration's verdict where rooms are decided about: nobody is shadow-banned there.

use ganglion_api::{ModuleError, RegistrationVerdict, SpamCheckerCallbacks, UserMayCreateRoom};

struct M;

async fn answer(_: &M, _: &UserMayCreateRoom) -> Result<RegistrationVerdict, ModuleError> {
    Ok(RegistrationVerdict::ShadowBan)
}

fn main() {
    SpamCheckerCallbacks::<M>::new().user_may_create_room(answer);
}
