"""What Synapse itself concludes from several modules' answers.

Ganglion folds the answers of all modules that subscribed to a callback into one outcome, and promises that it is the outcome
Synapse would have come to. This script asks Synapse. Every case names a callback, its args and a chain: one canned answer for each
module, in registration order, in Ganglion's JSON. The script turns each answer into the Python value or exception a Synapse module
would give, registers the modules with Synapse's own classes, lets Synapse's own code walk through them, and writes down the outcome
in Ganglion's words and which modules were asked. `tests/golden/combine.json` is the result, made with Synapse 1.163.2.

    pip install matrix-synapse==1.163.2
    python combine.py                                  # print the golden file
    python combine.py --check ../golden/combine.json   # exit 1 and show the difference

No homeserver is started. Mocks stand in for what surrounds a chain (the database, the config, the clock); a loop that combines
answers is never re-written here, because then this file would only test itself.

Words of an answer: `{"verdict": "pass" | "deny" | "shadow_ban" | "replace", ...}` from a gating callback, `{"value": ...}` from any
other, `{"fail": "error"}` for a plain exception, and the same with `status`, `errcode`, `error`, `fields` for a Matrix error. A deny
without `errcode`, `error`, `fields` means `M_FORBIDDEN`, null, {}. An `on_create_room` that passes carries `request_content` if it
edited the request. A test module must also register what Synapse takes only together: the other one of the presence pair, and
`on_update` beside a batch size.

Left out on purpose: what Ganglion answers differently from Synapse (an override of rate 0, presence for "ALL" without an entry of
its own, a login type registered with two sets of fields, ...), how a return value of a wrong type is read, and `accept_make_join`,
which Synapse does not have.
"""

import argparse
import copy
import difflib
import importlib.metadata
import inspect
import json
import logging
import sys
from contextlib import asynccontextmanager
from unittest.mock import AsyncMock, MagicMock, patch

from twisted.internet import defer
from twisted.python.failure import Failure

import synapse.http.server
import synapse.rest.admin.users
from synapse.api.errors import Codes, SynapseError
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.events import make_event_from_dict
from synapse.events.presence_router import PresenceRouter
from synapse.events.utils import EventClientSerializer, FilteredEvent
from synapse.handlers.account_data import AccountDataHandler
from synapse.handlers.account_validity import AccountValidityHandler
from synapse.handlers.auth import PasswordAuthProvider
from synapse.media._base import FileInfo
from synapse.media.media_storage import ReadableFileWrapper
from synapse.module_api import (
    NOT_SPAM,
    MediaUploadLimit,
    ProfileInfo,
    RatelimitOverride,
    UserPresenceState,
)
from synapse.module_api.callbacks import ModuleApiCallbacks
from synapse.module_api.callbacks.federation import FederatedEventDeliveryMethod
from synapse.spam_checker_api import RegistrationBehaviour
from synapse.storage.background_updates import BackgroundUpdater
from synapse.types import RoomAlias, create_requester

MADE_WITH = "1.163.2"

# A denial without a text leaves the words to the homeserver. Synapse's exceptions always have a text; this one stands for "none".
UNWORDED = "(the homeserver words it)"

INTERNAL_ERROR = {"verdict": "error", "status": 500, "errcode": "M_UNKNOWN", "error": "Internal server error", "fields": {}}


# --- Args -------------------------------------------------------------------------------------------------------------

MESSAGE = {
    "type": "m.room.message",
    "sender": "@bob:example.com",
    "room_id": "!r:example.com",
    "content": {"msgtype": "m.text", "body": "hi"},
    "event_id": "$e",
    "room_version": "11",
}
TOPIC = {
    "type": "m.room.topic",
    "state_key": "",
    "sender": "@bob:example.com",
    "room_id": "!r:example.com",
    "content": {"topic": "x"},
}
INVITE = {
    "type": "m.room.member",
    "state_key": "@bob:example.com",
    "sender": "@eve:remote.example",
    "room_id": "!r:remote.example",
    "content": {"membership": "invite"},
    "event_id": "$i",
    "room_version": "11",
    "unsigned": {
        "invite_room_state": [
            {"type": "m.room.name", "state_key": "", "sender": "@eve:remote.example", "content": {"name": "Lobby"}},
        ],
    },
}
STATE = [
    {
        "type": "m.room.create",
        "state_key": "",
        "sender": "@bob:example.com",
        "room_id": "!r:example.com",
        "content": {},
        "event_id": "$c",
    },
]
ONLINE = {
    "user_id": "@bob:example.com",
    "state": "online",
    "last_active_ts": 1,
    "last_federation_update_ts": 2,
    "last_user_sync_ts": 3,
    "status_msg": None,
    "currently_active": True,
}
AWAY = {**ONLINE, "user_id": "@kim:example.com", "state": "unavailable", "status_msg": "lunch", "currently_active": False}
LIMIT = {"max_bytes": 1000000, "time_period_ms": 3600000, "info_uri": None, "can_upgrade": False}
REQUEST_INFO = [["curl/8", "192.0.2.1"]]
BOB_ADDRESS = {"user_id": "@bob:example.com", "medium": "email", "address": "bob@example.org"}
UIA = {"uia_results": {"m.login.dummy": True}, "params": {"username": "Newbie", "inhibit_login": False}}
UPDATE = {"update_name": "idx", "database_name": "main"}

