"""Every callback of Synapse, forwarded to Ganglion: a module for each of Synapse's `register_*_callbacks`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from synapse.module_api.errors import ConfigError

from ganglion_synapse.callbacks.account_data import AccountData
from ganglion_synapse.callbacks.account_validity import AccountValidity
from ganglion_synapse.callbacks.background_update_controller import BackgroundUpdateController
from ganglion_synapse.callbacks.federation import Federation
from ganglion_synapse.callbacks.forwarding import Bridge, Category
from ganglion_synapse.callbacks.media_repository import MediaRepository
from ganglion_synapse.callbacks.password_auth_provider import LoginTypes, PasswordAuthProvider
from ganglion_synapse.callbacks.presence_router import PresenceRouter
from ganglion_synapse.callbacks.ratelimit import Ratelimit
from ganglion_synapse.callbacks.spam_checker import SpamChecker
from ganglion_synapse.callbacks.third_party_rules import ThirdPartyRules
from ganglion_synapse.callbacks.unsigned import Unsigned

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

logger = logging.getLogger(__name__)

CATEGORIES: tuple[type[Category], ...] = (
    SpamChecker,
    ThirdPartyRules,
    AccountValidity,
    PasswordAuthProvider,
    PresenceRouter,
    BackgroundUpdateController,
    AccountData,
    Unsigned,
    MediaRepository,
    Ratelimit,
    Federation,
)


def register(bridge: Bridge, api: ModuleApi, names: Collection[str], login_types: LoginTypes = ()) -> None:
    """Registers with Synapse the callbacks that these names say, and no others: Synapse does less where nobody listens.

    `login_types` are those of `auth_checkers`, each with the fields that it requires. What this Synapse does not have,
    or has no use for as it is configured, is logged and left out. A second owner of what can have only one is an error
    that Synapse does not start with, as with any module.
    """
    wanted = frozenset(names)
    types = [(name, tuple(fields)) for name, fields in login_types]
    for category in CATEGORIES:
        if wanted.isdisjoint(category.names):
            continue
        keywords = category(bridge, api).keywords(wanted, types)
        method = getattr(api, category.registers, None)
        known = inspect.signature(method).parameters if method is not None else {}
        for keyword in keywords.keys() - known.keys():
            logger.warning("this Synapse never asks %s: modules that implement it are not asked", keyword)
            del keywords[keyword]
        if method is None or not keywords:
            continue
        try:
            method(**keywords)
        except ConfigError as error:
            # Where another service logs users in, Synapse has no use for these callbacks, and no patience with them.
            logger.error("Synapse refuses %s: %s", ", ".join(sorted(keywords)), error)
    for name in sorted(wanted.difference(*(category.names for category in CATEGORIES))):
        logger.warning(
            "the callback %s is not one that this bridge knows: modules that implement it are not asked", name
        )
