"""The callbacks of the reference: what `ganglion callbacks` prints, as far as the bridge needs it."""

from __future__ import annotations

from typing import NamedTuple

EXTENSION = "accept_make_join"
"""In the reference, but Synapse never asks it."""


class Callback(NamedTuple):
    """One callback: the group it is registered under, how answers become an outcome, and what failures mean."""

    category: str
    combine: str
    on_failure: str
    """What Synapse does when a module raises: `error`, `pass` or `deny`."""
    acting: str | None
    """The arg that says who acts; nobody does without one."""

    @property
    def has_deny_verdict(self) -> bool:
        """Whether the callback is gating: something waits to be allowed."""
        return self.combine in ("first_deny", "rewrite")


CALLBACKS: dict[str, Callback] = {
    "check_event_for_spam": Callback("spam_checker", "first_deny", "error", "event"),
    "should_drop_federated_event": Callback("spam_checker", "first_deny", "error", "event"),
    "user_may_join_room": Callback("spam_checker", "first_deny", "error", "user"),
    "user_may_invite": Callback("spam_checker", "first_deny", "error", "inviter"),
    "federated_user_may_invite": Callback("spam_checker", "first_deny", "error", "event"),
    "user_may_send_3pid_invite": Callback("spam_checker", "first_deny", "error", "inviter"),
    "user_may_create_room": Callback("spam_checker", "first_deny", "error", "user_id"),
    "user_may_create_room_alias": Callback("spam_checker", "first_deny", "error", "user_id"),
    "user_may_publish_room": Callback("spam_checker", "first_deny", "error", "user_id"),
    "user_may_send_state_event": Callback("spam_checker", "first_deny", "error", "user_id"),
    "check_username_for_spam": Callback("spam_checker", "first_deny", "error", "requester_id"),
    "check_registration_for_spam": Callback("spam_checker", "first_deny", "error", None),
    "check_media_file_for_spam": Callback("spam_checker", "first_deny", "error", None),
    "check_login_for_spam": Callback("spam_checker", "first_deny", "error", "user_id"),
    "accept_make_join": Callback("spam_checker", "first_deny", "error", "user"),
    "check_event_allowed": Callback("third_party_rules", "rewrite", "error", "event"),
    "on_create_room": Callback("third_party_rules", "rewrite", "deny", "requester"),
    "check_threepid_can_be_invited": Callback("third_party_rules", "first_deny", "pass", None),
    "check_visibility_can_be_modified": Callback("third_party_rules", "first_deny", "pass", None),
    "check_can_shutdown_room": Callback("third_party_rules", "first_deny", "pass", "user_id"),
    "check_can_deactivate_user": Callback("third_party_rules", "first_deny", "pass", "user_id"),
    "on_new_event": Callback("third_party_rules", "notify", "pass", "event"),
    "on_profile_update": Callback("third_party_rules", "notify", "pass", "user_id"),
    "on_user_deactivation_status_changed": Callback("third_party_rules", "notify", "pass", "user_id"),
    "on_threepid_bind": Callback("third_party_rules", "notify", "pass", "user_id"),
    "on_add_user_third_party_identifier": Callback("third_party_rules", "notify", "pass", "user_id"),
    "on_remove_user_third_party_identifier": Callback("third_party_rules", "notify", "pass", "user_id"),
    "is_user_expired": Callback("account_validity", "first_answer", "error", "user_id"),
    "on_user_registration": Callback("account_validity", "notify", "error", "user_id"),
    "on_user_login": Callback("account_validity", "notify", "error", "user_id"),
    "on_legacy_send_mail": Callback("account_validity", "single_owner", "error", "user_id"),
    "on_legacy_renew": Callback("account_validity", "single_owner", "error", None),
    "on_legacy_admin_request": Callback("account_validity", "single_owner", "error", None),
    "auth_checkers": Callback("password_auth_provider", "first_answer", "pass", None),
    "check_3pid_auth": Callback("password_auth_provider", "first_answer", "pass", None),
    "on_logged_out": Callback("password_auth_provider", "notify", "pass", "user_id"),
    "get_username_for_registration": Callback("password_auth_provider", "first_answer", "error", None),
    "get_displayname_for_registration": Callback("password_auth_provider", "first_answer", "error", None),
    "is_3pid_allowed": Callback("password_auth_provider", "first_deny", "error", None),
    "get_users_for_states": Callback("presence_router", "merge", "pass", None),
    "get_interested_users": Callback("presence_router", "merge", "pass", "user_id"),
    "on_update": Callback("background_update_controller", "single_owner", "error", None),
    "default_batch_size": Callback("background_update_controller", "single_owner", "error", None),
    "min_batch_size": Callback("background_update_controller", "single_owner", "error", None),
    "on_account_data_updated": Callback("account_data", "notify", "pass", "user_id"),
    "add_field_to_unsigned": Callback("add_extra_fields_to_unsigned_client_event", "merge", "error", "event"),
    "get_media_config_for_user": Callback("media_repository", "first_answer", "error", "user_id"),
    "is_user_allowed_to_upload_media_of_size": Callback("media_repository", "first_deny", "error", "user_id"),
    "get_media_upload_limits_for_user": Callback("media_repository", "first_answer", "error", "user_id"),
    "on_media_upload_limit_exceeded": Callback("media_repository", "notify", "error", "user_id"),
    "get_ratelimit_override_for_user": Callback("ratelimit", "first_answer", "error", "user_id"),
    "on_event_delivered_over_federation": Callback("federation", "notify", "pass", None),
}
"""Every callback, in the order of the reference."""


def neutral(callback: str) -> dict[str, object]:
    """The outcome of a callback that nobody answers."""
    return {"verdict": "pass"} if CALLBACKS[callback].has_deny_verdict else {"value": None}
