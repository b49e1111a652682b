"""Fields added to the `unsigned` of events that clients get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ganglion_synapse import arguments, outcomes
from ganglion_synapse.callbacks.forwarding import Category, forwarded

if TYPE_CHECKING:
    from synapse.events import EventBase
    from synapse.types import JsonDict


class Unsigned(Category):
    """Fields added to the `unsigned` of events that clients get."""

    registers = "register_add_extra_fields_to_unsigned_client_event_callbacks"
    names = ("add_field_to_unsigned",)

    def keywords(self, names: frozenset[str], login_types: Any) -> JsonDict:
        return {f"{name}_callback": callback for name, callback in super().keywords(names, login_types).items()}

    @forwarded
    async def add_field_to_unsigned(self, event: EventBase) -> JsonDict:
        args = {"event": arguments.event(event)}
        return await self._ask("add_field_to_unsigned", args, outcomes.unsigned_fields, event.sender)