# Positional order: Synapse passes callbacks their arguments by position.
ARGS = {
    "check_event_for_spam": {"event": MESSAGE},
    "should_drop_federated_event": {"event": {**MESSAGE, "sender": "@eve:remote.example"}},
    "user_may_join_room": {"user": "@bob:example.com", "room": "!r:example.com", "is_invited": True},
    "user_may_invite": {"inviter": "@bob:example.com", "invitee": "@eve:remote.example", "room_id": "!r:example.com"},
    "federated_user_may_invite": {"event": INVITE},
    "user_may_send_3pid_invite": {
        "inviter": "@bob:example.com",
        "medium": "email",
        "address": "kim@example.org",
        "room_id": "!r:example.com",
    },
    "user_may_create_room": {"user_id": "@eve:example.com", "room_config": {"preset": "public_chat"}},
    "user_may_create_room_alias": {"user_id": "@bob:example.com", "room_alias": "#lobby:example.com"},
    "user_may_publish_room": {"user_id": "@bob:example.com", "room_id": "!r:example.com"},
    "user_may_send_state_event": {
        "user_id": "@bob:example.com",
        "room_id": "!r:example.com",
        "event_type": "m.room.topic",
        "state_key": "",
        "content": {"topic": "x"},
    },
    "check_username_for_spam": {
        "user_profile": {"user_id": "@eve:remote.example", "display_name": "Free coins", "avatar_url": None},
        "requester_id": "@bob:example.com",
    },
    "check_registration_for_spam": {
        "email_threepid": {"medium": "email", "address": "x@example.org", "validated_at": 1766000000000},
        "username": "newbie",
        "request_info": REQUEST_INFO,
        "auth_provider_id": None,
    },
    "check_media_file_for_spam": {
        "file_base64": "aGVsbG8=",
        "file_info": {"file_id": "kxVQJfFyNwCM", "server_name": None, "url_cache": False, "thumbnail": None},
    },
    "check_login_for_spam": {
        "user_id": "@bob:example.com",
        "device_id": "ABCDEFGH",
        "initial_display_name": "Bob's phone",
        "request_info": REQUEST_INFO,
        "auth_provider_id": None,
    },
    "check_event_allowed": {"event": TOPIC, "state_events": STATE},
    "on_create_room": {
        "requester": {"user_id": "@bob:example.com"},
        "request_content": {"name": "x"},
        "is_requester_admin": False,
    },
    "check_threepid_can_be_invited": {"medium": "email", "address": "kim@example.org", "state_events": STATE},
    "check_visibility_can_be_modified": {"room_id": "!r:example.com", "state_events": STATE, "new_visibility": "public"},
    "check_can_shutdown_room": {"user_id": "@admin:example.com", "room_id": "!r:example.com"},
    "check_can_deactivate_user": {"user_id": "@bob:example.com", "by_admin": True},
    "on_new_event": {"event": MESSAGE, "state_events": STATE},
    "on_profile_update": {
        "user_id": "@bob:example.com",
        "new_profile": {"display_name": "Bob", "avatar_url": None},
        "by_admin": False,
        "deactivation": False,
    },
    "on_user_deactivation_status_changed": {"user_id": "@bob:example.com", "deactivated": True, "by_admin": False},
    "on_threepid_bind": BOB_ADDRESS,
    "on_add_user_third_party_identifier": BOB_ADDRESS,
    "on_remove_user_third_party_identifier": BOB_ADDRESS,
    "is_user_expired": {"user_id": "@bob:example.com"},
    "on_user_registration": {"user_id": "@newbie:example.com"},
    "on_user_login": {"user_id": "@bob:example.com", "auth_provider_type": "m.login.password", "auth_provider_id": None},
    "on_legacy_send_mail": {"user_id": "@bob:example.com"},
    "on_legacy_renew": {"renewal_token": "abc"},
    "on_legacy_admin_request": {
        "request": {
            "method": "POST",
            "path": "/_synapse/admin/v1/account_validity/validity",
            "query": "",
            "headers": [["content-type", "application/json"]],
            "body_base64": "e30=",
        },
    },
    "auth_checkers": {"username": "bob", "login_type": "m.login.password", "login_dict": {"password": "secret"}},
    "check_3pid_auth": {"medium": "email", "address": "bob@example.org", "password": "secret"},
    "on_logged_out": {"user_id": "@bob:example.com", "device_id": "ABCDEFGH", "access_token": "t"},
    "get_username_for_registration": UIA,
    "get_displayname_for_registration": UIA,
    "is_3pid_allowed": {"medium": "email", "address": "bob@example.org", "registration": True},
    "get_users_for_states": {"state_updates": [ONLINE]},
    "get_interested_users": {"user_id": "@bob:example.com"},
    "on_update": {**UPDATE, "one_shot": False},
    "default_batch_size": UPDATE,
    "min_batch_size": UPDATE,
    "on_account_data_updated": {
        "user_id": "@bob:example.com",
        "room_id": None,
        "account_data_type": "m.ignored_user_list",
        "content": {"ignored_users": {"@eve:remote.example": {}}},
    },
    "add_field_to_unsigned": {"event": MESSAGE},
    "get_media_config_for_user": {"user_id": "@bob:example.com"},
    "is_user_allowed_to_upload_media_of_size": {"user_id": "@bob:example.com", "size": 2000000},
    "get_media_upload_limits_for_user": {"user_id": "@bob:example.com"},
    "on_media_upload_limit_exceeded": {
        "user_id": "@bob:example.com",
        "limit": LIMIT,
        "sent_bytes": 900000,
        "attempted_bytes": 200000,
    },
    "get_ratelimit_override_for_user": {"user_id": "@bob:example.com", "limiter_name": "rc_invites.per_user"},
    "on_event_delivered_over_federation": {
        "delivery": {"server_name": "remote.example", "method": "/send", "events": [MESSAGE]},
    },
}


def event(pdu):
    """A Synapse event; what the JSON form may leave out is filled with the emptiest value that Synapse takes."""
    pdu = copy.deepcopy(pdu)
    version = KNOWN_ROOM_VERSIONS[pdu.pop("room_version", "11")]
    # Synapse computes the id of such an event and refuses to be given one.
    pdu.pop("event_id", None)
    for key, filler in {
        "origin_server_ts": 0,
        "depth": 0,
        "auth_events": [],
        "prev_events": [],
        "hashes": {"sha256": ""},
        "signatures": {},
        "unsigned": {},
    }.items():
        pdu.setdefault(key, filler)
    return make_event_from_dict(pdu, version)


def state_map(events):
    return {(e.type, e.state_key): e for e in map(event, events)}


NATIVE_ARG = {
    "event": event,
    "state_events": state_map,
    "room_alias": RoomAlias.from_string,
    "request_info": lambda pairs: [tuple(pair) for pair in pairs],
    "file_base64": lambda _: MagicMock(spec=ReadableFileWrapper),
    "file_info": lambda info: FileInfo(**info),
    "requester": lambda requester: create_requester(requester["user_id"]),
    "new_profile": lambda profile: ProfileInfo(**profile),
    "state_updates": lambda updates: [UserPresenceState(**update) for update in updates],
    "limit": lambda limit: MediaUploadLimit(**limit),
    "request": lambda _: MagicMock(),
}


