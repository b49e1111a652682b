from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from ganglion_synapse.errors import CallFailed, RpcError

from wires import Ganglion, Log


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = Log()
        self.addCleanup(self.log.remove)

    def assert_failed(self, call: Any, kind: str) -> None:
        self.assertEqual(self.failureResultOf(call, CallFailed).value.kind, kind)

    def assert_fails_at_once(self, ganglion: Ganglion, kind: str) -> None:
        with self.assertRaises(CallFailed) as raised:
            ganglion.call()
        self.assertEqual(raised.exception.kind, kind)


class WindowTest(Case):
    def test_ten_thousand_calls_end_and_no_more_than_the_window_are_in_flight(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome(window=128)
        calls = [ganglion.call(b"%d" % number) for number in range(10_000)]
        waiting: dict[int, Any] = {}
        asked = []
        chance = random.Random(1)
        while True:
            for request in peer.sent():
                waiting[request["id"]] = request["params"]
                asked.append(request["params"])
            self.assertLessEqual(len(waiting), 128)
            if not waiting:
                break
            number = chance.choice(list(waiting))
            peer.answer(number, waiting.pop(number))
        self.assertEqual(asked, list(range(10_000)))
        self.assertEqual([self.successResultOf(call) for call in calls], list(range(10_000)))

    def test_a_call_below_a_call_of_ganglion_does_not_wait_for_the_window(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome(window=1)
        ganglion.call(b"1")
        ganglion.call(b"2")
        ganglion.call(b"3", counted=False)
        self.assertEqual([request["params"] for request in peer.sent()], [1, 3])

    def test_a_call_that_waits_too_long_for_its_turn_is_overloaded(self) -> None:
        ganglion = Ganglion(call_timeout=100.0)
        peer = ganglion.welcome(window=1)
        first, second = ganglion.call(), ganglion.call()
        ganglion.clock.advance(29.9)
        self.assertNoResult(second)
        ganglion.clock.advance(0.2)
        self.assert_failed(second, "overloaded")
        peer.answer(1, "late but well")
        self.assertEqual(self.successResultOf(first), "late but well")

    def test_waiting_for_a_turn_does_not_use_up_the_call_timeout(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome(window=1)
        first, second = ganglion.call(), ganglion.call()
        peer.say({"jsonrpc": "2.0", "method": "unknown"})
        ganglion.clock.advance(2.25)
        self.assert_failed(first, "deadline_exceeded")
        ganglion.clock.advance(2.2)
        peer.answer(2, 1)
        self.assertEqual(self.successResultOf(second), 1)

    def test_a_cancelled_call_that_waited_is_never_sent(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome(window=1)
        ganglion.call(b"1")
        cancelled, last = ganglion.call(b"2"), ganglion.call(b"3")
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        peer.answer(1, None)
        self.assertEqual([request["params"] for request in peer.sent()], [1, 3])
        self.assertNoResult(last)

    def test_the_place_of_a_cancelled_call_is_free_when_it_is_answered(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome(window=1)
        first = ganglion.call(b"1")
        ganglion.call(b"2")
        peer.sent()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(peer.sent(), [{"jsonrpc": "2.0", "method": "cancel", "params": {"id": 1}}])
        peer.error(1, -32800, "cancelled")
        self.assertEqual([request["params"] for request in peer.sent()], [2])


class TimeoutTest(Case):
    def test_a_call_that_ganglion_does_not_answer_in_time_fails_alone(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome()
        slow = ganglion.call()
        ganglion.clock.advance(1.0)
        quick = ganglion.call()
        peer.say({"jsonrpc": "2.0", "method": "unknown"})
        ganglion.clock.advance(1.25)
        self.assert_failed(slow, "deadline_exceeded")
        self.assertNoResult(quick)
        self.assertFalse(peer.transport.aborted)
        peer.answer(1, "too late")
        peer.answer(2, "in time")
        self.assertEqual(self.successResultOf(quick), "in time")

    def test_a_ganglion_that_says_nothing_at_all_is_left(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome()
        calls = [ganglion.call(), ganglion.call()]
        ganglion.clock.advance(2.25)
        for call in calls:
            self.assert_failed(call, "deadline_exceeded")
        self.assertTrue(peer.transport.aborted)
        peer.lose()
        ganglion.clock.advance(0.1)
        self.assertEqual(len(ganglion.attempts), 1)
        ganglion.welcome()
        self.assertEqual(
            self.log.lines,
            [
                "connected to ganglion 0.1.0",
                "not connected to Ganglion: it does not respond",
                "connected to ganglion 0.1.0",
            ],
        )

    def test_one_timer_is_for_all_calls(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome(window=1000)
        for _ in range(100):
            ganglion.call()
        self.assertEqual(len(ganglion.clock.getDelayedCalls()), 1)
        for request in peer.sent():
            peer.answer(request["id"], None)
        ganglion.clock.advance(3)
        self.assertEqual(ganglion.clock.getDelayedCalls(), [])


class ReconnectTest(Case):
    def test_calls_in_flight_fail_when_the_connection_is_lost_and_later_ones_wait_for_the_next(self) -> None:
        ganglion = Ganglion()
        first = ganglion.welcome()
        lost = ganglion.call()
        first.lose()
        self.assert_failed(lost, "not_running")
        waits = ganglion.call(b"7")
        ganglion.clock.advance(0.1)
        second = ganglion.welcome(callbacks=["user_may_invite"])
        (request,) = second.sent()
        self.assertEqual(request["params"], 7)
        second.answer(request["id"], "here again")
        self.assertEqual(self.successResultOf(waits), "here again")
        self.assertEqual([sorted(told.callbacks) for told in ganglion.announced], [["check_event_for_spam"], ["user_may_invite"]])

    def test_nobody_waits_longer_than_the_call_timeout_for_a_connection(self) -> None:
        ganglion = Ganglion()
        ganglion.welcome().lose()
        waits = ganglion.call()
        for _ in range(20):
            ganglion.clock.advance(0.1)
            if ganglion.attempts:
                ganglion.refuse()
        self.assert_failed(waits, "not_running")
        self.assert_fails_at_once(ganglion, "not_running")

    def test_calls_wait_for_the_first_attempt_and_for_no_other(self) -> None:
        ganglion = Ganglion()
        waits = ganglion.call()
        ganglion.refuse()
        self.assert_failed(waits, "not_running")
        ganglion.clock.advance(0.1)
        self.assertEqual(len(ganglion.attempts), 1)
        self.assert_fails_at_once(ganglion, "not_running")

    def test_the_pauses_grow_and_the_log_has_one_line(self) -> None:
        ganglion = Ganglion()
        pauses = []
        for _ in range(9):
            ganglion.refuse()
            (timer,) = ganglion.clock.getDelayedCalls()
            pauses.append(round(timer.getTime() - ganglion.clock.seconds(), 3))
            ganglion.clock.advance(pauses[-1])
        self.assertEqual(pauses, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0])
        self.assertEqual(len(self.log.lines), 1)

    def test_an_attempt_that_takes_too_long_is_given_up(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.accept()
        waits = ganglion.call()
        ganglion.clock.advance(5)
        self.assertTrue(peer.transport.aborted)
        self.assert_failed(waits, "not_running")
        ganglion.clock.advance(0.1)
        self.assertEqual(len(ganglion.attempts), 1)

    def test_a_refusal_is_said_once_and_makes_calls_fail_as_protocol(self) -> None:
        ganglion = Ganglion()
        waits = ganglion.call()
        for _ in range(3):
            peer = ganglion.accept()
            peer.error(0, -32001, "the token is not known")
            self.assertTrue(peer.closing)
            peer.lose()
            ganglion.clock.advance(10)
        self.assert_failed(waits, "protocol")
        self.assert_fails_at_once(ganglion, "protocol")
        self.assertEqual(
            self.log.lines,
            ["Ganglion cannot be used: the token is missing or wrong (-32001: the token is not known)"],
        )
        ganglion.refuse()
        self.assert_fails_at_once(ganglion, "not_running")

    def test_another_homeserver_s_ganglion_is_refused(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome(server_name="other.example")
        self.assertTrue(peer.closing)
        self.assert_fails_at_once(ganglion, "protocol")

    def test_an_announcement_replaces_what_was_said_before(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome()
        login_types = [{"name": "com.example.code", "fields": ["code"]}]
        announcement = {"callbacks": ["auth_checkers"], "login_types": login_types}
        peer.say({"jsonrpc": "2.0", "method": "announce", "params": announcement})
        self.assertEqual(ganglion.announced[-1].to_json(), announcement)

    def test_stop_says_goodbye_and_connects_no_more(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome()
        call = ganglion.call()
        peer.sent()
        ganglion.connection.stop()
        self.assertEqual([said["method"] for said in peer.sent()], ["goodbye"])
        self.assertFalse(peer.closing)
        peer.answer(1, "the last one")
        self.assertEqual(self.successResultOf(call), "the last one")
        self.assertTrue(peer.closing)
        peer.lose()
        ganglion.clock.advance(60)
        self.assertEqual(ganglion.attempts, [])


class GoodbyeTest(Case):
    def test_after_a_goodbye_what_is_in_flight_ends_and_the_rest_waits_for_the_next_connection(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome()
        in_flight = ganglion.call(b"1")
        peer.sent()
        peer.say({"jsonrpc": "2.0", "method": "goodbye", "params": {"reason": "stopping"}})
        waits = ganglion.call(b"2")
        self.assertEqual(peer.sent(), [])
        peer.answer(1, "the last one")
        self.assertEqual(self.successResultOf(in_flight), "the last one")
        self.assertTrue(peer.closing)
        peer.lose()
        ganglion.clock.advance(0.1)
        next_one = ganglion.welcome()
        self.assertEqual([request["params"] for request in next_one.sent()], [2])
        self.assertNoResult(waits)

    def test_a_call_that_crossed_the_goodbye_is_asked_again(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome()
        call = ganglion.call(b"1")
        peer.say({"jsonrpc": "2.0", "method": "goodbye", "params": {"reason": "stopping"}})
        peer.error(1, -32006, "stopping")
        peer.lose()
        ganglion.clock.advance(0.1)
        next_one = ganglion.welcome()
        (request,) = next_one.sent()
        next_one.answer(request["id"], "asked again")
        self.assertEqual(self.successResultOf(call), "asked again")

    def test_ganglion_s_errors_reach_the_caller(self) -> None:
        ganglion = Ganglion()
        peer = ganglion.welcome()
        call = ganglion.call()
        peer.error(1, -32602, "user_id: missing", {"errcode": "M_MISSING_PARAM"})
        error = self.failureResultOf(call, RpcError).value
        self.assertEqual((error.code, error.data), (-32602, {"errcode": "M_MISSING_PARAM"}))
