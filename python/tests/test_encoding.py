from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganglion_synapse.encoding import decode, encode


class EncodingTest(SynchronousTestCase):
    def nested(self, levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value]
        return value

    def test_it_is_json_without_spaces_in_utf_8(self) -> None:
        self.assertEqual(encode({"a": ["ü", None]}), '{"a":["ü",null]}'.encode())

    def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_is_kept(self) -> None:
        self.assertEqual(decode(encode("\ud800 \ud83d\ude00")), "\ufffd \U0001f600")

    def test_what_would_end_the_connection_is_refused(self) -> None:
        for value in (float("nan"), float("inf"), 10**400, [-(10**308)], self.nested(300), self.nested(5000), object()):
            with self.assertRaises(ValueError):
                encode(value)

    def test_what_only_looks_like_it_is_not(self) -> None:
        for value in ("9" * 400, ["[" * 400], [[]] * 400, self.nested(240), 10**307):
            self.assertEqual(decode(encode(value)), value)
