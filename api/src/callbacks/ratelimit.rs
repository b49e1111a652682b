//! Rate limits. Source: Synapse's `RatelimitModuleApiCallbacks`.

use ruma_common::OwnedUserId;

use super::category;
use crate::types::RatelimitOverride;

category! {
    /// Functions of a module that answer rate-limit callbacks.
    Ratelimit, RatelimitCallbacks, register_ratelimit_callbacks;

    /// Which rate has this user instead of the configured one?
    GetRatelimitOverrideForUser, get_ratelimit_override_for_user, "1.132", Error, FirstAnswer<RatelimitOverride>,
        by user_id {
        /// The user.
        user_id: OwnedUserId,
        /// `rc_invites.per_room`, `rc_invites.per_user` or `rc_invites.per_issuer`.
        limiter_name: String,
    }
}
