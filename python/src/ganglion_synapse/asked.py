"""What Ganglion asks: parts of large args, and Synapse's module API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from synapse.api.errors import Codes, SynapseError
from twisted.internet.defer import Deferred

from .errors import GONE, INVALID_PARAMS, MATRIX_ERROR, RpcError

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from .large import Handle

below: ContextVar[str | None] = ContextVar("ganglion_below", default=None)
"""The call of a module that the running code was asked by; callbacks that it causes say so."""

Params = dict[str, Any]


class Asked:
    """Answers requests of Ganglion."""

    def __init__(self, api: ModuleApi) -> None:
        from .module_api import ModuleApiMethods

        self.handles: dict[str, Handle] = {}
        """The handles of the calls that are in flight."""
        self.requests: dict[str, Callable[[Params], Any]] = {
            # A room's state is in memory: no log context is needed for it.
            "state.get": lambda params: _or_error(self._state_get(params)),
            "state.page": lambda params: _or_error(self._state_page(params)),
            "media.read": lambda params: self._in_background(self._media_read, params),
            "module_api": lambda params: self._in_background(self._module_api, params),
        }
        self._api = api
        self._methods = ModuleApiMethods(api)

    async def _state_get(self, params: Params) -> Any:
        return await self._handle(params).state_get(params)

    async def _state_page(self, params: Params) -> Any:
        return await self._handle(params).state_page(params)

    async def _media_read(self, params: Params) -> Any:
        return await self._handle(params).media_read(params)

    def _handle(self, params: Params) -> Handle:
        name = params.get("handle")
        handle = self.handles.get(name) if isinstance(name, str) else None
        if handle is None:
            raise RpcError(GONE, "the handle is gone")
        return handle

    async def _module_api(self, params: Params) -> Any:
        method, args, call = params.get("method"), params.get("args"), params.get("call")
        if not isinstance(method, str) or not isinstance(args, dict) or not isinstance(call, (str, type(None))):
            raise RpcError(INVALID_PARAMS, "method, args or call is missing or of another type", _M_INVALID_PARAM)
        below.set(call)
        return await self._methods.call(method, args)

    def _in_background(self, answer: Callable[[Params], Awaitable[Any]], params: Params) -> Deferred[Any]:
        """Runs in a log context of its own, as Synapse's code expects it."""

        async def settled() -> Any:
            # Synapse would log an error and forget it.
            try:
                return await _or_error(answer(params))
            except Exception as error:
                return _Raised(error)

        running: Deferred[Any] = self._api.run_as_background_process("ganglion", settled)
        return running.addCallback(_unless_raised)


_M_INVALID_PARAM = {"errcode": "M_INVALID_PARAM"}


class _Raised:
    def __init__(self, error: Exception) -> None:
        self.error = error


def _unless_raised(result: Any) -> Any:
    if isinstance(result, _Raised):
        raise result.error
    return result


async def _or_error(answer: Awaitable[Any]) -> Any:
    """Gives what is meant for the module as an error of the wire; all else is our own failure."""
    from .large import HandleGone
    from .module_api import BadArgs

    try:
        return await answer
    except SynapseError as error:
        body = dict(error.error_dict(None))
        errcode, text = body.pop("errcode", Codes.UNKNOWN), str(body.pop("error", ""))
        word = errcode.value if isinstance(errcode, Codes) else str(errcode)
        data = {"status": int(error.code), "errcode": word, "error": text, "fields": body}
        raise RpcError(MATRIX_ERROR, word, data) from None
    except HandleGone:
        raise RpcError(GONE, "the handle is gone") from None
    except BadArgs as error:
        raise RpcError(INVALID_PARAMS, str(error), _M_INVALID_PARAM) from None
    except LookupError as error:
        if type(error) is not LookupError:
            # A KeyError of Synapse's own code, for example.
            raise
        raise RpcError(INVALID_PARAMS, str(error), {"errcode": "M_UNRECOGNIZED"}) from None
