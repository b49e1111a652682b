"""Outcomes as what Synapse expects."""

from __future__ import annotations

import json
from typing import Any

from synapse.api.errors import Codes, SynapseError
from synapse.api.presence import UserPresenceState
from synapse.module_api import NOT_SPAM, PRESENCE_ALL_USERS, MediaUploadLimit, RatelimitOverride
from synapse.spam_checker_api import RegistrationBehaviour
from synapse.util.json import json_encoder
from twisted.trial.unittest import SynchronousTestCase

from ganglion_synapse import outcomes
from ganglion_synapse.outcomes import BadOutcome

PASS = {"verdict": "pass"}
ERROR = {
    "verdict": "error",
    "status": 429,
    "errcode": "M_LIMIT_EXCEEDED",
    "error": "slow down",
    "fields": {"retry_after_ms": 2000},
}
NULL = {"value": None}

GATING = (
    outcomes.spam,
    outcomes.state_event_spam,
    outcomes.media_spam,
    outcomes.hidden,
    outcomes.registration,
    outcomes.event_allowed,
    outcomes.allowed,
    outcomes.allowed_or_refused,
)
VALUES = (
    outcomes.expired,
    outcomes.login,
    outcomes.login_response,
    outcomes.name,
    outcomes.interested_users,
    outcomes.unsigned_fields,
    outcomes.media_config,
    outcomes.upload_limits,
    outcomes.ratelimit_override,
    outcomes.update_duration,
    outcomes.renewal,
    outcomes.admin_response,
    outcomes.notified,
)


def deny(errcode: str = "M_FORBIDDEN", error: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"verdict": "deny", "errcode": errcode, "error": error, "fields": fields}


class Case(SynchronousTestCase):
    def raised(self, turn: Any, outcome: Any, *args: Any) -> tuple[int, dict[str, Any]]:
        """The status and the body that a client gets, through Synapse's own writer."""
        error = self.assertRaises(SynapseError, turn, outcome, *args)
        return error.code, json.loads(json_encoder.encode(error.error_dict(None)))


class SpamTests(Case):
    def test_a_pass_is_the_object_not_spam_itself(self) -> None:
        for turn in (outcomes.spam, outcomes.state_event_spam, outcomes.media_spam):
            self.assertIs(turn(json.loads('{"verdict": "pass"}')), NOT_SPAM)

    def test_a_denial_with_a_code_only_is_the_code(self) -> None:
        self.assertIs(outcomes.spam(deny("M_USER_LOCKED")), Codes.USER_LOCKED)

    def test_a_denial_with_text_and_fields_is_a_tuple(self) -> None:
        code, fields = outcomes.spam(deny("M_USER_LOCKED", "no", **{"org.x": [1]}))
        self.assertIs(code, Codes.USER_LOCKED)
        self.assertEqual(fields, {"error": "no", "org.x": [1]})

    def test_a_denial_without_text_has_no_error_key(self) -> None:
        self.assertEqual(outcomes.spam(deny(**{"org.x": 1})), (Codes.FORBIDDEN, {"org.x": 1}))

    def test_an_errcode_that_synapse_does_not_know_goes_out_as_a_field(self) -> None:
        self.assertEqual(outcomes.spam(deny("ORG.X")), (Codes.FORBIDDEN, {"errcode": "ORG.X"}))
        self.assertEqual(outcomes.spam(deny("ORG.X", "no")), (Codes.FORBIDDEN, {"errcode": "ORG.X", "error": "no"}))

    def test_every_code_of_synapse_is_found(self) -> None:
        for code in Codes:
            self.assertIs(outcomes.spam(deny(code.value)), code)

    def test_a_state_event_is_denied_with_a_bare_code_or_an_error(self) -> None:
        self.assertIs(outcomes.state_event_spam(deny("M_BAD_STATE")), Codes.BAD_STATE)
        self.assertEqual(
            self.raised(outcomes.state_event_spam, deny("M_BAD_STATE", "no", x=1)),
            (403, {"errcode": "M_BAD_STATE", "error": "no", "x": 1}),
        )
        self.assertEqual(
            self.raised(outcomes.state_event_spam, deny("ORG.X")), (403, {"errcode": "ORG.X", "error": "Forbidden"})
        )

    def test_media_is_denied_with_a_bare_code(self) -> None:
        self.assertIs(outcomes.media_spam(deny("M_TOO_LARGE", "no", x=1)), Codes.TOO_LARGE)
        self.assertIs(outcomes.media_spam(deny("ORG.X")), Codes.FORBIDDEN)

    def test_dropping_and_hiding_is_a_boolean(self) -> None:
        self.assertIs(outcomes.hidden(PASS), False)
        self.assertIs(outcomes.hidden(deny("M_X", "no")), True)

    def test_a_registration_has_a_behaviour(self) -> None:
        self.assertIs(outcomes.registration(PASS), RegistrationBehaviour.ALLOW)
        self.assertIs(outcomes.registration(deny()), RegistrationBehaviour.DENY)
        self.assertIs(outcomes.registration({"verdict": "shadow_ban"}), RegistrationBehaviour.SHADOW_BAN)


