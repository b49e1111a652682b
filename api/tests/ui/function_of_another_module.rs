//! A module that registers another module's function.

use ganglion_api::{Module, ModuleApi, ModuleError, NoConfig, SpamCheckerCallbacks, UserMayCreateRoom, Verdict};

struct Other;

async fn answer(_: &Other, _: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
    Ok(Verdict::Pass)
}

struct M;

impl Module for M {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(answer))?;
        Ok(M)
    }
}

fn main() {}
