"""A module that uses every callback that a client can reach, written against `synapse.module_api` as module authors do.

`scripted.rs` is the same module for Ganglion. Both decide by words in the arguments, see `decide`, so that one running
homeserver serves all tests, and both note what they are told.
"""

import json
from contextlib import asynccontextmanager
from typing import Any

import attr
from synapse.events import EventBase
from synapse.http.servlet import parse_json_object_from_request
from synapse.http.site import SynapseRequest
from synapse.module_api import (
    NOT_SPAM,
    PRESENCE_ALL_USERS,
    JsonDict,
    LoginResponse,
    MediaUploadLimit,
    ModuleApi,
    ProfileInfo,
    RatelimitOverride,
    Requester,
    RoomAlias,
    StateMap,
    UserPresenceState,
    UserProfile,
)
from synapse.module_api.errors import Codes, SynapseError
from synapse.spam_checker_api import RegistrationBehaviour

HOST = ":example.com"


class Surprise(Exception):
    """An error that nobody expects; its text must not reach a client."""


def decide(text: str) -> Any:
    """What the spam checker says about something that has this text."""
    raise_if_told(text)
    if "deny-code" in text:
        return Codes.RESOURCE_LIMIT_EXCEEDED
    if "deny-text" in text:
        return Codes.FORBIDDEN, {"error": "not on my server", "org.example.why": {"rule": 7}}
    if "deny-fields" in text:
        return Codes.USER_LOCKED, {"soft_logout": True}
    if "deny-own" in text:
        # The way to an error code that Synapse does not know.
        return Codes.FORBIDDEN, {"errcode": "ORG.EXAMPLE.DENIED", "error": "by a rule of our own"}
    if "deny" in text:
        return Codes.FORBIDDEN
    return NOT_SPAM


def raise_if_told(text: str) -> None:
    if "raise-matrix" in text:
        raise SynapseError(429, "slow down", Codes.LIMIT_EXCEEDED, {"retry_after_ms": 2000})
    if "raise-plain" in text:
        raise Surprise("this text must not reach a client")


def localpart(user_id: str) -> str:
    return user_id[1:].split(":", 1)[0]


def word_of(content: Any) -> str:
    """The word in an event's content that decides about it."""
    word = content.get("word")
    return word if isinstance(word, str) else ""