def native_args(args):
    return {name: NATIVE_ARG.get(name, lambda x: x)(copy.deepcopy(arg)) for name, arg in args.items()}


# --- Answers: from JSON to what a Synapse module returns or raises ----------------------------------------------------


class Denial(SynapseError):
    """A denial for which the callback has no return value that holds all of it."""

    def __init__(self, answer):
        code, text, fields = denial_parts(answer)
        super().__init__(403, UNWORDED if text is None else text, code, fields)


def denial_parts(answer):
    return answer.get("errcode", "M_FORBIDDEN"), answer.get("error"), dict(answer.get("fields", {}))


def code_and_fields(answer):
    """Codes where the bare code says it all; else the pair whose fields may override the text, and the code too."""
    code, text, fields = denial_parts(answer)
    if text is not None:
        fields["error"] = text
    try:
        code = Codes(code)
    except ValueError:
        fields["errcode"], code = code, Codes.FORBIDDEN
    return (code, fields) if fields else code


def bare_code(answer):
    code, text, fields = denial_parts(answer)
    if text is not None or fields:
        # A pair would be taken for an invalid answer and lose its code.
        raise Denial(answer)
    return Codes(code)


def yes_or_no(yes, no):
    """For callbacks that answer with one of two values: a denial with a code or a text of its own could not be told apart."""

    def native(answer):
        if answer["verdict"] == "pass":
            return yes
        assert denial_parts(answer) == ("M_FORBIDDEN", None, {}), answer
        return no

    return native


def not_spam_or(denial):
    return lambda answer: NOT_SPAM if answer["verdict"] == "pass" else denial(answer)


def registration_behaviour(answer):
    return RegistrationBehaviour(yes_or_no("allow", "deny")(answer) if answer["verdict"] != "shadow_ban" else "shadow_ban")


def event_allowed(answer):
    if answer["verdict"] == "deny":
        if denial_parts(answer) != ("M_FORBIDDEN", None, {}):
            raise Denial(answer)
        return False, None
    return True, copy.deepcopy(answer.get("event"))


def edit_in_place(answer, requester, request_content, is_requester_admin):
    if answer["verdict"] == "deny":
        raise Denial(answer)
    if "request_content" in answer:
        request_content.clear()
        request_content.update(copy.deepcopy(answer["request_content"]))


def value(native):
    """A callback without a verdict: null is None everywhere."""
    return lambda answer: None if answer["value"] is None else native(copy.deepcopy(answer["value"]))


@asynccontextmanager
async def duration(answer):
    yield answer["duration_ms"]


plain = value(lambda x: x)
authenticated = value(lambda found: (found["user_id"], None))

NATIVE_ANSWER = {
    **dict.fromkeys(
        [
            "check_event_for_spam",
            "user_may_join_room",
            "user_may_invite",
            "federated_user_may_invite",
            "user_may_send_3pid_invite",
            "user_may_create_room",
            "user_may_create_room_alias",
            "user_may_publish_room",
            "check_login_for_spam",
        ],
        not_spam_or(code_and_fields),
    ),
    "user_may_send_state_event": not_spam_or(bare_code),
    "check_media_file_for_spam": not_spam_or(bare_code),
    **dict.fromkeys(["should_drop_federated_event", "check_username_for_spam"], yes_or_no(False, True)),
    "check_registration_for_spam": registration_behaviour,
    "check_event_allowed": event_allowed,
    **dict.fromkeys(
        [
            "check_threepid_can_be_invited",
            "check_visibility_can_be_modified",
            "check_can_shutdown_room",
            "check_can_deactivate_user",
            "is_3pid_allowed",
            "is_user_allowed_to_upload_media_of_size",
        ],
        yes_or_no(True, False),
    ),
    "auth_checkers": authenticated,
    "check_3pid_auth": authenticated,
    "get_users_for_states": value(
        lambda found: {user: {UserPresenceState(**state) for state in states} for user, states in found.items()}
    ),
    "get_interested_users": value(lambda found: found if found == "ALL" else set(found)),
    "get_media_upload_limits_for_user": value(lambda limits: [MediaUploadLimit(**limit) for limit in limits]),
    "get_ratelimit_override_for_user": value(lambda override: RatelimitOverride(**override)),
    "on_legacy_renew": value(lambda found: (found["valid"], found["stale"], found["expiration_ts"])),
}


class ModuleBug(Exception):
    """Any exception that is not a Matrix error."""


class Modules:
    """The modules of one case: Python callbacks made of the chain, and a record of which were asked."""

    def __init__(self, case):
        self.name, self.chain = case["callback"], case["chain"]
        self.asked = []
        self.raised = []
        self.callbacks = [self.callback(index, answer) for index, answer in enumerate(self.chain)]

    def callback(self, index, answer):
        arity = len(ARGS[self.name])

        def respond(*args):
            self.asked.append(index)
            try:
                assert len(args) == arity, f"{self.name} was called with {len(args)} arguments"
                return self.respond(answer, args)
            except Exception as e:
                self.raised.append(e)
                raise

        async def respond_async(*args):
            return respond(*args)

        # The only callback that Synapse does not await.
        chosen = respond if self.name == "on_update" else respond_async
        # Synapse counts the parameters of some callbacks to tell old modules from new ones.
        chosen.__signature__ = inspect.Signature(
            inspect.Parameter(arg, inspect.Parameter.POSITIONAL_ONLY) for arg in ARGS[self.name]
        )
        return chosen

    def respond(self, answer, args):
        if "fail" in answer:
            assert answer["fail"] == "error", answer
            if "status" in answer:
                raise SynapseError(answer["status"], answer["error"], answer["errcode"], answer.get("fields"))
            raise ModuleBug
        if self.name == "on_create_room":
            return edit_in_place(answer, *args)
        if self.name == "on_update":
            return duration(answer["value"])
        return NATIVE_ANSWER.get(self.name, plain)(answer)

    def anyone_answered(self):
        """Synapse concludes from a merge that nobody contributed to the same as from one of empty answers; Ganglion does not."""
        return any("fail" not in self.chain[index] for index in self.asked)


# --- Synapse: its own classes, with mocks around them -----------------------------------------------------------------


