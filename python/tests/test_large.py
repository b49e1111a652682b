"""Args that stay in Synapse until a module looks at them."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from synapse.media.media_storage import ReadableFileWrapper
from synapse_objects import BOB, a_room, an_event
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ganglion_synapse import arguments
from ganglion_synapse.large import CHUNK, HandleGone, Large

T = TypeVar("T")


class LargeTestCase(SynchronousTestCase):
    def answer(self, question: Coroutine[Any, Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(question))

    def refused(self, question: Coroutine[Any, Any, Any]) -> Exception:
        return self.failureResultOf(Deferred.fromCoroutine(question)).value


class StateTests(LargeTestCase):
    def test_a_map_no_larger_than_what_modules_look_at_is_sent_whole(self) -> None:
        large = Large()
        state = a_room(members=1)
        sent = large.state(state, ["@u0:example.com", None])
        self.assertEqual(sent, [arguments.event(event) for event in state.values()])
        self.assertEqual(large.handles, {})

    def test_no_state_is_an_empty_array(self) -> None:
        self.assertEqual(Large().state({}, [BOB]), [])

    def test_a_larger_map_is_a_handle_with_what_modules_look_at_most(self) -> None:
        large = Large()
        sent = large.state(
            a_room(members=9), ["@u3:example.com", "@u3:example.com", "@u5:example.com", "@stranger:example.com", ""]
        )
        self.assertIsInstance(sent, dict)
        assert isinstance(sent, dict)
        self.assertEqual(list(large.handles), [sent["handle"]])
        self.assertRegex(sent["handle"], r"^s\d+$")
        self.assertEqual(
            [(event["type"], event["state_key"]) for event in sent["events"]],
            [
                ("m.room.create", ""),
                ("m.room.power_levels", ""),
                ("m.room.join_rules", ""),
                ("m.room.member", "@u3:example.com"),
                ("m.room.member", "@u5:example.com"),
            ],
        )

    def test_names_of_handles_are_not_used_again(self) -> None:
        names = set()
        for _ in range(3):
            large = Large()
            large.state(a_room(members=2))
            names.update(large.handles)
        self.assertEqual(len(names), 3)

    def test_an_event_is_got_by_type_and_state_key(self) -> None:
        handle = self.handle(a_room(members=2))
        got = self.answer(handle.state_get({"handle": "s1", "type": "m.room.member", "state_key": "@u1:example.com"}))
        self.assertEqual(got["event"]["sender"], "@u1:example.com")
        self.assertEqual(self.answer(handle.state_get({"type": "m.room.topic", "state_key": ""})), {"event": None})

    def test_pages_hold_the_whole_map_in_order(self) -> None:
        state = a_room(members=50)
        handle = self.handle(state, max_frame=8192)
        events, position, pages = [], 0, 0
        while position is not None:
            page = self.answer(handle.state_page({"handle": "s1", "from": position}))
            self.assertLess(len(json.dumps(page)), 4096)
            self.assertTrue(page["events"])
            events += page["events"]
            position = page["next"]
            pages += 1
        self.assertGreater(pages, 3)
        self.assertEqual([(event["type"], event["state_key"]) for event in events], list(state))

    def test_positions_mean_the_same_after_the_map_has_changed(self) -> None:
        state = a_room(members=50)
        before = list(state)
        handle = self.handle(state, max_frame=8192)
        first = self.answer(handle.state_page({"from": 0}))
        state.clear()
        second = self.answer(handle.state_page({"from": first["next"]}))
        got = [(event["type"], event["state_key"]) for event in first["events"] + second["events"]]
        self.assertEqual(got, before[: len(got)])

    def test_an_event_larger_than_a_page_is_a_page(self) -> None:
        state = a_room(members=2)
        state[("m.room.topic", "")] = an_event(type="m.room.topic", state_key="", content={"topic": "x" * 30_000})
        handle = self.handle(state, max_frame=65536)
        positions = [0]
        while (after := self.answer(handle.state_page({"from": positions[-1]}))["next"]) is not None:
            positions.append(after)
        self.assertIn(5, positions)

    def test_a_position_past_the_end_is_an_empty_page(self) -> None:
        self.assertEqual(
            self.answer(self.handle(a_room(members=2)).state_page({"from": 99})), {"events": [], "next": None}
        )

    def test_params_that_are_none_are_value_errors(self) -> None:
        handle = self.handle(a_room(members=2))
        for question in (
            handle.state_get({"type": "m.room.topic"}),
            handle.state_get({"type": 1, "state_key": ""}),
            handle.state_page({}),
            handle.state_page({"from": -1}),
            handle.state_page({"from": True}),
        ):
            self.assertIsInstance(self.refused(question), ValueError)

    def test_nothing_is_answered_after_the_call(self) -> None:
        large = Large()
        large.state(a_room(members=2))
        (handle,) = large.handles.values()
        large.close()
        self.assertEqual(large.handles, {})
        self.assertIsInstance(self.refused(handle.state_get({"type": "m.room.create", "state_key": ""})), HandleGone)
        self.assertIsInstance(self.refused(handle.state_page({"from": 0})), HandleGone)

    def test_state_is_no_media(self) -> None:
        self.assertIsInstance(self.refused(self.handle(a_room(members=2)).media_read({"offset": 0})), HandleGone)

    def handle(self, state: Any, max_frame: int | None = None) -> Any:
        large = Large(max_frame)
        large.state(state)
        (handle,) = large.handles.values()
        return handle


class Gathering:
    """A file that is on no disk."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks
        self.reads = 0

    async def write_chunks_to(self, callback: Any) -> None:
        self.reads += 1
        for chunk in self.chunks:
            callback(chunk)


