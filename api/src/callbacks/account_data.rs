//! Account data. Source: Synapse's `AccountDataHandler`.

use ruma_common::{OwnedRoomId, OwnedUserId};

use super::category;
use crate::json::JsonObject;

category! {
    /// Functions of a module that answer account-data callbacks.
    AccountData, AccountDataCallbacks, register_account_data_callbacks;

    /// Account data was stored or deleted (then the content is empty).
    OnAccountDataUpdated, on_account_data_updated, "1.57", Pass, Notify, by user_id {
        /// Whose.
        user_id: OwnedUserId,
        /// The room; `None` for global account data.
        room_id [optional]: Option<OwnedRoomId>,
        /// The type.
        account_data_type: String,
        /// The content.
        content: JsonObject,
    }
}
