"""The bridge between a homeserver's `ModuleApi` and a Ganglion on a real Unix socket."""

from __future__ import annotations

import os
import tempfile
from typing import Any
from unittest import mock

from synapse.api.errors import Codes, SynapseError
from synapse.logging.context import (
    SENTINEL_CONTEXT,
    LoggingContext,
    current_context,
    make_deferred_yieldable,
    run_in_background,
)
from synapse.metrics.background_process_metrics import run_as_background_process
from synapse.module_api import ModuleApi
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredQueue
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols.basic import Int32StringReceiver
from twisted.trial.unittest import TestCase

from ganglion_synapse import bridge as bridge_module
from ganglion_synapse import state_file
from ganglion_synapse.bridge import Bridge
from ganglion_synapse.encoding import decode, encode
from ganglion_synapse.errors import GONE, UNKNOWN_METHOD
from ganglion_synapse.hello import Announcement
from wires import WELCOME, Log

ARGS = {"user_id": "@eve:example.com", "room_config": {}}
DENIED = {"verdict": "deny", "errcode": "M_FORBIDDEN", "error": "not today", "fields": {}}
ERROR = {"verdict": "error", "status": 500, "errcode": "M_UNKNOWN", "error": "Internal server error", "fields": {}}


class Ganglion(Int32StringReceiver):
    """Welcomes the bridge; the rest is up to the test."""

    MAX_LENGTH = 1 << 24

    def stringReceived(self, string: bytes) -> None:
        message = decode(string)
        if message.get("method") == "hello":
            welcome = {**WELCOME, "callbacks": ["user_may_create_room", "check_event_allowed", "auth_checkers"]}
            self.say(id=message["id"], result=welcome)
            self.factory.connections.put(self)
        else:
            self.factory.messages.put(message)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.gone.callback(None)

    def say(self, **message: Any) -> None:
        self.sendString(encode({"jsonrpc": "2.0", **message}))


