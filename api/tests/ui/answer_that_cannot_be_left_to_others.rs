//! A plain value where a module may leave the answer to the next: Synapse's `False` and `None` are two things.

use ganglion_api::{AccountValidityCallbacks, IsUserExpired, ModuleError};

struct M;

async fn answer(_: &M, _: &IsUserExpired) -> Result<bool, ModuleError> {
    Ok(false)
}

fn main() {
    AccountValidityCallbacks::<M>::new().is_user_expired(answer);
}
