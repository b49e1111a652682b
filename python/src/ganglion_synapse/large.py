"""Args that stay in Synapse until a module looks at them: a room's state, a media file.

A call has one `Large`. What it sends instead of the value is a handle; while the call runs, Ganglion asks it for parts.
The name of a handle is good once in the life of a process: a late question never reaches another call's value.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from synapse.api.constants import EventTypes

from ganglion_synapse import arguments

if TYPE_CHECKING:
    from synapse.events import EventBase
    from synapse.media.media_storage import ReadableFileWrapper

JsonDict = dict[str, Any]
StateKey = tuple[str, str]

# The most bytes of a media file in one answer; docs/wire.md.
CHUNK = 16_384
# A page of state this large takes the reactor some milliseconds.
PAGE = 256 * 1024
# A page holds one event at least, and what surrounds it has to fit into a frame too: stay well below.
PAGES_A_FRAME = 4

# What most modules look at.
HOT_KEYS: tuple[StateKey, ...] = (
    (EventTypes.Create, ""),
    (EventTypes.PowerLevels, ""),
    (EventTypes.JoinRules, ""),
)

_names = itertools.count(1)
_dumps = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=arguments.default).encode


class HandleGone(LookupError):
    """The call that the handle belonged to has ended, or the handle is of another kind."""


class Handle:
    """What can be asked of a handle; each kind answers its own questions and refuses the others."""

    async def state_get(self, params: Mapping[str, Any]) -> JsonDict:
        """One event of a state map, by type and state key; null if there is none."""
        raise HandleGone("this handle is no state")

    async def state_page(self, params: Mapping[str, Any]) -> JsonDict:
        """The events from a position on, and the next position."""
        raise HandleGone("this handle is no state")

    async def media_read(self, params: Mapping[str, Any]) -> JsonDict:
        """A chunk of a media file."""
        raise HandleGone("this handle is no media")

    def close(self) -> None:
        """Nothing is answered any more."""


class Large:
    """The large args of one call."""

    def __init__(self, max_frame: int | None = None) -> None:
        self.handles: dict[str, Handle] = {}
        self._page = PAGE if max_frame is None else min(PAGE, max_frame // PAGES_A_FRAME)

    def state(
        self, state: Mapping[StateKey, EventBase], members: Iterable[str | None] = ()
    ) -> list[JsonDict] | JsonDict:
        """A state map, with the events that modules look at most, the memberships of `members` among them.

        Where these are all there is, they are the whole map, and there is no handle.
        """
        keys = (*HOT_KEYS, *((EventTypes.Member, member) for member in members if member is not None))
        hot = {key: found for key in keys if (found := state.get(key)) is not None}
        events = [arguments.event(event) for event in hot.values()]
        if len(hot) == len(state):
            return events
        return {"handle": self._add("s", StateHandle(state, self._page)), "events": events}

    def media(self, wrapper: ReadableFileWrapper) -> JsonDict:
        """A media file."""
        return {"handle": self._add("m", MediaHandle(wrapper))}

    def close(self) -> None:
        """The call has ended: closes what its handles hold."""
        for handle in self.handles.values():
            handle.close()
        self.handles.clear()

    def _add(self, kind: str, handle: Handle) -> str:
        name = f"{kind}{next(_names)}"
        self.handles[name] = handle
        return name


class StateHandle(Handle):
    """A state map that Synapse holds."""

    def __init__(self, state: Mapping[StateKey, EventBase], page: int) -> None:
        self._state: Mapping[StateKey, EventBase] | None = state
        # Positions have to mean the same event in each page, though another module of Synapse may change the map.
        self._order: list[EventBase] | None = None
        self._page = page

    async def state_get(self, params: Mapping[str, Any]) -> JsonDict:
        found = self._open().get((_text(params, "type"), _text(params, "state_key")))
        return {"event": None if found is None else arguments.event(found)}

    async def state_page(self, params: Mapping[str, Any]) -> JsonDict:
        state = self._open()
        position = _position(params, "from")
        if self._order is None:
            self._order = list(state.values())
        order = self._order
        events: list[JsonDict] = []
        size = 0
        while position < len(order):
            event = arguments.event(order[position])
            size += len(_dumps(event)) + 1
            if events and size > self._page:
                break
            events.append(event)
            position += 1
        return {"events": events, "next": position if position < len(order) else None}

    def close(self) -> None:
        self._state = None
        self._order = None

    def _open(self) -> Mapping[StateKey, EventBase]:
        if self._state is None:
            raise HandleGone("the call has ended")
        return self._state


class MediaHandle(Handle):
    """A media file on Synapse's disk.

    The file is opened when somebody first asks, and stays open: Synapse may move or delete it while the call runs.
    """

    def __init__(self, wrapper: ReadableFileWrapper) -> None:
        self._wrapper: ReadableFileWrapper | None = wrapper
        self._descriptor: int | None = None
        # The whole file, of a wrapper that is not a file on disk.
        self._gathered: bytes | None = None

    async def media_read(self, params: Mapping[str, Any]) -> JsonDict:
        offset = _position(params, "offset")
        chunk, end = await self._read(offset)
        return {"chunk_base64": base64.b64encode(chunk).decode("ascii"), "end": end}

    def close(self) -> None:
        self._wrapper = None
        self._gathered = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    async def _read(self, offset: int) -> tuple[bytes, bool]:
        wrapper = self._wrapper
        if wrapper is None:
            raise HandleGone("the call has ended")
        if self._descriptor is None and self._gathered is None:
            path = getattr(wrapper, "path", None)
            if isinstance(path, (str, bytes, os.PathLike)):
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            else:
                await self._gather(wrapper)
        if self._descriptor is not None:
            # One byte more tells whether this chunk is the last.
            read = os.pread(self._descriptor, CHUNK + 1, offset)
        else:
            read = (self._gathered or b"")[offset : offset + CHUNK + 1]
        return read[:CHUNK], len(read) <= CHUNK

    async def _gather(self, wrapper: ReadableFileWrapper) -> None:
        chunks: list[bytes] = []
        await wrapper.write_chunks_to(chunks.append)
        if self._wrapper is None:
            raise HandleGone("the call has ended")
        self._gathered = b"".join(chunks)


def _text(params: Mapping[str, Any], key: str) -> str:
    value = params.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} has to be a string")
    return value


def _position(params: Mapping[str, Any], key: str) -> int:
    value = params.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ValueError(f"{key} has to be a position")
    return value
