//! Third-party rules. Source: Synapse's `ThirdPartyEventRulesModuleApiCallbacks`.

use ruma_common::{OwnedRoomId, OwnedUserId};

use super::category;
use crate::callback::{Rewriting, Rewritten};
use crate::json::JsonObject;
use crate::types::{Event, Profile, Requester, StateEvents};
use crate::verdict::{EventVerdict, RoomOutcome, RoomVerdict, Verdict};

category! {
    /// Functions of a module that answer third-party-rules callbacks.
    ThirdPartyRules, ThirdPartyRulesCallbacks, register_third_party_rules_callbacks;

    /// May this event be sent? Asked once for every event that this server creates, never for events of other servers.
    CheckEventAllowed, check_event_allowed, "1.39", Error, Rewrite<EventVerdict> => EventVerdict, by event, lazy state_events {
        /// The event.
        event: Event,
        /// The room's state before it.
        state_events [optional]: StateEvents,
    }

    /// May this room be created, and from which request? Not asked for upgrades.
    OnCreateRoom, on_create_room, "1.39", Deny, Rewrite<RoomVerdict> => RoomOutcome, by requester {
        /// Who creates it.
        requester: Requester,
        /// The request's body, as the modules before have left it.
        request_content: JsonObject,
        /// Whether the requester is a server administrator.
        is_requester_admin: bool,
    }

    /// May this address be invited?
    CheckThreepidCanBeInvited, check_threepid_can_be_invited, "1.39", Pass, FirstDeny<Verdict>, lazy state_events {
        /// `email` or `msisdn`.
        medium: String,
        /// The address.
        address: String,
        /// The room's state.
        state_events [optional]: StateEvents,
    }

    /// May a room be put into the public directory, or out of it at its creation?
    CheckVisibilityCanBeModified, check_visibility_can_be_modified, "1.39", Pass, FirstDeny<Verdict>, lazy state_events {
        /// The room.
        room_id: OwnedRoomId,
        /// The room's state; empty while it is created.
        state_events [optional]: StateEvents,
        /// `public` or `private`.
        new_visibility: String,
    }

    /// May this room be shut down?
    CheckCanShutdownRoom, check_can_shutdown_room, "1.55", Pass, FirstDeny<Verdict>, by user_id {
        /// Who asks for it; `None` if a module does.
        user_id [optional]: Option<OwnedUserId>,
        /// The room.
        room_id: OwnedRoomId,
    }

    /// May this account be deactivated?
    CheckCanDeactivateUser, check_can_deactivate_user, "1.55", Pass, FirstDeny<Verdict>, by user_id {
        /// The account.
        user_id: OwnedUserId,
        /// Whether an administrator asks for it.
        by_admin: bool,
    }

    /// An event was stored. Told by every process of the homeserver, before clients get it.
    OnNewEvent, on_new_event, "1.47", Pass, Notify, by event, lazy state_events {
        /// The event.
        event: Event,
        /// The room's state at the time of the call, which may include later events.
        state_events [optional]: StateEvents,
    }

    /// A profile changed, custom fields too.
    OnProfileUpdate, on_profile_update, "1.54", Pass, Notify, by user_id {
        /// Whose.
        user_id: OwnedUserId,
        /// The name and avatar now.
        new_profile: Profile,
        /// Whether an administrator did it.
        by_admin: bool,
        /// Whether the account is being erased.
        deactivation: bool,
    }

    /// An account was deactivated or reactivated.
    OnUserDeactivationStatusChanged, on_user_deactivation_status_changed, "1.54", Pass, Notify, by user_id {
        /// The account.
        user_id: OwnedUserId,
        /// Whether it is deactivated now.
        deactivated: bool,
        /// Whether an administrator did it.
        by_admin: bool,
    }

    /// An address was added to an account. Deprecated: asked right after [`OnAddUserThirdPartyIdentifier`].
    OnThreepidBind, on_threepid_bind, "1.56", Pass, Notify, by user_id {
        /// The account.
        user_id: OwnedUserId,
        /// `email` or `msisdn`.
        medium: String,
        /// The address.
        address: String,
    }

    /// An address was added to an account.
    OnAddUserThirdPartyIdentifier, on_add_user_third_party_identifier, "1.79", Pass, Notify, by user_id {
        /// The account.
        user_id: OwnedUserId,
        /// `email` or `msisdn`.
        medium: String,
        /// The address.
        address: String,
    }

    /// An address was removed from an account.
    OnRemoveUserThirdPartyIdentifier, on_remove_user_third_party_identifier, "1.79", Pass, Notify, by user_id {
        /// The account.
        user_id: OwnedUserId,
        /// `email` or `msisdn`.
        medium: String,
        /// The address.
        address: String,
    }
}

impl Rewriting for CheckEventAllowed {
    fn rewrite(&mut self, answer: EventVerdict) -> Rewritten<EventVerdict> {
        match answer {
            EventVerdict::Pass => Rewritten::Unchanged,
            ended => Rewritten::Ended(ended),
        }
    }

    fn settled(&self) -> EventVerdict {
        EventVerdict::Pass
    }
}

impl Rewriting for OnCreateRoom {
    fn rewrite(&mut self, answer: RoomVerdict) -> Rewritten<RoomOutcome> {
        match answer {
            RoomVerdict::Pass => Rewritten::Unchanged,
            RoomVerdict::Edit(content) if content == self.request_content => Rewritten::Unchanged,
            RoomVerdict::Edit(content) => {
                self.request_content = content;
                Rewritten::Edited
            }
            RoomVerdict::Deny(denial) => Rewritten::Ended(RoomOutcome::Deny(denial)),
        }
    }

    fn settled(&self) -> RoomOutcome {
        RoomOutcome::Pass {
            request_content: self.request_content.clone(),
        }
    }
}
