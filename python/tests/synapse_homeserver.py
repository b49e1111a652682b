"""A real homeserver for the tests: in this process, with a database in memory, listening nowhere."""

from __future__ import annotations

import gc
import logging
from collections.abc import Coroutine
from functools import cache
from tempfile import mkdtemp
from typing import Any, TypeVar

from synapse.app.homeserver import SynapseHomeServer, create_homeserver
from synapse.config.homeserver import HomeServerConfig
from synapse.logging.context import LoggingContext, PreserveLoggingContext
from synapse.module_api import ModuleApi
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python import log
from twisted.trial.unittest import TestCase

T = TypeVar("T")

# Guards nothing: no other server ever sees what it signs.
SIGNING_KEY = "ed25519 a_test ZnJlc2ggdGVzdCBzZWVkIG9mIGdhbmdsaW9uLCAzMmI"


# A homeserver that is shut down in the middle of its background work is loud about it.
logging.getLogger("synapse").setLevel(logging.CRITICAL + 1)


@cache
def a_config() -> HomeServerConfig:
    """The config of every homeserver: reading it takes as long as a test."""
    files = mkdtemp(dir=".")
    config = HomeServerConfig()
    settings = {
        "server_name": "example.com",
        "report_stats": False,
        "signing_key": SIGNING_KEY,
        "trusted_key_servers": [],
        "federation_domain_whitelist": [],
        "database": {"name": "sqlite3", "args": {"database": ":memory:", "cp_min": 1, "cp_max": 1}},
        "media_store_path": f"{files}/media",
        "pid_file": f"{files}/pid",
        "macaroon_secret_key": "x",
        "form_secret": "x",
        "listeners": [],
    }
    config.parse_config_dict(settings, "", "")
    return config


class HomeserverTestCase(TestCase):
    """Each test has a homeserver of its own, for `example.com`."""

    hs: SynapseHomeServer
    api: ModuleApi

    def setUp(self) -> None:
        self.hs = create_homeserver(a_config(), reactor)
        self.hs.setup()
        self.api = self.hs.get_module_api()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._shut_down()))

    def in_synapse(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Runs something as Synapse runs a request."""

        async def run() -> T:
            with LoggingContext(name="test", server_name="example.com"):
                return await work

        with PreserveLoggingContext():
            return Deferred.fromCoroutine(run())

    async def _shut_down(self) -> None:
        # What is cut off in its work leaves its log context behind, for the next test to stumble over.
        sender = self.hs.get_federation_sender()
        while sender._is_processing:  # type: ignore[attr-defined]
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        await self.hs.shutdown()
        # What still wanted to begin something is not told apart by Synapse.
        gc.collect()
        for failure in self.flushLoggedErrors():
            if "HomeServer has been shutdown" not in failure.getErrorMessage():
                log.err(failure)
