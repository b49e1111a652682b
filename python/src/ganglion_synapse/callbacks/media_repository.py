"""The media repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ganglion_synapse import arguments, outcomes
from ganglion_synapse.callbacks.forwarding import Category, forwarded

if TYPE_CHECKING:
    from synapse.module_api import MediaUploadLimit


class MediaRepository(Category):
    """The media repository."""

    registers = "register_media_repository_callbacks"
    names = (
        "get_media_config_for_user",
        "is_user_allowed_to_upload_media_of_size",
        "get_media_upload_limits_for_user",
        "on_media_upload_limit_exceeded",
    )

    @forwarded
    async def get_media_config_for_user(self, user_id: str) -> Any:
        args = {"user_id": user_id}
        return await self._ask("get_media_config_for_user", args, outcomes.media_config, user_id)

    @forwarded
    async def is_user_allowed_to_upload_media_of_size(self, user_id: str, size: int) -> bool:
        args = {"user_id": user_id, "size": size}
        return await self._ask("is_user_allowed_to_upload_media_of_size", args, outcomes.allowed, user_id)

    @forwarded
    async def get_media_upload_limits_for_user(self, user_id: str) -> list[MediaUploadLimit] | None:
        args = {"user_id": user_id}
        return await self._ask("get_media_upload_limits_for_user", args, outcomes.upload_limits, user_id)

    @forwarded
    async def on_media_upload_limit_exceeded(
        self, user_id: str, limit: MediaUploadLimit, sent_bytes: int, attempted_bytes: int
    ) -> None:
        args = {
            "user_id": user_id,
            "limit": arguments.upload_limit(limit),
            "sent_bytes": sent_bytes,
            "attempted_bytes": attempted_bytes,
        }
        await self._ask("on_media_upload_limit_exceeded", args, outcomes.notified, user_id)
