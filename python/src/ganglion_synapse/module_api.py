"""What Ganglion's modules may ask of Synapse: the methods of `ModuleApi` whose args and results are JSON.

Names, parameters and meaning are Synapse's. A tuple is an array, a state map an array of events, a parsed id its text.
Methods of a member of `ModuleApi` carry its name: `account_data_manager.get_global`.
"""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import attr
from synapse.types import RoomID, UserID

from ganglion_synapse import arguments

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

JsonDict = dict[str, Any]
Method = Callable[["ModuleApi", "Args"], Awaitable[Any]]

# Synapse's default.
LOGIN_TOKEN_MS = 2 * 60 * 1000

METHODS: dict[str, Method] = {}


class BadArgs(ValueError):
    """An arg is missing, unknown or of another type; the text names it and never shows its value."""


class ModuleApiMethods:
    """Calls Synapse's `ModuleApi` by name."""

    def __init__(self, api: ModuleApi) -> None:
        self._api = api

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        """The result of a method, to be dumped with `arguments.default`.

        Raises `LookupError` for a method that is not there, `BadArgs` for args that are not the method's, and what
        Synapse raises: a `SynapseError` is the method's own answer.
        """
        called = METHODS.get(method)
        if called is None or not _has(self._api, method):
            raise LookupError(f"{method} is not something that modules can ask")
        if not isinstance(args, Mapping):
            raise BadArgs("args have to be an object")
        read = Args(args)
        # The method reads its args before it does anything.
        return await called(self._api, read)


