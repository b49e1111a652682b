"""What Ganglion's modules may ask of Synapse, asked of a real one."""

from __future__ import annotations

import json
from typing import Any

from synapse.api.errors import SynapseError
from synapse.module_api import ModuleApi
from synapse_homeserver import HomeserverTestCase
from synapse_objects import BOB
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ganglion_synapse import arguments
from ganglion_synapse.module_api import METHODS, ModuleApiMethods

EVE = "@eve:example.com"
# What takes or gives something that is no JSON, registers something, or runs in Synapse's process by its nature.
NOT_OFFERED = {
    "cached_function": {"register_cached_function", "invalidate_cache"},
    "requests": {
        "get_user_by_req",
        "complete_sso_login_async",
        "register_web_resource",
        "read_templates",
        "http_client",
    },
    "functions": {
        "run_db_interaction",
        "run_as_background_process",
        "looping_background_call",
        "delayed_background_call",
        "defer_to_thread",
        "defer_to_threadpool",
    },
    # Ganglion has its own clock, and knows these.
    "ganglion": {"sleep", "get_current_time_msec", "server_name", "worker_name", "worker_app"},
    "deprecated": {"register"},
    "broken": {"invalidate_access_token"},
}


class TableTests(SynchronousTestCase):
    def test_every_public_member_of_synapses_module_api_is_offered_or_left_out_on_purpose(self) -> None:
        public = {name for name in vars(ModuleApi) if not name.startswith("_")}
        public = {name for name in public if not name.endswith("_callbacks")}
        offered = {name.partition(".")[0] for name in METHODS}
        left_out = set().union(*NOT_OFFERED.values())
        self.assertEqual(offered & left_out, set())
        self.assertEqual(offered | left_out, public)


