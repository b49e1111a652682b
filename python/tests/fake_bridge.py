"""A bridge that answers what the test says, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ganglion_synapse import arguments
from ganglion_synapse.large import Large

INTERNAL_ERROR = {
    "verdict": "error",
    "status": 500,
    "errcode": "M_UNKNOWN",
    "error": "Internal server error",
    "fields": {},
}


@dataclass
class Asked:
    """One question."""

    callback: str
    args: Any
    large: Large | None
    origin_user: str | None


@dataclass
class FakeBridge:
    """Answers are outcomes by callback; a continuation's is under `<callback>/continue`.

    Without one the outcome is a pass and null.
    """

    outcomes: dict[str, Any] = field(default_factory=dict)
    # What is done while a callback runs.
    meanwhile: Callable[[Asked], Awaitable[None]] | None = None
    # The policy's outcome of any failure.
    policy: Any = field(default_factory=lambda: dict(INTERNAL_ERROR))
    max_frame: int | None = None
    asked: list[Asked] = field(default_factory=list)
    carried_on: list[tuple[str, str, Any]] = field(default_factory=list)
    failures: list[tuple[str, str, str | None]] = field(default_factory=list)

    async def ask(self, callback: str, args: Any, *, large: Large | None = None, origin_user: str | None = None) -> Any:
        asked = Asked(callback, self._sent(args), large, origin_user)
        self.asked.append(asked)
        if self.meanwhile is not None:
            await self.meanwhile(asked)
        return self._answer(callback)

    async def carry_on(self, callback: str, token: str, **what: Any) -> Any:
        self.carried_on.append((callback, token, self._sent(what)))
        return self._answer(f"{callback}/continue")

    def failed(self, callback: str, kind: str, origin_user: str | None = None) -> Any:
        self.failures.append((callback, kind, origin_user))
        return self.policy

    def _sent(self, value: Any) -> Any:
        return json.loads(json.dumps(value, allow_nan=False, default=arguments.default))

    def _answer(self, name: str) -> Any:
        answer = self.outcomes.get(name, {"verdict": "pass", "value": None})
        if isinstance(answer, Exception):
            raise answer
        # As it would come from the wire: equal, never the same object.
        return self._sent(answer)