class NobodyAnswered(Exception):
    """Synapse fell back to what it does without modules."""


def homeserver():
    hs = MagicMock()
    hs.hostname = "example.com"
    hs.get_clock().time.return_value = 0.0
    # The older, built-in account validity is what Synapse asks when no module knows whether a user has expired. Left on, it makes
    # "nobody answered" and "not expired" two different things.
    hs.config.account_validity.account_validity_enabled = True
    hs.config.account_validity.account_validity_renew_by_email_enabled = False
    hs.get_datastores().main.is_account_expired = AsyncMock(side_effect=NobodyAnswered)
    callbacks = ModuleApiCallbacks(hs)
    hs.get_module_api_callbacks.return_value = callbacks
    return hs, callbacks


async def ask_spam_checker(modules, args):
    _, callbacks = homeserver()
    for callback in modules.callbacks:
        callbacks.spam_checker.register_callbacks(**{modules.name: callback})
    found = await getattr(callbacks.spam_checker, modules.name)(*args.values())
    if modules.name == "check_registration_for_spam":
        return {"allow": passed(), "deny": denied(), "shadow_ban": {"verdict": "shadow_ban"}}[found.value]
    if isinstance(found, bool):
        # Dropped, or hidden.
        return denied() if found else passed()
    return passed() if found is NOT_SPAM else denied(*found)


async def ask_third_party_rules(modules, args):
    hs, callbacks = homeserver()
    rules = callbacks.third_party_event_rules
    for callback in modules.callbacks:
        rules.register_third_party_rules_callbacks(**{modules.name: callback})
    hs.get_storage_controllers().state.get_current_state = AsyncMock(return_value=args.get("state_events"))
    ask = getattr(rules, modules.name)
    if modules.name == "check_event_allowed":
        state = {e.event_id: e for e in args["state_events"].values()}
        rules.store.get_events = AsyncMock(return_value=state)
        context = MagicMock(get_prev_state_ids=AsyncMock(return_value={key: e.event_id for key, e in args["state_events"].items()}))
        allowed, replacement = await ask(args["event"], context)
        if replacement is not None:
            return {"verdict": "replace", "event": replacement}
        return passed() if allowed else denied()
    if modules.name == "on_create_room":
        await ask(*args.values())
        return {"verdict": "pass", "request_content": args["request_content"]}
    if modules.name == "on_new_event":
        rules.store.get_event = AsyncMock(return_value=args["event"])
        return notified(await ask("$e"))
    # Synapse takes the room and looks up the state itself.
    if modules.name == "check_threepid_can_be_invited":
        return passed() if await ask(args["medium"], args["address"], "!r:example.com") else denied()
    if modules.name == "check_visibility_can_be_modified":
        return passed() if await ask(args["room_id"], args["new_visibility"]) else denied()
    found = await ask(*args.values())
    if modules.name.startswith("check_"):
        return passed() if found else denied()
    return notified(found)


async def ask_account_validity(modules, args):
    hs, callbacks = homeserver()
    for callback in modules.callbacks:
        callbacks.account_validity.register_callbacks(**{modules.name: callback})
    handler = AccountValidityHandler(hs)
    if modules.name == "is_user_expired":
        try:
            return {"value": await handler.is_user_expired(**args)}
        except NobodyAnswered:
            return {"value": None}
    if modules.name == "on_legacy_send_mail":
        return notified(await handler.send_renewal_email_to_user(**args))
    if modules.name == "on_legacy_renew":
        valid, stale, expiration_ts = await handler.renew_account(**args)
        return {"value": {"valid": valid, "stale": stale, "expiration_ts": expiration_ts}}
    if modules.name == "on_legacy_admin_request":
        hs.get_account_validity_handler.return_value = handler
        servlet = synapse.rest.admin.users.AccountValidityRenewServlet(hs)
        with patch.object(synapse.rest.admin.users, "assert_requester_is_admin", AsyncMock()):
            _, body = await servlet.on_POST(args["request"])
        return {"value": body["expiration_ts"]}
    return notified(await getattr(handler, modules.name)(**args))


async def ask_password_auth_provider(modules, args):
    provider = PasswordAuthProvider()
    for callback in modules.callbacks:
        if modules.name == "auth_checkers":
            callback = {("m.login.password", ("password",)): callback}
        provider.register_password_auth_provider_callbacks(**{modules.name: callback})
    if modules.name == "auth_checkers":
        # Logging in with a type that no module has ends before any of them is asked.
        if args["login_type"] not in provider.get_supported_login_types():
            return {"value": None}
        found = await provider.check_auth(**args)
    else:
        found = await getattr(provider, modules.name)(**args)
    if modules.name in ("auth_checkers", "check_3pid_auth"):
        return {"value": None if found is None else {"user_id": found[0], "login_callback": found[1]}}
    if modules.name == "is_3pid_allowed":
        return passed() if found else denied()
    return {"value": found}


async def ask_presence_router(modules, args):
    router = PresenceRouter(MagicMock())
    for callback in modules.callbacks:
        # Synapse takes the pair or nothing.
        pair = {"get_users_for_states": AsyncMock(), "get_interested_users": AsyncMock(), modules.name: callback}
        router.register_presence_router_callbacks(**pair)
    found = await getattr(router, modules.name)(**args)
    if not modules.anyone_answered():
        assert not found, found
        return {"value": None}
    if modules.name == "get_users_for_states":
        # Sets, sorted only so that the file is stable.
        states = {user: sorted((s.as_dict() for s in states), key=lambda s: s["user_id"]) for user, states in found.items()}
        return {"value": states}
    return {"value": found if found == "ALL" else sorted(found)}


async def ask_background_updates(modules, args):
    updater = BackgroundUpdater(homeserver()[0], MagicMock())
    for callback in modules.callbacks:
        # The first registration owns all three callbacks, and on_update is the one that it must have.
        updater.register_update_controller_callbacks(**{"on_update": MagicMock(), modules.name: callback})
    if modules.name == "on_update":
        # A canned answer leaves nothing to run at the end, so there is never a token for it.
        async with updater._get_context_manager_for_update(False, *args.values()) as duration_ms:
            return {"value": {"duration_ms": duration_ms, "exit_token": None}}
    return {"value": await getattr(updater, f"_{modules.name}")(**args)}