class ModuleApiTests(HomeserverTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.methods = ModuleApiMethods(self.api)

    async def ask(self, method: str, **args: Any) -> Any:
        """The result as it goes over the wire."""
        result = await self.methods.call(method, args)
        return json.loads(json.dumps(result, allow_nan=False, default=arguments.default))

    async def refused(self, method: str, **args: Any) -> Any:
        try:
            await self.methods.call(method, args)
        except Exception as error:
            return error
        raise AssertionError("not refused")

    def test_users(self) -> Deferred[None]:
        async def work() -> None:
            self.assertEqual(
                await self.ask("register_user", localpart="bob", displayname="Bob", emails=["b@example.org"]), BOB
            )
            self.assertEqual(await self.ask("check_user_exists", user_id="@BOB:example.com"), BOB)
            self.assertIsNone(await self.ask("check_user_exists", user_id=EVE))
            self.assertIs(await self.ask("is_user_admin", user_id=BOB), False)
            self.assertIsNone(await self.ask("set_user_admin", user_id=BOB, admin=True))
            self.assertIs(await self.ask("is_user_admin", user_id=BOB), True)
            info = await self.ask("get_userinfo_by_id", user_id=BOB)
            self.assertEqual((info["user_id"], info["is_admin"], info["is_guest"]), (BOB, True, False))
            self.assertIsNone(await self.ask("get_userinfo_by_id", user_id=EVE))
            self.assertEqual(await self.ask("get_qualified_user_id", username="bob"), BOB)
            self.assertEqual(
                await self.ask("get_profile_for_user", localpart="bob"), {"display_name": "Bob", "avatar_url": None}
            )
            (threepid,) = await self.ask("get_threepids_for_user", user_id=BOB)
            self.assertEqual((threepid["medium"], threepid["address"]), ("email", "b@example.org"))
            self.assertEqual(await self.ask("get_user_ip_and_agents", user_id=BOB), [])
            self.assertEqual(await self.ask("get_monthly_active_users_by_service"), [])
            self.assertIs(await self.ask("is_mine", id=BOB), True)
            self.assertIsNone(await self.ask("check_username", username="free"))
            taken = await self.refused("check_username", username="bob")
            self.assertEqual((taken.code, taken.errcode), (400, "M_USER_IN_USE"))
            await self.ask("set_displayname", user_id=BOB, new_displayname="Robert")
            self.assertEqual((await self.ask("get_profile_for_user", localpart="bob"))["display_name"], "Robert")
            await self.ask("store_remote_3pid_association", user_id=BOB, medium="email", address="x@y", id_server="id")

        return self.in_synapse(work())

    def test_devices_and_logins(self) -> Deferred[None]:
        async def work() -> None:
            await self.ask("register_user", localpart="bob")
            device, _, expires, refresh = await self.ask("register_device", user_id=BOB, device_id="D")
            self.assertEqual((device, expires, refresh), ("D", None, None))
            self.assertIsInstance(await self.ask("create_login_token", user_id=BOB), str)
            self.assertIsNone(
                await self.ask(
                    "record_user_external_id", auth_provider_id="p", remote_user_id="r", registered_user_id=BOB
                )
            )

        return self.in_synapse(work())

    def test_what_is_left_out_as_broken_is_broken(self) -> Deferred[None]:
        async def work() -> None:
            await self.ask("register_user", localpart="bob")
            _, token, _, _ = await self.ask("register_device", user_id=BOB)
            try:
                await self.api.invalidate_access_token(token)
            except AttributeError:
                return
            self.fail("Synapse has mended it: offer it")

        return self.in_synapse(work())

    def test_rooms(self) -> Deferred[None]:
        async def work() -> None:
            await self.ask("register_user", localpart="bob")
            await self.ask("register_user", localpart="eve")
            config = {"preset": "private_chat", "room_alias_name": "lobby"}
            room, alias = await self.ask("create_room", user_id=BOB, config=config, ratelimit=False)
            self.assertEqual(alias, "#lobby:example.com")
            self.assertEqual((await self.ask("lookup_room_alias", room_alias=alias))[0], room)
            self.assertEqual(await self.ask("get_canonical_room_alias", room_id=room), alias)
            member = await self.ask(
                "update_room_membership", sender=BOB, target=EVE, room_id=room, new_membership="invite"
            )
            self.assertEqual((member["membership"], member["state_key"]), ("invite", EVE))
            sent = await self.ask(
                "create_and_send_event_into_room",
                event_dict={
                    "type": "m.room.topic",
                    "state_key": "",
                    "room_id": room,
                    "sender": BOB,
                    "content": {"topic": "x"},
                },
            )
            self.assertEqual(sent["content"], {"topic": "x"})
            state = await self.ask("get_room_state", room_id=room)
            self.assertIn(sent["event_id"], [event["event_id"] for event in state])
            some = await self.ask(
                "get_room_state", room_id=room, event_filter=[["m.room.member", None], ["m.room.topic", ""]]
            )
            self.assertEqual(len(some), 3)
            members = await self.ask("get_state_events_in_room", room_id=room, types=[["m.room.member", None]])
            self.assertEqual({event["state_key"] for event in members}, {BOB, EVE})
            for method, listed in (
                ("add_room_to_public_room_list", True),
                ("remove_room_from_public_room_list", False),
            ):
                await self.ask(f"public_room_list_manager.{method}", room_id=room)
                is_listed = await self.ask("public_room_list_manager.room_is_in_public_room_list", room_id=room)
                self.assertEqual(bool(is_listed), listed)
            self.assertIsNone(await self.ask("delete_room", room_id=room))

        return self.in_synapse(work())

    def test_account_data_and_push(self) -> Deferred[None]:
        async def work() -> None:
            await self.ask("register_user", localpart="bob")
            asked = {"user_id": BOB, "data_type": "org.x"}
            self.assertIsNone(await self.ask("account_data_manager.get_global", **asked))
            await self.ask("account_data_manager.put_global", **asked, new_data={"a": {"b": [1]}})
            self.assertEqual(await self.ask("account_data_manager.get_global", **asked), {"a": {"b": [1]}})
            rule = {"user_id": BOB, "scope": "global", "kind": "override", "rule_id": ".m.rule.master"}
            await self.ask("set_push_rule_action", **rule, actions=["notify"])
            await self.ask("check_push_rule_actions", actions=["notify", {"set_tweak": "highlight"}])
            self.assertEqual(
                type(await self.refused("check_push_rule_actions", actions=["x"])).__name__, "InvalidRuleException"
            )
            self.assertEqual(await self.ask("send_http_push_notification", user_id=BOB, content={"event_id": "$e"}), {})
            await self.ask("set_presence_for_users", users={BOB: ["online", "hi"]})
            await self.ask("send_local_online_presence_to", users=[BOB])
            self.assertIs(await self.ask("should_run_background_tasks"), True)
            self.assertEqual(await self.ask("public_baseurl"), "https://example.com/")

        return self.in_synapse(work())

    def test_a_method_that_is_not_there_is_a_lookup_error(self) -> Deferred[None]:
        async def work() -> None:
            for method in (
                "run_db_interaction",
                "_hs",
                "account_data_manager._store",
                "",
                "get_userinfo_by_id.__class__",
            ):
                self.assertIsInstance(await self.refused(method), LookupError)

        return self.in_synapse(work())

    def test_args_that_are_not_the_methods_are_value_errors_that_name_them(self) -> Deferred[None]:
        async def work() -> None:
            for method, args, key in (
                ("is_user_admin", {}, "user_id"),
                ("is_user_admin", {"user_id": None}, "user_id"),
                ("is_user_admin", {"user_id": ["secret"]}, "user_id"),
                ("is_user_admin", {"user_id": BOB, "secret": 1}, "secret"),
                ("set_user_admin", {"user_id": BOB, "admin": 1}, "admin"),
                ("get_user_ip_and_agents", {"user_id": BOB, "since_ts": True}, "since_ts"),
                ("create_room", {"user_id": BOB, "config": []}, "config"),
                ("register_user", {"localpart": "x", "emails": [1]}, "emails"),
                ("get_room_state", {"room_id": "!r", "event_filter": [["a"]]}, "event_filter"),
                ("get_room_state", {"room_id": "!r", "event_filter": [["a", 1]]}, "event_filter"),
                ("create_and_send_event_into_room", {"event_dict": {"type": "x"}}, "event_dict.room_id"),
                ("set_presence_for_users", {"users": {BOB: ["online"]}}, "users"),
                ("check_push_rule_actions", {"actions": [1]}, "actions"),
            ):
                error = await self.refused(method, **args)
                self.assertIsInstance(error, ValueError, method)
                self.assertTrue(str(error).startswith(key), error)
            error = await self.refused("is_user_admin", user_id=["hidden"])
            self.assertNotIn("hidden", str(error))

        return self.in_synapse(work())

    def test_synapses_own_errors_pass_through(self) -> Deferred[None]:
        async def work() -> None:
            error = await self.refused("lookup_room_alias", room_alias="#none:example.com")
            self.assertIsInstance(error, SynapseError)
            self.assertEqual((error.code, error.errcode), (404, "M_NOT_FOUND"))
            self.assertIsInstance(
                await self.refused("set_displayname", user_id="bob", new_displayname="x"), SynapseError
            )

        return self.in_synapse(work())
