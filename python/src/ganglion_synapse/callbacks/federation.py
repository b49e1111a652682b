"""Federation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ganglion_synapse import arguments, outcomes
from ganglion_synapse.callbacks.forwarding import Category, forwarded

if TYPE_CHECKING:
    from synapse.module_api.callbacks.federation import FederationEventDeliveryEvent


class Federation(Category):
    """Federation."""

    registers = "register_federation_callbacks"
    names = ("on_event_delivered_over_federation",)

    @forwarded
    async def on_event_delivered_over_federation(self, delivery: FederationEventDeliveryEvent) -> None:
        args = {"delivery": arguments.delivery(delivery)}
        await self._ask("on_event_delivered_over_federation", args, outcomes.notified)