async def ask_account_data(modules, args):
    handler = AccountDataHandler(homeserver()[0])
    for callback in modules.callbacks:
        handler.register_module_callbacks(callback)
    return notified(await handler._notify_modules(**args))


async def ask_event_serializer(modules, args):
    serializer = EventClientSerializer(homeserver()[0])
    for callback in modules.callbacks:
        serializer.register_add_extra_fields_to_unsigned_client_event_callback(callback)
    shown = FilteredEvent(event=args["event"], membership=None)
    _, additions = await serializer._prepare_serialization([shown], None)
    # Events that got no fields have no entry.
    return {"value": additions.get(args["event"].event_id, {}) if modules.anyone_answered() else None}


async def ask_media_repository(modules, args):
    _, callbacks = homeserver()
    for callback in modules.callbacks:
        callbacks.media_repository.register_callbacks(**{modules.name: callback})
    found = await getattr(callbacks.media_repository, modules.name)(**args)
    if modules.name == "is_user_allowed_to_upload_media_of_size":
        return passed() if found else denied()
    if modules.name == "get_media_upload_limits_for_user" and found is not None:
        return {"value": [{key: getattr(limit, key) for key in LIMIT} for limit in found]}
    return {"value": found}


async def ask_ratelimit(modules, args):
    _, callbacks = homeserver()
    for callback in modules.callbacks:
        callbacks.ratelimit.register_callbacks(callback)
    found = await callbacks.ratelimit.get_ratelimit_override_for_user(**args)
    return {"value": None if found is None else {"per_second": found.per_second, "burst_count": found.burst_count}}


async def ask_federation(modules, args):
    _, callbacks = homeserver()
    for callback in modules.callbacks:
        callbacks.federation.register_callbacks(callback)
    delivery = args["delivery"]
    return notified(
        await callbacks.federation.notify_on_event_delivered_over_federation(
            delivery["server_name"],
            [event(pdu) for pdu in delivery["events"]],
            FederatedEventDeliveryMethod(delivery["method"]),
        )
    )


FAMILIES = {
    ask_spam_checker: [
        "check_event_for_spam",
        "should_drop_federated_event",
        "user_may_join_room",
        "user_may_invite",
        "federated_user_may_invite",
        "user_may_send_3pid_invite",
        "user_may_create_room",
        "user_may_create_room_alias",
        "user_may_publish_room",
        "user_may_send_state_event",
        "check_username_for_spam",
        "check_registration_for_spam",
        "check_media_file_for_spam",
        "check_login_for_spam",
    ],
    ask_third_party_rules: [
        "check_event_allowed",
        "on_create_room",
        "check_threepid_can_be_invited",
        "check_visibility_can_be_modified",
        "check_can_shutdown_room",
        "check_can_deactivate_user",
        "on_new_event",
        "on_profile_update",
        "on_user_deactivation_status_changed",
        "on_threepid_bind",
        "on_add_user_third_party_identifier",
        "on_remove_user_third_party_identifier",
    ],
    ask_account_validity: [
        "is_user_expired",
        "on_user_registration",
        "on_user_login",
        "on_legacy_send_mail",
        "on_legacy_renew",
        "on_legacy_admin_request",
    ],
    ask_password_auth_provider: [
        "auth_checkers",
        "check_3pid_auth",
        "on_logged_out",
        "get_username_for_registration",
        "get_displayname_for_registration",
        "is_3pid_allowed",
    ],
    ask_presence_router: ["get_users_for_states", "get_interested_users"],
    ask_background_updates: ["on_update", "default_batch_size", "min_batch_size"],
    ask_account_data: ["on_account_data_updated"],
    ask_event_serializer: ["add_field_to_unsigned"],
    ask_media_repository: [
        "get_media_config_for_user",
        "is_user_allowed_to_upload_media_of_size",
        "get_media_upload_limits_for_user",
        "on_media_upload_limit_exceeded",
    ],
    ask_ratelimit: ["get_ratelimit_override_for_user"],
    ask_federation: ["on_event_delivered_over_federation"],
}
ASK = {name: ask for ask, names in FAMILIES.items() for name in names}


# --- Outcomes: from what Synapse concluded to JSON --------------------------------------------------------------------


def passed():
    return {"verdict": "pass"}


def notified(returned):
    assert returned is None, returned
    return {"value": None}


def denied(code=Codes.FORBIDDEN, fields=None):
    # Every caller of such a chain raises this, so Synapse's own error body says which of code, text and fields overrides which.
    _, body = response_to(SynapseError(403, UNWORDED, code, fields))
    return denial(body)


def denial(body):
    errcode, error = body.pop("errcode"), body.pop("error")
    return {"verdict": "deny", "errcode": errcode, "error": None if error == UNWORDED else error, "fields": body}


def response_to(exception):
    """The status and the body with which Synapse's HTTP layer answers a request that ended in this exception."""
    with patch.object(synapse.http.server, "respond_with_json") as respond:
        synapse.http.server.return_json_error(Failure(exception), MagicMock(startedWriting=False), None)
    _, status, body = respond.call_args.args
    # Codes become the strings that a client reads.
    return int(status), json.loads(json.dumps(body))


def outcome_of(exception, modules):
    status, body = response_to(exception)
    if isinstance(exception, Denial):
        return denial(body)
    if not any(exception is raised for raised in modules.raised):
        # Synapse put its own exception in the place of the module's.
        if status == 403:
            return denial({**body, "error": UNWORDED})
        assert (status, body["errcode"]) == (500, "M_UNKNOWN"), (status, body)
        return INTERNAL_ERROR
    errcode, error = body.pop("errcode"), body.pop("error")
    return {"verdict": "error", "status": status, "errcode": errcode, "error": error, "fields": body}


def run(case):
    modules = Modules(case)

    async def conclude():
        try:
            return await ASK[case["callback"]](modules, native_args(case["args"]))
        except Exception as e:
            if not modules.raised:
                # This script is broken, not a module.
                raise
            return outcome_of(e, modules)

    concluded = []
    defer.ensureDeferred(conclude()).addBoth(concluded.append)
    # Nothing here waits, so the chain has ended.
    (outcome,) = concluded
    # Some chains swallow whatever a module raises, so a mistake of this script would pass for a failed module.
    mistakes = [e for e in modules.raised if not isinstance(e, (ModuleBug, SynapseError))]
    if isinstance(outcome, Failure):
        mistakes.append(outcome.value)
    if mistakes:
        raise RuntimeError(f"cannot run {case['name']!r}") from mistakes[0]
    return {**case, "outcome": outcome, "asked": modules.asked}