class Args:
    """The args of one call. Each is read once; `done` finds those that nobody read."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        self._left = dict(args)

    def text(self, key: str) -> str:
        """A string."""
        return self._of(key, str, "a string")

    def maybe_text(self, key: str) -> str | None:
        """A string, or nothing."""
        return self._of(key, str, "a string") if self._given(key) else None

    def boolean(self, key: str, absent: bool | None = None) -> bool:
        """A boolean."""
        if absent is not None and not self._given(key):
            return absent
        return self._of(key, bool, "a boolean")

    def maybe_integer(self, key: str, absent: int | None = None) -> int | None:
        """An integer, or nothing."""
        if not self._given(key):
            return absent
        value = self._of(key, int, "an integer")
        if isinstance(value, bool):
            raise BadArgs(f"{key} has to be an integer")
        return value

    def object(self, key: str) -> JsonDict:
        """An object."""
        return self._of(key, dict, "an object")

    def maybe_object(self, key: str) -> JsonDict | None:
        """An object, or nothing."""
        return self._of(key, dict, "an object") if self._given(key) else None

    def array(self, key: str) -> list[Any]:
        """An array."""
        return self._of(key, list, "an array")

    def texts(self, key: str) -> list[str]:
        """An array of strings."""
        values = self.array(key)
        if not all(isinstance(value, str) for value in values):
            raise BadArgs(f"{key} has to be an array of strings")
        return values

    def maybe_texts(self, key: str) -> list[str] | None:
        """An array of strings, or nothing."""
        return self.texts(key) if self._given(key) else None

    def state_keys(self, key: str) -> list[tuple[str, str | None]]:
        """An array of pairs: an event type, and a state key or null for any."""
        pairs = self.array(key)
        for pair in pairs:
            if not (
                isinstance(pair, list)
                and len(pair) == 2
                and isinstance(pair[0], str)
                and (pair[1] is None or isinstance(pair[1], str))
            ):
                raise BadArgs(f"{key} has to be an array of pairs of a type and a state key or null")
        return [(pair[0], pair[1]) for pair in pairs]

    def maybe_state_keys(self, key: str) -> list[tuple[str, str | None]] | None:
        """An array of pairs of event type and state key, or nothing."""
        return self.state_keys(key) if self._given(key) else None

    def done(self) -> None:
        """No other args are known. What is null is as if it was not there."""
        for key in sorted(self._left):
            if self._left[key] is not None:
                raise BadArgs(f"{key} is not an arg of this method")

    def _given(self, key: str) -> bool:
        return self._left.get(key) is not None

    def _of(self, key: str, kind: type, meaning: str) -> Any:
        value: Any = self._left.pop(key, None)
        if value is None:
            raise BadArgs(f"{key} is missing")
        if not isinstance(value, kind):
            raise BadArgs(f"{key} has to be {meaning}")
        return value


def _has(api: ModuleApi, method: str) -> bool:
    try:
        operator.attrgetter(method)(api)
    except AttributeError:
        return False
    return True


def _method(name: str, *read: Callable[[Args], Any], result: Callable[[Any], Any] | None = None) -> None:
    """Adds a method that is called with its args by position."""

    async def call(api: ModuleApi, args: Args) -> Any:
        values = [one(args) for one in read]
        args.done()
        returned = operator.attrgetter(name)(api)(*values)
        if isinstance(returned, Awaitable):
            returned = await returned
        return returned if result is None or returned is None else result(returned)

    METHODS[name] = call


def _property(name: str) -> None:
    """Adds a property, as a method without args."""

    async def call(api: ModuleApi, args: Args) -> Any:
        args.done()
        return operator.attrgetter(name)(api)

    METHODS[name] = call


def _text(key: str) -> Callable[[Args], str]:
    return lambda args: args.text(key)


def _maybe_text(key: str) -> Callable[[Args], str | None]:
    return lambda args: args.maybe_text(key)


def _maybe_integer(key: str) -> Callable[[Args], int | None]:
    return lambda args: args.maybe_integer(key)


def _attributes(value: Any) -> JsonDict:
    return {field.name: _plain(getattr(value, field.name)) for field in attr.fields(type(value))}


def _plain(value: Any) -> Any:
    return value.to_string() if isinstance(value, UserID) else value


def _each(turn: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return lambda values: [turn(value) for value in values]


def _push_actions(args: Args) -> list[Any]:
    actions = args.array("actions")
    if not all(isinstance(action, (str, dict)) for action in actions):
        raise BadArgs("actions has to be an array of strings and objects")
    return actions


def _presences(args: Args) -> dict[str, tuple[str, str | None]]:
    users = args.object("users")
    for presence in users.values():
        if not (
            isinstance(presence, list)
            and len(presence) == 2
            and isinstance(presence[0], str)
            and (presence[1] is None or isinstance(presence[1], str))
        ):
            raise BadArgs("users has to be an object of pairs of a state and a message or null")
    return {user: (state, message) for user, (state, message) in users.items()}


def _event_dict(args: Args) -> JsonDict:
    event = args.object("event_dict")
    required = Args({key: event.get(key) for key in ("type", "room_id", "sender", "content")})
    try:
        required.text("type"), required.text("room_id"), required.text("sender"), required.object("content")
    except BadArgs as bad:
        raise BadArgs(f"event_dict.{bad}") from None
    return event


_user_id = _text("user_id")
_room_id = _text("room_id")

_property("public_baseurl")
_property("email_app_name")
_method("should_run_background_tasks")

# Users.
_method("get_userinfo_by_id", _user_id, result=_attributes)
_method("check_user_exists", _user_id)
_method("is_user_admin", _user_id)
_method("set_user_admin", _user_id, lambda args: args.boolean("admin"))
_method("get_qualified_user_id", _text("username"))
_method("get_profile_for_user", _text("localpart"), result=arguments.profile)
_method("get_threepids_for_user", _user_id)
_method(
    "get_user_ip_and_agents", _user_id, lambda args: args.maybe_integer("since_ts", absent=0), result=_each(_attributes)
)
_method("get_monthly_active_users_by_service", _maybe_integer("start_timestamp"), _maybe_integer("end_timestamp"))
_method("is_mine", _text("id"))
_method("check_username", _text("username"))
_method("set_displayname", lambda args: UserID.from_string(args.text("user_id")), _text("new_displayname"))
_method("store_remote_3pid_association", _user_id, _text("medium"), _text("address"), _text("id_server"))

# Registration and login.
_method(
    "register_user",
    _text("localpart"),
    _maybe_text("displayname"),
    lambda args: args.maybe_texts("emails"),
    lambda args: args.boolean("admin", absent=False),
)
_method("register_device", _user_id, _maybe_text("device_id"), _maybe_text("initial_display_name"))
_method("record_user_external_id", _text("auth_provider_id"), _text("remote_user_id"), _text("registered_user_id"))
_method(
    "create_login_token",
    _user_id,
    lambda args: args.maybe_integer("duration_in_ms", absent=LOGIN_TOKEN_MS),
    _maybe_text("auth_provider_id"),
    _maybe_text("auth_provider_session_id"),
)
# Not `invalidate_access_token`: in Synapse 1.163 it fails for every token.

# Rooms.
_method("lookup_room_alias", _text("room_alias"))
_method("get_canonical_room_alias", lambda args: RoomID.from_string(args.text("room_id")), result=arguments.text)
_method(
    "get_room_state",
    _room_id,
    lambda args: args.maybe_state_keys("event_filter"),
    result=lambda state: [arguments.event(event) for event in state.values()],
)
_method(
    "get_state_events_in_room",
    _room_id,
    lambda args: args.state_keys("types"),
    result=_each(arguments.event),
)
_method(
    "create_room",
    _user_id,
    lambda args: args.object("config"),
    lambda args: args.boolean("ratelimit", absent=True),
    lambda args: args.maybe_object("creator_join_profile"),
)
_method("delete_room", _room_id)
_method("create_and_send_event_into_room", _event_dict, result=arguments.event)
_method(
    "update_room_membership",
    _text("sender"),
    _text("target"),
    _room_id,
    _text("new_membership"),
    lambda args: args.maybe_object("content"),
    lambda args: args.maybe_texts("remote_room_hosts"),
    result=arguments.event,
)
for _name in ("room_is_in_public_room_list", "add_room_to_public_room_list", "remove_room_from_public_room_list"):
    _method(f"public_room_list_manager.{_name}", _room_id)

# Account data, push, presence, mail.
_method("account_data_manager.get_global", _user_id, _text("data_type"))
_method("account_data_manager.put_global", _user_id, _text("data_type"), lambda args: args.object("new_data"))
_method("check_push_rule_actions", _push_actions)
_method("set_push_rule_action", _user_id, _text("scope"), _text("kind"), _text("rule_id"), _push_actions)
_method(
    "send_http_push_notification",
    _user_id,
    _maybe_text("device_id"),
    lambda args: args.object("content"),
    lambda args: args.maybe_object("tweaks"),
    lambda args: args.maybe_object("default_payload"),
)
_method("send_local_online_presence_to", lambda args: args.texts("users"))
_method("set_presence_for_users", _presences)
_method("send_mail", _text("recipient"), _text("subject"), _text("html"), _text("text"))