class MediaTests(LargeTestCase):
    def test_a_file_is_read_in_chunks(self) -> None:
        content = os.urandom(CHUNK * 2 + 100)
        large = self.large(content)
        chunks, offset = [], 0
        while True:
            read = self.read(large, offset)
            chunk = base64.b64decode(read["chunk_base64"], validate=True)
            self.assertLessEqual(len(chunk), CHUNK)
            chunks.append(chunk)
            offset += len(chunk)
            if read["end"]:
                break
        self.assertEqual(b"".join(chunks), content)
        self.assertEqual(len(chunks), 3)

    def test_a_file_of_whole_chunks_ends_with_its_last(self) -> None:
        large = self.large(b"x" * CHUNK)
        self.assertTrue(self.read(large, 0)["end"])
        self.assertEqual(self.read(large, CHUNK), {"chunk_base64": "", "end": True})

    def test_an_empty_file_ends_at_once(self) -> None:
        self.assertEqual(self.read(self.large(b""), 0), {"chunk_base64": "", "end": True})

    def test_a_file_is_still_read_after_it_was_deleted(self) -> None:
        large = self.large(b"x" * CHUNK + b"y")
        self.read(large, 0)
        self.path.unlink()
        self.assertEqual(self.read(large, CHUNK), {"chunk_base64": base64.b64encode(b"y").decode(), "end": True})

    def test_nobody_opens_a_file_that_nobody_asks_for(self) -> None:
        before = self.descriptors()
        self.large(b"x")
        self.assertEqual(self.descriptors(), before)

    def test_the_file_is_closed_when_the_call_ends(self) -> None:
        before = self.descriptors()
        large = self.large(b"x")
        (handle,) = large.handles.values()
        self.read(large, 0)
        self.assertEqual(self.descriptors(), before + 1)
        large.close()
        self.assertEqual(self.descriptors(), before)
        self.assertIsInstance(self.refused(handle.media_read({"offset": 0})), HandleGone)

    def test_a_file_that_is_on_no_disk_is_gathered_once(self) -> None:
        wrapper = Gathering(b"a" * CHUNK, b"b")
        large = Large()
        large.media(wrapper)  # type: ignore[arg-type]
        self.assertEqual(wrapper.reads, 0)
        self.assertFalse(self.read(large, 0)["end"])
        self.assertEqual(self.read(large, CHUNK), {"chunk_base64": base64.b64encode(b"b").decode(), "end": True})
        self.assertEqual(wrapper.reads, 1)

    def large(self, content: bytes) -> Large:
        self.path = Path(self.mktemp())
        self.path.write_bytes(content)
        large = Large()
        self.addCleanup(large.close)
        sent = large.media(ReadableFileWrapper(clock=None, path=str(self.path)))  # type: ignore[arg-type]
        self.assertEqual(list(large.handles), [sent["handle"]])
        return large

    def read(self, large: Large, offset: int) -> dict[str, Any]:
        (handle,) = large.handles.values()
        return self.answer(handle.media_read({"handle": "m1", "offset": offset}))

    def descriptors(self) -> int:
        return len(os.listdir("/proc/self/fd"))
