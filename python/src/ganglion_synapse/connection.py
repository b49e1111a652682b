"""The lasting way to Ganglion: one wire at a time, a new one when it ends, and the calls that wait for either."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from .config import TcpAddress
from .errors import CallFailed, RpcError
from .hello import Announcement, Introduction, Welcome, refusal
from .unix import connect_unix
from .wire import Call, Handler, Wire

logger = logging.getLogger(__name__)

GRACE = 0.25
"""How much longer than Ganglion's deadline the bridge waits: Ganglion's own answer to it says more."""

LONGEST_WAIT = 30.0
"""How long a call waits for a place in the window."""

ATTEMPT_LIMIT = 5.0
"""How long connecting and the hello may take."""

STEADY = 10.0
"""After this time a connection was good, and losing it begins a new series of attempts."""

FIRST_DELAY, LONGEST_DELAY = 0.1, 10.0

Connect = Callable[[Factory], "Deferred[Any]"]


def connector(address: str | TcpAddress, reactor: Any) -> Connect:
    """How to connect to an address."""
    if not isinstance(address, TcpAddress):
        return partial(connect_unix, reactor, address)
    endpoint = HostnameEndpoint(reactor, address.host, address.port)

    def connected(wire: Any) -> Any:
        wire.transport.setTcpNoDelay(True)
        wire.transport.setTcpKeepAlive(True)
        return wire

    return lambda factory: endpoint.connect(factory).addCallback(connected)


class Connection:
    """Asks Ganglion over whichever wire there is.

    Everything that happens here is said in the log once per change of state, however many calls or attempts there are.
    """

    def __init__(
        self,
        clock: Any,
        connect: Connect,
        introduction: Introduction,
        call_timeout: float,
        requests: Mapping[str, Handler],
        announced: Callable[[Announcement], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._connect = connect
        self._introduction = introduction
        self._patience = call_timeout
        self._limit = call_timeout + GRACE
        self._requests = requests
        self._announced = announced
        self._jitter = jitter

        self.max_frame: int | None = None
        """The largest frame that Ganglion accepts, once it has said it."""
        self._wire: Wire | None = None
        self._open = False
        """Whether the wire takes calls: its hello was answered, and nobody said goodbye."""
        self._window = 1
        self._counted = 0
        self._queue: deque[Call] = deque()
        self._waiting_for_connection = True
        """Whether a call waits while there is no connection: one may be there soon."""
        self._unavailable = ("not_running", "Ganglion is not connected")
        """What a call fails with while there is no connection to wait for."""

        self._attempts = 0
        self._since = 0.0
        self._stopped = False
        self._said: str | None = None
        # Timers, each of them one for all calls.
        self._deadline: Any = None
        self._queue_deadline: Any = None
        self._patience_timer: Any = None
        self._attempt_timer: Any = None
        self._retry_timer: Any = None

    # Calls.

    def call(self, method: str, params: bytes, counted: bool = True) -> Call:
        """Sends a request, or lets it wait for its turn. Not `counted`: it is caused by a call of Ganglion, which may
        hold a place that the window would make it wait for.

        Raises `CallFailed` if there is no connection to wait for; else the call ends with the answer's result, with
        `RpcError`, or with `CallFailed`.
        """
        call = Call(method, params, counted)
        if self._open:
            if not counted or (self._counted < self._window and not self._queue):
                self._send(call)
                return call
        elif not self._waiting_for_connection:
            raise CallFailed(*self._unavailable)
        call.since = self._clock.seconds()
        self._queue.append(call)
        if self._queue_deadline is None:
            self._queue_deadline = self._clock.callLater(LONGEST_WAIT, self._waited_long)
        return call

    def _send(self, call: Call) -> None:
        assert self._wire is not None
        call.since = self._clock.seconds()
        if self._wire.send(call):
            if call.counted:
                self._counted += 1
            if self._deadline is None:
                self._deadline = self._clock.callLater(self._limit, self._timed_out)

    def _pump(self) -> None:
        queue = self._queue
        while queue and self._open and self._counted < self._window:
            call = queue.popleft()
            # A cancelled one only leaves its place.
            if not call.called:
                self._send(call)

    def settled(self, call: Call) -> None:
        if call.counted:
            self._counted -= 1
        if self._queue:
            self._pump()

    def _timed_out(self) -> None:
        """Fails the calls whose time is over. All have the same time, so that the oldest ends first."""
        self._deadline = None
        wire = self._wire
        if wire is None:
            return
        now = self._clock.seconds()
        late: list[Call] = []
        for call in wire.in_flight.values():
            if call.since + self._limit > now:
                self._deadline = self._clock.callLater(call.since + self._limit - now, self._timed_out)
                break
            late.append(call)
        if any(call.heard == wire.received for call in late):
            # A Ganglion that is only busy answers at its deadline, and this one said nothing at all.
            self._end(wire, "it does not respond", CallFailed("deadline_exceeded", "Ganglion does not respond"))
            return
        for call in late:
            if wire.in_flight.pop(call.id, None) is not None:
                self.settled(call)
                if not call.called:
                    call.errback(CallFailed("deadline_exceeded", "no answer in time"))

    def _waited_long(self) -> None:
        self._queue_deadline = None
        now = self._clock.seconds()
        queue = self._queue
        while queue:
            left = queue[0].since + LONGEST_WAIT - now
            if left > 0 and not queue[0].called:
                self._queue_deadline = self._clock.callLater(left, self._waited_long)
                return
            call = queue.popleft()
            if not call.called:
                call.errback(CallFailed("overloaded", f"it waited {LONGEST_WAIT:g} s for its turn"))

    # The connection.

    def start(self) -> None:
        """Connects, and keeps connecting until `stop`."""
        self._attempt()

    def stop(self) -> None:
        """Says goodbye and connects no more."""
        self._stopped = True
        self._cancel("_retry_timer")
        wire, connected = self._wire, self._open
        self._give_up("not_running", "the bridge stops")
        if wire is not None:
            self._open = False
            wire.goodbye("stopping") if connected else wire.abort("stopping")

    def _attempt(self) -> None:
        self._retry_timer = None
        attempt = self._connect(Factory.forProtocol(self._new_wire))
        self._attempt_timer = self._clock.callLater(ATTEMPT_LIMIT, self._attempt_took_long, attempt)
        attempt.addCallbacks(self._connected, self._unreachable)
        attempt.addErrback(lambda failure: logger.error("connecting failed: %s", failure.getTraceback()))

    def _new_wire(self) -> Wire:
        notes = {"announce": self._announce}
        return Wire(self, self._clock, self._requests, notes)

    def _attempt_took_long(self, attempt: Deferred[Any]) -> None:
        self._attempt_timer = None
        if self._wire is None:
            attempt.cancel()
        else:
            self._end(self._wire, "it did not answer the hello in time")

    def _unreachable(self, failure: Failure) -> None:
        self._cancel("_attempt_timer")
        self._down(failure.getErrorMessage())

    def _connected(self, wire: Wire) -> None:
        if self._stopped:
            wire.abort("stopping")
            return
        self._wire = wire
        hello = wire.call("hello", self._introduction.to_json())
        hello.addCallback(self._welcomed, wire)
        hello.addErrback(self._unwelcome, wire)

    def _welcomed(self, answer: Any, wire: Wire) -> None:
        welcome = Welcome.read(answer, self._introduction.server_name)
        self._cancel("_attempt_timer")
        self._cancel("_patience_timer")
        self.max_frame = wire.peer_max_frame = welcome.max_frame
        wire.greeted = True
        self._window = welcome.window
        self._open = True
        self._waiting_for_connection = True
        self._since = self._clock.seconds()
        self._say("connected", logging.INFO, "connected to %s", welcome.software)
        self._tell(welcome.announcement)
        self._pump()

    def _unwelcome(self, failure: Failure, wire: Wire) -> None:
        """The hello was refused, or its answer is none."""
        if failure.check(CallFailed):
            # The connection ended, which `ended` takes care of.
            return
        error = failure.value
        if isinstance(error, RpcError):
            reason = refusal({"code": error.code, "message": error.message})
        elif isinstance(error, ValueError):
            reason = str(error)
        else:
            reason = "its hello cannot be read"
            logger.error("Ganglion's hello failed", exc_info=(failure.type, error, failure.getTracebackObject()))
        self._wire = None
        self._cancel("_attempt_timer")
        wire.close(reason)
        self._say(f"refused {reason}", logging.ERROR, "Ganglion cannot be used: %s", reason)
        self._give_up("protocol", reason)
        self._retry()

    def _announce(self, params: dict[str, Any]) -> None:
        try:
            announcement = Announcement.read(params)
        except ValueError as error:
            logger.warning("Ganglion sent an announcement that cannot be read: %s", error)
        else:
            self._tell(announcement)

    def _tell(self, announcement: Announcement) -> None:
        try:
            self._announced(announcement)
        except Exception:
            logger.exception("Ganglion's announcement could not be followed")

    def said_goodbye(self, wire: Wire, reason: str) -> None:
        if wire is self._wire and self._open:
            self._open = False
            self._be_patient()
            self._say("down", logging.WARNING, "Ganglion says goodbye: %s", reason)
            # It ends the connection when all is answered; if it forgets to, the bridge does.
            wire.drain()

    def put_back(self, call: Call) -> bool:
        if self._open or not self._waiting_for_connection:
            return False
        call.wire = None
        self._queue.appendleft(call)
        return True

    def ended(self, wire: Wire, reason: str) -> None:
        if wire is self._wire:
            self._end(wire, reason)

    def _end(self, wire: Wire, reason: str, failure: CallFailed | None = None) -> None:
        self._wire = None
        self._open = False
        self._cancel("_attempt_timer")
        self._cancel("_deadline")
        if self._since and self._clock.seconds() - self._since >= STEADY:
            self._attempts = 0
        if wire.greeted:
            self._be_patient()
        wire.abort(reason)
        wire.fail(failure or CallFailed("not_running", f"the connection to Ganglion was lost: {reason}"))
        self._down(reason)

    def _down(self, reason: str) -> None:
        if self._stopped:
            return
        self._say("down", logging.WARNING, "not connected to Ganglion: %s", reason)
        if self._patience_timer is None:
            self._give_up("not_running", reason)
        self._retry()

    def _be_patient(self) -> None:
        """A Ganglion that is only restarted shall not be noticed: calls wait for it, for a while."""
        self._waiting_for_connection = True
        self._cancel("_patience_timer")
        self._patience_timer = self._clock.callLater(self._patience, self._patience_ended)

    def _patience_ended(self) -> None:
        self._patience_timer = None
        if not self._open:
            self._give_up("not_running", "Ganglion is not connected")

    def _give_up(self, kind: str, reason: str) -> None:
        """Until there is a connection, calls fail at once."""
        self._cancel("_patience_timer")
        self._cancel("_queue_deadline")
        self._waiting_for_connection = False
        self._unavailable = (kind, reason)
        waiting, self._queue = self._queue, deque()
        for call in waiting:
            if not call.called:
                call.errback(CallFailed(kind, reason))

    def _retry(self) -> None:
        if self._stopped:
            return
        longest = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self._attempts, 10))
        self._attempts += 1
        # Many processes of one homeserver lose the connection at the same moment.
        self._retry_timer = self._clock.callLater(longest * (0.5 + self._jitter() / 2), self._attempt)

    def _cancel(self, name: str) -> None:
        timer = getattr(self, name)
        setattr(self, name, None)
        if timer is not None and timer.active():
            timer.cancel()

    def _say(self, state: str, level: int, text: str, *args: Any) -> None:
        if state != self._said:
            self._said = state
            logger.log(level, text, *args)
