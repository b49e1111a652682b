"""Account validity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ganglion_synapse import arguments, outcomes
from ganglion_synapse.callbacks.forwarding import Category, forwarded

if TYPE_CHECKING:
    from synapse.http.site import SynapseRequest


class AccountValidity(Category):
    """Account validity."""

    registers = "register_account_validity_callbacks"
    names = (
        "is_user_expired",
        "on_user_registration",
        "on_user_login",
        "on_legacy_send_mail",
        "on_legacy_renew",
        "on_legacy_admin_request",
    )

    @forwarded
    async def is_user_expired(self, user_id: str) -> bool | None:
        return await self._ask("is_user_expired", {"user_id": user_id}, outcomes.expired, user_id)

    @forwarded
    async def on_user_registration(self, user_id: str) -> None:
        await self._ask("on_user_registration", {"user_id": user_id}, outcomes.notified, user_id)

    @forwarded
    async def on_user_login(self, user_id: str, auth_provider_type: str | None, auth_provider_id: str | None) -> None:
        args = {
            "user_id": user_id,
            "auth_provider_type": auth_provider_type,
            "auth_provider_id": auth_provider_id,
        }
        await self._ask("on_user_login", args, outcomes.notified, user_id)

    @forwarded
    async def on_legacy_send_mail(self, user_id: str) -> None:
        await self._ask("on_legacy_send_mail", {"user_id": user_id}, outcomes.notified, user_id)

    @forwarded
    async def on_legacy_renew(self, renewal_token: str) -> tuple[bool, bool, int]:
        return await self._ask("on_legacy_renew", {"renewal_token": renewal_token}, outcomes.renewal)

    @forwarded
    async def on_legacy_admin_request(self, request: SynapseRequest) -> Any:
        args = {"request": arguments.http_request(request)}
        return await self._ask("on_legacy_admin_request", args, outcomes.admin_response)