class Scripted:
    def __init__(self, config: JsonDict, api: ModuleApi) -> None:
        self._api = api
        self._notes = open(config["notes"], "a", encoding="utf-8")
        self._kept_rooms: set[str] = set()
        api.register_spam_checker_callbacks(
            check_event_for_spam=self.check_event_for_spam,
            user_may_join_room=self.user_may_join_room,
            user_may_invite=self.user_may_invite,
            user_may_send_3pid_invite=self.user_may_send_3pid_invite,
            user_may_create_room=self.user_may_create_room,
            user_may_create_room_alias=self.user_may_create_room_alias,
            user_may_publish_room=self.user_may_publish_room,
            user_may_send_state_event=self.user_may_send_state_event,
            check_username_for_spam=self.check_username_for_spam,
            check_registration_for_spam=self.check_registration_for_spam,
            check_media_file_for_spam=self.check_media_file_for_spam,
            check_login_for_spam=self.check_login_for_spam,
        )
        api.register_third_party_rules_callbacks(
            check_event_allowed=self.check_event_allowed,
            on_create_room=self.on_create_room,
            check_threepid_can_be_invited=self.check_threepid_can_be_invited,
            check_visibility_can_be_modified=self.check_visibility_can_be_modified,
            check_can_shutdown_room=self.check_can_shutdown_room,
            check_can_deactivate_user=self.check_can_deactivate_user,
            on_new_event=self.on_new_event,
            on_profile_update=self.on_profile_update,
            on_user_deactivation_status_changed=self.on_user_deactivation_status_changed,
            on_threepid_bind=self.on_threepid_bind,
            on_add_user_third_party_identifier=self.on_add_user_third_party_identifier,
            on_remove_user_third_party_identifier=self.on_remove_user_third_party_identifier,
        )
        api.register_account_validity_callbacks(
            is_user_expired=self.is_user_expired,
            on_user_registration=self.on_user_registration,
            on_user_login=self.on_user_login,
            on_legacy_send_mail=self.on_legacy_send_mail,
            on_legacy_renew=self.on_legacy_renew,
            on_legacy_admin_request=self.on_legacy_admin_request,
        )
        api.register_password_auth_provider_callbacks(
            auth_checkers={
                ("m.login.password", ("password",)): self.check_password,
                ("org.example.code", ("code", "hint")): self.check_code,
            },
            check_3pid_auth=self.check_3pid_auth,
            on_logged_out=self.on_logged_out,
            get_username_for_registration=self.get_username_for_registration,
            get_displayname_for_registration=self.get_displayname_for_registration,
            is_3pid_allowed=self.is_3pid_allowed,
        )
        api.register_presence_router_callbacks(
            get_users_for_states=self.get_users_for_states,
            get_interested_users=self.get_interested_users,
        )
        api.register_background_update_controller_callbacks(
            on_update=self.on_update,
            default_batch_size=self.default_batch_size,
            min_batch_size=self.min_batch_size,
        )
        api.register_account_data_callbacks(on_account_data_updated=self.on_account_data_updated)
        api.register_add_extra_fields_to_unsigned_client_event_callbacks(
            add_field_to_unsigned_callback=self.add_field_to_unsigned,
        )
        api.register_media_repository_callbacks(
            get_media_config_for_user=self.get_media_config_for_user,
            is_user_allowed_to_upload_media_of_size=self.is_user_allowed_to_upload_media_of_size,
            get_media_upload_limits_for_user=self.get_media_upload_limits_for_user,
            on_media_upload_limit_exceeded=self.on_media_upload_limit_exceeded,
        )
        api.register_ratelimit_callbacks(get_ratelimit_override_for_user=self.get_ratelimit_override_for_user)

    def note(self, callback: str, *args: Any) -> None:
        """Keeps what a callback was told, for the test to read."""
        print(json.dumps([callback, *args]), file=self._notes, flush=True)

    # Spam checker.

    async def check_event_for_spam(self, event: EventBase) -> Any:
        body = event.content.get("body")
        if not isinstance(body, str):
            return NOT_SPAM
        self.note("check_event_for_spam", told_of(event))
        if "deny-legacy" in body:
            return "a text of the module"
        if body.startswith("echo"):
            # Sending it makes Synapse ask this function about the echo.
            content = {"msgtype": "m.notice", "body": body.removeprefix("echo ")}
            echo = {"type": event.type, "room_id": event.room_id, "sender": event.sender, "content": content}
            await self._api.create_and_send_event_into_room(echo)
        return decide(body)

    async def user_may_join_room(self, user: str, room: str, is_invited: bool) -> Any:
        self.note("user_may_join_room", user, room, is_invited)
        return decide(localpart(user))

    async def user_may_invite(self, inviter: str, invitee: str, room_id: str) -> Any:
        self.note("user_may_invite", inviter, invitee, room_id)
        return decide(localpart(invitee))

    async def user_may_send_3pid_invite(self, inviter: str, medium: str, address: str, room_id: str) -> Any:
        self.note("user_may_send_3pid_invite", inviter, medium, address, room_id)
        return decide(address)

    async def user_may_create_room(self, user_id: str, room_config: JsonDict) -> Any:
        self.note("user_may_create_room", user_id, room_config)
        return decide(room_config.get("name") or "")

    async def user_may_create_room_alias(self, user_id: str, room_alias: RoomAlias) -> Any:
        self.note("user_may_create_room_alias", user_id, room_alias.to_string())
        return decide(room_alias.localpart)

    async def user_may_publish_room(self, user_id: str, room_id: str) -> Any:
        self.note("user_may_publish_room", user_id, room_id)
        return decide(localpart(user_id))

    async def user_may_send_state_event(
        self, user_id: str, room_id: str, event_type: str, state_key: str, content: JsonDict
    ) -> Any:
        self.note("user_may_send_state_event", user_id, room_id, event_type, state_key, content)
        if event_type != "org.example.state":
            return NOT_SPAM
        word = word_of(content)
        raise_if_told(word)
        # Only a bare code is understood from this callback, an error says more.
        if "deny-text" in word:
            raise SynapseError(403, "not on my server", Codes.FORBIDDEN, {"org.example.why": {"rule": 7}})
        if "deny-own" in word:
            raise SynapseError(403, "by a rule of our own", "ORG.EXAMPLE.DENIED")
        return decide(word)

    async def check_username_for_spam(self, user_profile: UserProfile, requester_id: str) -> bool:
        self.note("check_username_for_spam", user_profile, requester_id)
        raise_if_told(localpart(requester_id))
        return "hidden" in user_profile["user_id"]

    async def check_registration_for_spam(
        self,
        email_threepid: dict | None,
        username: str | None,
        request_info: list[tuple[str | None, str]],
        auth_provider_id: str | None,
    ) -> RegistrationBehaviour:
        self.note("check_registration_for_spam", email_threepid, username, list(request_info), auth_provider_id)
        username = username or ""
        if "newcomer" in username:
            raise_if_told(username)
        if "refused" in username:
            return RegistrationBehaviour.DENY
        if "shadow" in username:
            return RegistrationBehaviour.SHADOW_BAN
        return RegistrationBehaviour.ALLOW

    async def check_media_file_for_spam(self, file_wrapper: Any, file_info: Any) -> Any:
        contents = bytearray()
        await file_wrapper.write_chunks_to(contents.extend)
        thumbnail = file_info.thumbnail and attr.asdict(file_info.thumbnail)
        self.note(
            "check_media_file_for_spam",
            file_info.file_id,
            len(contents),
            file_info.server_name,
            file_info.url_cache,
            thumbnail,
        )
        # Words stand at both ends: the whole file has to be looked at.
        words = (contents[:32] + contents[-32:]).decode("ascii", "replace")
        return decide(words)

    async def check_login_for_spam(
        self,
        user_id: str,
        device_id: str | None,
        initial_display_name: str | None,
        request_info: list[tuple[str | None, str]],
        auth_provider_id: str | None = None,
    ) -> Any:
        self.note(
            "check_login_for_spam", user_id, device_id, initial_display_name, list(request_info), auth_provider_id
        )
        return decide(initial_display_name or "")

    # Third-party rules.

    async def check_event_allowed(
        self, event: EventBase, state_events: StateMap[EventBase]
    ) -> tuple[bool, dict | None]:
        if event.type != "org.example.rule":
            return True, None
        word = word_of(event.content)
        self.note("check_event_allowed", event.sender, word)
        raise_if_told(word)
        if word == "deny":
            return False, None
        if word == "deny-text":
            raise SynapseError(403, "not on my server", Codes.FORBIDDEN, {"org.example.why": {"rule": 7}})
        if word == "deny-code":
            raise SynapseError(403, "no room", Codes.RESOURCE_LIMIT_EXCEEDED)
        if word == "replace":
            return True, {
                "type": event.type,
                "room_id": event.room_id,
                "sender": event.sender,
                "content": {"word": "replaced", "by": "the module"},
            }
        if word == "replace-badly":
            return True, {}
        if word == "by-admin":
            return await self._api.is_user_admin(event.sender), None
        if word == "by-alias":
            await self._api.lookup_room_alias("#nowhere" + HOST)
        if word == "by-topic":
            topic = state_events.get(("m.room.topic", ""))
            return topic is None or topic.content.get("topic") != "silence", None
        if word == "by-entry":
            # Not among the entries that modules look at most.
            entry = state_events.get(("org.example.entry", "key"))
            return entry is not None and entry.content.get("open") is True, None
        if word == "by-count":
            wanted = event.content.get("count")
            entries = [event for event in state_events.values() if event.type == "org.example.entry"]
            self.note("state", event.sender, sorted(event.state_key for event in entries))
            return len(entries) == wanted, None
        return True, None

    async def on_create_room(self, requester: Requester, request_content: JsonDict, is_requester_admin: bool) -> None:
        self.note("on_create_room", without_row(requester.serialize()), dict(request_content), is_requester_admin)
        topic = request_content.get("topic") or ""
        raise_if_told(topic)
        if "deny-text" in topic:
            raise SynapseError(403, "not on my server", Codes.FORBIDDEN, {"org.example.why": {"rule": 7}})
        if topic == "rename":
            request_content["name"] = "renamed"
            del request_content["topic"]

    async def check_threepid_can_be_invited(self, medium: str, address: str, state_events: StateMap[EventBase]) -> bool:
        self.note("check_threepid_can_be_invited", medium, address)
        raise_if_told(address)
        topic = state_events.get(("m.room.topic", ""))
        if topic is not None and topic.content.get("topic") == "members only":
            return False
        return not address.startswith("blocked")

    async def check_visibility_can_be_modified(
        self, room_id: str, state_events: StateMap[EventBase], new_visibility: str
    ) -> bool:
        self.note("check_visibility_can_be_modified", room_id, new_visibility)
        topic = state_events.get(("m.room.topic", ""))
        if topic is None:
            return True
        raise_if_told(topic.content["topic"])
        return topic.content["topic"] != "secret"

    async def check_can_shutdown_room(self, user_id: str | None, room_id: str) -> bool:
        self.note("check_can_shutdown_room", user_id, room_id)
        return room_id not in self._kept_rooms

    async def check_can_deactivate_user(self, user_id: str, by_admin: bool) -> bool:
        self.note("check_can_deactivate_user", user_id, by_admin)
        raise_if_told(localpart(user_id))
        return "keep" not in localpart(user_id)

    async def on_new_event(self, event: EventBase, state_events: StateMap[EventBase]) -> None:
        if event.type == "org.example.keep":
            self._kept_rooms.add(event.room_id)
        if not event.type.startswith("org.example."):
            return
        self.note("on_new_event", told_of(event))
        raise_if_told(word_of(event.content))
        if event.is_state():
            itself = state_events[(event.type, event.state_key)]
            self.note("on_new_event: state", itself.event_id == event.event_id, event.sender)

    async def on_profile_update(
        self, user_id: str, new_profile: ProfileInfo, by_admin: bool, deactivation: bool
    ) -> None:
        profile = {"display_name": new_profile.display_name, "avatar_url": new_profile.avatar_url}
        self.note("on_profile_update", user_id, profile, by_admin, deactivation)
        raise_if_told(new_profile.display_name or "")

    async def on_user_deactivation_status_changed(self, user_id: str, deactivated: bool, by_admin: bool) -> None:
        self.note("on_user_deactivation_status_changed", user_id, deactivated, by_admin)

    async def on_threepid_bind(self, user_id: str, medium: str, address: str) -> None:
        self.note("on_threepid_bind", user_id, medium, address)

    async def on_add_user_third_party_identifier(self, user_id: str, medium: str, address: str) -> None:
        self.note("on_add_user_third_party_identifier", user_id, medium, address)

    async def on_remove_user_third_party_identifier(self, user_id: str, medium: str, address: str) -> None:
        self.note("on_remove_user_third_party_identifier", user_id, medium, address)

    # Account validity.

    async def is_user_expired(self, user_id: str) -> bool | None:
        user = localpart(user_id)
        if user.startswith("lapsed"):
            raise_if_told(user)
            return True
        return False if user.startswith("lasting") else None

    async def on_user_registration(self, user_id: str) -> None:
        self.note("on_user_registration", user_id)
        if localpart(user_id).startswith("greeted"):
            raise_if_told(localpart(user_id))

    async def on_user_login(self, user_id: str, auth_provider_type: str | None, auth_provider_id: str | None) -> None:
        self.note("on_user_login", user_id, auth_provider_type, auth_provider_id)
        if localpart(user_id).startswith("welcomed"):
            raise_if_told(localpart(user_id))

    async def on_legacy_send_mail(self, user_id: str) -> None:
        self.note("on_legacy_send_mail", user_id)
        raise_if_told(localpart(user_id))

    async def on_legacy_renew(self, renewal_token: str) -> tuple[bool, bool, int]:
        raise_if_told(renewal_token)
        return renewal_token == "good", renewal_token == "stale", 1_766_000_000_000

    async def on_legacy_admin_request(self, request: SynapseRequest) -> int:
        body = parse_json_object_from_request(request)
        raise_if_told(body["user_id"])
        return body["expiration_ts"] + 1

    # Password auth provider.

    async def check_password(self, username: str, login_type: str, login_dict: JsonDict) -> Any:
        self.note("check_password", username, login_type, sorted(login_dict))
        password = login_dict["password"]
        if not isinstance(password, str) or not password.startswith("module"):
            return None
        raise_if_told(password)
        if "nobody" in password:
            return "@nobody-of-that-name" + HOST, None
        user = username if username.startswith("@") else f"@{username}{HOST}"
        if "greet" in password:
            return user, self.greet
        if "trip" in password:
            return user, self.trip
        return user, None

    async def check_code(self, username: str, login_type: str, login_dict: JsonDict) -> Any:
        self.note("check_code", username, login_type, login_dict)
        raise_if_told(login_dict["code"])
        return (f"@{username}{HOST}", None) if login_dict["code"] == "123" else None

    async def greet(self, response: LoginResponse) -> None:
        response["org.example.greeting"] = f"hello {response['user_id']}"

    async def trip(self, response: LoginResponse) -> None:
        raise SynapseError(403, "the door is closed", "ORG.EXAMPLE.CLOSED", {"org.example.user": response["user_id"]})

    async def check_3pid_auth(self, medium: str, address: str, password: str) -> Any:
        self.note("check_3pid_auth", medium, address)
        if not password.startswith("module"):
            return None
        raise_if_told(password)
        user = f"@{address.split('@')[0]}{HOST}"
        return user, self.greet if "greet" in password else None

    async def on_logged_out(self, user_id: str, device_id: str | None, access_token: str) -> None:
        self.note("on_logged_out", user_id, device_id, access_token)
        raise_if_told(localpart(user_id))

    async def get_username_for_registration(self, uia_results: JsonDict, params: JsonDict) -> str | None:
        self.note("get_username_for_registration", uia_results, params)
        name = params.get("org.example.username")
        if name is not None:
            raise_if_told(name)
        return name

    async def get_displayname_for_registration(self, uia_results: JsonDict, params: JsonDict) -> str | None:
        name = params.get("org.example.displayname")
        if name is not None:
            self.note("get_displayname_for_registration", uia_results, params)
            raise_if_told(name)
        return name

    async def is_3pid_allowed(self, medium: str, address: str, registration: bool) -> bool:
        self.note("is_3pid_allowed", medium, address, registration)
        if address.endswith("13"):
            raise SynapseError(429, "slow down", Codes.LIMIT_EXCEEDED)
        return not address.endswith("66")

    # Presence router.

    async def get_users_for_states(self, state_updates: list[UserPresenceState]) -> dict[str, set[UserPresenceState]]:
        users: dict[str, set[UserPresenceState]] = {}
        for update in state_updates:
            if localpart(update.user_id) == "star":
                users.setdefault("@watcher" + HOST, set()).add(update)
        return users

    async def get_interested_users(self, user_id: str) -> set[str] | str:
        if localpart(user_id) == "omniscient":
            return PRESENCE_ALL_USERS
        return {"@star" + HOST} if localpart(user_id) == "watcher" else set()

    # Background update controller.

    def on_update(self, update_name: str, database_name: str, one_shot: bool) -> Any:
        return self.update_window(update_name, database_name, one_shot)

    @asynccontextmanager
    async def update_window(self, update_name: str, database_name: str, one_shot: bool) -> Any:
        self.note("on_update", update_name, database_name, one_shot)
        failed = True
        try:
            yield 100
            failed = False
        finally:
            self.note("on_update: over", update_name, failed)

    async def default_batch_size(self, update_name: str, database_name: str) -> int:
        self.note("default_batch_size", update_name, database_name)
        return 100

    async def min_batch_size(self, update_name: str, database_name: str) -> int:
        return 1

    # The rest.

    async def on_account_data_updated(
        self, user_id: str, room_id: str | None, account_data_type: str, content: JsonDict
    ) -> None:
        self.note("on_account_data_updated", user_id, room_id, account_data_type, content)
        raise_if_told(account_data_type)

    async def add_field_to_unsigned(self, event: EventBase) -> JsonDict:
        stamp = event.content.get("org.example.stamp")
        if not isinstance(stamp, str):
            return {}
        raise_if_told(stamp)
        return {"org.example.stamp": {"of": event.sender, "says": stamp}, "age": "the homeserver's own wins"}

    async def get_media_config_for_user(self, user_id: str) -> JsonDict | None:
        return {"m.upload.size": 70_000, "org.example.plan": "small"} if localpart(user_id) == "small" else None

    async def is_user_allowed_to_upload_media_of_size(self, user_id: str, size: int) -> bool:
        self.note("is_user_allowed_to_upload_media_of_size", user_id, size)
        return localpart(user_id) != "small" or size <= 70_000

    async def get_media_upload_limits_for_user(self, user_id: str) -> list[MediaUploadLimit] | None:
        if not localpart(user_id).startswith("metered"):
            return None
        hour = 3_600_000
        return [
            MediaUploadLimit(1000, hour, "https://example.com/plans", True),
            MediaUploadLimit(5000, 24 * hour),
        ]

    async def on_media_upload_limit_exceeded(
        self, user_id: str, limit: MediaUploadLimit, sent_bytes: int, attempted_bytes: int
    ) -> None:
        told = {
            "max_bytes": limit.max_bytes,
            "time_period_ms": limit.time_period_ms,
            "info_uri": limit.info_uri,
            "can_upgrade": limit.can_upgrade,
        }
        self.note("on_media_upload_limit_exceeded", user_id, told, sent_bytes, attempted_bytes)
        raise_if_told(localpart(user_id))

    async def get_ratelimit_override_for_user(self, user_id: str, limiter_name: str) -> RatelimitOverride | None:
        user = localpart(user_id)
        if user.startswith("hasty"):
            return RatelimitOverride(1000.0, 1000)
        if user.startswith("boundless"):
            return RatelimitOverride(0.0, 1)
        return RatelimitOverride(0.001, 2) if user.startswith("slow") else None


def told_of(event: EventBase) -> JsonDict:
    """What a module can see of an event, as far as it is plain JSON."""
    told = event.get_dict()
    told["event_id"] = event.event_id
    return {key: told[key] for key in ("event_id", "type", "sender", "room_id", "content", "state_key") if key in told}


def without_row(requester: JsonDict) -> JsonDict:
    """The number of a row in the database means nothing to anybody else."""
    return {key: value for key, value in requester.items() if key != "access_token_id"}