# --- Cases ------------------------------------------------------------------------------------------------------------

PASS = {"verdict": "pass"}
SHADOW_BAN = {"verdict": "shadow_ban"}
FAIL = {"fail": "error"}
SLOW_DOWN = {
    "fail": "error",
    "status": 429,
    "errcode": "M_LIMIT_EXCEEDED",
    "error": "slow down",
    "fields": {"retry_after_ms": 2000},
}
TEAPOT = {"fail": "error", "status": 418, "errcode": "ORG.EXAMPLE.TEAPOT", "error": "short and stout", "fields": {}}
NEUTRAL = {"value": None}
BOB = {"value": {"user_id": "@bob:example.com"}}
KIM = {"value": {"user_id": "@kim:example.com"}}


def deny(errcode=None, error=None, **fields):
    parts = {"errcode": errcode, "error": error, "fields": fields}
    return {"verdict": "deny", **{key: part for key, part in parts.items() if part}}


def replace(content):
    return {"verdict": "replace", "event": {**TOPIC, "content": content}}


def edit(**request_content):
    return {"verdict": "pass", "request_content": request_content}


def answer(value):
    return {"value": value}


def limit(max_bytes, time_period_ms, info_uri=None, can_upgrade=False):
    return {"max_bytes": max_bytes, "time_period_ms": time_period_ms, "info_uri": info_uri, "can_upgrade": can_upgrade}


NAMED = {}


def case(callback, sentence, chain, **args):
    name = f"{callback}: {sentence}"
    assert name not in NAMED, name
    NAMED[name] = {"name": name, "callback": callback, "args": {**ARGS[callback], **args}, "chain": chain}


# first_deny
case("check_event_for_spam", "nobody subscribed, so it passes", [])
case("check_event_for_spam", "all neutral passes, and all are asked in order", [PASS, PASS, PASS])
case("check_event_for_spam", "the first denial ends the chain at once", [deny("M_LIMIT_EXCEEDED"), PASS, deny()])
case("check_event_for_spam", "a denial in the middle ends the chain there", [PASS, deny("M_TOO_LARGE"), PASS])
case("check_event_for_spam", "the last module may still deny", [PASS, PASS, deny()])
case("check_event_for_spam", "of two denials the one registered first counts", [deny("M_BAD_STATE"), deny("M_TOO_LARGE")])
case("check_event_for_spam", "the same two denials the other way round", [deny("M_TOO_LARGE"), deny("M_BAD_STATE")])
case("check_event_for_spam", "a module's text replaces the homeserver's", [deny(error="no links, please")])
case(
    "check_event_for_spam",
    "code, text and fields go out together",
    [PASS, deny("M_LIMIT_EXCEEDED", "later", retry_after_ms=5000, **{"org.example.why": ["links"]})],
)
case("check_event_for_spam", "a plain exception fails the operation and hides a later denial", [FAIL, deny()])
case("check_event_for_spam", "a Matrix error is the module's own word and ends the chain", [PASS, SLOW_DOWN, PASS])
case("check_event_for_spam", "a denial comes before a later failure", [deny(), FAIL])

case("should_drop_federated_event", "all neutral keeps the event", [PASS, PASS])
case("should_drop_federated_event", "the first to drop ends the chain", [PASS, deny(), PASS])
case("should_drop_federated_event", "a plain exception is an error", [PASS, FAIL, deny()])

case("user_may_join_room", "nobody subscribed, so it passes", [])
case("user_may_join_room", "all neutral passes", [PASS, PASS], is_invited=False)
case("user_may_join_room", "the second of three denies", [PASS, deny("M_NOT_FOUND"), FAIL])
case("user_may_join_room", "a plain exception is an error, not a denial", [PASS, FAIL, PASS])
case("user_may_join_room", "a Matrix error keeps its own status", [TEAPOT, deny()])

case("user_may_invite", "all neutral passes", [PASS, PASS])
case(
    "user_may_invite",
    "a code that Synapse does not know reaches the client too",
    [PASS, deny("ORG.EXAMPLE.NO_INVITES", "ask an admin", policy="https://example.com/invites")],
)
case("user_may_invite", "fields without a text leave the words to the homeserver", [deny("M_FORBIDDEN", None, reason_id=7), PASS])

case("federated_user_may_invite", "all neutral passes", [PASS, PASS])
case("federated_user_may_invite", "the first denial wins over a second", [deny("M_INVITE_BLOCKED"), deny()])
case("federated_user_may_invite", "a Matrix error passes through", [SLOW_DOWN])

case("user_may_send_3pid_invite", "all neutral passes", [PASS])
case("user_may_send_3pid_invite", "the last one denies with a code and a text", [PASS, deny("M_THREEPID_DENIED", "no mail")])

case("user_may_create_room", "all neutral passes", [PASS, PASS])
case("user_may_create_room", "text and fields without a code mean M_FORBIDDEN", [PASS, deny(None, "not today", **{"org.x": 7}), PASS])
case("user_may_create_room", "a plain exception is an error", [FAIL])

case("user_may_create_room_alias", "all neutral passes", [PASS, PASS])
case("user_may_create_room_alias", "the first denies", [deny("M_BAD_ALIAS"), PASS])

case("user_may_publish_room", "all neutral passes", [PASS, PASS])
case("user_may_publish_room", "the second denies", [PASS, deny(), PASS])
case("user_may_publish_room", "a plain exception of the second is an error", [PASS, FAIL])

case("user_may_send_state_event", "all neutral passes", [PASS, PASS])
case("user_may_send_state_event", "a bare code is kept", [PASS, deny("M_BAD_STATE"), PASS])
case("user_may_send_state_event", "text and fields are kept as well", [deny("M_BAD_STATE", "no topics", org_x=True), PASS])

case("check_username_for_spam", "all neutral shows the user", [PASS, PASS])
case("check_username_for_spam", "the first to hide ends the chain", [deny(), PASS])
case("check_username_for_spam", "a plain exception is an error", [PASS, FAIL, deny()])

