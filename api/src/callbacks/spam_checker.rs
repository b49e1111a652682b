//! Spam checkers. Source: Synapse's `SpamCheckerModuleApiCallbacks`; a denial is what it turns into 403 with the
//! module's error code, unless a callback says otherwise.

use ruma_common::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId};

use super::category;
use crate::json::JsonObject;
use crate::types::{Event, FileInfo, MediaFile, RequestInfo, Threepid, UserProfile};
use crate::verdict::{RegistrationVerdict, Verdict};

category! {
    /// Functions of a module that answer spam-checker callbacks.
    SpamChecker, SpamCheckerCallbacks, register_spam_checker_callbacks;

    /// Is this event spam? A denied local event is refused; a denied federated one is stored redacted and soft-failed.
    /// Not asked for local membership changes, nor for the first events of a room.
    CheckEventForSpam, check_event_for_spam, "1.37", Error, FirstDeny<Verdict>, by event {
        /// The event.
        event: Event,
    }

    /// Should this federated event be dropped, as if it had never come? Deny drops it.
    ShouldDropFederatedEvent, should_drop_federated_event, "1.60", Error, FirstDeny<Verdict>, by event {
        /// The event.
        event: Event,
    }

    /// May a local user join a room? Also asked when a joined user joins again. Not asked for server administrators.
    UserMayJoinRoom, user_may_join_room, "1.37", Error, FirstDeny<Verdict>, by user {
        /// Who joins.
        user: OwnedUserId,
        /// The room.
        room: OwnedRoomId,
        /// Whether an invite of the user is pending.
        is_invited: bool,
    }

    /// May a user invite another? Asked for local invites, and for federated ones after
    /// [`FederatedUserMayInvite`].
    UserMayInvite, user_may_invite, "1.37", Error, FirstDeny<Verdict>, by inviter {
        /// Who invites.
        inviter: OwnedUserId,
        /// Who is invited.
        invitee: OwnedUserId,
        /// The room.
        room_id: OwnedRoomId,
    }

    /// May a user of another server invite a local one? If so, the homeserver then asks [`UserMayInvite`].
    FederatedUserMayInvite, federated_user_may_invite, "1.133", Error, FirstDeny<Verdict>, by event {
        /// The invite, with the room's stripped state in `unsigned.invite_room_state`.
        event: Event,
    }

    /// May a user invite an address for which no Matrix user is known?
    UserMaySend3pidInvite, user_may_send_3pid_invite, "1.45", Error, FirstDeny<Verdict>, by inviter {
        /// Who invites.
        inviter: OwnedUserId,
        /// `email` or `msisdn`.
        medium: String,
        /// The address.
        address: String,
        /// The room.
        room_id: OwnedRoomId,
    }

    /// May a user create a room? Not asked for server administrators, except when they upgrade a room.
    UserMayCreateRoom, user_may_create_room, "1.37", Error, FirstDeny<Verdict>, by user_id {
        /// Who creates it.
        user_id: OwnedUserId,
        /// The request's body.
        room_config [optional]: JsonObject,
    }

    /// May a user create this alias?
    UserMayCreateRoomAlias, user_may_create_room_alias, "1.37", Error, FirstDeny<Verdict>, by user_id {
        /// Who creates it.
        user_id: OwnedUserId,
        /// The alias.
        room_alias: OwnedRoomAliasId,
    }

    /// May a user change whether a room is in the public directory? Asked both ways.
    UserMayPublishRoom, user_may_publish_room, "1.37", Error, FirstDeny<Verdict>, by user_id {
        /// Who asks for it.
        user_id: OwnedUserId,
        /// The room.
        room_id: OwnedRoomId,
    }

    /// May a user send this state event through the state endpoint? Not asked for server administrators.
    UserMaySendStateEvent, user_may_send_state_event, "1.132", Error, FirstDeny<Verdict>, by user_id {
        /// Who sends it.
        user_id: OwnedUserId,
        /// The room.
        room_id: OwnedRoomId,
        /// The type.
        event_type: String,
        /// The state key.
        state_key: String,
        /// The content.
        content: JsonObject,
    }

    /// Should this row of a user-directory search be hidden? Deny hides it.
    CheckUsernameForSpam, check_username_for_spam, "1.37", Error, FirstDeny<Verdict>, by requester_id {
        /// The row.
        user_profile: UserProfile,
        /// Who searches.
        requester_id: OwnedUserId,
    }

    /// May this account be registered? A denial is 429 `M_UNKNOWN`, on purpose.
    CheckRegistrationForSpam, check_registration_for_spam, "1.37", Error, FirstDeny<RegistrationVerdict> {
        /// The validated e-mail address, if there is one.
        email_threepid [optional]: Option<Threepid>,
        /// The wished-for localpart.
        username [optional]: Option<String>,
        /// Where the requests of this registration came from.
        request_info [optional]: Vec<RequestInfo>,
        /// The single sign-on provider.
        auth_provider_id [optional]: Option<String>,
    }

    /// Is this media file spam? Asked for uploads, remote media, each thumbnail and URL previews. A denied upload is
    /// 400 `M_UNKNOWN`.
    CheckMediaFileForSpam, check_media_file_for_spam, "1.37", Error, FirstDeny<Verdict>, lazy file_base64 {
        /// The contents.
        file_base64: MediaFile,
        /// What is known about it.
        file_info: FileInfo,
    }

    /// May this user log in? Asked for every kind of login, before the device is made.
    CheckLoginForSpam, check_login_for_spam, "1.87", Error, FirstDeny<Verdict>, by user_id {
        /// Who logs in.
        user_id: OwnedUserId,
        /// The device, if the client named one.
        device_id [optional]: Option<String>,
        /// The name for the device.
        initial_display_name [optional]: Option<String>,
        /// Where the request came from.
        request_info [optional]: Vec<RequestInfo>,
        /// The single sign-on provider.
        auth_provider_id [optional]: Option<String>,
    }

    /// May a remote user's join be prepared here? An extension that upstream Synapse does not have; forks ask it for
    /// restricted rooms.
    AcceptMakeJoin, accept_make_join, "fork", Error, FirstDeny<Verdict>, by user {
        /// Who joins.
        user: OwnedUserId,
        /// The room.
        room: OwnedRoomId,
    }
}
