"""What one call costs: µs a call with 1 and with 64 in flight, against a server in a child process that only answers.

    PYTHONPATH=src python bench/round_trip.py

`bare` is Twisted's Int32StringReceiver that sends the same bytes and looks at nothing: what the transport costs on this
machine. The rest is ours: the id, the JSON, the Deferred, the window, the deadline.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.basic import Int32StringReceiver

from ganglion_synapse.connection import Connection, connector
from ganglion_synapse.encoding import encode
from ganglion_synapse.hello import Introduction

CALLS = int(os.environ.get("CALLS", "20000"))
ROUNDS = 5
EVENT = {
    "type": "m.room.message",
    "sender": "@bob:example.com",
    "room_id": "!room:example.com",
    "content": {"msgtype": "m.text", "body": "hello, world " * 8},
    "origin_server_ts": 1766000000000,
    "depth": 12,
    "auth_events": ["$" + "a" * 43] * 4,
    "prev_events": ["$" + "b" * 43],
    "hashes": {"sha256": "c" * 43},
    "signatures": {"example.com": {"ed25519:a": "d" * 86}},
    "unsigned": {"age_ts": 1766000000000},
    "event_id": "$" + "e" * 43,
    "room_version": "11",
}
HEAD, TAIL = b'{"callback":"check_event_for_spam","args":', b',"deadline_ms":2000,"steps":false}'
BARE = b'{"jsonrpc":"2.0","id":1,"method":"callback","params":' + HEAD + encode({"event": EVENT}) + TAIL + b"}"
ANSWER = b'{"outcome":{"verdict":"pass"},"decided_by":null}'
WELCOME = {
    "version": 1,
    "role": "ganglion",
    "features": [],
    "server_name": "example.com",
    "software": "bench",
    "max_frame": 1 << 24,
    "window": 128,
    "deadline_ms": 5000,
    "callbacks": [],
    "login_types": [],
}


class Answering(Int32StringReceiver):
    """Answers everything; finds the id by its place, so that the measured side is the other one."""

    MAX_LENGTH = 1 << 24

    def stringReceived(self, string: bytes) -> None:
        start = string.index(b'"id":') + 5
        number = string[start : string.index(b",", start)]
        result = json.dumps(WELCOME).encode() if b'"hello"' in string[:80] else ANSWER
        self.sendString(b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (number, result))


class Bare(Int32StringReceiver):
    """Sends the frame again when an answer is there."""

    MAX_LENGTH = 1 << 24

    def run(self, calls: int, at_once: int) -> Deferred[None]:
        self.to_send, self.to_come, self.done = calls - at_once, calls, Deferred[None]()
        for _ in range(at_once):
            self.sendString(BARE)
        return self.done

    def stringReceived(self, string: bytes) -> None:
        self.to_come -= 1
        if self.to_send:
            self.to_send -= 1
            self.sendString(BARE)
        elif not self.to_come:
            self.done.callback(None)


async def one_after_the_other(connection: Connection, calls: int) -> None:
    for _ in range(calls):
        await connection.call("callback", HEAD + encode({"event": EVENT}) + TAIL)


async def measure(reactor: Any, path: str) -> None:
    bare = await UNIXClientEndpoint(reactor, path).connect(Factory.forProtocol(Bare))
    introduction = Introduction("example.com", None, "Synapse 0", None)
    connection = Connection(reactor, connector(path, reactor), introduction, 2.0, {}, lambda _: None)
    connection.start()
    await one_after_the_other(connection, 500)
    for at_once in (1, 64):
        figures: dict[str, list[float]] = {"bare": [], "ours": []}
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            await bare.run(CALLS, at_once)
            middle = time.perf_counter()
            loops = [one_after_the_other(connection, CALLS // at_once) for _ in range(at_once)]
            await gatherResults([Deferred.fromCoroutine(loop) for loop in loops])
            end = time.perf_counter()
            figures["bare"].append((middle - begin) / CALLS * 1e6)
            figures["ours"].append((end - middle) / (CALLS // at_once * at_once) * 1e6)
        best = {name: min(values) for name, values in figures.items()}
        print(f"{at_once:3} in flight: bare {best['bare']:6.1f} µs, ours {best['ours']:6.1f} µs a call")
    connection.stop()
    begin = time.perf_counter()
    for _ in range(CALLS):
        encode({"event": EVENT})
    print(f"encoding the args alone: {(time.perf_counter() - begin) / CALLS * 1e6:.1f} µs")


def serve(path: str) -> None:
    """The child process."""
    from twisted.internet import reactor

    reactor.listenUNIX(path, Factory.forProtocol(Answering))  # type: ignore[attr-defined]
    print("ready", flush=True)
    reactor.run()  # type: ignore[attr-defined]


def main() -> None:
    import subprocess

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "wire.sock")
        child = subprocess.Popen([sys.executable, __file__, path], stdout=subprocess.PIPE)
        try:
            assert child.stdout is not None
            child.stdout.readline()
            react(lambda reactor: Deferred.fromCoroutine(measure(reactor, path)))
        finally:
            child.kill()
            child.wait()


if __name__ == "__main__":
    serve(sys.argv[1]) if len(sys.argv) > 1 else main()
