"""Account data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ganglion_synapse import outcomes
from ganglion_synapse.callbacks.forwarding import Category, forwarded

if TYPE_CHECKING:
    from synapse.types import JsonDict


class AccountData(Category):
    """Account data."""

    registers = "register_account_data_callbacks"
    names = ("on_account_data_updated",)

    @forwarded
    async def on_account_data_updated(
        self, user_id: str, room_id: str | None, account_data_type: str, content: JsonDict
    ) -> None:
        args = {
            "user_id": user_id,
            "room_id": room_id,
            "account_data_type": account_data_type,
            "content": content,
        }
        await self._ask("on_account_data_updated", args, outcomes.notified, user_id)
