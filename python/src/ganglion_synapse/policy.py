"""What a callback that Ganglion did not answer counts as: an operator's rules, then what Synapse would do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .reference import CALLBACKS, neutral

KINDS = (
    "overloaded",
    "deadline_exceeded",
    "panicked",
    "module_error",
    "breaker_open",
    "quarantined",
    "not_running",
    "protocol",
)
"""Every kind of failure. Between Synapse and Ganglion only four of them occur; rules may name all, as in Ganglion."""

ORIGINS = ("local", "federated")
WORDS = ("pass", "deny", "error", "synapse")

Outcome = dict[str, Any]
"""The outcome of a decision in its JSON form."""


@dataclass(frozen=True)
class FailureRule:
    """One rule. An empty set matches everything, and so does no origin."""

    then: str
    callbacks: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    origin: str | None = None

    def decides(self, callback: str, kind: str, origin: str) -> bool:
        """Whether this failure is one that the rule is for."""
        spec = CALLBACKS[callback]
        return (
            # Without a deny verdict there is nothing to deny with: the next rule decides.
            (self.then != "deny" or spec.has_deny_verdict)
            and (not self.callbacks or callback in self.callbacks)
            and (not self.categories or spec.category in self.categories)
            and (not self.kinds or kind in self.kinds)
            and (self.origin is None or origin == self.origin)
        )


class Policy:
    """An ordered list of rules: the first that matches decides, else `synapse`."""

    def __init__(self, rules: Iterable[FailureRule] = ()) -> None:
        self.rules: Sequence[FailureRule] = tuple(rules)

    def then(self, callback: str, kind: str, origin: str) -> str:
        """What this failure counts as: `pass`, `deny`, `error` or `synapse`."""
        return next((rule.then for rule in self.rules if rule.decides(callback, kind, origin)), "synapse")

    def outcome(self, callback: str, kind: str, origin: str, on_failure: str | None = None) -> Outcome:
        """The outcome that a failure has. `on_failure` is what `synapse` means, if not what the reference says."""
        then = self.then(callback, kind, origin)
        if then == "deny":
            return _denial("M_FORBIDDEN")
        if then == "synapse":
            then = on_failure or CALLBACKS[callback].on_failure
            if then == "deny":
                # on_create_room alone: Synapse words it by itself.
                return _denial("M_UNKNOWN")
        return neutral(callback) if then == "pass" else error()


def origin_of(callback: str, acting_user: str | None, server_name: str) -> str:
    """On whose behalf a callback is asked: `federated` if the acting user is of another server."""
    if acting_user is None or CALLBACKS[callback].acting is None:
        return "local"
    server = acting_user.partition(":")[2]
    return "local" if server == server_name else "federated"


def _denial(errcode: str) -> Outcome:
    return {"verdict": "deny", "errcode": errcode, "error": None, "fields": {}}


def error() -> Outcome:
    """The outcome of what nobody shall learn anything about."""
    return {"verdict": "error", "status": 500, "errcode": "M_UNKNOWN", "error": "Internal server error", "fields": {}}
