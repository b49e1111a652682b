"""Every callback: what Synapse gives, what Ganglion is asked, what Synapse gets."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable
from typing import Any

from fake_bridge import INTERNAL_ERROR, FakeBridge
from synapse.api.errors import Codes, SynapseError
from synapse.api.presence import UserPresenceState
from synapse.media._base import FileInfo, ThumbnailInfo
from synapse.media.media_storage import ReadableFileWrapper
from synapse.module_api import NOT_SPAM, MediaUploadLimit, ModuleApi, ProfileInfo, RatelimitOverride
from synapse.module_api.callbacks.federation import FederatedEventDeliveryMethod, FederationEventDeliveryEvent
from synapse.module_api.errors import ConfigError
from synapse.spam_checker_api import RegistrationBehaviour
from synapse.types import Requester, RoomAlias, create_requester
from synapse.util.json import json_encoder
from synapse_objects import BOB, GOLDEN, a_room, a_state, an_event, golden
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from ganglion_synapse.callbacks import CATEGORIES, register

ALL = tuple(name for category in CATEGORIES for name in category.names)
LOGIN_TYPES = (("m.login.password", ("password",)), ("com.example.code", ("code", "pin")))


class Registrar:
    """Takes what is registered: exactly the methods and parameters of Synapse's `ModuleApi`."""

    def __init__(self, without: tuple[str, ...] = ()) -> None:
        self.registered: dict[str, Any] = {}
        self.slept: list[float] = []
        for category in CATEGORIES:
            if category.registers not in without:
                setattr(
                    self, category.registers, self._method(inspect.signature(getattr(ModuleApi, category.registers)))
                )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def _method(self, signature: inspect.Signature) -> Any:
        def method(**keywords: Any) -> None:
            signature.bind(self, **keywords)
            self.registered.update(keywords)

        parameters = [parameter for name, parameter in signature.parameters.items() if name != "self"]
        method.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return method


class Fork(Registrar):
    """A fork of Synapse that asks the extension."""

    def register_spam_checker_callbacks(self, *, accept_make_join: Any = None) -> None:
        self.registered["accept_make_join"] = accept_make_join

    def __init__(self) -> None:
        super().__init__(without=("register_spam_checker_callbacks",))


def registered(bridge: FakeBridge, *names: str, login_types: Any = LOGIN_TYPES, api: Any = None) -> dict[str, Any]:
    """The callables that Synapse has got for these callbacks, by the keyword under which it got them."""
    api = api or Registrar()
    register(bridge, api, names, login_types)
    return api.registered


def callable_of(bridge: FakeBridge, callback: str) -> Any:
    """The callable of one callback."""
    api = Fork() if callback == "accept_make_join" else Registrar()
    keywords = registered(bridge, callback, *(("on_update",) if callback.endswith("_batch_size") else ()), api=api)
    if callback == "auth_checkers":
        return keywords["auth_checkers"][LOGIN_TYPES[0]]
    if callback == "add_field_to_unsigned":
        return keywords["add_field_to_unsigned_callback"]
    return keywords[callback]


class AdminRequest:
    """A request as Synapse's servlet passes it on."""

    def __init__(self, request: dict[str, Any]) -> None:
        import base64
        from io import BytesIO

        self.method = request["method"].encode()
        self.uri = request["path"].encode() + (b"?" + request["query"].encode() if request["query"] else b"")
        self.requestHeaders = Headers()
        for name, value in request["headers"]:
            self.requestHeaders.addRawHeader(name, value)
        self.content = BytesIO(base64.b64decode(request["body_base64"]))


def an_object_for(callback: str, name: str, value: Any) -> Any:
    """What Synapse gives for an arg of the golden request."""
    match name:
        case "event":
            return an_event(value)
        case "state_events":
            return a_state(*map(an_event, value))
        case "room_alias":
            return RoomAlias.from_string(value)
        case "requester":
            return create_requester(**value)
        case "new_profile":
            return ProfileInfo(**value)
        case "request_info":
            return [tuple(one) for one in value]
        case "state_updates":
            return [UserPresenceState(**state) for state in value]
        case "limit":
            return MediaUploadLimit(**value)
        case "file_info":
            thumbnail = value["thumbnail"] and ThumbnailInfo(**value["thumbnail"])
            return FileInfo(**{**value, "thumbnail": thumbnail})
        case "file_base64":
            return ReadableFileWrapper(clock=None, path="/dev/null")  # type: ignore[arg-type]
        case "delivery":
            method = FederatedEventDeliveryMethod(value["method"])
            return FederationEventDeliveryEvent(value["server_name"], list(map(an_event, value["events"])), method)
        case "request":
            return AdminRequest(value)
        case _:
            return value


