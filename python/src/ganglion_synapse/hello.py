"""How a connection begins: each side says who it is, Ganglion also which callbacks its modules have subscribed to."""

from __future__ import annotations

import json
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from .config import TcpAddress
from .errors import OTHER_SERVER, OTHER_VERSION, UNAUTHORIZED
from .version import VERSION

PROTOCOL_VERSION = 1
MAX_FRAME = 16 * 1024 * 1024
"""The largest frame that the bridge accepts."""

FEATURES = ("state", "media", "module_api")
SMALLEST_MAX_FRAME = 65536

REFUSALS = {
    UNAUTHORIZED: "the token is missing or wrong",
    OTHER_VERSION: "it speaks another version of the protocol",
    OTHER_SERVER: "it is the Ganglion of another homeserver",
}
"""The errors that Ganglion answers a hello with. Its own words are added, ours say it to who knows no Ganglion."""


@dataclass(frozen=True)
class Announcement:
    """What Ganglion's modules have subscribed to."""

    callbacks: frozenset[str]
    login_types: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """The login types of `auth_checkers`, each with its fields."""

    @classmethod
    def read(cls, value: Any) -> Announcement:
        """Understands the JSON form. Raises `ValueError` for anything else."""
        try:
            callbacks, login_types = value["callbacks"], value["login_types"]
            types = [(item["name"], item["fields"]) for item in login_types]
        except (KeyError, TypeError):
            raise ValueError("no announcement") from None
        lists = [callbacks, [name for name, _ in types], *(fields for _, fields in types)]
        if not all(isinstance(words, list) and all(isinstance(word, str) for word in words) for words in lists):
            raise ValueError("an announcement with something else than texts")
        return cls(frozenset(callbacks), tuple((name, tuple(fields)) for name, fields in types))

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        types = [{"name": name, "fields": list(fields)} for name, fields in self.login_types]
        return {"callbacks": sorted(self.callbacks), "login_types": types}


@dataclass(frozen=True)
class Welcome:
    """Ganglion's answer to a hello."""

    software: str
    max_frame: int
    window: int
    announcement: Announcement

    @classmethod
    def read(cls, value: Any, server_name: str) -> Welcome:
        """Understands the JSON form. Raises `ValueError` for anything else, and for another homeserver's."""
        announcement = Announcement.read(value)
        found = value.get("version"), value.get("server_name"), value.get("max_frame"), value.get("window")
        version, server, max_frame, window = found
        if version != PROTOCOL_VERSION:
            raise ValueError(REFUSALS[OTHER_VERSION])
        if server != server_name:
            raise ValueError(REFUSALS[OTHER_SERVER])
        if type(max_frame) is not int or max_frame < SMALLEST_MAX_FRAME or type(window) is not int or window < 1:
            raise ValueError("a hello without a usable max_frame and window")
        return cls(str(value.get("software")), max_frame, window, announcement)


@dataclass(frozen=True)
class Introduction:
    """What the bridge says of itself."""

    server_name: str
    worker_name: str | None
    homeserver: str
    """The homeserver's software."""
    token: str | None

    def to_json(self, role: str = "bridge") -> dict[str, Any]:
        """The params of the hello."""
        return {
            "version": PROTOCOL_VERSION,
            "role": role,
            "features": list(FEATURES) if role == "bridge" else [],
            "server_name": self.server_name,
            "worker_name": self.worker_name,
            "software": f"ganglion_synapse {VERSION}, {self.homeserver}",
            "max_frame": MAX_FRAME,
            "token": self.token,
        }


def refusal(error: Any) -> str:
    """Why Ganglion refused a hello, from the error of its answer."""
    error = error if isinstance(error, dict) else {}
    code, message = error.get("code"), error.get("message")
    reason = REFUSALS.get(code) if isinstance(code, int) else None
    return f"{reason or 'it refused the hello'} ({code}: {message})"


class HelloFailed(Exception):
    """There is no answer to the hello, or a refusal; the text says why."""


def blocking_hello(address: str | TcpAddress, introduction: Introduction, limit: float) -> Welcome:
    """Asks Ganglion once, on a connection of its own, before Synapse serves anybody.

    It may block the reactor for at most `limit` seconds: callbacks must be registered before the first request. As a
    `client`, since nobody here could answer what Ganglion asks a bridge. Raises `HelloFailed`.
    """
    until = time.monotonic() + limit
    params = introduction.to_json(role="client")
    message = {"jsonrpc": "2.0", "id": 0, "method": "hello", "params": params}
    body = json.dumps(message).encode()
    try:
        with _connect(address, limit) as connection:
            connection.settimeout(_left(until))
            connection.sendall(struct.pack("!I", len(body)) + body)
            answer = _answer(connection, until)
    except socket.timeout:
        raise HelloFailed(f"no answer within {limit:g} s") from None
    except OSError as error:
        raise HelloFailed(error.strerror or str(error)) from None
    if "error" in answer:
        raise HelloFailed(refusal(answer["error"]))
    try:
        return Welcome.read(answer.get("result"), introduction.server_name)
    except ValueError as error:
        raise HelloFailed(str(error)) from None


def _connect(address: str | TcpAddress, limit: float) -> socket.socket:
    if isinstance(address, TcpAddress):
        return socket.create_connection((address.host, address.port), timeout=limit)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(limit)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise socket.timeout
    return left


def _answer(connection: socket.socket, until: float) -> dict[str, Any]:
    """The answer to the hello; a notification may come before it."""
    while True:
        (length,) = struct.unpack("!I", _read(connection, 4, until))
        if length > MAX_FRAME:
            raise HelloFailed("a frame that is too large")
        try:
            message = json.loads(_read(connection, length, until))
        except (ValueError, RecursionError):
            raise HelloFailed("no JSON") from None
        if not isinstance(message, dict):
            raise HelloFailed("no JSON-RPC message")
        if "method" not in message:
            return message


def _read(connection: socket.socket, length: int, until: float) -> bytes:
    chunks = bytearray()
    while len(chunks) < length:
        connection.settimeout(_left(until))
        chunk = connection.recv(length - len(chunks))
        if not chunk:
            raise HelloFailed("the connection ended")
        chunks += chunk
    return bytes(chunks)
