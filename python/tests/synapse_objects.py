"""Real objects of Synapse for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.events import EventBase, make_event_from_dict

ROOM = "!r:example.com"
BOB = "@bob:example.com"
GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "callbacks"


def golden(callback: str) -> dict[str, Any]:
    """A golden request and response."""
    return json.loads((GOLDEN / f"{callback}.json").read_text())


def an_event(
    event: dict[str, Any] | None = None, *, version: str = "11", metadata: dict[str, Any] | None = None, **keys: Any
) -> EventBase:
    """An event; what a PDU needs and the test does not say is filled in."""
    pdu: dict[str, Any] = {
        "type": "m.room.message",
        "sender": BOB,
        "room_id": ROOM,
        "content": {},
        "origin_server_ts": 1766000000000,
        "depth": 1,
        "auth_events": [],
        "prev_events": [],
        "hashes": {"sha256": ""},
        "signatures": {},
        "unsigned": {},
    }
    pdu.update(event or {})
    pdu.update(keys)
    version = pdu.pop("room_version", version)
    # From version 3 on the id is computed, and an event that has one is refused.
    pdu.pop("event_id", None)
    return make_event_from_dict(pdu, KNOWN_ROOM_VERSIONS[version], metadata or {})


def a_state(*events: EventBase) -> dict[tuple[str, str], EventBase]:
    """A state map."""
    return {(event.type, event.state_key): event for event in events}


def a_room(members: int = 0) -> dict[tuple[str, str], EventBase]:
    """The state of a room with this many members."""
    member_events = [
        an_event(
            type="m.room.member",
            state_key=f"@u{n}:example.com",
            sender=f"@u{n}:example.com",
            content={"membership": "join"},
        )
        for n in range(members)
    ]
    return a_state(
        an_event(type="m.room.create", state_key=""),
        an_event(type="m.room.power_levels", state_key=""),
        an_event(type="m.room.join_rules", state_key="", content={"join_rule": "invite"}),
        *member_events,
    )
