"""The bridge's table of callbacks is Ganglion's reference."""

from __future__ import annotations

import json
from pathlib import Path

from ganglion_synapse.reference import CALLBACKS
from twisted.trial.unittest import TestCase

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "reference.json"


class Reference(TestCase):
    def test_the_table_is_the_reference_in_its_order(self) -> None:
        reference = json.loads(GOLDEN.read_text())
        self.assertEqual(list(CALLBACKS), [spec["name"] for spec in reference])
        for spec in reference:
            known = CALLBACKS[spec["name"]]
            found = known.category, known.combine, known.on_failure
            self.assertEqual(found, (spec["category"], spec["combine"], spec["on_failure"]), spec["name"])

    def test_who_acts_is_an_arg_of_the_callback(self) -> None:
        for spec in json.loads(GOLDEN.read_text()):
            acting = CALLBACKS[spec["name"]].acting
            args = {arg["name"]: arg["type"] for arg in spec["args"]}
            if acting is not None:
                self.assertIn(args[acting], ("mxid", "Event", "Requester"), spec["name"])
            else:
                # Nobody is named: not the user of an arg, and no sender.
                self.assertNotIn("user_id", args, spec["name"])
                self.assertNotIn("event", args, spec["name"])
