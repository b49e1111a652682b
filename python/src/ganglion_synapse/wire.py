"""JSON-RPC 2.0 on one connection, as in docs/wire.md: both sides may ask, answers come in any order."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from struct import pack, unpack
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from .encoding import decode, encode
from .errors import (
    ANSWER_TOO_LARGE,
    CANCELLED,
    INTERNAL,
    INVALID_REQUEST,
    NOT_JSON,
    STOPPING,
    UNKNOWN_METHOD,
    CallFailed,
    RpcError,
)
from .hello import MAX_FRAME, SMALLEST_MAX_FRAME

logger = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any]], Any]
"""Answers a request: with a value, a Deferred or a coroutine. May raise `RpcError`."""

Listener = Callable[[dict[str, Any]], None]
"""Takes a notification."""

_FEW = 4
"""With more calls in flight one write for several of them is worth more than not to wait for it."""

_LINGER = 1.0
"""How long the last words may take to be sent before the connection is cut, in seconds."""


class Call(Deferred[Any]):
    """A request of ours, and the wait for its answer."""

    def __init__(self, method: str, params: bytes, counted: bool = True) -> None:
        super().__init__(Call._cancelled)
        self.method = method
        self.params = params
        self.counted = counted
        """Whether it has a place in the window."""
        self.since = 0.0
        """When it was sent, or began to wait."""
        self.heard = 0
        """How often the wire had received something when it was sent."""
        self.wire: Wire | None = None
        self.id = 0

    @staticmethod
    def _cancelled(call: Deferred[Any]) -> None:
        assert isinstance(call, Call)
        if call.wire is not None:
            call.wire.forget(call)


class Owner(Protocol):
    """Who is told what happens on a wire."""

    def settled(self, call: Call) -> None:
        """A call is not in flight any more; its result is given to who waits for it afterwards."""

    def said_goodbye(self, wire: Wire, reason: str) -> None:
        """The other side begins nothing any more."""

    def put_back(self, call: Call) -> bool:
        """Takes a call back that the other side has not begun because it stops; or not, and the call fails."""

    def ended(self, wire: Wire, reason: str) -> None:
        """The connection has ended, or will after the last words; `Wire.fail` is for what is in flight."""


class Wire(Int32StringReceiver):
    """One connection. Frames of this side are limited by `peer_max_frame`, which the hello tells."""

    MAX_LENGTH = MAX_FRAME

    def __init__(self, owner: Owner, clock: Any, requests: Mapping[str, Handler], notes: Mapping[str, Listener]) -> None:
        self.peer_max_frame = SMALLEST_MAX_FRAME
        self.greeted = False
        """Whether the hello was answered: nothing else may be asked before."""
        self.received = 0
        """How often something was received."""
        self.in_flight: dict[int, Call] = {}
        """Calls without an answer, the oldest first."""
        self._owner = owner
        self._clock = clock
        self._requests = requests
        self._notes = notes
        self._next_id = 0
        self._pieces: list[bytes] = []
        self._missing = 0
        """How much of a frame that has begun is still to come."""
        self._asked: set[int] = set()
        self._refusing = False
        """Whether this side has said goodbye."""
        self._leaving = False
        """Whether to end when nothing is under way."""
        self._closing: str | None = None
        self._cut: Any = None

    def connectionMade(self) -> None:
        self._write_at_once = getattr(self.transport, "write_at_once", self.transport.write)

    # What this side says.

    def call(self, method: str, params: Any) -> Call:
        """Sends a request."""
        call = Call(method, encode(params), counted=False)
        self.send(call)
        return call

    def send(self, call: Call) -> bool:
        """Sends a request that waited. One that the other side would not accept fails here, and nothing is sent."""
        params = call.params
        number = self._next_id
        head = b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":' % (number, call.method.encode())
        length = len(head) + len(params) + 1
        if length > self.peer_max_frame:
            detail = f"a request of {length} bytes, and Ganglion accepts {self.peer_max_frame}"
            call.errback(CallFailed("protocol", detail))
            return False
        self._next_id = number + 1
        call.id = number
        call.wire = self
        call.heard = self.received
        write = self._write_at_once if len(self.in_flight) < _FEW else self.transport.write
        self.in_flight[number] = call
        write(b"".join((pack("!I", length), head, params, b"}")))
        return True

    def notify(self, method: str, params: Any) -> None:
        """Sends a notification."""
        self._say(b'{"jsonrpc":"2.0","method":"%b","params":%b}' % (method.encode(), encode(params)))

    def forget(self, call: Call) -> None:
        """Tells the other side that nobody waits for an answer any more. It answers all the same."""
        if self.in_flight.get(call.id) is call and self._closing is None:
            self.notify("cancel", {"id": call.id})

    def goodbye(self, reason: str) -> None:
        """Begins nothing any more, and ends when everything under way is answered."""
        if not self._refusing and self._closing is None:
            self.notify("goodbye", {"reason": reason})
            self._refusing = True
            self.drain()

    def drain(self) -> None:
        """Ends when everything under way is answered."""
        self._leaving = True
        if not self.in_flight and not self._asked:
            self.close("goodbye")

    def close(self, reason: str) -> None:
        """Ends the connection after what was written."""
        if self._closing is None:
            self._closing = reason
            self.transport.loseConnection()
            # A peer that does not read would keep it for ever.
            self._cut = self._clock.callLater(_LINGER, self.transport.abortConnection)
            self._owner.ended(self, reason)

    def abort(self, reason: str) -> None:
        """Ends the connection at once."""
        if self._closing is None:
            self._closing = reason
            self.transport.abortConnection()
            self._owner.ended(self, reason)

    def fail(self, failure: CallFailed) -> None:
        """Fails everything that is in flight."""
        calls, self.in_flight = self.in_flight, {}
        for call in calls.values():
            self._owner.settled(call)
        for call in calls.values():
            if not call.called:
                call.errback(failure)

    # What the other side says.

    def dataReceived(self, data: bytes) -> None:
        self.received += 1
        if self._closing is not None:
            return
        # Twisted would copy what it has of a large frame for each piece of it.
        if self._missing > 0:
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data, self._pieces = b"".join(self._pieces), []
        elif not self._unprocessed and len(data) == 4 + int.from_bytes(data[:4], "big") <= self.MAX_LENGTH:
            # What comes is most often one frame, which Twisted would take apart several times.
            return self.stringReceived(data[4:])
        super().dataReceived(data)
        begun = self._unprocessed
        if len(begun) >= 4:
            self._missing = 4 + unpack("!I", begun[:4])[0] - len(begun)

    def stringReceived(self, string: bytes) -> None:
        if self._closing is not None:
            return
        try:
            message = decode(string)
        except (ValueError, RecursionError):
            return self._refuse(NOT_JSON, "not JSON")
        if type(message) is not dict or message.get("jsonrpc") != "2.0":
            return self._refuse(INVALID_REQUEST, "not a JSON-RPC message")
        if "method" in message:
            self._told(message)
        else:
            self._answered(message)

    def _answered(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        error = message.get("error")
        if error is not None:
            if not isinstance(error, dict) or type(error.get("code")) is not int:
                return self._refuse(INVALID_REQUEST, "not a JSON-RPC message")
            if number is None:
                # It could not read a frame of ours, and will end the connection.
                return self.close(f"it could not read what it was sent: {error.get('message')} ({error['code']})")
        elif "result" not in message:
            return self._refuse(INVALID_REQUEST, "not a JSON-RPC message")
        # An id that is no longer known is that of a call which timed out.
        call = self.in_flight.pop(number, None) if type(number) is int else None
        if call is None:
            return
        self._owner.settled(call)
        if not call.called:
            if error is None:
                call.callback(message["result"])
            elif error["code"] != STOPPING or not self._owner.put_back(call):
                call.errback(RpcError(error["code"], str(error.get("message")), error.get("data")))
        if self._leaving:
            self.drain()

    def _told(self, message: dict[str, Any]) -> None:
        method, params, number = message["method"], message.get("params"), message.get("id")
        params = {} if params is None else params
        if type(method) is not str or type(params) is not dict:
            return self._refuse(INVALID_REQUEST, "not a JSON-RPC message")
        if "id" not in message:
            return self._noted(method, params)
        if type(number) is not int or number < 0:
            return self._refuse(INVALID_REQUEST, "an id that is no number")
        if number in self._asked:
            return self._refuse(INVALID_REQUEST, "an id that is in flight already")
        if not self.greeted:
            return self._refuse(INVALID_REQUEST, "a request before the hello")
        self._asked.add(number)
        if self._refusing:
            return self._answer_error(number, RpcError(STOPPING, "stopping"))
        handler = self._requests.get(method)
        if handler is None:
            return self._answer_error(number, RpcError(UNKNOWN_METHOD, "unknown method"))
        try:
            result = handler(params)
            if inspect.iscoroutine(result):
                result = Deferred.fromCoroutine(result)
        except Exception:
            return self._answer_failure(Failure(), number)
        if isinstance(result, Deferred):
            result.addCallback(self._answer, number)
            result.addErrback(self._answer_failure, number)
        else:
            self._answer(result, number)

    def _noted(self, method: str, params: dict[str, Any]) -> None:
        if method == "cancel":
            # What was begun runs to its end: half of what a module wanted done would be worse than all of it.
            number = params.get("id")
            if type(number) is int and number in self._asked:
                self._answer_error(number, RpcError(CANCELLED, "cancelled"))
        elif method == "goodbye":
            self._owner.said_goodbye(self, str(params.get("reason")))
        elif self.greeted and (listener := self._notes.get(method)) is not None:
            try:
                listener(params)
            except Exception:
                logger.exception("the notification %s from Ganglion failed", method)

    def _answer(self, result: Any, number: int) -> None:
        if number not in self._asked:
            return
        try:
            body = encode(result)
        except ValueError:
            return self._answer_failure(Failure(), number)
        message = b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (number, body)
        if len(message) > self.peer_max_frame:
            return self._answer_error(number, RpcError(ANSWER_TOO_LARGE, "the answer is too large"))
        self._finish(number, message)

    def _answer_failure(self, failure: Failure, number: int) -> None:
        if isinstance(failure.value, RpcError):
            return self._answer_error(number, failure.value)
        logger.error("a request of Ganglion failed", exc_info=(failure.type, failure.value, failure.getTracebackObject()))
        self._answer_error(number, RpcError(INTERNAL, "internal error"))

    def _answer_error(self, number: int, error: RpcError) -> None:
        if number not in self._asked:
            return
        fields = {"code": error.code, "message": error.message}
        if error.data is not None:
            fields["data"] = error.data
        try:
            message = b'{"jsonrpc":"2.0","id":%d,"error":%b}' % (number, encode(fields))
        except ValueError:
            return self._answer_failure(Failure(), number)
        if len(message) > self.peer_max_frame:
            return self._answer_error(number, RpcError(ANSWER_TOO_LARGE, "the answer is too large"))
        self._finish(number, message)

    def _finish(self, number: int, message: bytes) -> None:
        self._asked.discard(number)
        self._say(message)
        if self._leaving:
            self.drain()

    def _say(self, message: bytes) -> None:
        if self._closing is None:
            self.transport.write(pack("!I", len(message)) + message)

    def _refuse(self, code: int, message: str) -> None:
        """The other side does not keep to the protocol: nothing that it says later can be trusted."""
        self._say(b'{"jsonrpc":"2.0","id":null,"error":%b}' % encode({"code": code, "message": message}))
        self.close(f"it sent what is no message: {message}")

    def lengthLimitExceeded(self, length: int) -> None:
        self.close(f"it sent a frame of {length} bytes")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._cut is not None and self._cut.active():
            self._cut.cancel()
        # Handlers that still run have nobody to answer to.
        self._asked.clear()
        if self._closing is None:
            self._closing = "it was closed" if reason.check(ConnectionDone) else reason.getErrorMessage()
            self._owner.ended(self, self._closing)