class BridgeTest(TestCase):
    async def setUp(self) -> None:
        self.log = Log()
        self.addCleanup(self.log.remove)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "wire.sock")
        self.config: dict[str, Any] = {"socket": self.path}
        self.registered: list[tuple[set[str], dict[str, Any]]] = []
        self.patch(bridge_module.callbacks, "register", self.register)

        self.factory = Factory.forProtocol(Ganglion)
        self.factory.connections = DeferredQueue()
        self.factory.messages = DeferredQueue()
        self.factory.gone = Deferred()

    def register(self, bridge: Any, api: Any, names: Any, login_types: Any) -> None:
        self.registered.append((set(names), dict(login_types)))

    def bridge(self, **config: Any) -> Bridge:
        api = mock.create_autospec(ModuleApi, instance=True)
        api.server_name, api.worker_name = "example.com", None
        api.run_as_background_process = lambda desc, func: run_as_background_process(desc, "example.com", func)
        bridge = Bridge(Bridge.parse_config({**self.config, **config}), api)
        self.addCleanup(bridge._connection.stop)
        return bridge

    async def connected(self, **config: Any) -> tuple[Bridge, Ganglion]:
        """A bridge that learns from its second hello, as at the load nobody listens."""
        bridge = self.bridge(**config)
        port = reactor.listenUNIX(self.path, self.factory)  # type: ignore[attr-defined]
        ganglion = await self.factory.connections.get()

        async def leave() -> None:
            bridge._connection.stop()
            ganglion.transport.abortConnection()
            await self.factory.gone
            await port.stopListening()

        self.addCleanup(lambda: Deferred.fromCoroutine(leave()))
        await self.everything_was_heard(ganglion)
        return bridge, ganglion

    async def everything_was_heard(self, ganglion: Ganglion) -> None:
        ganglion.say(id=0, method="nonsense")
        self.assertEqual((await self.asked())["error"]["code"], UNKNOWN_METHOD)

    async def asked(self) -> Any:
        return await self.factory.messages.get()

    async def test_the_outcome_is_what_ganglion_decides(self) -> None:
        bridge, ganglion = await self.connected()
        outcome = Deferred.fromCoroutine(bridge.ask("user_may_create_room", ARGS))
        request = await self.asked()
        params = {"callback": "user_may_create_room", "args": ARGS, "deadline_ms": 2000, "steps": False}
        self.assertEqual((request["method"], request["params"]), ("callback", params))
        ganglion.say(id=request["id"], result={"outcome": DENIED, "decided_by": "demo"})
        self.assertEqual(await outcome, DENIED)

    async def test_what_is_not_announced_is_neutral_without_a_question(self) -> None:
        bridge, ganglion = await self.connected()
        announcement = {"callbacks": ["user_may_invite"], "login_types": []}
        ganglion.say(method="announce", params=announcement)
        await self.everything_was_heard(ganglion)
        self.assertEqual(await bridge.ask("user_may_create_room", ARGS), {"verdict": "pass"})
        self.assertEqual(await bridge.ask("on_new_event", {}), {"value": None})

    async def test_errors_and_malformed_answers_are_failures_under_the_policy(self) -> None:
        rule = {"callback": "user_may_create_room", "kind": "protocol", "origin": "federated", "then": "deny"}
        bridge, ganglion = await self.connected(on_failure=[rule])
        answers = (
            {"error": {"code": -32602, "message": "user_id: missing"}},
            {"error": {"code": -32603, "message": "internal error"}},
            {"result": None},
            {"result": {"outcome": "pass"}},
        )
        for user, expected in (("@eve:example.com", ERROR), ("@eve:other.example", {**DENIED, "error": None})):
            for answer in answers:
                outcome = Deferred.fromCoroutine(bridge.ask("user_may_create_room", ARGS, origin_user=user))
                ganglion.say(id=(await self.asked())["id"], **answer)
                self.assertEqual(await outcome, expected)
        self.assertEqual(len([line for line in self.log.lines if "will not be mentioned again" in line]), 3)

    async def test_args_that_are_no_json_are_a_failure(self) -> None:
        bridge, _ = await self.connected()
        self.assertEqual(await bridge.ask("user_may_create_room", {"room_config": float("nan")}), ERROR)

    async def test_without_ganglion_the_policy_decides(self) -> None:
        bridge = self.bridge(on_failure=[{"kind": "not_running", "then": "deny"}])
        self.assertEqual(await bridge.ask("user_may_create_room", ARGS), {**DENIED, "error": None})

    async def test_a_cancelled_question_raises_and_is_cancelled_at_ganglion(self) -> None:
        bridge, ganglion = await self.connected()
        outcome = Deferred.fromCoroutine(bridge.ask("user_may_create_room", ARGS))
        request = await self.asked()
        outcome.cancel()
        with self.assertRaises(CancelledError):
            await outcome
        cancel = await self.asked()
        self.assertEqual((cancel["method"], cancel["params"]), ("cancel", {"id": request["id"]}))

    async def test_a_continuation_fails_as_an_error_whatever_the_callback_may_skip(self) -> None:
        bridge, ganglion = await self.connected()
        login = {"user_id": "@bob:example.com"}
        for answer, expected in (
            ({"result": {"outcome": {"value": login}}}, {"value": login}),
            ({"error": {"code": GONE, "message": "the token is gone"}}, ERROR),
        ):
            outcome = Deferred.fromCoroutine(bridge.carry_on("auth_checkers", "t0", result=login))
            request = await self.asked()
            params = {"callback": "auth_checkers", "token": "t0", "result": login, "deadline_ms": 2000}
            self.assertEqual((request["method"], request["params"]), ("continue", params))
            ganglion.say(id=request["id"], **answer)
            self.assertEqual(await outcome, expected)

    async def test_a_handle_answers_as_long_as_its_call_is_in_flight(self) -> None:
        bridge, ganglion = await self.connected()
        handle = mock.Mock()
        handle.state_get = mock.AsyncMock(return_value={"event": None})
        handle.media_read = mock.AsyncMock(return_value={"chunk_base64": "", "end": True})
        large = mock.Mock(handles={"s7": handle})
        outcome = Deferred.fromCoroutine(bridge.ask("check_event_allowed", {}, large=large))
        request = await self.asked()
        params = {"handle": "s7", "type": "m.room.topic", "state_key": ""}
        ganglion.say(id=1, method="state.get", params=params)
        self.assertEqual((await self.asked())["result"], {"event": None})
        ganglion.say(id=2, method="media.read", params={"handle": "s7", "offset": 0})
        self.assertEqual((await self.asked())["result"], {"chunk_base64": "", "end": True})
        ganglion.say(id=request["id"], result={"outcome": {"verdict": "pass"}})
        await outcome
        ganglion.say(id=3, method="state.get", params=params)
        self.assertEqual((await self.asked())["error"]["code"], GONE)

    async def test_the_log_context_of_who_asks_is_kept_and_the_reactor_has_none(self) -> None:
        bridge, ganglion = await self.connected()

        async def request() -> Any:
            with LoggingContext(name="request", server_name="example.com") as context:
                await bridge.ask("user_may_create_room", ARGS)
                return current_context() is context

        kept = Deferred.fromCoroutine(request())
        self.assertIs(current_context(), SENTINEL_CONTEXT)
        ganglion.say(id=(await self.asked())["id"], result={"outcome": {"verdict": "pass"}})
        self.assertTrue(await kept)
        self.assertIs(current_context(), SENTINEL_CONTEXT)

    async def test_what_a_module_causes_says_below_which_call_it_is(self) -> None:
        bridge, ganglion = await self.connected()

        class Methods:
            async def call(self, method: str, args: Any) -> Any:
                # As Synapse's own code does it: through the reactor, and through coroutines started in between.
                await make_deferred_yieldable(deferLater(reactor, 0))
                return await make_deferred_yieldable(run_in_background(bridge.ask, "user_may_create_room", ARGS))

        bridge._asked._methods = Methods()  # type: ignore[assignment]
        params = {"method": "create_room", "args": {}, "deadline_ms": 900, "call": "c5", "depth": 1}
        ganglion.say(id=6, method="module_api", params=params)
        caused = await self.asked()
        self.assertEqual(caused["params"]["below"], "c5")
        other = Deferred.fromCoroutine(bridge.ask("user_may_create_room", ARGS))
        unrelated = await self.asked()
        self.assertNotIn("below", unrelated["params"])
        for request in (caused, unrelated):
            ganglion.say(id=request["id"], result={"outcome": {"verdict": "pass"}})
        self.assertEqual((await self.asked())["result"], {"verdict": "pass"})
        await other

    async def test_what_the_module_api_raises_is_answered_without_its_text(self) -> None:
        bridge, ganglion = await self.connected()
        raised: Any = None

        class Methods:
            async def call(self, method: str, args: Any) -> Any:
                raise raised

        bridge._asked._methods = Methods()  # type: ignore[assignment]
        matrix = {"status": 404, "errcode": "M_NOT_FOUND", "error": "no such user", "fields": {"x": 1}}
        for raised, expected in (
            (
                SynapseError(404, "no such user", Codes.NOT_FOUND, {"x": 1}),
                {"code": -32005, "message": "M_NOT_FOUND", "data": matrix},
            ),
            (RuntimeError("a secret"), {"code": -32603, "message": "internal error"}),
            (KeyError("a secret"), {"code": -32603, "message": "internal error"}),
            (LookupError("no such method"), {"code": -32602, "message": "no such method", "data": {"errcode": "M_UNRECOGNIZED"}}),
        ):
            ganglion.say(id=1, method="module_api", params={"method": "m", "args": {}})
            self.assertEqual((await self.asked())["error"], expected)

    async def test_what_is_announced_later_is_registered_once(self) -> None:
        bridge, ganglion = await self.connected(callbacks=["user_may_create_room"])
        self.assertEqual(self.registered, [({"user_may_create_room"}, {}), ({"check_event_allowed", "auth_checkers"}, {})])
        self.registered.clear()
        code = {"name": "com.example.code", "fields": ["code"]}
        for names, types in (
            (["auth_checkers", "get_interested_users"], [code]),
            (["auth_checkers", "get_users_for_states", "accept_make_join"], [code]),
            (["auth_checkers"], [{**code, "fields": ["code", "pin"]}]),
        ):
            ganglion.say(method="announce", params={"callbacks": names, "login_types": types})
        await self.everything_was_heard(ganglion)
        names = {"auth_checkers", "get_interested_users", "get_users_for_states"}
        # The extension too: whether this Synapse has it is found out where it is registered.
        later = [(names, {"com.example.code": ("code",)}), ({"accept_make_join"}, {})]
        self.assertEqual(self.registered, later)
        self.assertIn("the fields of the login type com.example.code have changed: restart Synapse", self.log.lines)

    async def test_without_ganglion_the_last_announcement_is_registered(self) -> None:
        path = self.path + ".state"
        state_file.store(path, Announcement(frozenset({"on_new_event"})))
        self.bridge(state_file=path, callbacks=["user_may_invite"])
        self.assertEqual(self.registered, [({"on_new_event"}, {})])

    async def test_without_anything_every_gating_callback_is_registered(self) -> None:
        self.bridge()
        ((names, _),) = self.registered
        self.assertIn("check_event_allowed", names)
        self.assertIn("is_3pid_allowed", names)
        self.assertNotIn("on_new_event", names)
        self.assertNotIn("accept_make_join", names)
