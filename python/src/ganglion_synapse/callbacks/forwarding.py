"""What every callback has in common: it asks, turns the outcome into Synapse's terms, lets nothing unexpected out."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, cast

from synapse.api.errors import SynapseError
from twisted.internet.defer import CancelledError

from ganglion_synapse import policy
from ganglion_synapse.large import Large
from ganglion_synapse.outcomes import BadOutcome, RoomCreationDenied, internal_error

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

logger = logging.getLogger(__name__)

JsonDict = dict[str, Any]
Outcome = Mapping[str, Any]
T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])

# Under which name Synapse's metrics and its log know the callbacks; those of some kinds it asks for both on every call.
MODULE = "ganglion_synapse.callbacks"
CLASS = "Bridge"


class Bridge(Protocol):
    """What asks Ganglion."""

    # The largest frame that Ganglion accepts, if that is known.
    max_frame: int | None

    async def ask(
        self, callback: str, args: JsonDict, *, large: Large | None = None, origin_user: str | None = None
    ) -> Outcome:
        """The outcome of a callback, of the failure policy too. Raises `CancelledError` only."""

    async def carry_on(self, callback: str, token: str, **what: object) -> Outcome:
        """The outcome of a continuation, in the same way."""

    def failed(self, callback: str, kind: str, origin_user: str | None = None) -> Outcome:
        """The outcome that a failure has under the policy."""


def named(method: Callable[..., Any], name: str) -> None:
    """Gives a function the name under which Synapse shows it."""
    method.__module__ = MODULE
    method.__name__ = name
    method.__qualname__ = f"{CLASS}.{name}"


def forwarded(method: Method) -> Method:
    """Makes a method a callback: what it raises is meant for Synapse, or becomes a constant error.

    The text of an exception may reach other servers.
    """

    def last_resort() -> NoReturn:
        raise internal_error()

    return _guarded(method, last_resort)


def forwarded_or_refused(method: Method) -> Method:
    """The same for a check that Synapse lets pass when it raises: instead of the constant error it gives `False`."""
    return _guarded(method, lambda: False)


def _guarded(method: Method, last_resort: Callable[[], object]) -> Method:
    # Synapse counts the parameters of some callbacks; `wraps` shows it those of the method.
    @functools.wraps(method)
    async def guarded(*args: Any) -> Any:
        try:
            return await method(*args)
        except (SynapseError, CancelledError, RoomCreationDenied):
            raise
        except Exception:
            logger.exception("%s: the bridge failed", method.__name__)
        # Not inside of the `except`: nothing of that exception shall be chained to what Synapse gets.
        return last_resort()

    named(guarded, method.__name__)
    return cast(Method, guarded)


class Category:
    """The callbacks of one `register_*_callbacks` of Synapse: the methods that are `forwarded`."""

    # The method of `ModuleApi`, and the callbacks it takes.
    registers: str
    names: tuple[str, ...]

    def __init__(self, bridge: Bridge, api: ModuleApi) -> None:
        self._bridge = bridge
        self._api = api

    def keywords(self, names: frozenset[str], login_types: Any) -> JsonDict:
        """What is registered when these callbacks are announced, by the keywords of Synapse's method."""
        return {name: getattr(self, name) for name in self.names if name in names}

    def _large(self) -> Large:
        return Large(getattr(self._bridge, "max_frame", None))

    async def _ask(self, callback: str, args: JsonDict, turn: Callable[[Outcome], T], acting: str | None = None) -> T:
        return self._turn(callback, await self._bridge.ask(callback, args, origin_user=acting), turn, acting)

    async def _ask_large(
        self, callback: str, args: JsonDict, large: Large, turn: Callable[[Outcome], T], acting: str | None = None
    ) -> T:
        try:
            outcome = await self._bridge.ask(callback, args, large=large, origin_user=acting)
        finally:
            large.close()
        return self._turn(callback, outcome, turn, acting)

    async def _carry_on(self, callback: str, token: str, turn: Callable[[Outcome], T], **what: object) -> T:
        outcome = await self._bridge.carry_on(callback, token, **what)
        try:
            return turn(outcome)
        except BadOutcome as bad:
            logger.error("%s: Ganglion's outcome is malformed: %s", callback, bad)
            return turn(policy.error())

    def _turn(self, callback: str, outcome: Outcome, turn: Callable[[Outcome], T], acting: str | None) -> T:
        try:
            return turn(outcome)
        except BadOutcome as bad:
            logger.error("%s: Ganglion's outcome is malformed: %s", callback, bad)
        return turn(self._bridge.failed(callback, "protocol", acting))
