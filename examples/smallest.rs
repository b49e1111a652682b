//! The smallest useful module: nobody creates a room.

use ganglion::api::{
    Denial, Module, ModuleApi, ModuleError, NoConfig, SpamCheckerCallbacks, UserMayCreateRoom, Verdict,
};

struct NoRooms;

impl Module for NoRooms {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(Self::may_create))?;
        Ok(Self)
    }
}

impl NoRooms {
    async fn may_create(&self, _: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        Ok(Verdict::Deny(Denial::forbidden().with_error("no rooms today")))
    }
}

fn main() {
    let registry = ganglion::registry().with::<NoRooms>("example.NoRooms");
    assert!(registry.paths().any(|path| path == "example.NoRooms"));
}
