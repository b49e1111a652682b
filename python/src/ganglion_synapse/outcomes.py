"""What Ganglion concluded, as what Synapse expects of a module.

Synapse's callbacks say no in many ways: a code, a tuple, `False`, `True`, an exception. Each function here is one of
these ways: it takes the outcome of a decision and returns, or raises, what Synapse expects.

Extra fields of an error are filtered again, though Ganglion has done so: one that clashes makes Synapse's own error
writer fail, and the client is never answered.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Literal

from synapse.api.errors import Codes, SynapseError
from synapse.api.presence import UserPresenceState
from synapse.module_api import (
    NOT_SPAM,
    PRESENCE_ALL_USERS,
    MediaUploadLimit,
    RatelimitOverride,
)
from synapse.spam_checker_api import RegistrationBehaviour

JsonDict = dict[str, Any]
Outcome = Mapping[str, Any]
Spam = Literal["NOT_SPAM"] | Codes | tuple[Codes, JsonDict]

# Synapse passes the extra fields as keywords to a function that has parameters `msg` and `code`. An `errcode` or an
# `error` would override those of the outcome; Ganglion has decided between them.
RESERVED_FIELDS = frozenset({"msg", "code", "errcode", "error"})

# Synapse divides by `per_second`: what it documents as "no limit", zero, crashes it.
UNLIMITED_PER_SECOND = 1e9
UNLIMITED_BURST = 10**9

# What Synapse does without a controller, when the module that owned the callback has left.
FALLBACK_DURATION_MS = 100
FALLBACK_DEFAULT_BATCH_SIZE = 100
FALLBACK_MIN_BATCH_SIZE = 1


class BadOutcome(Exception):
    """Ganglion's outcome is not what the callback has."""


class RoomCreationDenied(Exception):
    """A denial that Synapse words itself."""


