"""Background update controllers."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ganglion_synapse import outcomes
from ganglion_synapse.callbacks.forwarding import Category, forwarded, named
from ganglion_synapse.outcomes import (
    FALLBACK_DEFAULT_BATCH_SIZE,
    FALLBACK_DURATION_MS,
    FALLBACK_MIN_BATCH_SIZE,
)

if TYPE_CHECKING:
    from synapse.types import JsonDict

logger = logging.getLogger(__name__)

# How long Synapse itself rests between two iterations.
FALLBACK_REST_S = 1.0


class BackgroundUpdateController(Category):
    """Background update controllers. One module owns all three callbacks."""

    registers = "register_background_update_controller_callbacks"
    names = ("on_update", "default_batch_size", "min_batch_size")

    def keywords(self, names: frozenset[str], login_types: Any) -> JsonDict:
        return {name: getattr(self, name) for name in self.names} if "on_update" in names else {}

    # Synapse calls it without awaiting: what it returns is entered.
    def on_update(self, update_name: str, database_name: str, one_shot: bool) -> Iteration:
        return Iteration(self, update_name, database_name, one_shot)

    named(on_update, "on_update")

    @forwarded
    async def default_batch_size(self, update_name: str, database_name: str) -> int:
        return await self._batch_size("default_batch_size", update_name, database_name, FALLBACK_DEFAULT_BATCH_SIZE)

    @forwarded
    async def min_batch_size(self, update_name: str, database_name: str) -> int:
        return await self._batch_size("min_batch_size", update_name, database_name, FALLBACK_MIN_BATCH_SIZE)

    async def _batch_size(self, callback: str, update_name: str, database_name: str, fallback: int) -> int:
        args = {"update_name": update_name, "database_name": database_name}
        return await self._ask(callback, args, lambda outcome: outcomes.batch_size(outcome, fallback))

    @forwarded
    async def begin(self, update_name: str, database_name: str, one_shot: bool) -> tuple[float, str | None]:
        """How long an iteration may take in milliseconds, and the token of its end."""
        args = {"update_name": update_name, "database_name": database_name, "one_shot": one_shot}
        update = await self._ask("on_update", args, outcomes.update_duration)
        if update is None:
            await self._api.sleep(FALLBACK_REST_S)
            return FALLBACK_DURATION_MS, None
        return update

    @forwarded
    async def end(self, token: str, failed: bool) -> None:
        """Tells the module that an iteration has ended."""
        await self._carry_on("on_update", token, outcomes.notified, failed=failed)

    named(begin, "on_update.begin")
    named(end, "on_update.end")


class Iteration:
    """One iteration of a background update."""

    def __init__(
        self, controller: BackgroundUpdateController, update_name: str, database_name: str, one_shot: bool
    ) -> None:
        self._controller = controller
        self._update = update_name, database_name, one_shot
        self._token: str | None = None

    async def __aenter__(self) -> float:
        duration, self._token = await self._controller.begin(*self._update)
        return duration

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        try:
            await self._controller.end(token, kind is not None)
        except Exception:
            if kind is None:
                raise
            # The update's own failure is the one to report.
            logger.exception("on_update: the module could not be told that the iteration failed")
