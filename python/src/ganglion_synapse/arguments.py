"""Synapse's objects as the JSON that Ganglion reads.

Each function takes what Synapse gives to a callback and returns plain dicts, lists and strings. What lies deep inside
may be a type that the standard library cannot dump (an event's content, an immutable dict): whoever dumps the args
passes `default` to the encoder, so that nothing is copied twice.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from synapse.api.constants import EventTypes

if TYPE_CHECKING:
    from synapse.api.presence import UserPresenceState
    from synapse.config.repository import MediaUploadLimit
    from synapse.events import EventBase
    from synapse.http.site import SynapseRequest
    from synapse.media._base import FileInfo
    from synapse.module_api import ProfileInfo, Requester
    from synapse.module_api.callbacks.federation import FederationEventDeliveryEvent
    from synapse.types import DomainSpecificString

JsonDict = dict[str, Any]


def default(value: Any) -> Any:
    """The `default` hook of the JSON encoder: one level of a value that the standard library does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    # The message is constant: the value may be a password.
    raise TypeError(f"a {type(value).__name__} is not JSON")


def event(event: EventBase) -> JsonDict:
    """An event as one object: the PDU, and beside its keys what Synapse knows about it.

    Siblings without a value stay absent. A PDU of another server may have keys of these names; they are not Synapse's
    word. This runs for every event of a homeserver, several times for some.
    """
    sent = event.get_dict()
    sent["event_id"] = event.event_id
    sent["room_version"] = event.room_version.identifier
    # The PDU of a v12 create event has none: its room is computed from it.
    sent["room_id"] = event.room_id
    known = event.internal_metadata
    metadata = known.get_dict()
    if (ordering := known.stream_ordering) is not None:
        metadata["stream_ordering"] = ordering
    if (redacted_by := known.redacted_by) is not None:
        metadata["redacted_by"] = redacted_by
    sent["internal_metadata"] = metadata
    sent.pop("membership", None)
    if sent["type"] == EventTypes.Member:
        # Not every event was validated when it gets here: `event.membership` would raise.
        membership = sent["content"].get("membership")
        if isinstance(membership, str):
            sent["membership"] = membership
    if (reason := event.rejected_reason) is not None:
        sent["rejected_reason"] = reason
    else:
        sent.pop("rejected_reason", None)
    return sent


def requester(requester: Requester) -> JsonDict:
    """Who makes a request."""
    return requester.serialize()


def text(parsed: DomainSpecificString | str) -> str:
    """A parsed id (`RoomAlias`, `UserID`, `RoomID`) as its text."""
    return parsed if isinstance(parsed, str) else parsed.to_string()


def user_profile(profile: Mapping[str, Any]) -> JsonDict:
    """A row of the user directory."""
    return {
        "user_id": profile["user_id"],
        "display_name": profile.get("display_name"),
        "avatar_url": profile.get("avatar_url"),
    }


def profile(profile: ProfileInfo) -> JsonDict:
    """A user's display name and avatar."""
    return {"display_name": profile.display_name, "avatar_url": profile.avatar_url}


def presence(state: UserPresenceState) -> JsonDict:
    """A user's presence."""
    return {
        "user_id": state.user_id,
        "state": state.state,
        "last_active_ts": state.last_active_ts,
        "last_federation_update_ts": state.last_federation_update_ts,
        "last_user_sync_ts": state.last_user_sync_ts,
        "status_msg": state.status_msg,
        "currently_active": state.currently_active,
    }


def request_info(requests: Iterable[tuple[str | None, str]]) -> list[list[str | None]]:
    """The user agents and addresses from which somebody registers or logs in."""
    return [[user_agent, ip] for user_agent, ip in requests]


def file_info(info: FileInfo) -> JsonDict:
    """What Synapse knows about a media file."""
    thumbnail = info.thumbnail
    return {
        "server_name": info.server_name,
        "file_id": info.file_id,
        "url_cache": info.url_cache,
        "thumbnail": thumbnail
        and {
            "width": thumbnail.width,
            "height": thumbnail.height,
            "method": thumbnail.method,
            "type": thumbnail.type,
            "length": thumbnail.length,
        },
    }


def upload_limit(limit: MediaUploadLimit) -> JsonDict:
    """How much a user may upload in which time."""
    return {
        "max_bytes": limit.max_bytes,
        "time_period_ms": limit.time_period_ms,
        "info_uri": limit.info_uri,
        "can_upgrade": limit.can_upgrade,
    }


def delivery(delivery: FederationEventDeliveryEvent) -> JsonDict:
    """Events that another server has got."""
    return {
        "server_name": delivery.server_name,
        # A str enum; the encoder would write it so too, but not every reader of the args is the encoder.
        "method": delivery.method.value,
        "events": [event(one) for one in delivery.events],
    }


def http_request(request: SynapseRequest) -> JsonDict:
    """A request to one of Synapse's own endpoints, body included."""
    path, _, query = request.uri.partition(b"?")
    body = b""
    if (content := request.content) is not None:
        # Whoever reads it next shall find it as it was.
        position = content.tell()
        content.seek(0)
        body = content.read()
        content.seek(position)
    return {
        "method": request.method.decode("ascii"),
        "path": path.decode("utf-8", "replace"),
        "query": query.decode("utf-8", "replace"),
        "headers": [
            [name.decode("latin-1").lower(), value.decode("latin-1")]
            for name, values in request.requestHeaders.getAllRawHeaders()
            for value in values
        ],
        "body_base64": base64.b64encode(body).decode("ascii"),
    }
