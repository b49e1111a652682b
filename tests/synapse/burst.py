"""Asks the modules about many events at once, as a batch of events of other servers does, and says what was decided."""

import json
from collections import Counter
from typing import Any

from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.events import EventBase, make_event_from_dict
from synapse.logging.context import make_deferred_yieldable, run_in_background
from synapse.module_api import NOT_SPAM, ModuleApi
from twisted.internet.defer import gatherResults
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

VERSION = KNOWN_ROOM_VERSIONS["11"]


class Burst(Resource):
    """`GET /burst?count=N`: N events at once, every other one with the word that is denied."""

    isLeaf = True

    def __init__(self, config: object, api: ModuleApi) -> None:
        super().__init__()
        self._api = api
        api.register_web_resource("/burst", self)

    def render_GET(self, request: Any) -> int:
        count = int(request.args[b"count"][0])
        self._api.run_as_background_process("burst", self._ask, request, count)
        return NOT_DONE_YET

    async def _ask(self, request: Any, count: int) -> None:
        # The very object that Synapse's own code asks.
        checker = self._api._callbacks.spam_checker
        events = [event(number) for number in range(count)]
        asked = [run_in_background(checker.check_event_for_spam, event) for event in events]
        decisions = await make_deferred_yieldable(gatherResults(asked, consumeErrors=True))
        counted = Counter(
            ("spam" if number % 2 else "ham", "pass" if decision == NOT_SPAM else "deny")
            for number, decision in enumerate(decisions)
        )
        request.setHeader(b"content-type", b"application/json")
        request.write(json.dumps({f"{kind} {verdict}": n for (kind, verdict), n in counted.items()}).encode())
        request.finish()


def event(number: int) -> EventBase:
    body = f"buy viagra {number}" if number % 2 else f"good morning {number}"
    return make_event_from_dict(
        {
            "type": "m.room.message",
            "sender": "@eve:remote.example",
            "room_id": "!r:example.com",
            "content": {"msgtype": "m.text", "body": body},
            "origin_server_ts": number,
            "depth": number,
            "auth_events": [],
            "prev_events": [],
            "hashes": {"sha256": str(number)},
            "signatures": {},
        },
        VERSION,
    )