def internal_error() -> SynapseError:
    """The error for everything that the client, or another server, shall learn nothing about."""
    return SynapseError(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error", Codes.UNKNOWN)


def spam(outcome: Outcome) -> Spam:
    """Most spam checkers: the object `NOT_SPAM`, a code, or a code with fields."""
    if _passes(outcome):
        # Synapse compares by identity: an equal string would be a denial.
        return NOT_SPAM
    errcode, error, fields = _denial(outcome)
    if error is not None:
        fields["error"] = error
    code = _code(errcode)
    if code is None:
        # An extra field overrides the code that Synapse sends.
        fields["errcode"] = errcode
        return Codes.FORBIDDEN, fields
    return (code, fields) if fields else code


def state_event_spam(outcome: Outcome) -> Literal["NOT_SPAM"] | Codes:
    """`user_may_send_state_event`: Synapse loses the fields of a tuple, so a denial with more than a code is raised."""
    if _passes(outcome):
        return NOT_SPAM
    errcode, error, fields = _denial(outcome)
    code = _code(errcode)
    if code is None or error is not None or fields:
        raise _denied(errcode, error, fields)
    return code


def media_spam(outcome: Outcome) -> Literal["NOT_SPAM"] | Codes:
    """`check_media_file_for_spam`: a code, nothing else gets through."""
    if _passes(outcome):
        return NOT_SPAM
    errcode, _, _ = _denial(outcome)
    return _code(errcode) or Codes.FORBIDDEN


def hidden(outcome: Outcome) -> bool:
    """Whether an event is dropped, or a user hidden. `NOT_SPAM` would mean yes here: it is a true value."""
    return not _passes(outcome)


def registration(outcome: Outcome) -> RegistrationBehaviour:
    """What becomes of a registration."""
    if outcome.get("verdict") == "shadow_ban":
        return RegistrationBehaviour.SHADOW_BAN
    return RegistrationBehaviour.ALLOW if _passes(outcome) else RegistrationBehaviour.DENY


def event_allowed(outcome: Outcome) -> tuple[bool, JsonDict | None]:
    """Whether an event may be, and the event that replaces it."""
    if outcome.get("verdict") == "replace":
        return True, _object(outcome.get("event"), "event")
    if _passes(outcome):
        return True, None
    errcode, error, fields = _denial(outcome)
    if errcode == Codes.FORBIDDEN and error is None and not fields:
        return False, None
    raise _denied(errcode, error, fields)


def room_creation(outcome: Outcome, content: JsonDict) -> None:
    """Edits the content of a room's creation, the same dict, or refuses the room.

    A policy that lets a failure pass says nothing about the content: it stays.
    """
    if _passes(outcome):
        edited = outcome.get("request_content")
        if edited is not None:
            refill(content, _object(edited, "request_content"))
        return
    errcode, error, fields = _denial(outcome)
    if errcode == Codes.UNKNOWN and error is None and not fields:
        raise RoomCreationDenied("room creation denied by Ganglion")
    raise _denied(errcode, error, fields)


def allowed(outcome: Outcome) -> bool:
    """Checks of which Synapse wants `True` or the object `False`."""
    return _passes(outcome)


def allowed_or_refused(outcome: Outcome) -> bool:
    """The same for checks that Synapse lets pass when they raise: an error refuses."""
    if outcome.get("verdict") == "error":
        # It has to be one, all the same.
        _error(outcome)
        return False
    return _passes(outcome)


def expired(outcome: Outcome) -> bool | None:
    """Whether an account has expired; `None`: nobody said."""
    value = _value(outcome)
    if value is not None and not isinstance(value, bool):
        raise BadOutcome("value is no boolean")
    return value


def login(outcome: Outcome) -> tuple[str, str | None] | None:
    """The user who logs in, and the token of what follows the login."""
    value = _value(outcome)
    if value is None:
        return None
    user = _object(value, "value")
    return _text(user.get("user_id"), "user_id"), _token(user, "login_callback")


def login_response(outcome: Outcome) -> JsonDict | None:
    """The response to a login as a module left it; `None`: it stays."""
    value = _value(outcome)
    return None if value is None else _object(value, "value")


def name(outcome: Outcome) -> str | None:
    """A name for a new user."""
    value = _value(outcome)
    return None if value is None else _text(value, "value")


def users_for_states(outcome: Outcome, all_users: Iterable[str]) -> dict[str, set[UserPresenceState]]:
    """Who is told of which presence.

    Synapse looks each of the users up who are told of everybody: without an entry their sync would fail.
    """
    value = _value(outcome)
    told = {} if value is None else _object(value, "value")
    users = {user: {_presence(state) for state in _list(states, "states")} for user, states in told.items()}
    for user in all_users:
        users.setdefault(user, set())
    return users


def interested_users(outcome: Outcome) -> set[str] | str:
    """Whose presence a user is told."""
    value = _value(outcome)
    if value is None:
        return set()
    if value == PRESENCE_ALL_USERS:
        return PRESENCE_ALL_USERS
    return {_text(user, "user") for user in _list(value, "value")}


def unsigned_fields(outcome: Outcome) -> JsonDict:
    """What is added to an event's `unsigned`."""
    value = _value(outcome)
    return {} if value is None else _object(value, "value")


def media_config(outcome: Outcome) -> Any:
    """The whole answer of the media config endpoint; `None`: Synapse's own."""
    return _value(outcome)


def upload_limits(outcome: Outcome) -> list[MediaUploadLimit] | None:
    """How much a user may upload. Synapse sorts the list where it is, so it has to be ours to give."""
    value = _value(outcome)
    return None if value is None else [_limit(limit) for limit in _list(value, "value")]


def ratelimit_override(outcome: Outcome) -> RatelimitOverride | None:
    """How fast a user may be."""
    value = _value(outcome)
    if value is None:
        return None
    override = _object(value, "value")
    per_second = _number(override.get("per_second"), "per_second")
    burst_count = _integer(override.get("burst_count"), "burst_count")
    if per_second == 0:
        return RatelimitOverride(UNLIMITED_PER_SECOND, UNLIMITED_BURST)
    return RatelimitOverride(per_second, burst_count)


def update_duration(outcome: Outcome) -> tuple[float, str | None] | None:
    """How long an iteration of a background update may take, and the token of what follows it; `None`: nobody said."""
    value = _value(outcome)
    if value is None:
        return None
    update = _object(value, "value")
    return _number(update.get("duration_ms"), "duration_ms"), _token(update, "exit_token")


def batch_size(outcome: Outcome, fallback: int) -> int:
    """How many items an iteration of a background update takes."""
    value = _value(outcome)
    return fallback if value is None else _integer(value, "value")


def renewal(outcome: Outcome) -> tuple[bool, bool, int]:
    """Whether a renewal token is valid, whether it was used before, and until when the account is."""
    value = _value(outcome)
    if value is None:
        return False, False, 0
    renewed = _object(value, "value")
    return (
        _boolean(renewed.get("valid"), "valid"),
        _boolean(renewed.get("stale"), "stale"),
        _integer(renewed.get("expiration_ts"), "expiration_ts"),
    )


def admin_response(outcome: Outcome) -> Any:
    """The answer of a legacy admin endpoint, any JSON."""
    value = _value(outcome)
    if value is None:
        # The module that owned the callback has left, and Synapse's own answer went when it was registered.
        raise internal_error()
    return value


def notified(outcome: Outcome) -> None:
    """A notification has no value."""
    _value(outcome)


def refill(kept: JsonDict, new: Mapping[str, Any]) -> None:
    """Gives a dict other content. It and the dicts and lists inside stay the same objects: others may hold them.

    Keys that stay keep their places: Synapse answers a login in the order of the dict.
    """
    for key in [key for key in kept if key not in new]:
        del kept[key]
    for key, value in new.items():
        old = kept.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            refill(old, value)
            value = old
        elif isinstance(old, list) and isinstance(value, list):
            old[:] = value
            value = old
        kept[key] = value


def _passes(outcome: Outcome) -> bool:
    """Whether the verdict is pass, not deny; an error is raised."""
    verdict = outcome.get("verdict")
    if verdict == "pass":
        return True
    if verdict == "deny":
        return False
    if verdict == "error":
        raise _error(outcome)
    raise BadOutcome("verdict is none of this callback's")


def _value(outcome: Outcome) -> Any:
    if outcome.get("verdict") == "error":
        raise _error(outcome)
    if "value" not in outcome:
        raise BadOutcome("neither value nor error")
    return outcome["value"]


def _error(outcome: Outcome) -> SynapseError:
    status = outcome.get("status")
    # A client would take 2xx for success, and wait for ever after 1xx.
    if not isinstance(status, int) or isinstance(status, bool) or not 300 <= status <= 599:
        raise BadOutcome("status is no HTTP status of an error")
    return SynapseError(
        status,
        _text(outcome.get("error"), "error"),
        _text(outcome.get("errcode"), "errcode"),
        _fields(outcome),
    )


def _denial(outcome: Outcome) -> tuple[str, str | None, JsonDict]:
    error = outcome.get("error")
    return (
        _text(outcome.get("errcode"), "errcode"),
        None if error is None else _text(error, "error"),
        _fields(outcome),
    )


def _denied(errcode: str, error: str | None, fields: JsonDict) -> SynapseError:
    return SynapseError(HTTPStatus.FORBIDDEN, error or "Forbidden", errcode, fields)


def _code(errcode: str) -> Codes | None:
    try:
        return Codes(errcode)
    except ValueError:
        return None


def _fields(outcome: Outcome) -> JsonDict:
    fields = outcome.get("fields")
    if fields is None:
        return {}
    return {key: value for key, value in _object(fields, "fields", str_keys=False).items() if _may_be_sent(key, value)}


def _may_be_sent(key: object, value: object) -> bool:
    return isinstance(key, str) and key not in RESERVED_FIELDS and _is_json(value)


def _is_json(value: object) -> bool:
    if value is None or isinstance(value, (str, bool, int)):
        return True
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _object(value: object, key: str, *, str_keys: bool = True) -> JsonDict:
    if not isinstance(value, dict) or (str_keys and not all(isinstance(name, str) for name in value)):
        raise BadOutcome(f"{key} is no object")
    return value


def _list(value: object, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadOutcome(f"{key} is no array")
    return value


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise BadOutcome(f"{key} is no string")
    return value


def _token(value: JsonDict, key: str) -> str | None:
    token = value.get(key)
    return None if token is None else _text(token, key)


def _boolean(value: object, key: str) -> bool:
    if not isinstance(value, bool):
        raise BadOutcome(f"{key} is no boolean")
    return value


def _integer(value: object, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadOutcome(f"{key} is no integer")
    return value


def _number(value: object, key: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise BadOutcome(f"{key} is no number")
    return value


def _limit(value: object) -> MediaUploadLimit:
    limit = _object(value, "limit")
    info_uri = limit.get("info_uri")
    return MediaUploadLimit(
        max_bytes=_integer(limit.get("max_bytes"), "max_bytes"),
        time_period_ms=_integer(limit.get("time_period_ms"), "time_period_ms"),
        info_uri=None if info_uri is None else _text(info_uri, "info_uri"),
        can_upgrade=_boolean(limit.get("can_upgrade", False), "can_upgrade"),
    )


def _presence(value: object) -> UserPresenceState:
    state = _object(value, "state")
    status_msg = state.get("status_msg")
    return UserPresenceState(
        user_id=_text(state.get("user_id"), "user_id"),
        state=_text(state.get("state"), "state"),
        last_active_ts=_integer(state.get("last_active_ts"), "last_active_ts"),
        last_federation_update_ts=_integer(state.get("last_federation_update_ts"), "last_federation_update_ts"),
        last_user_sync_ts=_integer(state.get("last_user_sync_ts"), "last_user_sync_ts"),
        status_msg=None if status_msg is None else _text(status_msg, "status_msg"),
        currently_active=_boolean(state.get("currently_active"), "currently_active"),
    )
