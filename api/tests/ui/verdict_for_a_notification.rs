//! A verdict where nothing can be denied any more.

use ganglion_api::{AccountValidityCallbacks, ModuleError, OnUserRegistration, Verdict};

struct M;

async fn answer(_: &M, _: &OnUserRegistration) -> Result<Verdict, ModuleError> {
    Ok(Verdict::Pass)
}

fn main() {
    AccountValidityCallbacks::<M>::new().on_user_registration(answer);
}
