"""Password auth providers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from ganglion_synapse import outcomes
from ganglion_synapse.callbacks.forwarding import Category, Outcome, forwarded, named

if TYPE_CHECKING:
    from synapse.module_api import LoginResponse
    from synapse.types import JsonDict

LoginTypes = Iterable[tuple[str, Iterable[str]]]
LoginCallback = Callable[["LoginResponse"], Awaitable[None]]
Login = tuple[str, LoginCallback | None] | None


class PasswordAuthProvider(Category):
    """Password auth providers."""

    registers = "register_password_auth_provider_callbacks"
    names = (
        "auth_checkers",
        "check_3pid_auth",
        "on_logged_out",
        "get_username_for_registration",
        "get_displayname_for_registration",
        "is_3pid_allowed",
    )

    def keywords(self, names: frozenset[str], login_types: LoginTypes) -> JsonDict:
        keywords = super().keywords(names, login_types)
        if (checker := keywords.pop("auth_checkers", None)) is not None:
            checkers = {(name, tuple(fields)): checker for name, fields in login_types}
            if checkers:
                keywords["auth_checkers"] = checkers
        return keywords

    @forwarded
    async def auth_checkers(self, username: str, login_type: str, login_dict: JsonDict) -> Login:
        args = {"username": username, "login_type": login_type, "login_dict": login_dict}
        return self._login("auth_checkers", await self._ask("auth_checkers", args, outcomes.login))

    @forwarded
    async def check_3pid_auth(self, medium: str, address: str, password: str) -> Login:
        args = {"medium": medium, "address": address, "password": password}
        return self._login("check_3pid_auth", await self._ask("check_3pid_auth", args, outcomes.login))

    @forwarded
    async def on_logged_out(self, user_id: str, device_id: str | None, access_token: str) -> None:
        args = {"user_id": user_id, "device_id": device_id, "access_token": access_token}
        await self._ask("on_logged_out", args, outcomes.notified, user_id)

    @forwarded
    async def get_username_for_registration(self, uia_results: JsonDict, params: JsonDict) -> str | None:
        args = {"uia_results": uia_results, "params": params}
        return await self._ask("get_username_for_registration", args, outcomes.name)

    @forwarded
    async def get_displayname_for_registration(self, uia_results: JsonDict, params: JsonDict) -> str | None:
        args = {"uia_results": uia_results, "params": params}
        return await self._ask("get_displayname_for_registration", args, outcomes.name)

    @forwarded
    async def is_3pid_allowed(self, medium: str, address: str, registration: bool) -> bool:
        args = {"medium": medium, "address": address, "registration": registration}
        return await self._ask("is_3pid_allowed", args, outcomes.allowed)

    def _login(self, callback: str, login: tuple[str, str | None] | None) -> Login:
        if login is None:
            return None
        user_id, token = login
        return user_id, None if token is None else self._login_callback(callback, token)

    def _login_callback(self, callback: str, token: str) -> LoginCallback:
        async def login_callback(response: Any) -> None:
            def edit(outcome: Outcome) -> None:
                edited = outcomes.login_response(outcome)
                if edited is not None:
                    # Synapse sends this object, whatever is in it then.
                    outcomes.refill(response, edited)

            await self._carry_on(callback, token, edit, result=response)

        guarded = forwarded(login_callback)
        named(guarded, f"{callback}.login_callback")
        return guarded