# What Synapse gets for the golden outcome: a value, or the status and the body of an error.
STATE = UserPresenceState(BOB, "online", 1, 2, 3, None, True)
LIMITED = (429, {"errcode": "M_LIMIT_EXCEEDED", "error": "slow down", "retry_after_ms": 2000})
FAILED = (500, {"errcode": "M_UNKNOWN", "error": "Internal server error"})
EXPECTED: dict[str, Any] = {
    "accept_make_join": (Codes.UNABLE_AUTHORISE_JOIN, {"error": "ask for an invite"}),
    "add_field_to_unsigned": {"x": 1, "y": 2},
    "auth_checkers": (BOB, None),
    "check_3pid_auth": (BOB, None),
    "check_can_deactivate_user": False,
    "check_can_shutdown_room": True,
    "check_event_allowed": (
        True,
        {
            "type": "m.room.topic",
            "state_key": "",
            "sender": BOB,
            "room_id": "!r:example.com",
            "content": {"topic": "y"},
        },
    ),
    "check_event_for_spam": LIMITED,
    "check_login_for_spam": (Codes.USER_LOCKED, {"org.example.until": 1766000000000}),
    "check_media_file_for_spam": Codes.TOO_LARGE,
    "check_registration_for_spam": RegistrationBehaviour.SHADOW_BAN,
    "check_threepid_can_be_invited": False,
    "check_username_for_spam": True,
    "check_visibility_can_be_modified": False,
    "default_batch_size": 100,
    "federated_user_may_invite": Codes.INVITE_BLOCKED,
    "get_displayname_for_registration": FAILED,
    "get_interested_users": {"@eve:remote.example", "@kim:example.com"},
    "get_media_config_for_user": {"m.upload.size": 1048576},
    "get_media_upload_limits_for_user": [
        MediaUploadLimit(5000000, 86400000, "https://example.com/plans", True),
        MediaUploadLimit(1000000, 3600000),
    ],
    "get_ratelimit_override_for_user": RatelimitOverride(2.5, 10),
    "get_username_for_registration": "",
    "get_users_for_states": {"@eve:remote.example": {STATE}},
    "is_3pid_allowed": False,
    "is_user_allowed_to_upload_media_of_size": False,
    "is_user_expired": False,
    "min_batch_size": 1,
    "on_create_room": None,
    "on_legacy_admin_request": 1766000000000,
    "on_legacy_renew": (True, False, 1766000000000),
    "on_media_upload_limit_exceeded": LIMITED,
    "on_user_registration": FAILED,
    "should_drop_federated_event": True,
    "user_may_create_room": (Codes.FORBIDDEN, {"error": "not today", "org.x": 7}),
    "user_may_create_room_alias": Codes.EXCLUSIVE,
    "user_may_invite": (
        Codes.FORBIDDEN,
        {"errcode": "ORG.EXAMPLE.NO_INVITES", "error": "ask an admin", "policy": "https://example.com/invites"},
    ),
    "user_may_join_room": NOT_SPAM,
    "user_may_publish_room": FAILED,
    "user_may_send_3pid_invite": (Codes.THREEPID_DENIED, {"error": "no mail to this domain"}),
    "user_may_send_state_event": Codes.BAD_STATE,
}
# Their golden outcome is null.
NOTIFICATIONS = (
    "on_account_data_updated",
    "on_add_user_third_party_identifier",
    "on_event_delivered_over_federation",
    "on_legacy_send_mail",
    "on_logged_out",
    "on_new_event",
    "on_profile_update",
    "on_remove_user_third_party_identifier",
    "on_threepid_bind",
    "on_user_deactivation_status_changed",
    "on_user_login",
)
EXPECTED.update(dict.fromkeys(NOTIFICATIONS))


