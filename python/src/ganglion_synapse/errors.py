"""How a request ends without a result."""

from __future__ import annotations

from typing import Any

NOT_JSON = -32700
INVALID_REQUEST = -32600
UNKNOWN_METHOD = -32601
INVALID_PARAMS = -32602
INTERNAL = -32603
ANSWER_TOO_LARGE = -32000
UNAUTHORIZED = -32001
OTHER_VERSION = -32002
OTHER_SERVER = -32003
GONE = -32004
MATRIX_ERROR = -32005
STOPPING = -32006
TOO_MANY = -32007
CANCELLED = -32800


class RpcError(Exception):
    """The error of an answer: one that came from the other side, or one that a handler wants sent."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data


class CallFailed(Exception):
    """A request had no answer. The kind is a word of the failure policy, the detail is for the log."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