case("check_registration_for_spam", "all neutral passes", [PASS, PASS])
case("check_registration_for_spam", "a ban before a denial counts", [PASS, SHADOW_BAN, deny()])
case("check_registration_for_spam", "a denial before a ban counts", [deny(), SHADOW_BAN])
case("check_registration_for_spam", "a plain exception hides a later ban", [FAIL, SHADOW_BAN])
case("check_registration_for_spam", "a Matrix error keeps its own status", [SLOW_DOWN, SHADOW_BAN])

case("check_media_file_for_spam", "all neutral passes", [PASS, PASS])
case("check_media_file_for_spam", "the second denies with a code", [PASS, deny("M_TOO_LARGE"), PASS])

case("check_login_for_spam", "all neutral passes", [PASS, PASS])
case("check_login_for_spam", "the first denies with code and fields", [deny("M_USER_DEACTIVATED", None, since=1766000000000), PASS])

case("check_threepid_can_be_invited", "all neutral passes", [PASS, PASS])
case("check_threepid_can_be_invited", "any failure is skipped, and a later denial counts", [FAIL, SLOW_DOWN, deny(), PASS])
case("check_visibility_can_be_modified", "the first denies", [deny(), PASS])
case("check_visibility_can_be_modified", "a lone failure allows", [FAIL])
case("check_can_shutdown_room", "the last one denies", [PASS, PASS, deny()])
case("check_can_shutdown_room", "nobody in particular asks, and all allow", [PASS, FAIL], user_id=None)
case("check_can_deactivate_user", "all neutral passes", [PASS, PASS])
case("check_can_deactivate_user", "even a Matrix error allows", [SLOW_DOWN, PASS])
case("check_can_deactivate_user", "the first of two denials ends the chain", [deny(), deny()])

case("is_3pid_allowed", "all neutral passes", [PASS, PASS])
case("is_3pid_allowed", "the second denies", [PASS, deny(), FAIL])
case("is_3pid_allowed", "a plain exception is an error", [FAIL, deny()])
case("is_3pid_allowed", "a Matrix error loses its own values", [PASS, SLOW_DOWN, deny()])

case("is_user_allowed_to_upload_media_of_size", "all neutral passes", [PASS, PASS])
case("is_user_allowed_to_upload_media_of_size", "the first denies", [deny(), PASS])
case("is_user_allowed_to_upload_media_of_size", "a Matrix error passes through", [PASS, TEAPOT])

# rewrite
case("check_event_allowed", "nobody subscribed, so it passes", [])
case("check_event_allowed", "all neutral passes", [PASS, PASS])
case("check_event_allowed", "a denial before a replacement counts", [deny(), replace({"topic": "y"})])
case("check_event_allowed", "a replacement ends the chain, so nobody denies it", [PASS, replace({"topic": "y"}), deny()])
case("check_event_allowed", "of two replacements the first counts", [replace({"topic": "y"}), replace({"topic": "z"})])
case("check_event_allowed", "an empty replacement is a replacement", [{"verdict": "replace", "event": {}}, deny()])
case("check_event_allowed", "a denial keeps code, text and fields", [PASS, deny("M_BAD_STATE", "no topics", org_x=1), PASS])
case("check_event_allowed", "a plain exception is an error", [PASS, FAIL, replace({"topic": "y"})])
case("check_event_allowed", "a Matrix error passes through", [SLOW_DOWN, deny()])

case("on_create_room", "nobody subscribed, so the content is as given", [])
case("on_create_room", "all neutral leaves the content as given", [PASS, PASS], request_content={"name": "x", "invite": []})
case("on_create_room", "an edit survives a later module that edits nothing", [edit(name="x", visibility="private"), PASS])
case("on_create_room", "of two edits the later one has the last word", [edit(name="x", topic="one"), PASS, edit(topic="two")])
case("on_create_room", "an edit may leave nothing", [edit(), PASS])
case("on_create_room", "a denial forgets the edits before it", [edit(name="y"), deny("M_BAD_STATE", "too many rooms"), PASS])
case("on_create_room", "a denial without words", [deny(), edit(name="y")])
case("on_create_room", "a plain exception denies", [edit(name="y"), FAIL, PASS])
case("on_create_room", "a Matrix error passes through", [PASS, SLOW_DOWN, deny()])

# first_answer
case("is_user_expired", "nobody answered", [NEUTRAL, NEUTRAL])
case("is_user_expired", "false is an answer, so a later true is not asked for", [NEUTRAL, answer(False), answer(True)])
case("is_user_expired", "true before false", [answer(True), answer(False)])
case("is_user_expired", "a plain exception hides a later answer", [NEUTRAL, FAIL, answer(False)])
case("is_user_expired", "a Matrix error passes through", [TEAPOT, answer(False)])

case("auth_checkers", "nobody answered", [NEUTRAL, NEUTRAL])
case("auth_checkers", "the first success wins", [NEUTRAL, BOB, KIM])
case("auth_checkers", "failures of any kind are skipped", [FAIL, SLOW_DOWN, BOB])
case("auth_checkers", "only failures means nobody answered", [SLOW_DOWN, FAIL])
case("auth_checkers", "a login type that nobody has reaches nobody", [BOB, KIM], login_type="com.example.code", login_dict={"code": "1"})
case("check_3pid_auth", "nobody answered", [NEUTRAL])
case("check_3pid_auth", "the first success after a failure wins", [FAIL, KIM, BOB])

case("get_username_for_registration", "nobody answered", [NEUTRAL, NEUTRAL])
case("get_username_for_registration", "an empty string is an answer", [NEUTRAL, answer(""), answer("bob")])
case("get_username_for_registration", "a plain exception is an error", [FAIL, answer("bob")])
case("get_username_for_registration", "a Matrix error loses its own values", [NEUTRAL, SLOW_DOWN, answer("bob")])
case("get_displayname_for_registration", "the first string wins", [answer("Bob"), answer("Robert")])
case("get_displayname_for_registration", "a Matrix error loses its own values", [TEAPOT])

