from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ganglion_synapse.policy import KINDS, FailureRule, Policy, origin_of
from ganglion_synapse.reference import CALLBACKS, neutral

SEMANTICS = Path(__file__).parents[2] / "docs" / "semantics.md"
ERROR = {"verdict": "error", "status": 500, "errcode": "M_UNKNOWN", "error": "Internal server error", "fields": {}}
FORBIDDEN = {"verdict": "deny", "errcode": "M_FORBIDDEN", "error": None, "fields": {}}


def documented() -> dict[str, list[str]]:
    """The rows of the table of all callbacks: rule, neutral, what ends the chain, `synapse` on failure."""
    table = SEMANTICS.read_text().partition("## All callbacks")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]
    return {re.split(r"\W+", row[0].split(":")[-1].strip(" *"))[0]: row[1:] for row in rows[2:]}


class ReferenceTest(SynchronousTestCase):
    def test_it_is_the_table_of_the_docs(self) -> None:
        rows = documented()
        self.assertEqual([name for name in rows if name in CALLBACKS], list(CALLBACKS))
        for name, row in ((name, rows[name]) for name in CALLBACKS):
            self.assertEqual(row[0].strip("`"), CALLBACKS[name].combine, name)
            self.assertTrue(row[-1].strip("`").startswith(CALLBACKS[name].on_failure), name)

    def test_neutral_is_pass_where_something_can_be_denied(self) -> None:
        self.assertEqual(neutral("user_may_invite"), {"verdict": "pass"})
        self.assertEqual(neutral("on_new_event"), {"value": None})


class PolicyTest(SynchronousTestCase):
    def test_without_a_rule_a_failure_is_what_synapse_makes_of_it(self) -> None:
        for name, spec in CALLBACKS.items():
            expected = {"error": ERROR, "pass": neutral(name), "deny": {**FORBIDDEN, "errcode": "M_UNKNOWN"}}
            for kind in KINDS:
                self.assertEqual(Policy().outcome(name, kind, "local"), expected[spec.on_failure], name)

    def test_the_words(self) -> None:
        for word, outcome in (("pass", {"verdict": "pass"}), ("deny", FORBIDDEN), ("error", ERROR), ("synapse", ERROR)):
            self.assertEqual(Policy([FailureRule(word)]).outcome("user_may_invite", "overloaded", "local"), outcome)

    def test_the_first_rule_that_matches_decides(self) -> None:
        policy = Policy(
            [
                FailureRule("deny", callbacks=frozenset({"user_may_invite"}), kinds=frozenset({"overloaded"})),
                FailureRule("pass", categories=frozenset({"spam_checker"})),
                FailureRule("error"),
            ]
        )
        self.assertEqual(policy.then("user_may_invite", "overloaded", "local"), "deny")
        self.assertEqual(policy.then("user_may_invite", "protocol", "local"), "pass")
        self.assertEqual(policy.then("on_new_event", "protocol", "local"), "error")

    def test_a_rule_with_an_origin_leaves_the_other_one_to_the_next_rule(self) -> None:
        policy = Policy([FailureRule("pass", origin="federated"), FailureRule("deny")])
        self.assertEqual(policy.then("check_event_for_spam", "overloaded", "federated"), "pass")
        self.assertEqual(policy.then("check_event_for_spam", "overloaded", "local"), "deny")

    def test_a_deny_rule_is_passed_over_where_nothing_can_be_denied(self) -> None:
        policy = Policy([FailureRule("deny"), FailureRule("error")])
        self.assertEqual(policy.then("is_user_expired", "overloaded", "local"), "error")
        self.assertEqual(policy.then("on_create_room", "overloaded", "local"), "deny")

    def test_the_origin_is_the_server_of_who_acts(self) -> None:
        def origin(user: str | None, callback: str = "user_may_create_room") -> str:
            return origin_of(callback, user, "example.com")

        self.assertEqual(origin("@a:example.com"), "local")
        self.assertEqual(origin("@a:example.com:8448"), "federated")
        self.assertEqual(origin("@example.com:evil.example"), "federated")
        self.assertEqual(origin(None), "local")
        self.assertEqual(origin("@a:evil.example", "is_3pid_allowed"), "local")
