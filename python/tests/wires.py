"""Both ends of a wire in one process: what the bridge sends is read, and answered by hand."""

from __future__ import annotations

import json
import logging
import struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from ganglion_synapse.connection import Connection
from ganglion_synapse.hello import Announcement, Introduction

WELCOME: dict[str, Any] = {
    "version": 1,
    "role": "ganglion",
    "features": ["callback", "continue", "cancel"],
    "server_name": "example.com",
    "software": "ganglion 0.1.0",
    "max_frame": 65536,
    "window": 4,
    "deadline_ms": 5000,
    "callbacks": ["check_event_for_spam"],
    "login_types": [],
}


def frame(message: Any) -> bytes:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return struct.pack("!I", len(body)) + body


def frames(data: bytes) -> list[Any]:
    found = []
    while data:
        (length,) = struct.unpack("!I", data[:4])
        found.append(json.loads(data[4 : 4 + length]))
        data = data[4 + length :]
    return found


class Transport(StringTransport):
    """Remembers how it was ended, and tells nobody before the test does."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class Peer:
    """The other end of one wire."""

    def __init__(self, wire: Protocol) -> None:
        self.wire = wire
        self.transport = Transport()
        wire.makeConnection(self.transport)

    def sent(self) -> list[Any]:
        """What came since the last time."""
        data = self.transport.value()
        self.transport.clear()
        return frames(data)

    def say(self, message: Any) -> None:
        self.wire.dataReceived(frame(message))

    def answer(self, number: int, result: Any) -> None:
        self.say({"jsonrpc": "2.0", "id": number, "result": result})

    def error(self, number: int | None, code: int, message: str = "", data: Any = None) -> None:
        self.say({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message, "data": data}})

    def lose(self) -> None:
        self.wire.connectionLost(Failure(ConnectionLost()))

    @property
    def closing(self) -> bool:
        return bool(self.transport.disconnecting)


class Log(logging.Handler):
    """What is said in the log."""

    def __init__(self, name: str = "ganglion_synapse") -> None:
        super().__init__()
        self.lines: list[str] = []
        self._logger = logging.getLogger(name)
        self._before = self._logger.level, self._logger.propagate
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def remove(self) -> None:
        self._logger.removeHandler(self)
        self._logger.level, self._logger.propagate = self._before


class Ganglion:
    """A connection of the bridge, and the Ganglion that it finds or does not find."""

    def __init__(self, call_timeout: float = 2.0, requests: Any = None) -> None:
        self.clock = Clock()
        self.attempts: list[tuple[Factory, Deferred[Any]]] = []
        self.announced: list[Announcement] = []
        introduction = Introduction("example.com", None, "Synapse 1.163.2", None)
        self.connection = Connection(
            self.clock,
            self._connect,
            introduction,
            call_timeout,
            requests or {},
            self.announced.append,
            jitter=lambda: 1.0,
        )
        self.connection.start()

    def _connect(self, factory: Factory) -> Deferred[Any]:
        attempt: Deferred[Any] = Deferred()
        self.attempts.append((factory, attempt))
        return attempt

    def accept(self) -> Peer:
        """Lets the last attempt succeed; the hello is not answered."""
        factory, attempt = self.attempts.pop()
        wire = factory.buildProtocol(None)
        assert wire is not None
        peer = Peer(wire)
        attempt.callback(wire)
        return peer

    def welcome(self, **changes: Any) -> Peer:
        """Lets the last attempt succeed, with a hello."""
        peer = self.accept()
        (hello,) = peer.sent()
        assert hello["method"] == "hello"
        peer.answer(hello["id"], {**WELCOME, **changes})
        return peer

    def refuse(self) -> None:
        """Lets the last attempt fail."""
        self.attempts.pop()[1].errback(ConnectionRefusedError())

    def call(self, params: bytes = b"{}", **how: Any) -> Any:
        return self.connection.call("callback", params, **how)
