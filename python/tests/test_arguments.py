"""Synapse's objects as JSON."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

from immutabledict import immutabledict
from synapse.api.presence import UserPresenceState
from synapse.media._base import FileInfo, ThumbnailInfo
from synapse.module_api import MediaUploadLimit, ProfileInfo
from synapse.module_api.callbacks.federation import FederatedEventDeliveryMethod, FederationEventDeliveryEvent
from synapse.types import RoomAlias, RoomID, UserID, create_requester
from synapse_objects import BOB, ROOM, an_event
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from ganglion_synapse import arguments


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False, default=arguments.default))


class EventTests(SynchronousTestCase):
    def test_an_event_is_its_pdu_and_what_synapse_knows_beside_it(self) -> None:
        event = an_event(
            content={"msgtype": "m.text", "body": "hi", "deep": {"a": [1, {"b": None}]}},
            unsigned={"age_ts": 5},
            metadata={"txn_id": "t", "soft_failed": True},
        )
        event.internal_metadata.stream_ordering = 7

        sent = through_json(arguments.event(event))

        self.assertEqual(
            sent,
            {
                "type": "m.room.message",
                "sender": BOB,
                "room_id": ROOM,
                "content": {"msgtype": "m.text", "body": "hi", "deep": {"a": [1, {"b": None}]}},
                "origin_server_ts": 1766000000000,
                "depth": 1,
                "auth_events": [],
                "prev_events": [],
                "hashes": {"sha256": ""},
                "signatures": {},
                "unsigned": {"age_ts": 5},
                "event_id": event.event_id,
                "room_version": "11",
                "internal_metadata": {"txn_id": "t", "soft_failed": True, "stream_ordering": 7},
            },
        )

    def test_a_message_has_no_state_key_and_a_state_event_keeps_an_empty_one(self) -> None:
        self.assertNotIn("state_key", arguments.event(an_event()))
        self.assertEqual(arguments.event(an_event(type="m.room.topic", state_key=""))["state_key"], "")

    def test_a_member_event_says_the_membership_beside_the_pdu(self) -> None:
        member = an_event(type="m.room.member", state_key=BOB, content={"membership": "invite"})
        self.assertEqual(arguments.event(member)["membership"], "invite")

    def test_a_member_event_without_a_usable_membership_is_sent_without(self) -> None:
        for content in ({}, {"membership": 5}, {"membership": None}):
            member = an_event(type="m.room.member", state_key=BOB, content=content)
            self.assertNotIn("membership", arguments.event(member))

    def test_a_v12_create_event_has_the_room_that_is_computed_from_it(self) -> None:
        from synapse.api.room_versions import RoomVersions
        from synapse.events import make_event_from_dict

        create = make_event_from_dict(
            {
                "type": "m.room.create",
                "state_key": "",
                "sender": BOB,
                "content": {"room_version": "12"},
                "origin_server_ts": 1,
                "depth": 1,
                "auth_events": [],
                "prev_events": [],
                "hashes": {"sha256": ""},
                "signatures": {},
                "unsigned": {},
            },
            RoomVersions.V12,
        )
        self.assertNotIn("room_id", create.get_dict())
        self.assertEqual(arguments.event(create)["room_id"], create.room_id)

    def test_a_rejected_event_says_why(self) -> None:
        from synapse.api.room_versions import RoomVersions
        from synapse.events import make_event_from_dict

        event = make_event_from_dict(an_event().get_dict(), RoomVersions.V11, {}, "auth_error")
        self.assertEqual(arguments.event(event)["rejected_reason"], "auth_error")

    def test_every_room_version_can_be_sent(self) -> None:
        from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
        from synapse.events import make_event_from_dict

        for identifier, version in KNOWN_ROOM_VERSIONS.items():
            pdu = an_event().get_dict()
            if int(identifier) < 3 if identifier.isdigit() else False:
                pdu.update(event_id="$e:example.com", auth_events=[], prev_events=[])
            try:
                event = make_event_from_dict(pdu, version)
            except Exception:
                # Versions with other fields; they are not what this is about.
                continue
            self.assertEqual(arguments.event(event)["event_id"], event.event_id)
            through_json(arguments.event(event))

    def test_invite_room_state_is_sent(self) -> None:
        stripped = [{"type": "m.room.name", "state_key": "", "sender": BOB, "content": {"name": "Lobby"}}]
        event = an_event(type="m.room.member", state_key=BOB, unsigned={"invite_room_state": stripped})
        self.assertEqual(through_json(arguments.event(event))["unsigned"]["invite_room_state"], stripped)

    def test_keys_of_a_pdu_do_not_pass_for_what_synapse_knows(self) -> None:
        event = an_event(membership="spoofed", rejected_reason="spoofed", internal_metadata="spoofed")
        self.assertIn("spoofed", event.get_dict().values())

        self.assertNotIn("spoofed", arguments.event(event).values())


class DefaultTests(SynchronousTestCase):
    def test_what_the_standard_library_cannot_dump_is_dumped(self) -> None:
        event = an_event(content={"a": {"b": 1}})
        value = {
            "json_object": event.content,
            "immutable": immutabledict({"x": immutabledict({"y": 1})}),
            "set": frozenset({"a"}),
            "tuple": ("a", 1),
        }
        self.assertEqual(
            through_json(value),
            {"json_object": {"a": {"b": 1}}, "immutable": {"x": {"y": 1}}, "set": ["a"], "tuple": ["a", 1]},
        )

    def test_anything_else_is_a_type_error_that_does_not_show_it(self) -> None:
        error = self.assertRaises(TypeError, json.dumps, b"secret", default=arguments.default)
        self.assertNotIn("secret", str(error))


class ValueTests(SynchronousTestCase):
    def test_a_requester_is_what_synapse_serialises(self) -> None:
        requester = create_requester(BOB, access_token_id=3, device_id="D", shadow_banned=True)
        self.assertEqual(
            through_json(arguments.requester(requester)),
            {
                "user_id": BOB,
                "access_token_id": 3,
                "is_guest": False,
                "scope": [],
                "shadow_banned": True,
                "device_id": "D",
                "app_server_id": None,
                "authenticated_entity": BOB,
            },
        )

    def test_parsed_ids_are_their_text(self) -> None:
        for parsed, text in (
            (UserID.from_string(BOB), BOB),
            (RoomAlias.from_string("#lobby:example.com"), "#lobby:example.com"),
            (RoomID.from_string(ROOM), ROOM),
            (BOB, BOB),
        ):
            self.assertEqual(arguments.text(parsed), text)

    def test_a_profile_and_a_row_of_the_directory(self) -> None:
        self.assertEqual(
            arguments.profile(ProfileInfo(avatar_url=None, display_name="Bob")),
            {"display_name": "Bob", "avatar_url": None},
        )
        self.assertEqual(
            arguments.user_profile(
                {"user_id": BOB, "display_name": None, "avatar_url": "mxc://a/b", "extra": object()}
            ),
            {"user_id": BOB, "display_name": None, "avatar_url": "mxc://a/b"},
        )

    def test_a_presence_is_what_synapse_makes_of_it(self) -> None:
        state = UserPresenceState.default(BOB).copy_and_replace(status_msg="away", state="online")
        self.assertEqual(arguments.presence(state), state.as_dict())

    def test_request_info_may_be_any_collection(self) -> None:
        self.assertEqual(arguments.request_info({("curl/8", "192.0.2.1")}), [["curl/8", "192.0.2.1"]])
        self.assertEqual(arguments.request_info([(None, "192.0.2.1")]), [[None, "192.0.2.1"]])

    def test_a_file_info_with_and_without_a_thumbnail(self) -> None:
        self.assertEqual(
            arguments.file_info(FileInfo(server_name=None, file_id="f")),
            {"server_name": None, "file_id": "f", "url_cache": False, "thumbnail": None},
        )
        thumbnail = ThumbnailInfo(width=32, height=24, method="crop", type="image/png", length=7)
        self.assertEqual(
            arguments.file_info(FileInfo(server_name="s", file_id="f", thumbnail=thumbnail))["thumbnail"],
            {"width": 32, "height": 24, "method": "crop", "type": "image/png", "length": 7},
        )

    def test_an_upload_limit(self) -> None:
        self.assertEqual(
            arguments.upload_limit(MediaUploadLimit(max_bytes=5, time_period_ms=6)),
            {"max_bytes": 5, "time_period_ms": 6, "info_uri": None, "can_upgrade": False},
        )

    def test_a_delivery(self) -> None:
        event = an_event()
        delivery = FederationEventDeliveryEvent("remote.example", [event], FederatedEventDeliveryMethod.SEND)
        sent = arguments.delivery(delivery)
        self.assertIs(type(sent["method"]), str)
        self.assertEqual(
            through_json(sent),
            {"server_name": "remote.example", "method": "/send", "events": [through_json(arguments.event(event))]},
        )

    def test_an_http_request_leaves_its_body_to_be_read(self) -> None:
        class Request:
            method = b"POST"
            uri = b"/_synapse/admin/v1/x?a=1&b"
            content = BytesIO(b"{}")
            requestHeaders = Headers({b"Content-Type": [b"application/json"], b"X": [b"1", b"2"]})

        request = Request()
        self.assertEqual(
            arguments.http_request(request),  # type: ignore[arg-type]
            {
                "method": "POST",
                "path": "/_synapse/admin/v1/x",
                "query": "a=1&b",
                "headers": [["content-type", "application/json"], ["x", "1"], ["x", "2"]],
                "body_base64": "e30=",
            },
        )
        self.assertEqual(request.content.read(), b"{}")
