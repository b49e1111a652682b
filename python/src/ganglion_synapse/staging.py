"""Events of other servers that were dropped, and Synapse's staging area, where some of them come back.

Synapse asks once more about an event that it has staged. If that is to be dropped it skips the event and takes the next one, which is the same
again, since the row is still there: its room would wait for ever.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

REMEMBERED = 1000
"""How many dropped events are known again. The loop asks about one and the same."""


class Dropped:
    """The events that were dropped last."""

    def __init__(self, api: ModuleApi) -> None:
        self._api = api
        self._last: OrderedDict[str, None] = OrderedDict()

    async def add(self, event_id: str) -> None:
        """An event is to be dropped. The second time it is taken out of the staging area."""
        if event_id not in self._last:
            self._last[event_id] = None
            if len(self._last) > REMEMBERED:
                self._last.popitem(last=False)
            return
        await self._api.run_db_interaction("ganglion_unstage", _unstage, event_id)


def _unstage(txn: Any, event_id: str) -> None:
    txn.execute("DELETE FROM federation_inbound_events_staging WHERE event_id = ?", (event_id,))
