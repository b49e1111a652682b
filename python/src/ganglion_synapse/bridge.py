"""The module that Synapse loads."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from synapse.logging.context import SENTINEL_CONTEXT, LoggingContextOrSentinel, set_current_context
from synapse.util import SYNAPSE_VERSION
from twisted.internet.defer import CancelledError

from . import callbacks, state_file
from .asked import Asked, below
from .config import BridgeConfig, parse_config
from .connection import Connection, connector
from .encoding import encode
from .errors import STOPPING, TOO_MANY, CallFailed, RpcError
from .hello import Announcement, HelloFailed, Introduction, blocking_hello
from .policy import Outcome, Policy, origin_of
from .reference import CALLBACKS, EXTENSION, neutral
from .wire import Call

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from .large import Large

T = TypeVar("T")

logger = logging.getLogger(__name__)

HELLO_LIMIT = 2.0
"""How long Synapse's start waits for Ganglion, in seconds."""

PRESENCE = frozenset({"get_users_for_states", "get_interested_users"})
"""Synapse takes both or neither."""

GATING = frozenset(name for name, spec in CALLBACKS.items() if spec.has_deny_verdict and name != EXTENSION)
"""Callbacks that can deny something. Who knows nothing registers these: a denial that is not asked for is lost."""

_KINDS = {STOPPING: "not_running", TOO_MANY: "overloaded"}