class RuleTests(Case):
    def test_an_event_passes_is_replaced_or_denied(self) -> None:
        self.assertEqual(outcomes.event_allowed(PASS), (True, None))
        self.assertEqual(outcomes.event_allowed({"verdict": "replace", "event": {"type": "x"}}), (True, {"type": "x"}))
        allowed, replacement = outcomes.event_allowed(deny())
        self.assertIs(allowed, False)
        self.assertIsNone(replacement)

    def test_a_denial_of_an_event_that_says_more_is_an_error(self) -> None:
        for denial, body in (
            (deny(error="no"), {"errcode": "M_FORBIDDEN", "error": "no"}),
            (deny(x=1), {"errcode": "M_FORBIDDEN", "error": "Forbidden", "x": 1}),
            (deny("M_BAD_STATE"), {"errcode": "M_BAD_STATE", "error": "Forbidden"}),
        ):
            self.assertEqual(self.raised(outcomes.event_allowed, denial), (403, body))

    def test_a_room_is_created_as_edited_in_the_same_objects(self) -> None:
        power_levels = {"users": {"@bob:example.com": 100}, "ban": 50}
        invite = ["@a:example.com"]
        content = {"name": "x", "gone": 1, "power_level_content_override": power_levels, "invite": invite, "kind": {}}
        edited = {
            "power_level_content_override": {"users": {}, "kick": 1},
            "invite": [],
            "kind": "text",
            "visibility": "private",
        }
        outcomes.room_creation({"verdict": "pass", "request_content": json.loads(json.dumps(edited))}, content)
        self.assertEqual(content, edited)
        self.assertEqual(list(content), list(edited))
        self.assertIs(content["power_level_content_override"], power_levels)
        self.assertIs(content["invite"], invite)

    def test_a_pass_that_says_nothing_about_the_content_leaves_it(self) -> None:
        content = {"name": "x"}
        outcomes.room_creation(PASS, content)
        self.assertEqual(content, {"name": "x"})

    def test_a_room_is_denied_with_an_error(self) -> None:
        self.assertEqual(
            self.raised(outcomes.room_creation, deny("M_X", "no", y=1), {}),
            (403, {"errcode": "M_X", "error": "no", "y": 1}),
        )

    def test_a_denial_without_words_leaves_them_to_synapse(self) -> None:
        self.assertRaises(outcomes.RoomCreationDenied, outcomes.room_creation, deny("M_UNKNOWN"), {})
        self.assertNotIsInstance(outcomes.RoomCreationDenied(), SynapseError)

    def test_a_denied_room_keeps_its_content(self) -> None:
        content = {"name": "x"}
        self.assertRaises(SynapseError, outcomes.room_creation, deny(), content)
        self.assertEqual(content, {"name": "x"})

    def test_checks_are_the_objects_true_and_false(self) -> None:
        for turn in (outcomes.allowed, outcomes.allowed_or_refused):
            self.assertIs(turn(PASS), True)
            self.assertIs(turn(deny("M_X", "no")), False)

    def test_an_error_refuses_where_synapse_would_let_an_exception_pass(self) -> None:
        self.assertIs(outcomes.allowed_or_refused(ERROR), False)