case("get_media_config_for_user", "nobody answered, an empty object included", [NEUTRAL, answer({})])
case(
    "get_media_config_for_user",
    "an empty object is neutral, and the first that says something is the whole body",
    [answer({}), answer({"m.upload.size": 1048576}), answer({"m.upload.size": 5, "org.x": 1})],
)
case("get_media_config_for_user", "a plain exception hides a later answer", [FAIL, answer({"m.upload.size": 1})])

case("get_media_upload_limits_for_user", "nobody answered", [NEUTRAL, NEUTRAL])
case(
    "get_media_upload_limits_for_user",
    "the longest period goes first, and equal periods keep their order",
    [
        NEUTRAL,
        answer(
            [
                limit(1000, 60000),
                limit(5000000, 86400000, "https://example.com/plans", True),
                limit(7, 3600000),
                limit(6, 3600000),
            ]
        ),
        answer([]),
    ],
)
case("get_media_upload_limits_for_user", "an empty list means no limit, and is an answer", [answer([]), answer([limit(1, 1)])])
case("get_media_upload_limits_for_user", "a Matrix error passes through", [SLOW_DOWN, answer([])])

case("get_ratelimit_override_for_user", "nobody answered", [NEUTRAL, NEUTRAL])
case(
    "get_ratelimit_override_for_user",
    "the first override wins",
    [NEUTRAL, answer({"per_second": 2.5, "burst_count": 10}), answer({"per_second": 0.5, "burst_count": 1})],
)
case("get_ratelimit_override_for_user", "a plain exception is an error", [FAIL, answer({"per_second": 2.5, "burst_count": 10})])

# merge
case("get_users_for_states", "nobody subscribed", [])
case("get_users_for_states", "an empty answer is an answer", [answer({})])
case(
    "get_users_for_states",
    "the union for each user, equal states once",
    [
        answer({"@eve:remote.example": [ONLINE]}),
        answer({"@eve:remote.example": [AWAY, ONLINE], "@sam:example.com": [AWAY]}),
        answer({"@tom:example.com": []}),
    ],
    state_updates=[ONLINE, AWAY],
)
case("get_users_for_states", "failures of any kind are skipped", [FAIL, answer({"@eve:remote.example": [ONLINE]}), SLOW_DOWN])
case("get_users_for_states", "only failures means nobody answered", [FAIL, SLOW_DOWN])

case("get_interested_users", "nobody subscribed", [])
case(
    "get_interested_users",
    "the union of all",
    [answer(["@eve:remote.example", "@kim:example.com"]), answer([]), answer(["@kim:example.com", "@sam:example.com"])],
)
case(
    "get_interested_users",
    "ALL wins over what came before and ends the chain",
    [answer(["@eve:remote.example"]), answer("ALL"), answer(["@kim:example.com"])],
)
case("get_interested_users", "a failure is skipped", [FAIL, answer(["@kim:example.com"])])

case(
    "add_field_to_unsigned",
    "all run, and the last one to set a key has it",
    [answer({"x": 1, "y": 1}), answer({}), answer({"y": {"deep": [2]}, "z": None})],
)
case("add_field_to_unsigned", "replaced values are not merged any deeper", [answer({"x": {"a": 1}}), answer({"x": {"b": 2}})])
case("add_field_to_unsigned", "a plain exception drops what was collected", [answer({"x": 1}), FAIL, answer({"y": 2})])
case("add_field_to_unsigned", "a Matrix error passes through", [SLOW_DOWN, answer({"y": 2})])

# notify
for callback in [
    "on_new_event",
    "on_profile_update",
    "on_user_deactivation_status_changed",
    "on_threepid_bind",
    "on_add_user_third_party_identifier",
    "on_remove_user_third_party_identifier",
    "on_logged_out",
    "on_account_data_updated",
    "on_event_delivered_over_federation",
]:
    case(callback, "all are told, whoever fails", [FAIL, NEUTRAL, SLOW_DOWN, NEUTRAL])
for callback in ["on_user_registration", "on_user_login", "on_media_upload_limit_exceeded"]:
    case(callback, "all are told", [NEUTRAL, NEUTRAL])
    case(callback, "a plain exception is an error, and the next is not told", [NEUTRAL, FAIL, NEUTRAL])
case("on_user_login", "a Matrix error passes through, and the next is not told", [TEAPOT, NEUTRAL])

# single_owner
case("on_legacy_send_mail", "the owner is asked", [NEUTRAL])
case("on_legacy_renew", "the owner's values are used", [answer({"valid": False, "stale": True, "expiration_ts": 1766000000000})])
case("on_legacy_renew", "the owner's plain exception is an error", [FAIL])
case("on_legacy_admin_request", "the owner's value is returned as it is", [answer(1766000000000)])
case("on_legacy_admin_request", "the owner's Matrix error passes through", [SLOW_DOWN])
case("on_update", "the first registration owns it", [answer({"duration_ms": 100}), answer({"duration_ms": 5})])
case("on_update", "the owner's plain exception is an error, and nobody takes its place", [FAIL, answer({"duration_ms": 5})])
case("default_batch_size", "the owner of on_update is asked", [answer(100), answer(5)])
case("min_batch_size", "the owner of on_update is asked", [answer(1), answer(5)])
case("min_batch_size", "the owner's Matrix error passes through", [SLOW_DOWN, answer(5)])


def golden():
    return json.dumps([run(case) for case in NAMED.values()], indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main():
    parser = argparse.ArgumentParser(description="Write down what Synapse concludes from several modules' answers.")
    parser.add_argument("--check", metavar="FILE", help="compare with FILE instead of printing; exit 1 if it differs")
    options = parser.parse_args()

    # Failing modules are the point here; Synapse's log of them would only be noise.
    logging.disable(logging.CRITICAL)
    if (installed := importlib.metadata.version("matrix-synapse")) != MADE_WITH:
        print(f"the golden file was made with Synapse {MADE_WITH}, this is {installed}", file=sys.stderr)

    now = golden()
    if options.check is None:
        sys.stdout.write(now)
        return 0
    with open(options.check, encoding="utf-8") as file:
        kept = file.read()
    if kept == now:
        return 0
    difference = difflib.unified_diff(kept.splitlines(True), now.splitlines(True), options.check, f"Synapse {installed}", n=12)
    sys.stdout.writelines(difference)
    return 1


if __name__ == "__main__":
    sys.exit(main())
