"""What stands under `config:` of the bridge in homeserver.yaml."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from synapse.module_api.errors import ConfigError

from .near import near
from .policy import KINDS, ORIGINS, WORDS, FailureRule
from .reference import CALLBACKS, EXTENSION

T = TypeVar("T")
Path = tuple[str, ...]

_CATEGORIES = tuple(dict.fromkeys(spec.category for spec in CALLBACKS.values()))
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_LONGEST = 365 * 86400.0


@dataclass(frozen=True)
class TcpAddress:
    """Where Ganglion listens with TCP."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class BridgeConfig:
    """The config, read and checked."""

    address: str | TcpAddress
    """The path of the Unix socket, or host and port."""
    token: str | None = field(default=None, repr=False)
    call_timeout: float = 2.0
    """How long a callback may take, in seconds."""
    on_failure: tuple[FailureRule, ...] = ()
    state_file: str | None = None
    callbacks: tuple[str, ...] | None = None
    """What to register if nothing tells what Ganglion's modules have subscribed to."""


class _Section:
    """A mapping of the config, whose keys are taken one by one; what is left over is unknown."""

    def __init__(self, value: Any, path: Path) -> None:
        if not isinstance(value, Mapping):
            raise ConfigError(f"expected a mapping, found {_kind(value)}", path)
        self._left = dict(value)
        self._known: list[str] = []
        self.path = path

    def take(self, key: str, read: Callable[[Any, Path], T], default: T) -> T:
        """The value of a key, or the default if it is absent or null."""
        self._known.append(key)
        value = self._left.pop(key, None)
        return default if value is None else read(value, self.path + (key,))

    def finish(self) -> None:
        """Refuses what nobody took."""
        for key in self._left:
            raise ConfigError(f"unknown key{near(str(key), self._known)}", self.path + (str(key),))


def parse_config(config: Mapping[str, Any]) -> BridgeConfig:
    """Reads the config of the bridge. Raises `ConfigError` with the path of the key that is wrong."""
    section = _Section(config, ())
    socket = section.take("socket", _text, None)
    tcp = section.take("tcp", _address, None)
    token = section.take("token_file", _token, None)
    call_timeout = section.take("call_timeout", _duration, 2.0)
    on_failure = section.take("on_failure", _rules, ())
    state_file = section.take("state_file", _text, None)
    callbacks = section.take("callbacks", _callbacks, None)
    section.finish()
    if socket is not None and tcp is not None:
        raise ConfigError("socket and tcp exclude each other: leave one out", ("tcp",))
    address = socket if tcp is None else tcp
    if address is None:
        raise ConfigError("missing: say where Ganglion listens, with socket or tcp", ("socket",))
    if tcp is not None and token is None:
        raise ConfigError("missing: over TCP Ganglion requires a token", ("token_file",))
    return BridgeConfig(address, token, call_timeout, on_failure, state_file, callbacks)


def _kind(value: Any) -> str:
    for kind, word in ((bool, "a boolean"), (str, "a text"), ((int, float), "a number"), (Mapping, "a mapping")):
        if isinstance(value, kind):  # type: ignore[arg-type]
            return word
    return "nothing" if value is None else "a list" if isinstance(value, (list, tuple)) else "something else"


def _text(value: Any, path: Path) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"expected a text, found {_kind(value)}", path)
    if not value:
        raise ConfigError("expected a text, found an empty one", path)
    return value


def _address(value: Any, path: Path) -> TcpAddress:
    host, colon, port = _text(value, path).rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    if not (colon and host and 1 <= number <= 65535) or (":" in host and not bracketed):
        raise ConfigError("expected a host and a port, such as 127.0.0.1:8010 or [::1]:8010", path)
    return TcpAddress(host, number)


def _token(value: Any, path: Path) -> str:
    name = _text(value, path)
    try:
        with open(name, encoding="utf-8") as file:
            token = file.read().strip()
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}", path) from None
    except UnicodeDecodeError:
        # The exception itself would show what the file holds.
        raise ConfigError(f"{name}: not UTF-8", path) from None
    if not token:
        raise ConfigError(f"{name}: empty", path)
    return token


def _duration(value: Any, path: Path) -> float:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ConfigError("write a duration such as 500ms, 2s or 1m", path)
    seconds = float(match[1]) * _SECONDS[match[2]]
    # A deadline is sent in whole milliseconds.
    if not 0.001 <= seconds <= _LONGEST:
        raise ConfigError("expected at least 1ms and at most 365 days", path)
    return seconds


def _list(value: Any, path: Path) -> list[tuple[Any, Path]]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"expected a list, found {_kind(value)}", path)
    return [(item, path + (f"<item {index}>",)) for index, item in enumerate(value)]


def _word(what: str, words: tuple[str, ...]) -> Callable[[Any, Path], str]:
    def read(value: Any, path: Path) -> str:
        word = _text(value, path)
        if word not in words:
            raise ConfigError(f"unknown {what} {word!r}{near(word, words)}", path)
        return word

    return read


_callback = _word("callback", tuple(CALLBACKS))


def _each(read: Callable[[Any, Path], str]) -> Callable[[Any, Path], frozenset[str]]:
    """One word or a list of words."""

    def read_each(value: Any, path: Path) -> frozenset[str]:
        if isinstance(value, str):
            return frozenset({read(value, path)})
        words = frozenset(read(item, at) for item, at in _list(value, path))
        if not words:
            # Nothing named would mean that everything matches: too much for a slip.
            raise ConfigError("expected at least one; leave the key out to match all", path)
        return words

    return read_each


def _rules(value: Any, path: Path) -> tuple[FailureRule, ...]:
    return tuple(_rule(item, at) for item, at in _list(value, path))


def _rule(value: Any, path: Path) -> FailureRule:
    section = _Section(value, path)
    callbacks = section.take("callback", _each(_callback), frozenset())
    categories = section.take("category", _each(_word("category", _CATEGORIES)), frozenset())
    kinds = section.take("kind", _each(_word("kind", KINDS)), frozenset())
    origin = section.take("origin", _word("origin", ORIGINS), None)
    then = section.take("then", _word("word", WORDS), None)
    section.finish()
    if then is None:
        raise ConfigError("missing: pass, deny, error or synapse", path + ("then",))
    for callback in CALLBACKS:
        if then == "deny" and callback in callbacks and not CALLBACKS[callback].has_deny_verdict:
            raise ConfigError(f"{callback} has no deny verdict: use pass, error or synapse", path + ("then",))
    return FailureRule(then, callbacks, categories, kinds, origin)


def _callbacks(value: Any, path: Path) -> tuple[str, ...]:
    names = {_asked(item, at) for item, at in _list(value, path)}
    return tuple(name for name in CALLBACKS if name in names)


def _asked(value: Any, path: Path) -> str:
    name = _callback(value, path)
    if name == EXTENSION:
        raise ConfigError("Synapse never asks it", path)
    return name