class CallbackTestCase(SynchronousTestCase):
    def answer(self, awaitable: Awaitable[Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(awaitable))  # type: ignore[arg-type]

    def raised(self, awaitable: Awaitable[Any]) -> Any:
        return self.failureResultOf(Deferred.fromCoroutine(awaitable)).value  # type: ignore[arg-type]

    def gets(self, awaitable: Awaitable[Any]) -> Any:
        """What Synapse gets: the value, or the status and the body that it makes of an error."""
        try:
            return self.answer(awaitable)
        except self.failureException:
            raise
        except SynapseError as error:
            return _rendered(error)


def _rendered(error: SynapseError) -> tuple[int, Any]:
    return error.code, json.loads(json_encoder.encode(error.error_dict(None)))


class GoldenTests(CallbackTestCase):
    """The golden requests and responses, which Ganglion's own tests read too."""

    def test_every_callback_has_a_golden_file(self) -> None:
        self.assertEqual({path.stem for path in GOLDEN.glob("*.json")}, set(ALL))
        self.assertEqual(set(EXPECTED) | {"on_update"}, set(ALL))

    def test_synapses_objects_are_the_golden_args(self) -> None:
        for callback in sorted(EXPECTED):
            args = golden(callback)["args"]
            bridge = FakeBridge()
            method = callable_of(bridge, callback)
            given = [an_object_for(callback, name, value) for name, value in args.items()]
            Deferred.fromCoroutine(method(*given)).addErrback(lambda _: None)
            (asked,) = bridge.asked
            self.assertEqual(asked.callback, callback)
            if "file_base64" in args:
                # It comes when the module asks.
                del args["file_base64"]
                self.assertRegex(asked.args.pop("file_wrapper")["handle"], r"^m\d+$")
            self.assert_sent(args, asked.args, callback)

    def test_golden_outcomes_are_what_synapse_expects(self) -> None:
        for callback, expected in EXPECTED.items():
            one = golden(callback)
            bridge = FakeBridge({callback: one["response"]["outcome"]})
            method = callable_of(bridge, callback)
            given = [an_object_for(callback, name, value) for name, value in one["args"].items()]
            got: list[Any] = []
            Deferred.fromCoroutine(method(*given)).addBoth(got.append)
            (value,) = got
            if error := getattr(value, "value", None) if type(value).__name__ == "Failure" else None:
                value = _rendered(error)
            self.assertEqual(value, expected, callback)
            self.assertIs(type(value), type(expected), callback)
            if expected is NOT_SPAM:
                self.assertIs(value, NOT_SPAM)
            if callback == "on_create_room":
                self.assertEqual(given[1], one["response"]["outcome"]["request_content"])

    def assert_sent(self, golden: Any, sent: Any, where: str) -> None:
        """Every golden key is sent as it is; what is sent beside belongs to an event or a requester."""
        if isinstance(golden, dict):
            self.assertIsInstance(sent, dict, where)
            full = {"event_id", "internal_metadata"} <= sent.keys() or "authenticated_entity" in sent
            if not full:
                self.assertEqual(sent.keys(), golden.keys(), where)
            for key, value in golden.items():
                if key == "event_id":
                    # Computed from the event, since version 3.
                    self.assertRegex(sent[key], r"^\$")
                else:
                    self.assert_sent(value, sent[key], f"{where}.{key}")
        elif isinstance(golden, list):
            self.assertEqual(len(sent), len(golden), where)
            for index, value in enumerate(golden):
                self.assert_sent(value, sent[index], f"{where}[{index}]")
        else:
            self.assertEqual(sent, golden, where)
            self.assertIs(type(sent), type(golden), where)


class RegistrationTests(CallbackTestCase):
    def test_exactly_the_named_callbacks_are_registered(self) -> None:
        self.assertEqual(
            set(registered(FakeBridge(), "check_event_for_spam", "on_new_event")),
            {"check_event_for_spam", "on_new_event"},
        )
        self.assertEqual(registered(FakeBridge()), {})

    def test_every_callback_of_synapse_can_be_registered(self) -> None:
        keywords: set[str] = set()
        for category in CATEGORIES:
            keywords.update(inspect.signature(getattr(ModuleApi, category.registers)).parameters)
        keywords.discard("self")
        self.assertEqual(len(keywords), 51)
        names = set(ALL) - {"accept_make_join"}
        self.assertEqual(set(registered(FakeBridge(), *names)), keywords)

    def test_callables_have_the_names_that_synapses_metrics_want(self) -> None:
        for callback in ALL:
            method = callable_of(FakeBridge(), callback)
            self.assertEqual(method.__module__, "ganglion_synapse.callbacks")
            self.assertEqual(method.__qualname__, f"Bridge.{callback}")
            self.assertIn(f"Bridge.{callback}", repr(method))

    def test_synapse_counts_two_parameters_where_it_counts(self) -> None:
        for callback in ("user_may_create_room", "check_username_for_spam"):
            self.assertEqual(len(inspect.signature(callable_of(FakeBridge(), callback)).parameters), 2)

    def test_presence_comes_as_a_pair(self) -> None:
        for name in ("get_users_for_states", "get_interested_users"):
            self.assertEqual(set(registered(FakeBridge(), name)), {"get_users_for_states", "get_interested_users"})

    def test_a_controller_comes_with_both_batch_sizes(self) -> None:
        self.assertEqual(
            set(registered(FakeBridge(), "on_update")), {"on_update", "default_batch_size", "min_batch_size"}
        )
        self.assertEqual(registered(FakeBridge(), "min_batch_size"), {})

    def test_login_types_are_registered_with_their_fields(self) -> None:
        checkers = registered(FakeBridge(), "auth_checkers")["auth_checkers"]
        self.assertEqual(set(checkers), set(LOGIN_TYPES))
        self.assertEqual(registered(FakeBridge(), "auth_checkers", login_types=()), {})

    def test_what_synapse_does_not_have_is_logged_and_left_out(self) -> None:
        with self.assertLogs("ganglion_synapse.callbacks", "WARNING") as logs:
            keywords = registered(FakeBridge(), "accept_make_join", "user_may_invite", "of_the_future")
        self.assertEqual(set(keywords), {"user_may_invite"})
        self.assertIn("accept_make_join", logs.output[0])
        self.assertIn("of_the_future", logs.output[1])

    def test_an_older_synapse_without_a_category_starts(self) -> None:
        api = Registrar(without=("register_federation_callbacks",))
        with self.assertLogs("ganglion_synapse.callbacks", "WARNING"):
            self.assertEqual(registered(FakeBridge(), "on_event_delivered_over_federation", api=api), {})

    def test_what_synapse_refuses_is_raised(self) -> None:
        class Owned(Registrar):
            def register_account_validity_callbacks(self, *, on_legacy_renew: Any = None) -> None:
                raise RuntimeError("a second owner")

        api: Any = Owned(without=("register_account_validity_callbacks",))
        self.assertRaises(RuntimeError, register, FakeBridge(), api, ["on_legacy_renew"], ())

    def test_where_another_service_logs_users_in_the_rest_is_registered(self) -> None:
        class Delegated(Registrar):
            def register_password_auth_provider_callbacks(self, *, is_3pid_allowed: Any = None) -> None:
                raise ConfigError("Cannot use password auth provider callbacks when OAuth delegation is enabled")

        api: Any = Delegated(without=("register_password_auth_provider_callbacks",))
        with self.assertLogs("ganglion_synapse.callbacks", "ERROR") as logs:
            keywords = registered(FakeBridge(), "is_3pid_allowed", "on_account_data_updated", api=api)
        self.assertEqual(set(keywords), {"on_account_data_updated"})
        self.assertIn("is_3pid_allowed", logs.output[0])


class FailureTests(CallbackTestCase):
    def test_a_malformed_outcome_is_a_failure_of_the_kind_protocol(self) -> None:
        bridge = FakeBridge({"user_may_invite": {"verdict": "perhaps"}}, policy={"verdict": "pass"})
        with self.assertLogs("ganglion_synapse.callbacks", "ERROR"):
            result = self.answer(callable_of(bridge, "user_may_invite")(BOB, "@eve:x", "!r:x"))
        self.assertIs(result, NOT_SPAM)
        self.assertEqual(bridge.failures, [("user_may_invite", "protocol", BOB)])

    def test_a_malformed_policy_is_the_constant_error(self) -> None:
        bridge = FakeBridge({"user_may_invite": {}}, policy={})
        with self.assertLogs("ganglion_synapse.callbacks", "ERROR"):
            error = self.raised(callable_of(bridge, "user_may_invite")(BOB, "@eve:x", "!r:x"))
        self.assertEqual(_rendered(error), FAILED)

    def test_an_error_of_ours_is_a_constant_error_and_is_logged_once(self) -> None:
        for callback in sorted(set(EXPECTED) - {"on_update"}):
            bridge = FakeBridge({callback: RuntimeError("secret")})
            method = callable_of(bridge, callback)
            given = [an_object_for(callback, name, value) for name, value in golden(callback)["args"].items()]
            with self.assertLogs("ganglion_synapse.callbacks", "ERROR") as logs:
                got: list[Any] = []
                Deferred.fromCoroutine(method(*given)).addBoth(got.append)
            self.assertEqual(len(logs.records), 1)
            self.assertIsNotNone(logs.records[0].exc_info)
            if got[0] is False:
                self.assertTrue(callback.startswith("check_"), callback)
                continue
            self.assertEqual(_rendered(got[0].value), FAILED)
            self.assertNotIn("secret", str(got[0].value))
            # Synapse would log, or send, what is chained.
            self.assertIsNone(got[0].value.__cause__)

    def test_the_four_checks_that_synapse_lets_pass_refuse(self) -> None:
        for callback in (
            "check_threepid_can_be_invited",
            "check_visibility_can_be_modified",
            "check_can_shutdown_room",
            "check_can_deactivate_user",
        ):
            given = [an_object_for(callback, name, value) for name, value in golden(callback)["args"].items()]
            bridge = FakeBridge({callback: INTERNAL_ERROR})
            self.assertIs(self.answer(callable_of(bridge, callback)(*given)), False)
            bridge = FakeBridge({callback: RuntimeError("ours")})
            with self.assertLogs("ganglion_synapse.callbacks", "ERROR"):
                self.assertIs(self.answer(callable_of(bridge, callback)(*given)), False)

    def test_a_cancelled_callback_is_cancelled(self) -> None:
        bridge = FakeBridge({"on_new_event": CancelledError()})
        self.assertIsInstance(self.raised(callable_of(bridge, "on_new_event")(an_event(), {})), CancelledError)

    def test_args_that_cannot_be_made_are_a_constant_error(self) -> None:
        with self.assertLogs("ganglion_synapse.callbacks", "ERROR"):
            error = self.raised(callable_of(FakeBridge(), "check_event_for_spam")(object()))
        self.assertEqual(_rendered(error), FAILED)


class ActingUserTests(CallbackTestCase):
    def test_policies_learn_who_acts(self) -> None:
        for callback, acting in (
            ("check_event_for_spam", BOB),
            ("user_may_join_room", BOB),
            ("user_may_invite", BOB),
            ("check_username_for_spam", BOB),
            ("check_registration_for_spam", None),
            ("on_create_room", BOB),
            ("federated_user_may_invite", "@eve:remote.example"),
            ("check_event_allowed", BOB),
            ("check_threepid_can_be_invited", None),
        ):
            bridge = FakeBridge()
            given = [an_object_for(callback, name, value) for name, value in golden(callback)["args"].items()]
            self.answer(callable_of(bridge, callback)(*given))
            self.assertEqual(bridge.asked[0].origin_user, acting, callback)


class LargeArgTests(CallbackTestCase):
    def test_the_state_of_a_large_room_can_be_asked_for_while_the_call_runs(self) -> None:
        state = a_room(members=20)
        event = an_event(
            type="m.room.member", state_key="@u7:example.com", sender="@u3:example.com", content={"membership": "ban"}
        )
        got: list[Any] = []

        async def look(asked: Any) -> None:
            handle = asked.large.handles[asked.args["state_events"]["handle"]]
            got.append(await handle.state_get({"type": "m.room.member", "state_key": "@u11:example.com"}))
            got.append(await handle.state_page({"from": 0}))

        bridge = FakeBridge(meanwhile=look)
        self.assertEqual(self.answer(callable_of(bridge, "check_event_allowed")(event, state)), (True, None))
        self.assertEqual(got[0]["event"]["sender"], "@u11:example.com")
        self.assertEqual(len(got[1]["events"]), len(state))
        hot = [one["state_key"] for one in bridge.asked[0].args["state_events"]["events"]]
        self.assertEqual(hot, ["", "", "", "@u3:example.com", "@u7:example.com"])
        large = bridge.asked[0].large
        assert large is not None
        self.assertEqual(large.handles, {})

    def test_handles_are_closed_when_the_call_fails(self) -> None:
        bridge = FakeBridge({"on_new_event": RuntimeError("ours")})
        with self.assertLogs("ganglion_synapse.callbacks", "ERROR"):
            self.raised(callable_of(bridge, "on_new_event")(an_event(), a_room(members=5)))
        large = bridge.asked[0].large
        assert large is not None
        self.assertEqual(large.handles, {})

    def test_pages_keep_to_the_frames_that_ganglion_accepts(self) -> None:
        sizes: list[int] = []

        async def look(asked: Any) -> None:
            (handle,) = asked.large.handles.values()
            sizes.append(len(json.dumps(await handle.state_page({"from": 0}))))

        bridge = FakeBridge(meanwhile=look, max_frame=65536)
        self.answer(callable_of(bridge, "on_new_event")(an_event(), a_room(members=300)))
        self.assertLess(sizes[0], 32768)

    def test_media_can_be_read_while_the_call_runs(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"hello")
        read: list[Any] = []

        async def look(asked: Any) -> None:
            handle = asked.large.handles[asked.args["file_wrapper"]["handle"]]
            read.append(await handle.media_read({"offset": 0}))

        bridge = FakeBridge(meanwhile=look)
        wrapper = ReadableFileWrapper(clock=None, path=path)  # type: ignore[arg-type]
        result = self.answer(callable_of(bridge, "check_media_file_for_spam")(wrapper, FileInfo(None, "f")))
        self.assertIs(result, NOT_SPAM)
        self.assertEqual(read, [{"chunk_base64": "aGVsbG8=", "end": True}])


class LoginTests(CallbackTestCase):
    LOGIN = {"value": {"user_id": BOB, "login_callback": "c-1"}}

    def login(self, bridge: FakeBridge, callback: str = "auth_checkers") -> Any:
        given = ("bob", "m.login.password", {"password": "x"}) if callback == "auth_checkers" else ("email", "a@b", "x")
        user, login_callback = self.answer(callable_of(bridge, callback)(*given))
        self.assertEqual(user, BOB)
        return login_callback

    def test_a_module_edits_the_response_to_a_login_in_place(self) -> None:
        for callback in ("auth_checkers", "check_3pid_auth"):
            bridge = FakeBridge(
                {
                    callback: self.LOGIN,
                    f"{callback}/continue": {"value": {"user_id": BOB, "access_token": "t", "org.x": 1}},
                }
            )
            response = {"user_id": BOB, "access_token": "t", "home_server": "example.com", "device_id": "D"}
            same = response
            self.assertIsNone(self.answer(self.login(bridge, callback)(response)))
            self.assertEqual(same, {"user_id": BOB, "access_token": "t", "org.x": 1})
            sent = {"user_id": BOB, "access_token": "t", "home_server": "example.com", "device_id": "D"}
            self.assertEqual(bridge.carried_on, [(callback, "c-1", {"result": sent})])

    def test_an_error_after_the_login_breaks_it(self) -> None:
        bridge = FakeBridge(
            {
                "auth_checkers": self.LOGIN,
                "auth_checkers/continue": golden("check_event_for_spam")["response"]["outcome"],
            }
        )
        response = {"user_id": BOB}
        self.assertEqual(_rendered(self.raised(self.login(bridge)(response))), LIMITED)
        self.assertEqual(response, {"user_id": BOB})

    def test_a_malformed_answer_after_the_login_is_the_constant_error(self) -> None:
        for answer in ({"value": 5}, {}, {"verdict": "deny"}):
            bridge = FakeBridge({"auth_checkers": self.LOGIN, "auth_checkers/continue": answer})
            login_callback = self.login(bridge)
            with self.assertLogs("ganglion_synapse.callbacks", "ERROR"):
                self.assertEqual(_rendered(self.raised(login_callback({"user_id": BOB}))), FAILED)

    def test_an_error_is_raised_for_synapse_to_log(self) -> None:
        bridge = FakeBridge({"auth_checkers": INTERNAL_ERROR})
        error = self.raised(callable_of(bridge, "auth_checkers")("bob", "m.login.password", {}))
        self.assertEqual(_rendered(error), FAILED)


class PresenceTests(CallbackTestCase):
    def test_who_is_told_of_everybody_has_an_entry(self) -> None:
        bridge = FakeBridge({"get_interested_users": {"value": "ALL"}, "get_users_for_states": {"value": {}}})
        keywords = registered(bridge, "get_interested_users")
        self.assertEqual(self.answer(keywords["get_interested_users"](BOB)), "ALL")
        self.assertEqual(self.answer(keywords["get_users_for_states"]([])), {BOB: set()})

        bridge.outcomes["get_interested_users"] = {"value": ["@eve:x"]}
        self.assertEqual(self.answer(keywords["get_interested_users"](BOB)), {"@eve:x"})
        self.assertEqual(self.answer(keywords["get_users_for_states"]([])), {})


class BackgroundUpdateTests(CallbackTestCase):
    def iterate(self, bridge: FakeBridge, body: Any = None, api: Any = None) -> Any:
        on_update = registered(bridge, "on_update", api=api)["on_update"]

        async def run() -> float:
            async with on_update("idx", "main", False) as duration:
                if body is not None:
                    body()
                return duration

        return run()

    def test_on_update_is_a_plain_function(self) -> None:
        self.assertFalse(inspect.iscoroutinefunction(callable_of(FakeBridge(), "on_update")))

    def test_an_iteration_asks_when_it_begins_and_tells_when_it_ends(self) -> None:
        bridge = FakeBridge({"on_update": {"value": {"duration_ms": 250, "exit_token": "u-7"}}})
        during: list[Any] = []
        self.assertEqual(self.answer(self.iterate(bridge, lambda: during.append(list(bridge.carried_on)))), 250)
        self.assertEqual(bridge.asked[0].args, golden("on_update")["args"])
        self.assertEqual(during, [[]])
        self.assertEqual(bridge.carried_on, [("on_update", "u-7", {"failed": False})])

    def test_an_iteration_without_a_token_ends_silently(self) -> None:
        bridge = FakeBridge({"on_update": golden("on_update")["response"]["outcome"]})
        self.assertEqual(self.answer(self.iterate(bridge)), 100)
        self.assertEqual(bridge.carried_on, [])

    def test_a_failed_iteration_is_told_and_fails_as_it_did(self) -> None:
        bridge = FakeBridge(
            {"on_update": {"value": {"duration_ms": 1, "exit_token": "u"}}, "on_update/continue": INTERNAL_ERROR}
        )

        def fail() -> None:
            raise ZeroDivisionError

        with self.assertLogs("ganglion_synapse.callbacks", "ERROR"):
            self.assertIsInstance(self.raised(self.iterate(bridge, fail)), ZeroDivisionError)
        self.assertEqual(bridge.carried_on, [("on_update", "u", {"failed": True})])

    def test_an_end_that_fails_fails_the_iteration(self) -> None:
        bridge = FakeBridge(
            {"on_update": {"value": {"duration_ms": 1, "exit_token": "u"}}, "on_update/continue": INTERNAL_ERROR}
        )
        self.assertEqual(_rendered(self.raised(self.iterate(bridge))), FAILED)

    def test_a_begin_that_fails_fails_the_iteration(self) -> None:
        self.assertEqual(_rendered(self.raised(self.iterate(FakeBridge({"on_update": INTERNAL_ERROR})))), FAILED)

    def test_without_an_owner_synapse_goes_on_as_by_itself(self) -> None:
        api = Registrar()
        bridge = FakeBridge()
        self.assertEqual(self.answer(self.iterate(bridge, api=api)), 100)
        self.assertEqual(api.slept, [1.0])
        self.assertEqual(self.answer(callable_of(bridge, "default_batch_size")("idx", "main")), 100)
        self.assertEqual(self.answer(callable_of(bridge, "min_batch_size")("idx", "main")), 1)


class RequesterTests(CallbackTestCase):
    def test_the_requester_of_a_room_is_sent_whole(self) -> None:
        bridge = FakeBridge()
        requester: Requester = create_requester(BOB, device_id="D")
        self.answer(callable_of(bridge, "on_create_room")(requester, {}, True))
        self.assertEqual(bridge.asked[0].args["requester"], requester.serialize())
