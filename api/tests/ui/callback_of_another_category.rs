//! A callback under another category's set.

use ganglion_api::{IsUserExpired, ModuleError, SpamCheckerCallbacks, Expiry};

struct M;

async fn answer(_: &M, _: &IsUserExpired) -> Result<Option<Expiry>, ModuleError> {
    Ok(None)
}

fn main() {
    SpamCheckerCallbacks::<M>::new().is_user_expired(answer);
}
