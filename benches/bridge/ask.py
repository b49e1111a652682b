"""What one question of Synapse to its modules takes, measured inside of Synapse: no client, no database, no network but the modules' own.

    python ask.py --socket ganglion.sock --antispam http://127.0.0.1:8009/_ganglion/antispam < args.json

Reads the args of `check_event_for_spam` in Ganglion's JSON, makes a homeserver in this process that listens nowhere, and asks with Synapse's own
class what passes: five modules that let everything pass (`python`), the bridge (`bridge`), synapse-http-antispam (`antispam`), and nobody
(`nobody`). Each has callbacks of its own; nothing is mocked, the reactor runs, every question has a log context as a request has, and is asked
when the one before is answered; with `--at-once`, so many are asked at once, and what each takes is its part of the whole. Rounds take turns: so many questions of each, then all again. Prints JSON: the versions, how
often each asked, and for each the
median of every round in seconds.
"""

import argparse
import importlib.metadata
import json
import logging
import statistics
import sys
import tempfile
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from ask_synapse import event_of
from ganglion_synapse import Bridge
from noop import Noop
from synapse.app.homeserver import create_homeserver
from synapse.config.homeserver import HomeServerConfig
from synapse.logging.context import LoggingContext, PreserveLoggingContext
from synapse.module_api import NOT_SPAM, ModuleApi
from synapse.module_api.callbacks import ModuleApiCallbacks
from synapse_http_antispam import HTTPAntispam

SERVER_NAME = "example.com"

WARM_UP = 5
"""Questions of a round that are not counted: what was done before has the caches."""

CALLBACKS = ["check_event_for_spam", "user_may_create_room"]


def homeserver(files):
    config = HomeServerConfig()
    settings = {
        "server_name": SERVER_NAME,
        "report_stats": False,
        # Guards nothing: no other server ever sees what it signs.
        "signing_key": "ed25519 a_test ZnJlc2ggdGVzdCBzZWVkIG9mIGdhbmdsaW9uLCAzMmI",
        "trusted_key_servers": [],
        "federation_domain_whitelist": [],
        "database": {"name": "sqlite3", "args": {"database": ":memory:", "cp_min": 1, "cp_max": 1}},
        "media_store_path": files,
        "pid_file": f"{files}/pid",
        "macaroon_secret_key": "bench",
        "form_secret": "bench",
        "listeners": [],
    }
    config.parse_config_dict(settings, files, files)
    hs = create_homeserver(config, reactor)
    hs.setup()
    return hs


def module_api(hs):
    """Synapse's own module API, which registers with callbacks of its own."""
    api = ModuleApi(hs, hs.get_auth_handler())
    api._callbacks = ModuleApiCallbacks(hs)
    return api


def ways(hs, options):
    """The callbacks of each."""
    apis = {name: module_api(hs) for name in ("nobody", "python", "bridge", "antispam") if name in options.ways}
    if "python" in apis:
        for _ in range(options.modules):
            Noop({}, apis["python"])
    if "bridge" in apis:
        Bridge(Bridge.parse_config({"socket": options.socket}), apis["bridge"])
    if "antispam" in apis:
        HTTPAntispam({"base_url": options.antispam, "enabled_callbacks": CALLBACKS}, apis["antispam"])
    return {name: api._callbacks.spam_checker for name, api in apis.items()}


async def ask(callbacks, event, questions):
    """Seconds that each took."""
    took = []
    for _ in range(questions):
        begun = time.perf_counter()
        with LoggingContext(name="bench", server_name=SERVER_NAME):
            answer = await callbacks.check_event_for_spam(event)
        took.append(time.perf_counter() - begun)
        if answer != NOT_SPAM:
            raise SystemExit(f"a wrong answer: {answer!r}")
    return took


async def ask_at_once(callbacks, event, questions, at_once):
    """Seconds that each took, of so many that are asked together."""

    async def one():
        with LoggingContext(name="bench", server_name=SERVER_NAME):
            return await callbacks.check_event_for_spam(event)

    took = []
    for _ in range(questions // at_once):
        begun = time.perf_counter()
        answers = await gatherResults([Deferred.fromCoroutine(one()) for _ in range(at_once)])
        took.append((time.perf_counter() - begun) / at_once)
        if any(answer != NOT_SPAM for answer in answers):
            raise SystemExit(f"a wrong answer: {answers!r}")
    return took


async def measure_at_once(hs, options, event):
    asked = ways(hs, options)
    found = {name: [] for name in asked}
    questions = options.questions // options.at_once * options.at_once
    for callbacks in asked.values():
        await ask_at_once(callbacks, event, questions, options.at_once)
    for round in range(options.rounds):
        order = list(asked)
        at = round % len(order)
        for name in order[at:] + order[:at]:
            took = await ask_at_once(asked[name], event, questions, options.at_once)
            found[name].append(statistics.median(took))
    return found


async def measure(hs, options, event):
    if options.at_once > 1:
        return await measure_at_once(hs, options, event)

    asked = ways(hs, options)
    found = {name: [] for name in asked}
    for callbacks in asked.values():
        await ask(callbacks, event, options.questions)
    for round in range(options.rounds):
        order = list(asked)
        # Nobody is always the one who comes after.
        at = round % len(order)
        for name in order[at:] + order[:at]:
            took = await ask(asked[name], event, WARM_UP + options.questions)
            found[name].append(statistics.median(took[WARM_UP:]))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", required=True)
    parser.add_argument("--antispam", required=True)
    parser.add_argument("--modules", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--questions", type=int, default=50, help="of each in a round")
    parser.add_argument("--at-once", type=int, default=1, help="how many are asked at once")
    parser.add_argument("--ways", nargs="*", default=["nobody", "python", "bridge", "antispam"])
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    event = event_of(json.load(sys.stdin))
    found = {}

    async def run(hs):
        with PreserveLoggingContext():
            found.update(await measure(hs, options, event))

    with tempfile.TemporaryDirectory() as files:
        hs = homeserver(files)
        try:
            react(lambda _: Deferred.fromCoroutine(run(hs)))
        except SystemExit as end:
            if end.code:
                raise
    calls = options.rounds * (WARM_UP + options.questions) + options.questions
    if options.at_once > 1:
        calls = (options.rounds + 1) * (options.questions // options.at_once * options.at_once)
    assert all(module.calls["check_event_for_spam"] == calls for module in Noop.all), "not all modules were asked"
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("matrix-synapse", "synapse-http-antispam"))
    print(json.dumps({"versions": ", ".join(versions), "questions": calls, "rounds": found}))


if __name__ == "__main__":
    main()
