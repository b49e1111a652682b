"""How long Synapse takes to ask modules about an event, in its own process.

    python ask_synapse.py --modules 5 --seconds 0.3 < args.json

Reads the args of `check_event_for_spam` in Ganglion's JSON, registers so many modules with Synapse's own class, and asks through it. Each
module looks at the sender and the text of the event, and lets it pass. No homeserver is started, and nothing is mocked that runs for
a question: the clock is Synapse's, on Twisted's reactor, and every question has a logging context, as requests have. Prints JSON: the
seconds that one chain takes, and Synapse's version.
"""

import argparse
import importlib.metadata
import json
import logging
import sys
import time
from types import SimpleNamespace

from twisted.internet import defer, reactor

from synapse.api.errors import Codes
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.events import make_event_from_dict
from synapse.logging.context import LoggingContext
from synapse.module_api import NOT_SPAM
from synapse.module_api.callbacks.spamchecker_callbacks import SpamCheckerModuleApiCallbacks
from synapse.util.clock import Clock

SERVER_NAME = "example.com"
SPAMMER = "@spammer:example.com"
SPAM = "Buy now"

# Chains between two looks at the time.
BATCH = 50


class Looks:
    """A module; it counts its calls, so that none is left out."""

    def __init__(self):
        self.calls = 0

    async def check_event_for_spam(self, event):
        self.calls += 1
        if event.sender == SPAMMER or event.content.get("body", "").startswith(SPAM):
            return Codes.FORBIDDEN
        return NOT_SPAM


def event_of(args):
    pdu = args["event"]
    version = KNOWN_ROOM_VERSIONS[pdu.pop("room_version")]
    # Synapse computes it.
    del pdu["event_id"]
    return make_event_from_dict({"signatures": {}, **pdu}, version)


def ask(callbacks, event, chains):
    """Asks so often, each time as a request would, and returns how many seconds it took."""
    begun = time.perf_counter()
    for _ in range(chains):
        with LoggingContext(name="bench", server_name=SERVER_NAME):
            asked = defer.ensureDeferred(callbacks.check_event_for_spam(event))
        # Nothing in it waits.
        if asked.result != NOT_SPAM:
            sys.exit(f"a wrong answer: {asked.result!r}")
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modules", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)

    clock = Clock(reactor, SERVER_NAME)
    callbacks = SpamCheckerModuleApiCallbacks(SimpleNamespace(hostname=SERVER_NAME, get_clock=lambda: clock))
    modules = [Looks() for _ in range(options.modules)]
    for module in modules:
        callbacks.register_callbacks(check_event_for_spam=module.check_event_for_spam)
    event = event_of(json.load(sys.stdin))

    ask(callbacks, event, BATCH)
    chains, took = 0, 0.0
    while took < options.seconds:
        took += ask(callbacks, event, BATCH)
        chains += BATCH
    assert all(module.calls == chains + BATCH for module in modules)
    version = importlib.metadata.version("matrix-synapse")
    print(json.dumps({"synapse": version, "seconds": took / chains}))


if __name__ == "__main__":
    main()
