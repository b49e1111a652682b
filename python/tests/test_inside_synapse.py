"""Callbacks where Synapse calls them: in a real homeserver, whose own code makes errors of what they give."""

from __future__ import annotations

import json
from typing import Any

from fake_bridge import INTERNAL_ERROR, FakeBridge
from prometheus_client import REGISTRY
from synapse.api.errors import SynapseError
from synapse.handlers.presence import PresenceEventSource
from synapse.media._base import FileInfo
from synapse.types import UserID, create_requester
from synapse.util.json import json_encoder
from synapse_homeserver import HomeserverTestCase
from synapse_objects import BOB
from twisted.internet.defer import Deferred

from ganglion_synapse.callbacks import CATEGORIES, register

ALL = frozenset(name for category in CATEGORIES for name in category.names) - {"accept_make_join"}


def deny(errcode: str = "M_FORBIDDEN", error: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"verdict": "deny", "errcode": errcode, "error": error, "fields": fields}


class InsideSynapseTests(HomeserverTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.bridge = FakeBridge()
        register(self.bridge, self.api, ALL, [("com.example.code", ("code",))])
        # The database's own updates would be asked about too.
        return self.in_synapse(self.begin())  # type: ignore[return-value]

    async def begin(self) -> None:
        await self.api.register_user("bob", "Bob")
        self.room, _ = await self.api.create_room(BOB, {"preset": "private_chat"}, ratelimit=False)

    def asked(self, callback: str) -> list[Any]:
        return [asked.args for asked in self.bridge.asked if asked.callback == callback]

    async def refusal(self, work: Any) -> tuple[int, Any]:
        """The status and the body that the client gets."""
        try:
            await work
        except SynapseError as error:
            return error.code, json.loads(json_encoder.encode(error.error_dict(self.hs.config)))
        raise AssertionError("not refused")

    def send(self) -> Any:
        event = {
            "type": "m.room.message",
            "room_id": self.room,
            "sender": BOB,
            "content": {"msgtype": "m.text", "body": "hi"},
        }
        return self.api.create_and_send_event_into_room(event)

    def test_a_room_and_a_user_are_made_and_ganglion_is_asked(self) -> Deferred[None]:
        async def work() -> None:
            self.assertEqual(self.asked("on_user_registration"), [{"user_id": BOB}])
            (registration,) = self.asked("check_registration_for_spam")
            self.assertEqual(registration["username"], "bob")
            (creation,) = self.asked("user_may_create_room")
            self.assertEqual(creation["user_id"], BOB)
            self.assertEqual(creation["room_config"]["preset"], "private_chat")
            events = [asked["event"] for asked in self.asked("check_event_allowed")]
            self.assertEqual(events[0]["type"], "m.room.create")
            # Version 12: the create event's room is computed from it.
            self.assertEqual({event["room_id"] for event in events}, {self.room})
            self.assertEqual(events[1]["membership"], "join")

        return self.in_synapse(work())

    def test_on_create_room_edits_what_is_created(self) -> Deferred[None]:
        async def work() -> None:
            self.bridge.outcomes["on_create_room"] = {
                "verdict": "pass",
                "request_content": {"preset": "private_chat", "name": "named by a module"},
            }
            room, _ = await self.api.create_room(BOB, {"preset": "public_chat"}, ratelimit=False)
            state = await self.api.get_room_state(room)
            self.assertEqual(state[("m.room.name", "")].content["name"], "named by a module")
            self.assertEqual(state[("m.room.join_rules", "")].content["join_rule"], "invite")

        return self.in_synapse(work())

    def test_rooms_are_denied_with_all_that_a_module_says(self) -> Deferred[None]:
        async def work() -> None:
            create = lambda: self.api.create_room(BOB, {}, ratelimit=False)  # noqa: E731
            for callback in ("on_create_room", "user_may_create_room"):
                self.bridge.outcomes = {
                    callback: deny("ORG.X", "not today", **{"org.x": 7, "msg": "hostile", "code": 1})
                }
                self.assertEqual(
                    await self.refusal(create()), (403, {"errcode": "ORG.X", "error": "not today", "org.x": 7})
                )
            self.bridge.outcomes = {"on_create_room": deny("M_UNKNOWN")}
            code, body = await self.refusal(create())
            self.assertEqual((code, body["errcode"]), (403, "M_UNKNOWN"))
            self.assertNotIn("Ganglion", body["error"])

        return self.in_synapse(work())

    def test_events_are_denied_with_all_that_a_module_says(self) -> Deferred[None]:
        async def work() -> None:
            for callback in ("check_event_for_spam", "check_event_allowed"):
                self.bridge.outcomes = {callback: deny("M_USER_LOCKED", "no", x=[1])}
                self.assertEqual(
                    await self.refusal(self.send()), (403, {"errcode": "M_USER_LOCKED", "error": "no", "x": [1]})
                )
            self.bridge.outcomes = {"check_event_for_spam": deny()}
            code, body = await self.refusal(self.send())
            self.assertEqual((code, body["errcode"]), (403, "M_FORBIDDEN"))
            self.bridge.outcomes = {"check_event_allowed": deny()}
            code, body = await self.refusal(self.send())
            self.assertEqual((code, body["errcode"]), (403, "M_FORBIDDEN"))
            for callback in ("check_event_for_spam", "check_event_allowed"):
                self.bridge.outcomes = {callback: INTERNAL_ERROR}
                self.assertEqual(
                    await self.refusal(self.send()), (500, {"errcode": "M_UNKNOWN", "error": "Internal server error"})
                )

        return self.in_synapse(work())

    def test_an_event_is_replaced(self) -> Deferred[None]:
        async def work() -> None:
            self.bridge.outcomes["check_event_allowed"] = {
                "verdict": "replace",
                "event": {
                    "type": "m.room.message",
                    "room_id": self.room,
                    "sender": BOB,
                    "content": {"msgtype": "m.text", "body": "better"},
                },
            }
            event = await self.send()
            self.assertEqual(event.content["body"], "better")

        return self.in_synapse(work())

    def test_an_event_is_sent_and_modules_are_told(self) -> Deferred[None]:
        async def work() -> None:
            event = await self.send()
            (asked,) = self.asked("check_event_for_spam")
            self.assertEqual(asked["event"]["event_id"], event.event_id)
            self.assertEqual(asked["event"]["content"], {"msgtype": "m.text", "body": "hi"})
            # Synapse tells modules later, from its notifier.
            while not (
                told := [one for one in self.asked("on_new_event") if one["event"]["event_id"] == event.event_id]
            ):
                await self.api.sleep(0.01)
            self.assertIn("stream_ordering", told[0]["event"]["internal_metadata"])
            self.assertIn("handle", told[0]["state_events"])

        return self.in_synapse(work())

    def test_synapses_metrics_name_the_callbacks(self) -> Deferred[None]:
        async def work() -> None:
            await self.send()
            blocks = {
                sample.labels.get("block_name")
                for metric in REGISTRY.collect()
                for sample in metric.samples
                if sample.name == "synapse_util_metrics_block_count_total"
            }
            self.assertIn("ganglion_synapse.callbacks.Bridge.check_event_for_spam", blocks)

        return self.in_synapse(work())

    def test_membership_callbacks_deny(self) -> Deferred[None]:
        async def work() -> None:
            await self.api.register_user("eve")
            for callback, sender, membership in (
                ("user_may_invite", BOB, "invite"),
                ("user_may_join_room", "@eve:example.com", "join"),
            ):
                self.bridge.outcomes = {callback: deny("M_USER_LOCKED", "no")}
                work = self.api.update_room_membership(sender, "@eve:example.com", self.room, membership)
                self.assertEqual(await self.refusal(work), (403, {"errcode": "M_USER_LOCKED", "error": "no"}))
                self.bridge.outcomes = {}
                await self.api.update_room_membership(BOB, "@eve:example.com", self.room, "invite")

        return self.in_synapse(work())

    def test_unsigned_fields_reach_clients(self) -> Deferred[None]:
        async def work() -> None:
            self.bridge.outcomes["add_field_to_unsigned"] = {"value": {"org.x": 1}}
            event = await self.send()
            from synapse.events.utils import FilteredEvent

            serializer = self.hs.get_event_client_serializer()
            (serialized,) = await serializer.serialize_events([FilteredEvent(event=event, membership="join")], 0)
            self.assertEqual(serialized["unsigned"]["org.x"], 1)

        return self.in_synapse(work())

    def test_a_login_goes_through_and_its_response_is_edited(self) -> Deferred[None]:
        async def work() -> None:
            self.bridge.outcomes["auth_checkers"] = {"value": {"user_id": BOB, "login_callback": "c-1"}}
            login = {"type": "com.example.code", "identifier": {"type": "m.id.user", "user": "bob"}, "code": "123"}
            user, callback = await self.hs.get_auth_handler().validate_login(login, ratelimit=False)
            self.assertEqual(user, BOB)
            (asked,) = self.asked("auth_checkers")
            self.assertEqual(
                asked, {"username": "bob", "login_type": "com.example.code", "login_dict": {"code": "123"}}
            )
            response: Any = {"user_id": BOB}
            self.bridge.outcomes["auth_checkers/continue"] = {"value": {"user_id": BOB, "org.x": 1}}
            assert callback is not None
            await callback(response)
            self.assertEqual(response, {"user_id": BOB, "org.x": 1})

        return self.in_synapse(work())

    def test_the_checks_that_fail_open_refuse(self) -> Deferred[None]:
        async def work() -> None:
            rules = self.hs.get_module_api_callbacks().third_party_event_rules
            for outcome in (deny(), INTERNAL_ERROR):
                self.bridge.outcomes = dict.fromkeys(
                    (
                        "check_can_shutdown_room",
                        "check_can_deactivate_user",
                        "check_visibility_can_be_modified",
                        "check_threepid_can_be_invited",
                    ),
                    outcome,
                )
                self.assertIs(await rules.check_can_shutdown_room(None, self.room), False)
                self.assertIs(await rules.check_can_deactivate_user(BOB, True), False)
                self.assertIs(await rules.check_visibility_can_be_modified(self.room, "public"), False)
                self.assertIs(await rules.check_threepid_can_be_invited("email", "a@b", self.room), False)

        return self.in_synapse(work())

    def test_who_is_told_of_everybody_can_sync(self) -> Deferred[None]:
        async def work() -> None:
            self.bridge.outcomes["get_interested_users"] = {"value": "ALL"}
            source = PresenceEventSource(self.hs)
            states, _ = await source.get_new_events(UserID.from_string(BOB), from_key=None)
            self.assertEqual(states, [])

        return self.in_synapse(work())

    def test_background_updates_run(self) -> Deferred[None]:
        async def work() -> None:
            self.bridge.outcomes["on_update"] = {"value": {"duration_ms": 10, "exit_token": "u-1"}}
            self.bridge.outcomes["default_batch_size"] = {"value": 7}
            updates = self.hs.get_datastores().main.db_pool.updates
            sizes: list[int] = []

            async def handler(progress: Any, size: int) -> int:
                sizes.append(size)
                await updates._end_background_update("idx")
                return size

            updates.register_background_update_handler("idx", handler)
            await self.hs.get_datastores().main.db_pool.simple_insert(
                "background_updates", {"update_name": "idx", "progress_json": "{}"}
            )
            updates._all_done = False
            self.assertFalse(await updates.do_next_background_update(sleep=True))
            while not sizes:
                self.assertFalse(await updates.do_next_background_update(sleep=True))
            self.assertEqual(sizes, [7])
            self.assertIn(("on_update", "u-1", {"failed": False}), self.bridge.carried_on)

        return self.in_synapse(work())

    def test_media_is_refused_and_read_in_chunks(self) -> Deferred[None]:
        async def work() -> None:
            read: list[Any] = []

            async def look(asked: Any) -> None:
                if asked.large is not None and "file_wrapper" in asked.args:
                    handle = asked.large.handles[asked.args["file_wrapper"]["handle"]]
                    read.append((await handle.media_read({"offset": 0}))["chunk_base64"])

            self.bridge.meanwhile = look
            self.bridge.outcomes["check_media_file_for_spam"] = deny("M_TOO_LARGE")
            from io import BytesIO

            storage = self.hs.get_media_repository().media_storage
            code, _ = await self.refusal_of_media(storage, BytesIO(b"hello"))
            self.assertEqual(code, "M_TOO_LARGE")
            self.assertEqual(read, ["aGVsbG8="])

        return self.in_synapse(work())

    async def refusal_of_media(self, storage: Any, content: Any) -> tuple[str, Any]:
        from synapse.media.media_storage import SpamMediaException

        try:
            await storage.store_file(content, FileInfo(server_name=None, file_id="abcdefghijkl"))
        except SpamMediaException as error:
            return error.errcode, error
        raise AssertionError("not refused")

    def test_upload_limits_and_rate_limits_are_used(self) -> Deferred[None]:
        async def work() -> None:
            callbacks = self.hs.get_module_api_callbacks()
            limit = {"max_bytes": 1, "time_period_ms": 2, "info_uri": None, "can_upgrade": False}
            self.bridge.outcomes["get_media_upload_limits_for_user"] = {
                "value": [limit, {**limit, "time_period_ms": 9}]
            }
            limits = await callbacks.media_repository.get_media_upload_limits_for_user(BOB)
            assert limits is not None
            self.assertEqual([one.time_period_ms for one in limits], [9, 2])

            from synapse.api.ratelimiting import Ratelimiter
            from synapse.config.ratelimiting import RatelimitSettings

            limiter = Ratelimiter(
                store=self.hs.get_datastores().main,
                clock=self.hs.get_clock(),
                cfg=RatelimitSettings("rc_invites.per_user", per_second=0.001, burst_count=1),
                ratelimit_callbacks=callbacks.ratelimit,
            )
            self.bridge.outcomes["get_ratelimit_override_for_user"] = {"value": {"per_second": 0, "burst_count": 1}}
            for _ in range(50):
                allowed, _ = await limiter.can_do_action(create_requester(BOB))
                self.assertTrue(allowed)

        return self.in_synapse(work())

    def test_an_expired_account_and_a_hidden_user(self) -> Deferred[None]:
        async def work() -> None:
            self.bridge.outcomes["is_user_expired"] = {"value": True}
            self.assertTrue(await self.hs.get_account_validity_handler().is_user_expired(BOB))
            checker = self.hs.get_module_api_callbacks().spam_checker
            profile: Any = {"user_id": "@eve:x", "display_name": None, "avatar_url": None}
            self.assertFalse(await checker.check_username_for_spam(profile, BOB))
            self.bridge.outcomes["check_username_for_spam"] = deny()
            self.assertTrue(await checker.check_username_for_spam(profile, BOB))
            self.assertEqual(self.asked("check_username_for_spam")[-1]["requester_id"], BOB)

        return self.in_synapse(work())