class ValueTests(Case):
    def test_null_is_what_a_module_gives_that_has_nothing_to_say(self) -> None:
        self.assertIsNone(outcomes.expired(NULL))
        self.assertIsNone(outcomes.login(NULL))
        self.assertIsNone(outcomes.name(NULL))
        self.assertEqual(outcomes.users_for_states(NULL, ()), {})
        self.assertEqual(outcomes.interested_users(NULL), set())
        self.assertEqual(outcomes.unsigned_fields(NULL), {})
        self.assertIsNone(outcomes.media_config(NULL))
        self.assertIsNone(outcomes.upload_limits(NULL))
        self.assertIsNone(outcomes.ratelimit_override(NULL))
        self.assertIsNone(outcomes.update_duration(NULL))
        self.assertEqual(outcomes.batch_size(NULL, 100), 100)
        self.assertEqual(outcomes.renewal(NULL), (False, False, 0))
        self.assertEqual(self.raised(outcomes.admin_response, NULL)[0], 500)
        self.assertIsNone(outcomes.notified(NULL))

    def test_expired_keeps_false(self) -> None:
        self.assertIs(outcomes.expired({"value": False}), False)
        self.assertIs(outcomes.expired({"value": True}), True)

    def test_a_login_has_a_user_and_perhaps_a_token(self) -> None:
        self.assertEqual(outcomes.login({"value": {"user_id": "@b:x", "login_callback": None}}), ("@b:x", None))
        self.assertEqual(outcomes.login({"value": {"user_id": "@b:x", "login_callback": "c-1"}}), ("@b:x", "c-1"))

    def test_an_empty_name_is_a_name(self) -> None:
        self.assertEqual(outcomes.name({"value": ""}), "")

    def test_presence_comes_in_sets_of_states(self) -> None:
        state = UserPresenceState.default("@bob:example.com")
        told = outcomes.users_for_states(
            {"value": {"@eve:x": [state.as_dict(), state.as_dict()]}}, ["@all:x", "@eve:x"]
        )
        self.assertEqual(told, {"@eve:x": {state}, "@all:x": set()})
        self.assertIs(type(told["@eve:x"]), set)

    def test_interested_users_are_a_set_or_all(self) -> None:
        self.assertEqual(outcomes.interested_users({"value": ["@a:x", "@a:x"]}), {"@a:x"})
        self.assertEqual(outcomes.interested_users({"value": "ALL"}), PRESENCE_ALL_USERS)

    def test_upload_limits_are_a_list_that_can_be_sorted(self) -> None:
        limit = {"max_bytes": 1, "time_period_ms": 2, "info_uri": "https://x", "can_upgrade": True}
        limits = outcomes.upload_limits({"value": [limit, {"max_bytes": 3, "time_period_ms": 4}]})
        assert limits is not None
        self.assertEqual(limits, [MediaUploadLimit(1, 2, "https://x", True), MediaUploadLimit(3, 4)])
        limits.sort(key=lambda limit: limit.time_period_ms, reverse=True)
        self.assertEqual(outcomes.upload_limits({"value": []}), [])

    def test_a_rate_of_zero_is_no_limit(self) -> None:
        self.assertEqual(
            outcomes.ratelimit_override({"value": {"per_second": 2.5, "burst_count": 10}}), RatelimitOverride(2.5, 10)
        )
        for zero in (0, 0.0):
            self.assertEqual(
                outcomes.ratelimit_override({"value": {"per_second": zero, "burst_count": 0}}),
                RatelimitOverride(1e9, 10**9),
            )

    def test_a_background_update_has_a_duration_and_perhaps_a_token(self) -> None:
        self.assertEqual(outcomes.update_duration({"value": {"duration_ms": 100, "exit_token": None}}), (100, None))
        self.assertEqual(outcomes.update_duration({"value": {"duration_ms": 0.5, "exit_token": "u"}}), (0.5, "u"))

    def test_a_batch_size_a_renewal_and_an_admin_response(self) -> None:
        self.assertEqual(outcomes.batch_size({"value": 7}, 100), 7)
        self.assertEqual(
            outcomes.renewal({"value": {"valid": True, "stale": False, "expiration_ts": 9}}), (True, False, 9)
        )
        self.assertEqual(outcomes.admin_response({"value": 9}), 9)


