"""The golden messages, which Ganglion's tests read too: what the bridge sends is exactly this, what it gets it understands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganglion_synapse.errors import MATRIX_ERROR, RpcError
from ganglion_synapse.hello import Announcement, Introduction, Welcome, refusal
from ganglion_synapse.wire import Wire
from test_wire import Nobody
from wires import Peer

FILE = Path(__file__).parents[2] / "tests" / "golden" / "wire.json"
GOLDEN = {entry["name"]: entry for entry in json.loads(FILE.read_text())}


def message(name: str) -> Any:
    return GOLDEN[name]["message"]


class GoldenTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.answer: Any = None
        self.asked: list[Any] = []
        self.told: list[Any] = []
        methods = ("state.get", "state.page", "media.read", "module_api")
        requests = {method: self.requested(method) for method in methods}
        self.wire = Wire(Nobody(), Clock(), requests, {"announce": self.told.append})
        self.wire.greeted = True
        self.peer = Peer(self.wire)

    def requested(self, method: str) -> Any:
        def handler(params: Any) -> Any:
            self.asked.append((method, params))
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return handler

    def assert_sent(self, name: str) -> None:
        self.assertEqual(self.peer.sent(), [message(name)])

    def test_the_hello(self) -> None:
        introduction = Introduction("example.com", None, "Synapse 1.163.2", None)
        self.wire.call("hello", introduction.to_json())
        self.assert_sent("hello")
        welcome = Welcome.read(message("hello_answer")["result"], "example.com")
        expected = Announcement(frozenset({"check_event_for_spam"}), (("m.login.password", ("password",)),))
        self.assertEqual(welcome, Welcome("ganglion 0.1.0", 16777216, 128, expected))

    def test_refusals_of_the_hello_say_why(self) -> None:
        reasons = {
            "hello_refused_version": "it speaks another version of the protocol",
            "hello_refused_token": "the token is missing or wrong",
            "hello_refused_server": "it is the Ganglion of another homeserver",
        }
        for name, reason in reasons.items():
            self.assertIn(reason, refusal(message(name)["error"]))

    def test_our_requests(self) -> None:
        for name in ("callback", "callback_below", "callback_media", "continue_login", "continue_update"):
            expected = message(name)
            self.wire._next_id = expected["id"]
            self.wire.call(expected["method"], expected["params"])
            self.assert_sent(name)

    def test_answers_to_our_requests(self) -> None:
        for name in ("callback_answer", "continue_login_answer"):
            self.wire._next_id = message(name)["id"]
            call = self.wire.call("callback", {})
            self.peer.say(message(name))
            self.assertEqual(self.successResultOf(call), message(name)["result"])

    def test_errors_of_our_requests(self) -> None:
        for name in ("cancelled", "invalid_args"):
            self.wire._next_id = message(name)["id"]
            call = self.wire.call("callback", {})
            self.peer.say(message(name))
            error = self.failureResultOf(call, RpcError).value
            expected = message(name)["error"]
            self.assertEqual((error.code, error.message, error.data), (expected["code"], expected["message"], expected.get("data")))

    def test_requests_of_ganglion(self) -> None:
        for name in ("state_get", "state_page", "media_read", "module_api"):
            request, answer = message(name), message(f"{name}_answer")
            self.answer = answer["result"]
            self.peer.say(request)
            self.assertEqual(self.asked.pop(), (request["method"], request["params"]))
            self.assert_sent(f"{name}_answer")

    def test_errors_that_we_answer(self) -> None:
        expected = message("matrix_error")["error"]
        self.answer = RpcError(MATRIX_ERROR, expected["message"], expected["data"])
        self.peer.say(message("module_api"))
        self.assert_sent("matrix_error")
        self.peer.say({**message("module_api"), "id": 8, "method": "nonsense"})
        self.assert_sent("unknown_method")

    def test_notifications(self) -> None:
        self.peer.say(message("announce"))
        expected = Announcement(frozenset({"check_event_for_spam", "user_may_invite"}))
        self.assertEqual([Announcement.read(params) for params in self.told], [expected])
        self.wire._next_id = 1
        call = self.wire.call("callback", {})
        self.peer.sent()
        call.cancel()
        self.failureResultOf(call)
        self.assert_sent("cancel")

    def test_a_goodbye_and_a_refused_frame(self) -> None:
        self.peer.say(message("goodbye"))
        self.assertFalse(self.peer.closing)
        self.peer.say(message("not_json"))
        self.assertTrue(self.peer.closing)

    def test_no_message_is_forgotten(self) -> None:
        """A new golden message needs a test here."""
        source = Path(__file__).read_text()
        for name in GOLDEN:
            quoted = f'"{name.removesuffix("_answer")}"'
            self.assertTrue(quoted in source or f'"{name}"' in source, name)
