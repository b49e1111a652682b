from __future__ import annotations

import struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganglion_synapse.errors import CallFailed, RpcError
from ganglion_synapse.wire import Wire

from wires import Ganglion, Log, Peer, frame


class Nobody:
    """An owner that lets everything happen."""

    def settled(self, call: Any) -> None:
        pass

    def put_back(self, call: Any) -> bool:
        return False

    def said_goodbye(self, wire: Any, reason: str) -> None:
        pass

    def ended(self, wire: Wire, reason: str) -> None:
        wire.fail(CallFailed("not_running", reason))


class AskedTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = Log()
        self.addCleanup(self.log.remove)
        self.later: Deferred[Any] = Deferred()
        requests = {
            "value": lambda params: params,
            "later": lambda params: self.later,
            "error": self.error,
            "bug": self.bug,
            "set": lambda params: {object()},
            "large": lambda params: "x" * 70_000,
        }
        self.clock = Clock()
        self.wire = Wire(Nobody(), self.clock, requests, {})
        self.peer = Peer(self.wire)
        self.wire.greeted = True

    def error(self, params: Any) -> Any:
        raise RpcError(-32005, "M_NOT_FOUND", {"status": 404})

    def bug(self, params: Any) -> Any:
        raise RuntimeError("a secret")

    def ask(self, method: str, number: Any = 1, params: Any = None) -> list[Any]:
        self.peer.say({"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}, "unknown": 1})
        return self.peer.sent()

    def assert_error(self, answers: list[Any], code: int) -> None:
        self.assertEqual([answer["error"]["code"] for answer in answers], [code])

    def assert_refused(self, data: bytes, code: int) -> None:
        self.wire.dataReceived(data)
        (answer,) = self.peer.sent()
        self.assertEqual((answer["id"], answer["error"]["code"]), (None, code))
        self.assertTrue(self.peer.closing)

    def test_requests_are_answered_with_what_their_handler_gives(self) -> None:
        self.assertEqual(self.ask("value", 7, {"a": 1}), [{"jsonrpc": "2.0", "id": 7, "result": {"a": 1}}])

    def test_answers_come_in_the_order_in_which_they_are_ready(self) -> None:
        self.assertEqual(self.ask("later", 1), [])
        self.assertEqual(self.ask("value", 2)[0]["id"], 2)
        self.later.callback("done")
        self.assertEqual(self.peer.sent(), [{"jsonrpc": "2.0", "id": 1, "result": "done"}])

    def test_an_unknown_method_is_an_error_and_an_unknown_notification_is_none(self) -> None:
        expected = {"jsonrpc": "2.0", "id": 8, "error": {"code": -32601, "message": "unknown method"}}
        self.assertEqual(self.ask("nonsense", 8), [expected])
        self.peer.say({"jsonrpc": "2.0", "method": "nonsense"})
        self.assertEqual(self.peer.sent(), [])
        self.assertFalse(self.peer.closing)

    def test_a_handler_s_error_is_sent_and_an_exception_s_text_is_not(self) -> None:
        self.assertEqual(self.ask("error")[0]["error"], {"code": -32005, "message": "M_NOT_FOUND", "data": {"status": 404}})
        self.assertEqual(self.ask("bug")[0]["error"], {"code": -32603, "message": "internal error"})
        self.assert_error(self.ask("set"), -32603)
        self.assertEqual(len(self.log.lines), 2)

    def test_an_answer_that_the_other_side_would_not_accept_becomes_an_error(self) -> None:
        self.assert_error(self.ask("large"), -32000)

    def test_a_cancelled_request_is_answered_once(self) -> None:
        self.ask("later", 3)
        self.peer.say({"jsonrpc": "2.0", "method": "cancel", "params": {"id": 3}})
        self.assert_error(self.peer.sent(), -32800)
        self.later.callback("done")
        self.assertEqual(self.peer.sent(), [])

    def test_after_our_goodbye_requests_are_refused_and_the_end_comes_when_all_is_answered(self) -> None:
        self.ask("later", 1)
        self.wire.goodbye("stopping")
        self.assertEqual(self.peer.sent(), [{"jsonrpc": "2.0", "method": "goodbye", "params": {"reason": "stopping"}}])
        self.assert_error(self.ask("value", 2), -32006)
        self.assertFalse(self.peer.closing)
        self.later.callback(1)
        self.assertTrue(self.peer.closing)

    def test_what_is_not_json_ends_the_connection(self) -> None:
        self.assert_refused(frame(b"GET / HTTP/1.1"), -32700)

    def test_what_is_not_utf_8_ends_the_connection(self) -> None:
        self.assert_refused(frame(b'"\xff"'), -32700)

    def test_what_is_nested_without_end_ends_the_connection(self) -> None:
        self.assert_refused(frame(b"[" * 50_000), -32700)

    def test_what_is_no_message_ends_the_connection(self) -> None:
        for message in ([], {"id": 1, "result": 1}, {"jsonrpc": "2.0", "id": 1}, {"jsonrpc": "2.0", "method": 5, "id": 1}):
            self.setUp()
            self.assert_refused(frame(message), -32600)
            self.doCleanups()

    def test_an_id_that_is_in_flight_already_ends_the_connection(self) -> None:
        self.ask("later", 1)
        self.assert_refused(frame({"jsonrpc": "2.0", "id": 1, "method": "value"}), -32600)

    def test_a_request_before_the_hello_ends_the_connection(self) -> None:
        self.wire.greeted = False
        self.assert_refused(frame({"jsonrpc": "2.0", "id": 1, "method": "value"}), -32600)

    def test_a_frame_that_is_too_large_ends_the_connection(self) -> None:
        self.wire.dataReceived(struct.pack("!I", 16 * 1024 * 1024 + 1))
        self.assertTrue(self.peer.closing)

    def test_who_does_not_read_our_last_words_is_cut_off(self) -> None:
        self.wire.dataReceived(frame(b"garbage"))
        self.clock.advance(1)
        self.assertTrue(self.peer.transport.aborted)

    def test_nothing_is_heard_after_the_end(self) -> None:
        self.wire.dataReceived(frame(b"garbage") + frame({"jsonrpc": "2.0", "id": 1, "method": "value"}))
        self.assertEqual(len(self.peer.sent()), 1)

    def test_frames_may_come_in_pieces(self) -> None:
        large = frame({"jsonrpc": "2.0", "id": 1, "method": "value", "unknown": "x" * 5000})
        data = large + frame({"jsonrpc": "2.0", "id": 2, "method": "value"}) + large
        for size in (1, 3, 1000, 7000):
            for start in range(0, len(data), size):
                self.wire.dataReceived(data[start : start + size])
            self.assertEqual([answer["id"] for answer in self.peer.sent()], [1, 2, 1])


class LargeRequestTest(SynchronousTestCase):
    def test_a_request_that_ganglion_would_not_accept_is_never_sent(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome(window=1)
        call = ganglion.call(b'"%b"' % (b"x" * 65536))
        self.assertEqual(self.failureResultOf(call, CallFailed).value.kind, "protocol")
        self.assertEqual(peer.sent(), [])
        ganglion.call(b"1")
        self.assertEqual(len(peer.sent()), 1)

    def test_garbage_from_ganglion_fails_what_is_in_flight(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome()
        call = ganglion.call()
        peer.say(b"garbage")
        self.assertEqual(self.failureResultOf(call, CallFailed).value.kind, "not_running")

    def test_an_answer_to_nothing_is_ignored(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome()
        peer.answer(99, "what?")
        self.assertFalse(peer.closing)
