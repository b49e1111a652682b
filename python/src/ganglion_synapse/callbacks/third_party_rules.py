"""Third-party rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ganglion_synapse import arguments, outcomes
from ganglion_synapse.callbacks.forwarding import Category, Outcome, forwarded, forwarded_or_refused
from ganglion_synapse.large import Large

if TYPE_CHECKING:
    from synapse.events import EventBase
    from synapse.module_api import ProfileInfo, Requester
    from synapse.types import JsonDict, StateMap


class ThirdPartyRules(Category):
    """Third-party rules."""

    registers = "register_third_party_rules_callbacks"
    names = (
        "check_event_allowed",
        "on_create_room",
        "check_threepid_can_be_invited",
        "check_visibility_can_be_modified",
        "check_can_shutdown_room",
        "check_can_deactivate_user",
        "on_new_event",
        "on_profile_update",
        "on_user_deactivation_status_changed",
        "on_threepid_bind",
        "on_add_user_third_party_identifier",
        "on_remove_user_third_party_identifier",
    )

    @forwarded
    async def check_event_allowed(
        self, event: EventBase, state_events: StateMap[EventBase]
    ) -> tuple[bool, JsonDict | None]:
        large = self._large()
        args = _event_in_state(event, state_events, large)
        return await self._ask_large("check_event_allowed", args, large, outcomes.event_allowed, event.sender)

    @forwarded
    async def on_create_room(self, requester: Requester, request_content: JsonDict, is_requester_admin: bool) -> None:
        def edit(outcome: Outcome) -> None:
            outcomes.room_creation(outcome, request_content)

        args = {
            "requester": arguments.requester(requester),
            "request_content": request_content,
            "is_requester_admin": is_requester_admin,
        }
        await self._ask("on_create_room", args, edit, requester.user_id)

    # Synapse lets pass what the next four raise.
    @forwarded_or_refused
    async def check_threepid_can_be_invited(self, medium: str, address: str, state_events: StateMap[EventBase]) -> bool:
        large = self._large()
        args = {"medium": medium, "address": address, "state_events": large.state(state_events)}
        return await self._ask_large("check_threepid_can_be_invited", args, large, outcomes.allowed_or_refused)

    @forwarded_or_refused
    async def check_visibility_can_be_modified(
        self, room_id: str, state_events: StateMap[EventBase], new_visibility: str
    ) -> bool:
        large = self._large()
        args = {"room_id": room_id, "state_events": large.state(state_events), "new_visibility": new_visibility}
        return await self._ask_large("check_visibility_can_be_modified", args, large, outcomes.allowed_or_refused)

    @forwarded_or_refused
    async def check_can_shutdown_room(self, user_id: str | None, room_id: str) -> bool:
        args = {"user_id": user_id, "room_id": room_id}
        return await self._ask("check_can_shutdown_room", args, outcomes.allowed_or_refused, user_id)

    @forwarded_or_refused
    async def check_can_deactivate_user(self, user_id: str, by_admin: bool) -> bool:
        args = {"user_id": user_id, "by_admin": by_admin}
        return await self._ask("check_can_deactivate_user", args, outcomes.allowed_or_refused, user_id)

    @forwarded
    async def on_new_event(self, event: EventBase, state_events: StateMap[EventBase]) -> None:
        large = self._large()
        args = _event_in_state(event, state_events, large)
        await self._ask_large("on_new_event", args, large, outcomes.notified, event.sender)

    @forwarded
    async def on_profile_update(
        self, user_id: str, new_profile: ProfileInfo, by_admin: bool, deactivation: bool
    ) -> None:
        args = {
            "user_id": user_id,
            "new_profile": arguments.profile(new_profile),
            "by_admin": by_admin,
            "deactivation": deactivation,
        }
        await self._ask("on_profile_update", args, outcomes.notified, user_id)

    @forwarded
    async def on_user_deactivation_status_changed(self, user_id: str, deactivated: bool, by_admin: bool) -> None:
        args = {"user_id": user_id, "deactivated": deactivated, "by_admin": by_admin}
        await self._ask("on_user_deactivation_status_changed", args, outcomes.notified, user_id)

    @forwarded
    async def on_threepid_bind(self, user_id: str, medium: str, address: str) -> None:
        args = {"user_id": user_id, "medium": medium, "address": address}
        await self._ask("on_threepid_bind", args, outcomes.notified, user_id)

    @forwarded
    async def on_add_user_third_party_identifier(self, user_id: str, medium: str, address: str) -> None:
        args = {"user_id": user_id, "medium": medium, "address": address}
        await self._ask("on_add_user_third_party_identifier", args, outcomes.notified, user_id)

    @forwarded
    async def on_remove_user_third_party_identifier(self, user_id: str, medium: str, address: str) -> None:
        args = {"user_id": user_id, "medium": medium, "address": address}
        await self._ask("on_remove_user_third_party_identifier", args, outcomes.notified, user_id)


def _event_in_state(event: EventBase, state_events: StateMap[EventBase], large: Large) -> JsonDict:
    # A membership's state key is the user concerned; of other events it is rarely one, and then nothing is found.
    return {
        "event": arguments.event(event),
        "state_events": large.state(state_events, (event.sender, event.get_state_key())),
    }
