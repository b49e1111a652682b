"""Rate limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ganglion_synapse import outcomes
from ganglion_synapse.callbacks.forwarding import Category, forwarded

if TYPE_CHECKING:
    from synapse.module_api import RatelimitOverride


class Ratelimit(Category):
    """Rate limits."""

    registers = "register_ratelimit_callbacks"
    names = ("get_ratelimit_override_for_user",)

    @forwarded
    async def get_ratelimit_override_for_user(self, user_id: str, limiter_name: str) -> RatelimitOverride | None:
        args = {"user_id": user_id, "limiter_name": limiter_name}
        return await self._ask("get_ratelimit_override_for_user", args, outcomes.ratelimit_override, user_id)
