"""Spam checkers."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

from synapse.api.errors import Codes
from synapse.spam_checker_api import RegistrationBehaviour

from ganglion_synapse import arguments, outcomes
from ganglion_synapse.callbacks.forwarding import Bridge, Category, forwarded
from ganglion_synapse.outcomes import Spam
from ganglion_synapse.staging import Dropped

if TYPE_CHECKING:
    from synapse.events import EventBase
    from synapse.media._base import FileInfo
    from synapse.media.media_storage import ReadableFileWrapper
    from synapse.module_api import ModuleApi
    from synapse.types import JsonDict, RoomAlias, UserProfile


class SpamChecker(Category):
    """Spam checkers."""

    registers = "register_spam_checker_callbacks"
    names = (
        "check_event_for_spam",
        "should_drop_federated_event",
        "user_may_join_room",
        "user_may_invite",
        "federated_user_may_invite",
        "user_may_send_3pid_invite",
        "user_may_create_room",
        "user_may_create_room_alias",
        "user_may_publish_room",
        "user_may_send_state_event",
        "check_username_for_spam",
        "check_registration_for_spam",
        "check_media_file_for_spam",
        "check_login_for_spam",
        # Of a fork of Synapse; registered only where the keyword exists.
        "accept_make_join",
    )

    def __init__(self, bridge: Bridge, api: ModuleApi) -> None:
        super().__init__(bridge, api)
        self._dropped = Dropped(api)

    @forwarded
    async def check_event_for_spam(self, event: EventBase) -> Spam:
        args = {"event": arguments.event(event)}
        return await self._ask("check_event_for_spam", args, outcomes.spam, event.sender)

    @forwarded
    async def should_drop_federated_event(self, event: EventBase) -> bool:
        args = {"event": arguments.event(event)}
        drop = await self._ask("should_drop_federated_event", args, outcomes.hidden, event.sender)
        if drop:
            await self._dropped.add(event.event_id)
        return drop

    @forwarded
    async def user_may_join_room(self, user: str, room: str, is_invited: bool) -> Spam:
        args = {"user": user, "room": room, "is_invited": is_invited}
        return await self._ask("user_may_join_room", args, outcomes.spam, user)

    @forwarded
    async def user_may_invite(self, inviter: str, invitee: str, room_id: str) -> Spam:
        args = {"inviter": inviter, "invitee": invitee, "room_id": room_id}
        return await self._ask("user_may_invite", args, outcomes.spam, inviter)

    @forwarded
    async def federated_user_may_invite(self, event: EventBase) -> Spam:
        args = {"event": arguments.event(event)}
        return await self._ask("federated_user_may_invite", args, outcomes.spam, event.sender)

    @forwarded
    async def user_may_send_3pid_invite(self, inviter: str, medium: str, address: str, room_id: str) -> Spam:
        args = {"inviter": inviter, "medium": medium, "address": address, "room_id": room_id}
        return await self._ask("user_may_send_3pid_invite", args, outcomes.spam, inviter)

    # Synapse gives both args only to a callback of exactly two parameters.
    @forwarded
    async def user_may_create_room(self, user_id: str, room_config: JsonDict) -> Spam:
        args = {"user_id": user_id, "room_config": room_config}
        return await self._ask("user_may_create_room", args, outcomes.spam, user_id)

    @forwarded
    async def user_may_create_room_alias(self, user_id: str, room_alias: RoomAlias) -> Spam:
        args = {"user_id": user_id, "room_alias": arguments.text(room_alias)}
        return await self._ask("user_may_create_room_alias", args, outcomes.spam, user_id)

    @forwarded
    async def user_may_publish_room(self, user_id: str, room_id: str) -> Spam:
        args = {"user_id": user_id, "room_id": room_id}
        return await self._ask("user_may_publish_room", args, outcomes.spam, user_id)

    @forwarded
    async def user_may_send_state_event(
        self, user_id: str, room_id: str, event_type: str, state_key: str, content: JsonDict
    ) -> Literal["NOT_SPAM"] | Codes:
        args = {
            "user_id": user_id,
            "room_id": room_id,
            "event_type": event_type,
            "state_key": state_key,
            "content": content,
        }
        return await self._ask("user_may_send_state_event", args, outcomes.state_event_spam, user_id)

    # Of exactly two parameters, as user_may_create_room.
    @forwarded
    async def check_username_for_spam(self, user_profile: UserProfile, requester_id: str) -> bool:
        args = {"user_profile": arguments.user_profile(user_profile), "requester_id": requester_id}
        return await self._ask("check_username_for_spam", args, outcomes.hidden, requester_id)

    @forwarded
    async def check_registration_for_spam(
        self,
        email_threepid: dict[str, Any] | None,
        username: str | None,
        request_info: Collection[tuple[str, str]],
        auth_provider_id: str | None,
    ) -> RegistrationBehaviour:
        args = {
            "email_threepid": email_threepid,
            "username": username,
            "request_info": arguments.request_info(request_info),
            "auth_provider_id": auth_provider_id,
        }
        return await self._ask("check_registration_for_spam", args, outcomes.registration)

    @forwarded
    async def check_media_file_for_spam(
        self, file_wrapper: ReadableFileWrapper, file_info: FileInfo
    ) -> Literal["NOT_SPAM"] | Codes:
        large = self._large()
        args = {"file_wrapper": large.media(file_wrapper), "file_info": arguments.file_info(file_info)}
        return await self._ask_large("check_media_file_for_spam", args, large, outcomes.media_spam)

    @forwarded
    async def check_login_for_spam(
        self,
        user_id: str,
        device_id: str | None,
        initial_display_name: str | None,
        request_info: Collection[tuple[str | None, str]],
        auth_provider_id: str | None,
    ) -> Spam:
        args = {
            "user_id": user_id,
            "device_id": device_id,
            "initial_display_name": initial_display_name,
            "request_info": arguments.request_info(request_info),
            "auth_provider_id": auth_provider_id,
        }
        return await self._ask("check_login_for_spam", args, outcomes.spam, user_id)

    @forwarded
    async def accept_make_join(self, user: str, room: str) -> Spam:
        return await self._ask("accept_make_join", {"user": user, "room": room}, outcomes.spam, user)
