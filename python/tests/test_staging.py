"""Events that were staged and are dropped, in a real homeserver."""

from __future__ import annotations

from typing import Any

from ganglion_synapse.callbacks.spam_checker import SpamChecker
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.events import make_event_from_dict
from twisted.internet.defer import Deferred

from fake_bridge import Asked, FakeBridge
from synapse_homeserver import HomeserverTestCase

VERSION = KNOWN_ROOM_VERSIONS["11"]


def event(body: str) -> Any:
    return make_event_from_dict(
        {
            "type": "m.room.message",
            "sender": "@eve:remote.example",
            "room_id": "!r:example.com",
            "content": {"body": body},
            "origin_server_ts": 1,
            "depth": 1,
            "auth_events": [],
            "prev_events": [],
            # What its id is made of.
            "hashes": {"sha256": body},
            "signatures": {},
        },
        VERSION,
    )


class Staging(HomeserverTestCase):
    def test_a_staged_event_that_is_dropped_is_gone_and_the_next_one_comes(self) -> Deferred[None]:
        return self.in_synapse(self._next())

    async def _next(self) -> None:
        deny = {"verdict": "deny", "errcode": "M_FORBIDDEN", "error": None, "fields": {}}

        async def decide(asked: Asked) -> None:
            drop = asked.args["event"]["content"]["body"] == "drop me"
            bridge.outcomes["should_drop_federated_event"] = deny if drop else {"verdict": "pass"}

        bridge = FakeBridge(meanwhile=decide)
        checker = SpamChecker(bridge, self.api)
        self.api.register_spam_checker_callbacks(should_drop_federated_event=checker.should_drop_federated_event)
        store = self.hs.get_datastores().main
        for body in ("drop me", "keep me"):
            await store.insert_received_event_to_staging("remote.example", event(body))
        federation = self.hs.get_federation_server()
        found = await federation._get_next_nonspam_staged_event_for_room("!r:example.com", VERSION)
        assert found is not None
        self.assertEqual(found[1].content["body"], "keep me")
        bodies = [asked.args["event"]["content"]["body"] for asked in bridge.asked]
        # Twice is enough, or the loop would never end.
        self.assertEqual(bodies, ["drop me", "drop me", "keep me"])
