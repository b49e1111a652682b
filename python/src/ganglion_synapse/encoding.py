"""JSON that the other side can read, whatever a client of the homeserver has sent."""

from __future__ import annotations

import json
from typing import Any

from .arguments import default

MAX_DEPTH = 256
"""How deep a message may be nested."""

_AROUND = 4
"""Levels that the message itself may have around what is encoded here."""

# A number with more digits does not fit into a float.
_DIGITS = 308
_LONG_NUMBER = b"0" * _DIGITS
_ONLY_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))

_encode = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False, default=default
).encode
_decode = json.JSONDecoder().decode


def encode(value: Any) -> bytes:
    """The JSON of a value. Raises `ValueError` if no valid frame could hold it.

    One such frame would end the connection, and every other call with it; and clients choose what is in some args.
    """
    try:
        text = _encode(value)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    try:
        body = text.encode()
    except UnicodeEncodeError:
        # A half of a surrogate pair is no text in UTF-8. Refusing it would let a client evade the modules wherever a
        # failure counts as pass.
        body = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
    # Looking at every value would cost more than encoding it; these two look at bytes.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH - _AROUND or _LONG_NUMBER in body.translate(_ONLY_DIGITS):
        _check(body)
    return body


def decode(frame: bytes) -> Any:
    """What a frame says. Raises `ValueError` or `RecursionError` if it is not JSON."""
    return _decode(frame.decode())


def _check(body: bytes) -> None:
    try:
        level = [decode(body)]
    except RecursionError:
        raise ValueError("nested too deeply") from None
    for _ in range(MAX_DEPTH - _AROUND):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, int) and abs(item) >= 10**_DIGITS:
                raise ValueError("a number that is too large")
        if not below:
            return
        level = below
    raise ValueError("nested too deeply")
