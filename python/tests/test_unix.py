"""The transport of a Unix socket, with a real socket at its other end."""

from __future__ import annotations

import os
import socket
import tempfile

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ganglion_synapse.unix import UnixTransport, connect_unix

MUCH = bytes(range(256)) * 8192


class Heard(Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.came: Deferred[None] = Deferred()
        self.ended: Deferred[Failure] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if not self.came.called:
            self.came.callback(None)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:
        self.ended.callback(reason.value)


class UnixTest(TestCase):
    async def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "wire.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listener.close)
        self.listener.bind(self.path)

    async def connect(self) -> tuple[Heard, UnixTransport, socket.socket]:
        self.listener.listen()
        protocol = await connect_unix(reactor, self.path, Factory.forProtocol(Heard))
        other, _ = self.listener.accept()
        other.setblocking(False)
        self.addCleanup(other.close)
        return protocol, protocol.transport, other

    async def read(self, other: socket.socket, length: int) -> bytes:
        data = b""
        while len(data) < length:
            try:
                data += other.recv(1 << 20)
            except BlockingIOError:
                await deferLater(reactor, 0.001)  # type: ignore[arg-type]
        return data

    async def leave(self, protocol: Heard) -> None:
        assert protocol.transport is not None
        protocol.transport.abortConnection()  # type: ignore[attr-defined]
        self.assertIsInstance(await protocol.ended, ConnectionAborted)

    async def test_nothing_is_written_after_an_abort(self) -> None:
        protocol, transport, other = await self.connect()
        transport.abortConnection()
        transport.write_at_once(b"too late")
        await protocol.ended
        self.assertEqual(other.recv(100), b"")

    async def test_what_is_written_at_once_is_there_before_the_reactor_runs(self) -> None:
        protocol, transport, other = await self.connect()
        transport.write_at_once(b"hello")
        self.assertEqual(other.recv(100), b"hello")
        await self.leave(protocol)

    async def test_everything_comes_in_its_order_also_if_nobody_reads_for_a_while(self) -> None:
        protocol, transport, other = await self.connect()
        sent = b""
        for part in (b"first", MUCH, b"second", MUCH, b"third"):
            transport.write_at_once(part)
            transport.write(part)
            sent += part * 2
        self.assertEqual(await self.read(other, len(sent)), sent)
        # All is written: the way is free again.
        transport.write_at_once(b"last")
        self.assertEqual(other.recv(100), b"last")
        await self.leave(protocol)

    async def test_what_is_written_before_the_end_arrives(self) -> None:
        protocol, transport, other = await self.connect()
        transport.write_at_once(MUCH)
        transport.write_at_once(b"last")
        transport.loseConnection()
        self.assertEqual((await self.read(other, len(MUCH) + 4))[-4:], b"last")
        self.assertIsInstance(await protocol.ended, ConnectionDone)
        self.assertEqual(await self.read(other, 0), b"")
        transport.write_at_once(b"nobody hears this")

    async def test_what_the_other_side_says_is_heard_and_its_end(self) -> None:
        protocol, transport, other = await self.connect()
        other.send(b"hello")
        await protocol.came
        self.assertEqual(protocol.data, b"hello")
        other.close()
        # That it is gone is found out by the reactor, once.
        transport.write_at_once(b"too late")
        await protocol.ended

    async def test_who_does_not_listen_is_an_error(self) -> None:
        for path in (self.path, self.path + "x", "/" + "x" * 200):
            failure = self.failureResultOf(connect_unix(reactor, path, Factory.forProtocol(Heard)))
            failure.trap(ConnectError, OSError)
