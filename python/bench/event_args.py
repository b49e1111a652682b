"""What it costs to tell Ganglion of an event: the args, their JSON, and the whole callback but for the wire.

PYTHONPATH=src:tests python bench/event_args.py
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

from ganglion_synapse import arguments
from ganglion_synapse.callbacks.spam_checker import SpamChecker
from ganglion_synapse.callbacks.third_party_rules import ThirdPartyRules
from ganglion_synapse.encoding import encode

from synapse_objects import BOB, a_room, an_event

ROUNDS = 20_000
REPEATS = 5


class Encoding:
    """A bridge whose Ganglion answers at once."""

    max_frame = None

    def __init__(self, *, encodes: bool) -> None:
        self._encodes = encodes

    async def ask(self, callback: str, args: Any, **_: Any) -> Any:
        if self._encodes:
            encode(args)
        return {"verdict": "pass", "value": None}


def a_message() -> Any:
    """A reply in a thread, as a client writes it."""
    relation = {
        "rel_type": "m.thread",
        "event_id": "$" + "c" * 43,
        "is_falling_back": True,
        "m.in_reply_to": {"event_id": "$" + "d" * 43},
    }
    body = "hi there this is a message of a usual length, as people write them"
    return an_event(
        content={"msgtype": "m.text", "body": body, "m.relates_to": relation, "m.mentions": {}},
        auth_events=["$" + "a" * 43] * 3,
        prev_events=["$" + "b" * 43],
        hashes={"sha256": "x" * 43},
        signatures={"example.com": {"ed25519:a_abcd": "y" * 86}},
        metadata={"txn_id": "m1", "token_id": 3, "device_id": "D"},
    )


def finished(coroutine: Any) -> None:
    """Runs what never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


def show(what: str, work: Callable[[], object]) -> None:
    """The best of some repeats."""
    best = min(timeit.repeat(work, number=ROUNDS, repeat=REPEATS)) / ROUNDS
    print(f"{what:55} {best * 1e6:6.2f} us")


def main() -> None:
    event = a_message()
    args = {"event": arguments.event(event)}
    bare: Any = Encoding(encodes=False)
    full: Any = Encoding(encodes=True)
    api: Any = None
    check, checked = SpamChecker(bare, api).check_event_for_spam, SpamChecker(full, api).check_event_for_spam
    told = ThirdPartyRules(full, api).on_new_event
    state = a_room(members=100)
    state[("m.room.member", BOB)] = an_event(type="m.room.member", state_key=BOB, content={"membership": "join"})

    print(f"{len(encode(args))} bytes")
    show("Synapse's get_dict alone", event.get_dict)
    show("args", lambda: arguments.event(event))
    show("JSON of the args", lambda: encode(args))
    show("args and JSON", lambda: encode({"event": arguments.event(event)}))
    show("check_event_for_spam but for JSON and wire", lambda: finished(check(event)))
    show("check_event_for_spam but for the wire", lambda: finished(checked(event)))
    show("on_new_event in a room of 100, but for the wire", lambda: finished(told(event, state)))


if __name__ == "__main__":
    main()