class ErrorTests(Case):
    def test_an_error_is_raised_as_it_is(self) -> None:
        body = 429, {"errcode": "M_LIMIT_EXCEEDED", "error": "slow down", "retry_after_ms": 2000}
        for turn in set(GATING) - {outcomes.allowed_or_refused}:
            self.assertEqual(self.raised(turn, ERROR), body)
        for turn in VALUES:
            self.assertEqual(self.raised(turn, ERROR), body)
        self.assertEqual(self.raised(outcomes.room_creation, ERROR, {}), body)
        self.assertEqual(self.raised(outcomes.batch_size, ERROR, 1), body)
        self.assertEqual(self.raised(outcomes.users_for_states, ERROR, ()), body)

    def test_fields_that_would_break_synapses_error_writer_are_left_out(self) -> None:
        hostile = {
            "msg": "x",
            "code": "y",
            "errcode": 5,
            "error": ["no"],
            7: "seven",
            "nan": float("nan"),
            "deep": {"in": [float("inf")]},
            "bytes": b"x",
            "object": object(),
            "kept": {"a": [1, None, "x"]},
            "self": "is no parameter of the writer",
            "kwargs": 1,
        }
        kept = {"kept": {"a": [1, None, "x"]}, "self": "is no parameter of the writer", "kwargs": 1}
        error = {"verdict": "error", "status": 400, "errcode": "M_X", "error": "no", "fields": hostile}
        self.assertEqual(self.raised(outcomes.spam, error), (400, {"errcode": "M_X", "error": "no", **kept}))
        denial = {"verdict": "deny", "errcode": "M_X", "error": None, "fields": hostile}
        self.assertEqual(
            self.raised(outcomes.event_allowed, denial), (403, {"errcode": "M_X", "error": "Forbidden", **kept})
        )
        self.assertEqual(outcomes.spam(denial), (Codes.FORBIDDEN, {"errcode": "M_X", **kept}))

    def test_the_tuples_fields_render_in_the_error_that_synapse_makes_of_them(self) -> None:
        code, fields = outcomes.spam(deny("ORG.X", "no", y=1))
        error = SynapseError(403, "Synapse's words", code, fields)
        self.assertEqual(
            json.loads(json_encoder.encode(error.error_dict(None))), {"errcode": "ORG.X", "error": "no", "y": 1}
        )

    def test_outcomes_that_are_none_of_the_callbacks_are_bad(self) -> None:
        malformed: list[Any] = [
            {},
            {"verdict": None},
            {"verdict": "perhaps"},
            {"verdict": "deny"},
            {"verdict": "deny", "errcode": 5, "error": None, "fields": {}},
            {"verdict": "deny", "errcode": "M_X", "error": 5, "fields": {}},
            {"verdict": "deny", "errcode": "M_X", "error": None, "fields": []},
            {"verdict": "error"},
            {**ERROR, "status": "429"},
            {**ERROR, "status": True},
            {**ERROR, "status": 200},
            {**ERROR, "status": 700},
            {**ERROR, "error": None},
            {**ERROR, "fields": 1},
        ]
        for outcome in malformed:
            for turn in set(GATING) - {
                outcomes.hidden,
                outcomes.registration,
                outcomes.allowed,
                outcomes.allowed_or_refused,
            }:
                self.assertRaises(BadOutcome, turn, outcome)
        for outcome in ({"verdict": "replace"}, {"verdict": "replace", "event": []}):
            self.assertRaises(BadOutcome, outcomes.event_allowed, outcome)
        for turn in set(GATING) - {outcomes.registration}:
            self.assertRaises(BadOutcome, turn, {"verdict": "shadow_ban"})
        self.assertRaises(BadOutcome, outcomes.room_creation, {"verdict": "pass", "request_content": []}, {})

    def test_values_of_other_types_are_bad(self) -> None:
        for turn in VALUES:
            self.assertRaises(BadOutcome, turn, {})
            self.assertRaises(BadOutcome, turn, PASS)
        for turn in set(VALUES) - {outcomes.media_config, outcomes.admin_response, outcomes.notified}:
            # No callback has an array of arrays.
            self.assertRaises(BadOutcome, turn, {"value": [[]]})
        for turn, value in (
            (outcomes.expired, 1),
            (outcomes.login, {"user_id": None}),
            (outcomes.login, {"user_id": "@a:x", "login_callback": 5}),
            (outcomes.interested_users, "all"),
            (outcomes.interested_users, [1]),
            (outcomes.upload_limits, [{"max_bytes": "1", "time_period_ms": 1}]),
            (outcomes.ratelimit_override, {"per_second": True, "burst_count": 1}),
            (outcomes.ratelimit_override, {"per_second": float("nan"), "burst_count": 1}),
            (outcomes.ratelimit_override, {"per_second": 1, "burst_count": 1.5}),
            (outcomes.update_duration, {"duration_ms": None}),
            (outcomes.renewal, {"valid": True}),
        ):
            self.assertRaises(BadOutcome, turn, {"value": value})
        self.assertRaises(BadOutcome, outcomes.batch_size, {"value": True}, 1)
        self.assertRaises(BadOutcome, outcomes.users_for_states, {"value": {"@a:x": [{"user_id": "@b:x"}]}}, ())
        self.assertRaises(BadOutcome, outcomes.users_for_states, {"value": {"@a:x": {}}}, ())

    def test_what_is_bad_is_said_without_its_value(self) -> None:
        error = self.assertRaises(BadOutcome, outcomes.name, {"value": ["secret"]})
        self.assertNotIn("secret", str(error))
