//! Presence routing. Source: Synapse's `PresenceRouter`.

use ruma_common::OwnedUserId;

use super::category;
use crate::types::{InterestedUsers, Presence, UsersForStates};

category! {
    /// Functions of a module that answer presence-router callbacks: both or neither.
    PresenceRouter, PresenceRouterCallbacks, register_presence_router_callbacks;

    /// Who else is told these presence updates? The sets of all modules are united, user by user.
    GetUsersForStates, get_users_for_states, "1.42", Pass, Merge<UsersForStates> {
        /// The updates.
        state_updates: Vec<Presence>,
    }

    /// Whose presence is this user told, beyond that of shared rooms? `"ALL"` wins and ends the chain.
    GetInterestedUsers, get_interested_users, "1.42", Pass, Merge<InterestedUsers>, by user_id {
        /// The user.
        user_id: OwnedUserId,
    }
}
