"""Presence routers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from synapse.api.presence import UserPresenceState
from synapse.module_api import PRESENCE_ALL_USERS

from ganglion_synapse import arguments, outcomes
from ganglion_synapse.callbacks.forwarding import Bridge, Category, Outcome, forwarded

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi
    from synapse.types import JsonDict


class PresenceRouter(Category):
    """Presence routers. Synapse takes both callbacks or neither."""

    registers = "register_presence_router_callbacks"
    names = ("get_users_for_states", "get_interested_users")

    def __init__(self, bridge: Bridge, api: ModuleApi) -> None:
        super().__init__(bridge, api)
        # Synapse looks these users up in the answer of the other callback.
        self._all_users: set[str] = set()

    def keywords(self, names: frozenset[str], login_types: Any) -> JsonDict:
        return {name: getattr(self, name) for name in self.names} if names.intersection(self.names) else {}

    @forwarded
    async def get_users_for_states(
        self, state_updates: Iterable[UserPresenceState]
    ) -> dict[str, set[UserPresenceState]]:
        def users(outcome: Outcome) -> dict[str, set[UserPresenceState]]:
            return outcomes.users_for_states(outcome, self._all_users)

        args = {"state_updates": [arguments.presence(state) for state in state_updates]}
        return await self._ask("get_users_for_states", args, users)

    @forwarded
    async def get_interested_users(self, user_id: str) -> set[str] | str:
        users = await self._ask("get_interested_users", {"user_id": user_id}, outcomes.interested_users, user_id)
        if users == PRESENCE_ALL_USERS:
            self._all_users.add(user_id)
        else:
            self._all_users.discard(user_id)
        return users
