"""A module of Synapse that lets everything pass, and counts what it was asked."""

import json
from typing import ClassVar

from twisted.web.resource import Resource

from synapse.module_api import NOT_SPAM

CALLS = "/_synapse/client/bench/calls"
"""Where Synapse tells how often each of them was asked."""


class Noop:
    all: ClassVar[list["Noop"]] = []

    @staticmethod
    def parse_config(config):
        return config

    def __init__(self, config, api):
        self.calls = {"check_event_for_spam": 0, "user_may_create_room": 0}
        Noop.all.append(self)
        # Of several resources at one path Synapse takes the first.
        api.register_web_resource(CALLS, Calls())
        api.register_spam_checker_callbacks(
            check_event_for_spam=self.check_event_for_spam,
            user_may_create_room=self.user_may_create_room,
        )

    async def check_event_for_spam(self, event):
        self.calls["check_event_for_spam"] += 1
        return NOT_SPAM

    async def user_may_create_room(self, user_id, room_config):
        self.calls["user_may_create_room"] += 1
        return NOT_SPAM


class Calls(Resource):
    isLeaf = True

    def render_GET(self, request):
        request.setHeader(b"content-type", b"application/json")
        return json.dumps([module.calls for module in Noop.all]).encode()
