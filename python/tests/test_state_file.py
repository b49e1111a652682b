from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ganglion_synapse import state_file
from ganglion_synapse.hello import Announcement
from wires import Log

ANNOUNCEMENT = Announcement(frozenset({"auth_checkers", "on_new_event"}), (("com.example.code", ("code",)),))


class StateFileTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = Log()
        self.addCleanup(self.log.remove)
        self.path = self.mktemp()

    def test_what_was_stored_is_loaded(self) -> None:
        state_file.store(self.path, Announcement(frozenset()))
        state_file.store(self.path, ANNOUNCEMENT)
        self.assertEqual(state_file.load(self.path), ANNOUNCEMENT)
        self.assertEqual(self.log.lines, [])

    def test_only_its_owner_may_read_it_and_nothing_else_stays_behind(self) -> None:
        state_file.store(self.path, ANNOUNCEMENT)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual([name for name in os.listdir(os.path.dirname(self.path)) if name.startswith(".ganglion")], [])

    def test_no_file_is_nothing_to_talk_about(self) -> None:
        self.assertIsNone(state_file.load(self.path))
        self.assertEqual(self.log.lines, [])

    def test_a_broken_file_is_a_warning(self) -> None:
        for content in (b"", b"{", b"[]", b'{"callbacks":5,"login_types":[]}', b'{"callbacks":["a"],"login_types":[{}]}', b"\xff"):
            Path(self.path).write_bytes(content)
            self.assertIsNone(state_file.load(self.path))
        self.assertEqual(len(self.log.lines), 6)

    def test_a_file_that_cannot_be_written_is_a_warning(self) -> None:
        state_file.store("/nonexistent/state.json", ANNOUNCEMENT)
        self.assertEqual(len(self.log.lines), 1)
