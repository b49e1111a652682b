from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganglion_synapse.config import TcpAddress
from ganglion_synapse.hello import Announcement, HelloFailed, Introduction, blocking_hello
from wires import WELCOME, frame, frames

INTRODUCTION = Introduction("example.com", "worker1", "Synapse 1.163.2", "geheim")
ANSWER = frame({"jsonrpc": "2.0", "id": 0, "result": WELCOME})


class HelloTest(SynchronousTestCase):
    def serve(self, answer: bytes | None) -> TcpAddress:
        """A Ganglion that answers the first frame with these bytes; `None`: never."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.heard: list[Any] = []
        done = threading.Event()

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                head = connection.recv(4, socket.MSG_WAITALL)
                body = connection.recv(struct.unpack("!I", head)[0], socket.MSG_WAITALL)
                self.heard += frames(head + body)
                if answer is not None:
                    connection.sendall(answer)
                else:
                    done.wait()

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(listener.close)
        self.addCleanup(thread.join)
        self.addCleanup(done.set)
        return TcpAddress("127.0.0.1", listener.getsockname()[1])

    def assert_failed(self, ask: Callable[[], Any], text: str) -> None:
        with self.assertRaises(HelloFailed) as raised:
            ask()
        self.assertIn(text, str(raised.exception))
        self.assertNotIn("geheim", str(raised.exception))

    def test_it_asks_as_somebody_who_answers_nothing(self) -> None:
        welcome = blocking_hello(self.serve(ANSWER), INTRODUCTION, 5)
        self.assertEqual(welcome.announcement, Announcement(frozenset({"check_event_for_spam"})))
        params = self.heard[0]["params"]
        expected = {"role": "client", "features": [], "worker_name": "worker1", "token": "geheim"}
        self.assertEqual({key: params[key] for key in expected}, expected)

    def test_a_notification_may_come_first(self) -> None:
        note = frame({"jsonrpc": "2.0", "method": "announce", "params": {}})
        self.assertEqual(blocking_hello(self.serve(note + ANSWER), INTRODUCTION, 5).window, 4)

    def test_why_there_is_no_answer(self) -> None:
        refused = frame({"jsonrpc": "2.0", "id": 0, "error": {"code": -32001, "message": "the token is not known"}})
        other = frame({"jsonrpc": "2.0", "id": 0, "result": {**WELCOME, "server_name": "other.example"}})
        answers = {
            refused: "the token is missing or wrong",
            other: "another homeserver",
            b"": "the connection ended",
            b"HTTP/1.1 400 Bad Request": "too large",
            frame(b"{"): "no JSON",
            frame([]): "no JSON-RPC message",
            frame({"jsonrpc": "2.0", "id": 0, "result": {"callbacks": []}}): "no announcement",
        }
        for answer, text in answers.items():
            address = self.serve(answer)
            self.assert_failed(lambda: blocking_hello(address, INTRODUCTION, 5), text)

    def test_it_waits_no_longer_than_the_limit(self) -> None:
        address = self.serve(None)
        self.assert_failed(lambda: blocking_hello(address, INTRODUCTION, 0.05), "no answer within 0.05 s")

    def test_nobody_is_there(self) -> None:
        self.assert_failed(lambda: blocking_hello("/nonexistent/socket", INTRODUCTION, 5), "No such file")