class Bridge:
    """Asks Ganglion what Synapse asks its modules, and answers what Ganglion's modules ask of Synapse."""

    parse_config = staticmethod(parse_config)

    def __init__(self, config: BridgeConfig, api: ModuleApi) -> None:
        from twisted.internet import reactor

        self._api = api
        self._reactor: Any = reactor
        self._state_file = config.state_file
        self._policy = Policy(config.on_failure)
        self._registered: set[str] = set()
        self._login_types: dict[str, tuple[str, ...]] = {}
        self._announcement = Announcement(frozenset())
        self._complained: set[tuple[str, str]] = set()

        # The parts of a request that are always the same, in JSON already.
        self._heads = {name: b'{"callback":%b,"args":' % encode(name) for name in CALLBACKS}
        self._deadline = b',"deadline_ms":%d' % max(1, round(config.call_timeout * 1000))
        self._tail = self._deadline + b',"steps":false}'

        introduction = Introduction(api.server_name, api.worker_name, f"Synapse {SYNAPSE_VERSION}", config.token)
        self._asked = Asked(api)
        self._connection = Connection(
            reactor,
            connector(config.address, reactor),
            introduction,
            config.call_timeout,
            self._asked.requests,
            self._announced,
        )
        self._begin(config, introduction)
        self._connection.start()
        self._reactor.addSystemEventTrigger("before", "shutdown", self._connection.stop)

    # What Synapse's callbacks need.

    @property
    def max_frame(self) -> int | None:
        """The largest frame that Ganglion accepts, if that is known."""
        return self._connection.max_frame

    async def ask(
        self, callback: str, args: dict[str, Any], *, large: Large | None = None, origin_user: str | None = None
    ) -> Outcome:
        """The outcome of a callback, of the failure policy too. Raises `CancelledError` only."""
        if callback not in self._announcement.callbacks:
            return neutral(callback)
        handles = large.handles if large is not None else None
        try:
            params = self._heads[callback] + encode(args)
            cause = below.get()
            if cause is None:
                call = self._connection.call("callback", params + self._tail)
            else:
                params += b',"below":%b' % encode(cause)
                call = self._connection.call("callback", params + self._tail, counted=False)
            if not handles:
                return _outcome(await _yieldable(call))
            return await self._with_handles(call, dict(handles))
        except CancelledError:
            raise
        except Exception as error:
            return self.failed(callback, self._kind(callback, error), origin_user)

    async def carry_on(self, callback: str, token: str, **what: object) -> Outcome:
        """The outcome of a continuation, in the same way."""
        try:
            fields = encode({"callback": callback, "token": token, **what})
            call = self._connection.call("continue", fields[:-1] + self._deadline + b"}")
            return _outcome(await _yieldable(call))
        except CancelledError:
            raise
        except Exception as error:
            # Whatever the callback itself may skip: what follows a decision either happens or fails.
            return self._policy.outcome(callback, self._kind(callback, error), "local", on_failure="error")

    def failed(self, callback: str, kind: str, origin_user: str | None = None) -> Outcome:
        """The outcome that a failure has under the policy."""
        return self._policy.outcome(callback, kind, origin_of(callback, origin_user, self._api.server_name))

    async def _with_handles(self, call: Call, handles: dict[str, Any]) -> Outcome:
        self._asked.handles.update(handles)
        try:
            return _outcome(await _yieldable(call))
        finally:
            for name in handles:
                self._asked.handles.pop(name, None)

    def _kind(self, callback: str, error: Exception) -> str:
        """The kind of a failure. What is somebody's mistake is said in the log, once."""
        if isinstance(error, CallFailed):
            if error.kind != "protocol":
                return error.kind
        elif isinstance(error, RpcError) and error.code in _KINDS:
            return _KINDS[error.code]
        elif not isinstance(error, (RpcError, ValueError)):
            logger.error("%s: the bridge failed", callback, exc_info=error)
            return "protocol"
        complaint = callback, str(error.code) if isinstance(error, RpcError) else type(error).__name__
        if complaint not in self._complained:
            self._complained.add(complaint)
            logger.warning("%s failed, and will not be mentioned again: %s", callback, error)
        return "protocol"

    # What Ganglion's modules have subscribed to.

    def _begin(self, config: BridgeConfig, introduction: Introduction) -> None:
        """Finds out what to register before Synapse serves anybody, from the best source that there is."""
        try:
            announcement = blocking_hello(config.address, introduction, HELLO_LIMIT).announcement
        except HelloFailed as error:
            known = self._remembered(config)
            logger.warning("Ganglion did not answer at %s: %s; registering %s", config.address, error, known[1])
            self._announcement = known[0]
            self._register(known[0])
        else:
            self._announcement = announcement
            self._register(announcement)
            if self._state_file is not None:
                state_file.store(self._state_file, announcement)

    def _remembered(self, config: BridgeConfig) -> tuple[Announcement, str]:
        stored = state_file.load(self._state_file) if self._state_file is not None else None
        if stored is not None:
            return stored, "what it announced last"
        if config.callbacks is not None:
            return Announcement(frozenset(config.callbacks)), "the callbacks of the config"
        return Announcement(GATING), "every callback that can deny something"

    def _announced(self, announcement: Announcement) -> None:
        if announcement == self._announcement:
            return
        self._announcement = announcement
        if self._state_file is not None:
            self._reactor.callInThread(self._store, self._state_file)
        try:
            self._register(announcement)
        except Exception:
            # At the start Synapse would not run with this; now it does.
            logger.exception("what Ganglion announced cannot be registered")

    def _store(self, path: str) -> None:
        # Read here, in the thread: of two announcements the last one is what remains, whichever thread ends last.
        state_file.store(path, self._announcement)

    def _register(self, announcement: Announcement) -> None:
        """Registers with Synapse what is new; Synapse keeps what it has for its lifetime."""
        types = self._new_login_types(announcement.login_types)
        names = set(announcement.callbacks)
        if names & PRESENCE:
            names |= PRESENCE
        new = names - self._registered
        if types and "auth_checkers" in names:
            new.add("auth_checkers")
            self._login_types.update(types)
        self._registered |= new
        if new:
            callbacks.register(self, self._api, sorted(new), sorted(types.items()))

    def _new_login_types(self, announced: Iterable[tuple[str, tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
        new: dict[str, tuple[str, ...]] = {}
        for name, fields in announced:
            known = self._login_types.get(name)
            if known is None:
                new[name] = fields
            elif set(known) != set(fields) and ("login type", name) not in self._complained:
                # Synapse would ask twice, with the old fields and with the new ones.
                self._complained.add(("login type", name))
                logger.warning("the fields of the login type %s have changed: restart Synapse", name)
        return new


def _yieldable(call: Call) -> Call:
    """Synapse's `make_deferred_yieldable`, which at each call makes up a name for a log that nobody writes."""
    if not call.called:
        call.addBoth(_restored, set_current_context(SENTINEL_CONTEXT))
    return call


def _restored(result: T, context: LoggingContextOrSentinel) -> T:
    set_current_context(context)
    return result


def _outcome(result: Any) -> Outcome:
    outcome = result.get("outcome") if isinstance(result, dict) else None
    if not isinstance(outcome, dict):
        raise ValueError("a decision without an outcome")
    return outcome
