//! `scripted.py` once more, as a native module: the same callbacks, the same decisions, the same notes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ganglion::api::{
    AccountDataCallbacks, AccountValidityCallbacks, AddExtraFieldsToUnsignedClientEventCallbacks, AddFieldToUnsigned,
    AuthCheckers, AuthenticatedUser, BackgroundUpdateControllerCallbacks, Check3pidAuth, CheckCanDeactivateUser,
    CheckCanShutdownRoom, CheckEventAllowed, CheckEventForSpam, CheckLoginForSpam, CheckMediaFileForSpam,
    CheckRegistrationForSpam, CheckThreepidCanBeInvited, CheckUsernameForSpam, CheckVisibilityCanBeModified,
    DefaultBatchSize, Denial, Event, EventVerdict, Expiry, GetDisplaynameForRegistration, GetInterestedUsers,
    GetMediaConfigForUser, GetMediaUploadLimitsForUser, GetRatelimitOverrideForUser, GetUsernameForRegistration,
    GetUsersForStates, InterestedUsers, Is3pidAllowed, IsUserAllowedToUploadMediaOfSize, IsUserExpired, JsonObject,
    LegacyRenewal, Login, LoginTypes, MatrixError, MediaConfig, MediaRepositoryCallbacks, MediaUploadLimit,
    MediaUploadLimits, MinBatchSize, Module, ModuleApi, ModuleError, NoConfig, OnAccountDataUpdated,
    OnAddUserThirdPartyIdentifier, OnCreateRoom, OnLegacyAdminRequest, OnLegacyRenew, OnLegacySendMail, OnLoggedOut,
    OnMediaUploadLimitExceeded, OnNewEvent, OnProfileUpdate, OnRemoveUserThirdPartyIdentifier, OnThreepidBind,
    OnUpdate, OnUserDeactivationStatusChanged, OnUserLogin, OnUserRegistration, OwnedUserId,
    PasswordAuthProviderCallbacks, Presence, PresenceRouterCallbacks, RatelimitCallbacks, RatelimitOverride,
    RegistrationVerdict, RoomVerdict, SpamCheckerCallbacks, ThirdPartyRulesCallbacks, UpdateWindow, UserId,
    UserMayCreateRoom, UserMayCreateRoomAlias, UserMayInvite, UserMayJoinRoom, UserMayPublishRoom,
    UserMaySend3pidInvite, UserMaySendStateEvent, UsersForStates, Verdict,
};
use serde_json::{Value, json};

/// What the module was told, each an array that begins with a callback's name. There is one module of this kind.
static NOTES: Mutex<Vec<Value>> = Mutex::new(Vec::new());

/// What the module was told so far.
pub(crate) fn notes() -> Vec<Value> {
    lock(&NOTES).clone()
}

fn note(note: Value) {
    lock(&NOTES).push(note);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the spam checker says about something that has this text.
fn decide(text: &str) -> Result<Verdict, ModuleError> {
    fail_if_told(text)?;
    Ok(if text.contains("deny-code") {
        Verdict::Deny(Denial::new("M_RESOURCE_LIMIT_EXCEEDED"))
    } else if text.contains("deny-text") {
        Verdict::Deny(not_on_my_server())
    } else if text.contains("deny-fields") {
        Verdict::Deny(Denial::new("M_USER_LOCKED").with_field("soft_logout", true))
    } else if text.contains("deny-own") {
        Verdict::Deny(Denial::new("ORG.EXAMPLE.DENIED").with_error("by a rule of our own"))
    } else if text.contains("deny-reserved") {
        // Inside Synapse these two names keep it from ever answering.
        let denial = Denial::forbidden().with_field("msg", "never sent");
        Verdict::Deny(denial.with_field("code", 7).with_field("org.example.sent", true))
    } else if text.contains("deny") {
        Verdict::Deny(Denial::forbidden())
    } else {
        Verdict::Pass
    })
}

fn not_on_my_server() -> Denial {
    Denial::forbidden()
        .with_error("not on my server")
        .with_field("org.example.why", json!({ "rule": 7 }))
}

fn fail_if_told(text: &str) -> Result<(), ModuleError> {
    if text.contains("raise-matrix") {
        Err(MatrixError::new(429, "M_LIMIT_EXCEEDED", "slow down").with_field("retry_after_ms", 2000))?;
    }
    if text.contains("raise-plain") {
        return Err(ModuleError::message("this text must not reach a client"));
    }
    Ok(())
}

/// A module that denies what `objects` says.
fn unless(objects: bool) -> Verdict {
    if objects {
        Verdict::Deny(Denial::forbidden())
    } else {
        Verdict::Pass
    }
}

/// The string at a key, or an empty one.
fn text<'a>(object: &'a JsonObject, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What a module can see of an event, as far as both kinds of module see it.
fn told_of(event: &Event) -> Value {
    let mut told = json!({
        "event_id": event.event_id(),
        "type": event.event_type,
        "sender": event.sender,
        "room_id": event.room_id,
        "content": event.content,
    });
    if let Some(key) = &event.state_key {
        told["state_key"] = json!(key);
    }
    told
}

fn user(localpart: &str) -> Result<OwnedUserId, ModuleError> {
    Ok(UserId::parse(format!("@{localpart}:example.com"))?)
}

/// The module.
#[derive(Debug)]
pub(crate) struct Scripted {
    api: ModuleApi<Self>,
    kept_rooms: Mutex<BTreeSet<String>>,
}

impl Module for Scripted {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(spam_checker())?;
        api.register_third_party_rules_callbacks(third_party_rules())?;
        api.register_account_validity_callbacks(
            AccountValidityCallbacks::new()
                .is_user_expired(Self::is_user_expired)
                .on_user_registration(Self::on_user_registration)
                .on_user_login(Self::on_user_login)
                .on_legacy_send_mail(Self::on_legacy_send_mail)
                .on_legacy_renew(Self::on_legacy_renew)
                .on_legacy_admin_request(Self::on_legacy_admin_request),
        )?;
        api.register_password_auth_provider_callbacks(password_auth_provider())?;
        api.register_presence_router_callbacks(
            PresenceRouterCallbacks::new()
                .get_users_for_states(Self::get_users_for_states)
                .get_interested_users(Self::get_interested_users),
        )?;
        api.register_background_update_controller_callbacks(
            BackgroundUpdateControllerCallbacks::new()
                .on_update(Self::on_update)
                .default_batch_size(Self::default_batch_size)
                .min_batch_size(async |_: &Self, _: &MinBatchSize| Ok(1)),
        )?;
        api.register_account_data_callbacks(
            AccountDataCallbacks::new().on_account_data_updated(Self::on_account_data_updated),
        )?;
        api.register_add_extra_fields_to_unsigned_client_event_callbacks(
            AddExtraFieldsToUnsignedClientEventCallbacks::new().add_field_to_unsigned(Self::add_field_to_unsigned),
        )?;
        api.register_media_repository_callbacks(
            MediaRepositoryCallbacks::new()
                .get_media_config_for_user(Self::get_media_config_for_user)
                .is_user_allowed_to_upload_media_of_size(Self::is_user_allowed_to_upload_media_of_size)
                .get_media_upload_limits_for_user(Self::get_media_upload_limits_for_user)
                .on_media_upload_limit_exceeded(Self::on_media_upload_limit_exceeded),
        )?;
        api.register_ratelimit_callbacks(
            RatelimitCallbacks::new().get_ratelimit_override_for_user(Self::get_ratelimit_override_for_user),
        )?;
        Ok(Self {
            api: api.clone(),
            kept_rooms: Mutex::default(),
        })
    }
}

impl Scripted {
    async fn ask_homeserver(&self, method: &'static str, args: Value) -> Result<Value, ModuleError> {
        Ok(self.api.homeserver().call(method, args).await?)
    }
}

fn spam_checker() -> SpamCheckerCallbacks<Scripted> {
    SpamCheckerCallbacks::new()
        .check_event_for_spam(Scripted::check_event_for_spam)
        .user_may_join_room(Scripted::user_may_join_room)
        .user_may_invite(Scripted::user_may_invite)
        .user_may_send_3pid_invite(Scripted::user_may_send_3pid_invite)
        .user_may_create_room(Scripted::user_may_create_room)
        .user_may_create_room_alias(Scripted::user_may_create_room_alias)
        .user_may_publish_room(Scripted::user_may_publish_room)
        .user_may_send_state_event(Scripted::user_may_send_state_event)
        .check_username_for_spam(Scripted::check_username_for_spam)
        .check_registration_for_spam(Scripted::check_registration_for_spam)
        .check_media_file_for_spam(Scripted::check_media_file_for_spam)
        .check_login_for_spam(Scripted::check_login_for_spam)
}

fn third_party_rules() -> ThirdPartyRulesCallbacks<Scripted> {
    ThirdPartyRulesCallbacks::new()
        .check_event_allowed(Scripted::check_event_allowed)
        .on_create_room(Scripted::on_create_room)
        .check_threepid_can_be_invited(Scripted::check_threepid_can_be_invited)
        .check_visibility_can_be_modified(Scripted::check_visibility_can_be_modified)
        .check_can_shutdown_room(Scripted::check_can_shutdown_room)
        .check_can_deactivate_user(Scripted::check_can_deactivate_user)
        .on_new_event(Scripted::on_new_event)
        .on_profile_update(Scripted::on_profile_update)
        .on_user_deactivation_status_changed(Scripted::on_user_deactivation_status_changed)
        .on_threepid_bind(Scripted::on_threepid_bind)
        .on_add_user_third_party_identifier(Scripted::on_add_user_third_party_identifier)
        .on_remove_user_third_party_identifier(Scripted::on_remove_user_third_party_identifier)
}

fn password_auth_provider() -> PasswordAuthProviderCallbacks<Scripted> {
    let login_types = LoginTypes::new()
        .login_type("m.login.password", ["password"], Scripted::check_password)
        .login_type("org.example.code", ["code", "hint"], Scripted::check_code);
    PasswordAuthProviderCallbacks::new()
        .auth_checkers(login_types)
        .check_3pid_auth(Scripted::check_3pid_auth)
        .on_logged_out(Scripted::on_logged_out)
        .get_username_for_registration(Scripted::get_username_for_registration)
        .get_displayname_for_registration(Scripted::get_displayname_for_registration)
        .is_3pid_allowed(Scripted::is_3pid_allowed)
}

/// Spam checker.
impl Scripted {
    async fn check_event_for_spam(&self, args: &CheckEventForSpam) -> Result<Verdict, ModuleError> {
        let Some(body) = args.event.content.get("body").and_then(Value::as_str) else {
            return Ok(Verdict::Pass);
        };
        note(json!(["check_event_for_spam", told_of(&args.event)]));
        if let Some(echo) = body.strip_prefix("echo ") {
            // Sending it makes Synapse ask this function about the echo.
            let content = json!({ "msgtype": "m.notice", "body": echo });
            let CheckEventForSpam { event, .. } = args;
            let echo = json!({
                "type": event.event_type, "room_id": event.room_id, "sender": event.sender, "content": content,
            });
            self.ask_homeserver("create_and_send_event_into_room", json!({ "event_dict": echo }))
                .await?;
        }
        if body.contains("deny-legacy") {
            return Ok(Verdict::Deny(Denial::forbidden().with_error("a text of the module")));
        }
        decide(body)
    }

    async fn user_may_join_room(&self, args: &UserMayJoinRoom) -> Result<Verdict, ModuleError> {
        note(json!(["user_may_join_room", args.user, args.room, args.is_invited]));
        decide(args.user.localpart())
    }

    async fn user_may_invite(&self, args: &UserMayInvite) -> Result<Verdict, ModuleError> {
        note(json!(["user_may_invite", args.inviter, args.invitee, args.room_id]));
        decide(args.invitee.localpart())
    }

    async fn user_may_send_3pid_invite(&self, args: &UserMaySend3pidInvite) -> Result<Verdict, ModuleError> {
        let callback = "user_may_send_3pid_invite";
        note(json!([callback, args.inviter, args.medium, args.address, args.room_id]));
        decide(&args.address)
    }

    async fn user_may_create_room(&self, args: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        note(json!(["user_may_create_room", args.user_id, args.room_config]));
        decide(text(&args.room_config, "name"))
    }

    async fn user_may_create_room_alias(&self, args: &UserMayCreateRoomAlias) -> Result<Verdict, ModuleError> {
        note(json!(["user_may_create_room_alias", args.user_id, args.room_alias]));
        decide(args.room_alias.alias())
    }

    async fn user_may_publish_room(&self, args: &UserMayPublishRoom) -> Result<Verdict, ModuleError> {
        note(json!(["user_may_publish_room", args.user_id, args.room_id]));
        decide(args.user_id.localpart())
    }

    async fn user_may_send_state_event(&self, args: &UserMaySendStateEvent) -> Result<Verdict, ModuleError> {
        note(json!([
            "user_may_send_state_event",
            args.user_id,
            args.room_id,
            args.event_type,
            args.state_key,
            args.content
        ]));
        if args.event_type != "org.example.state" {
            return Ok(Verdict::Pass);
        }
        decide(text(&args.content, "word"))
    }

    async fn check_username_for_spam(&self, args: &CheckUsernameForSpam) -> Result<Verdict, ModuleError> {
        note(json!(["check_username_for_spam", args.user_profile, args.requester_id]));
        fail_if_told(args.requester_id.localpart())?;
        Ok(unless(args.user_profile.user_id.as_str().contains("hidden")))
    }

    async fn check_registration_for_spam(
        &self,
        args: &CheckRegistrationForSpam,
    ) -> Result<RegistrationVerdict, ModuleError> {
        note(json!([
            "check_registration_for_spam",
            args.email_threepid,
            args.username,
            args.request_info,
            args.auth_provider_id
        ]));
        let username = args.username.as_deref().unwrap_or_default();
        if username.contains("newcomer") {
            fail_if_told(username)?;
        }
        Ok(if username.contains("refused") {
            RegistrationVerdict::Deny(Denial::forbidden())
        } else if username.contains("shadow") {
            RegistrationVerdict::ShadowBan
        } else {
            RegistrationVerdict::Pass
        })
    }

    async fn check_media_file_for_spam(&self, args: &CheckMediaFileForSpam) -> Result<Verdict, ModuleError> {
        let contents = args.file_base64.contents().await?;
        let info = &args.file_info;
        note(json!([
            "check_media_file_for_spam",
            info.file_id,
            contents.len(),
            info.server_name,
            info.url_cache,
            info.thumbnail,
        ]));
        // Words stand at both ends: the whole file has to be looked at.
        let (begin, end) = (contents.len().min(32), contents.len().saturating_sub(32));
        let words = [&contents[..begin], &contents[end..]].concat();
        decide(&String::from_utf8_lossy(&words))
    }

    async fn check_login_for_spam(&self, args: &CheckLoginForSpam) -> Result<Verdict, ModuleError> {
        note(json!([
            "check_login_for_spam",
            args.user_id,
            args.device_id,
            args.initial_display_name,
            args.request_info,
            args.auth_provider_id
        ]));
        decide(args.initial_display_name.as_deref().unwrap_or_default())
    }
}

/// Third-party rules.
impl Scripted {
    async fn check_event_allowed(&self, args: &CheckEventAllowed) -> Result<EventVerdict, ModuleError> {
        let CheckEventAllowed {
            event, state_events, ..
        } = args;
        if event.event_type != "org.example.rule" {
            return Ok(EventVerdict::Pass);
        }
        let word = text(&event.content, "word");
        note(json!(["check_event_allowed", event.sender, word]));
        fail_if_told(word)?;
        let allowed = match word {
            "deny" => false,
            "deny-text" => return Ok(EventVerdict::Deny(not_on_my_server())),
            "deny-code" => {
                let denial = Denial::new("M_RESOURCE_LIMIT_EXCEEDED").with_error("no room");
                return Ok(EventVerdict::Deny(denial));
            }
            "replace" => {
                let mut replacement = JsonObject::new();
                replacement.insert("type".into(), json!(event.event_type));
                replacement.insert("room_id".into(), json!(event.room_id));
                replacement.insert("sender".into(), json!(event.sender));
                replacement.insert("content".into(), json!({ "word": "replaced", "by": "the module" }));
                return Ok(EventVerdict::Replace(replacement));
            }
            "replace-badly" => return Ok(EventVerdict::Replace(JsonObject::new())),
            "by-admin" => {
                let args = json!({ "user_id": event.sender });
                self.ask_homeserver("is_user_admin", args).await? == true
            }
            "by-alias" => {
                let args = json!({ "room_alias": "#nowhere:example.com" });
                self.ask_homeserver("lookup_room_alias", args).await?;
                true
            }
            "by-topic" => {
                let topic = state_events.get("m.room.topic", "").await?;
                topic.is_none_or(|topic| text(&topic.content, "topic") != "silence")
            }
            "by-entry" => {
                // Not among the entries that modules look at most.
                let entry = state_events.get("org.example.entry", "key").await?;
                entry.is_some_and(|entry| entry.content.get("open") == Some(&json!(true)))
            }
            "by-count" => {
                let all = state_events.all().await?;
                let entries = all.iter().filter(|event| event.event_type == "org.example.entry");
                let keys: BTreeSet<_> = entries.map(|event| event.state_key.as_deref()).collect();
                note(json!(["state", event.sender, keys]));
                event.content.get("count") == Some(&json!(keys.len()))
            }
            _ => true,
        };
        Ok(if allowed {
            EventVerdict::Pass
        } else {
            EventVerdict::Deny(Denial::forbidden())
        })
    }

    async fn on_create_room(&self, args: &OnCreateRoom) -> Result<RoomVerdict, ModuleError> {
        let mut requester = json!(args.requester);
        // The number of a row in the database means nothing to anybody else.
        requester
            .as_object_mut()
            .map(|requester| requester.remove("access_token_id"));
        note(json!([
            "on_create_room",
            requester,
            args.request_content,
            args.is_requester_admin
        ]));
        let topic = text(&args.request_content, "topic");
        fail_if_told(topic)?;
        if topic.contains("deny-text") {
            return Ok(RoomVerdict::Deny(not_on_my_server()));
        }
        if topic == "rename" {
            let mut content = args.request_content.clone();
            content.insert("name".into(), json!("renamed"));
            content.remove("topic");
            return Ok(RoomVerdict::Edit(content));
        }
        Ok(RoomVerdict::Pass)
    }

    async fn check_threepid_can_be_invited(&self, args: &CheckThreepidCanBeInvited) -> Result<Verdict, ModuleError> {
        note(json!(["check_threepid_can_be_invited", args.medium, args.address]));
        fail_if_told(&args.address)?;
        let topic = args.state_events.get("m.room.topic", "").await?;
        let closed = topic.is_some_and(|topic| text(&topic.content, "topic") == "members only");
        Ok(unless(closed || args.address.starts_with("blocked")))
    }

    async fn check_visibility_can_be_modified(
        &self,
        args: &CheckVisibilityCanBeModified,
    ) -> Result<Verdict, ModuleError> {
        note(json!([
            "check_visibility_can_be_modified",
            args.room_id,
            args.new_visibility
        ]));
        let Some(topic) = args.state_events.get("m.room.topic", "").await? else {
            return Ok(Verdict::Pass);
        };
        let topic = text(&topic.content, "topic");
        fail_if_told(topic)?;
        Ok(unless(topic == "secret"))
    }

    async fn check_can_shutdown_room(&self, args: &CheckCanShutdownRoom) -> Result<Verdict, ModuleError> {
        note(json!(["check_can_shutdown_room", args.user_id, args.room_id]));
        Ok(unless(lock(&self.kept_rooms).contains(args.room_id.as_str())))
    }

    async fn check_can_deactivate_user(&self, args: &CheckCanDeactivateUser) -> Result<Verdict, ModuleError> {
        note(json!(["check_can_deactivate_user", args.user_id, args.by_admin]));
        fail_if_told(args.user_id.localpart())?;
        Ok(unless(args.user_id.localpart().contains("keep")))
    }

    async fn on_new_event(&self, args: &OnNewEvent) -> Result<(), ModuleError> {
        let event = &args.event;
        if event.event_type == "org.example.keep" {
            lock(&self.kept_rooms).insert(event.room_id.to_string());
        }
        if !event.event_type.starts_with("org.example.") {
            return Ok(());
        }
        note(json!(["on_new_event", told_of(event)]));
        fail_if_told(text(&event.content, "word"))?;
        if let Some(key) = &event.state_key {
            let itself = args.state_events.get(&event.event_type, key).await?;
            let is_there = itself.is_some_and(|itself| itself.event_id() == event.event_id());
            note(json!(["on_new_event: state", is_there, event.sender]));
        }
        Ok(())
    }

    async fn on_profile_update(&self, args: &OnProfileUpdate) -> Result<(), ModuleError> {
        let callback = "on_profile_update";
        note(json!([
            callback,
            args.user_id,
            args.new_profile,
            args.by_admin,
            args.deactivation
        ]));
        fail_if_told(args.new_profile.display_name.as_deref().unwrap_or_default())
    }

    async fn on_user_deactivation_status_changed(
        &self,
        args: &OnUserDeactivationStatusChanged,
    ) -> Result<(), ModuleError> {
        let callback = "on_user_deactivation_status_changed";
        note(json!([callback, args.user_id, args.deactivated, args.by_admin]));
        Ok(())
    }

    async fn on_threepid_bind(&self, args: &OnThreepidBind) -> Result<(), ModuleError> {
        note(json!(["on_threepid_bind", args.user_id, args.medium, args.address]));
        Ok(())
    }

    async fn on_add_user_third_party_identifier(
        &self,
        args: &OnAddUserThirdPartyIdentifier,
    ) -> Result<(), ModuleError> {
        note(json!([
            "on_add_user_third_party_identifier",
            args.user_id,
            args.medium,
            args.address
        ]));
        Ok(())
    }

    async fn on_remove_user_third_party_identifier(
        &self,
        args: &OnRemoveUserThirdPartyIdentifier,
    ) -> Result<(), ModuleError> {
        note(json!([
            "on_remove_user_third_party_identifier",
            args.user_id,
            args.medium,
            args.address
        ]));
        Ok(())
    }
}

/// Account validity and logins.
impl Scripted {
    async fn is_user_expired(&self, args: &IsUserExpired) -> Result<Option<Expiry>, ModuleError> {
        let user = args.user_id.localpart();
        if user.starts_with("lapsed") {
            fail_if_told(user)?;
            return Ok(Some(Expiry::Expired));
        }
        Ok(user.starts_with("lasting").then_some(Expiry::Valid))
    }

    async fn on_user_registration(&self, args: &OnUserRegistration) -> Result<(), ModuleError> {
        note(json!(["on_user_registration", args.user_id]));
        if args.user_id.localpart().starts_with("greeted") {
            fail_if_told(args.user_id.localpart())?;
        }
        Ok(())
    }

    async fn on_user_login(&self, args: &OnUserLogin) -> Result<(), ModuleError> {
        note(json!([
            "on_user_login",
            args.user_id,
            args.auth_provider_type,
            args.auth_provider_id
        ]));
        if args.user_id.localpart().starts_with("welcomed") {
            fail_if_told(args.user_id.localpart())?;
        }
        Ok(())
    }

    async fn on_legacy_send_mail(&self, args: &OnLegacySendMail) -> Result<(), ModuleError> {
        note(json!(["on_legacy_send_mail", args.user_id]));
        fail_if_told(args.user_id.localpart())
    }

    async fn on_legacy_renew(&self, args: &OnLegacyRenew) -> Result<LegacyRenewal, ModuleError> {
        let token = args.renewal_token.expose();
        fail_if_told(token)?;
        Ok(LegacyRenewal::new(
            token == "good",
            token == "stale",
            1_766_000_000_000_i64,
        ))
    }

    async fn on_legacy_admin_request(&self, args: &OnLegacyAdminRequest) -> Result<Value, ModuleError> {
        let body: JsonObject = serde_json::from_slice(args.request.expose().body_base64.bytes())?;
        fail_if_told(text(&body, "user_id"))?;
        let expiration = body.get("expiration_ts").and_then(Value::as_i64);
        Ok(json!(
            expiration.ok_or_else(|| ModuleError::message("no expiration_ts"))? + 1
        ))
    }

    async fn check_password(&self, args: &AuthCheckers) -> Result<Option<AuthenticatedUser>, ModuleError> {
        let login_dict = args.login_dict.expose();
        let keys: BTreeSet<_> = login_dict.keys().collect();
        note(json!(["check_password", args.username, args.login_type, keys]));
        let password = text(login_dict, "password");
        if !password.starts_with("module") {
            return Ok(None);
        }
        fail_if_told(password)?;
        if password.contains("nobody") {
            return Ok(Some(AuthenticatedUser::new("@nobody-of-that-name:example.com")));
        }
        let user = if args.username.starts_with('@') {
            args.username.clone()
        } else {
            format!("@{}:example.com", args.username)
        };
        let user = AuthenticatedUser::new(user);
        Ok(Some(if password.contains("greet") {
            user.on_login(greet)
        } else if password.contains("trip") {
            user.on_login(trip)
        } else {
            user
        }))
    }

    async fn check_code(&self, args: &AuthCheckers) -> Result<Option<AuthenticatedUser>, ModuleError> {
        let login_dict = args.login_dict.expose();
        note(json!(["check_code", args.username, args.login_type, login_dict]));
        let code = text(login_dict, "code");
        fail_if_told(code)?;
        Ok((code == "123").then(|| AuthenticatedUser::new(format!("@{}:example.com", args.username))))
    }

    async fn check_3pid_auth(&self, args: &Check3pidAuth) -> Result<Option<AuthenticatedUser>, ModuleError> {
        note(json!(["check_3pid_auth", args.medium, args.address]));
        let password = args.password.expose();
        if !password.starts_with("module") {
            return Ok(None);
        }
        fail_if_told(password)?;
        let localpart = args.address.split('@').next().unwrap_or_default();
        let user = AuthenticatedUser::new(format!("@{localpart}:example.com"));
        Ok(Some(if password.contains("greet") {
            user.on_login(greet)
        } else {
            user
        }))
    }

    async fn on_logged_out(&self, args: &OnLoggedOut) -> Result<(), ModuleError> {
        note(json!([
            "on_logged_out",
            args.user_id,
            args.device_id,
            args.access_token
        ]));
        fail_if_told(args.user_id.localpart())
    }

    async fn get_username_for_registration(
        &self,
        args: &GetUsernameForRegistration,
    ) -> Result<Option<String>, ModuleError> {
        note(json!(["get_username_for_registration", args.uia_results, args.params]));
        let name = text(&args.params, "org.example.username");
        fail_if_told(name)?;
        Ok((!name.is_empty()).then(|| name.to_owned()))
    }

    async fn get_displayname_for_registration(
        &self,
        args: &GetDisplaynameForRegistration,
    ) -> Result<Option<String>, ModuleError> {
        let name = text(&args.params, "org.example.displayname");
        if name.is_empty() {
            return Ok(None);
        }
        note(json!([
            "get_displayname_for_registration",
            args.uia_results,
            args.params
        ]));
        fail_if_told(name)?;
        Ok(Some(name.to_owned()))
    }

    async fn is_3pid_allowed(&self, args: &Is3pidAllowed) -> Result<Verdict, ModuleError> {
        note(json!(["is_3pid_allowed", args.medium, args.address, args.registration]));
        if args.address.ends_with("13") {
            Err(MatrixError::new(429, "M_LIMIT_EXCEEDED", "slow down"))?;
        }
        Ok(unless(args.address.ends_with("66")))
    }
}

/// Says hello in the response of a login.
async fn greet(mut response: Login) -> Result<Login, ModuleError> {
    let hello = format!(
        "hello {}",
        response.get("user_id").and_then(Value::as_str).unwrap_or_default()
    );
    response.insert("org.example.greeting", hello);
    Ok(response)
}

async fn trip(response: Login) -> Result<Login, ModuleError> {
    let user = response.get("user_id").cloned().unwrap_or_default();
    Err(MatrixError::new(403, "ORG.EXAMPLE.CLOSED", "the door is closed").with_field("org.example.user", user))?
}

/// The rest.
impl Scripted {
    async fn get_users_for_states(&self, args: &GetUsersForStates) -> Result<UsersForStates, ModuleError> {
        let stars = args
            .state_updates
            .iter()
            .filter(|update| update.user_id.localpart() == "star");
        let stars: BTreeSet<Presence> = stars.cloned().collect();
        if stars.is_empty() {
            return Ok(UsersForStates::default());
        }
        Ok(UsersForStates::new(BTreeMap::from([(user("watcher")?, stars)])))
    }

    async fn get_interested_users(&self, args: &GetInterestedUsers) -> Result<InterestedUsers, ModuleError> {
        if args.user_id.localpart() == "omniscient" {
            return Ok(InterestedUsers::All);
        }
        let star = (args.user_id.localpart() == "watcher")
            .then(|| user("star"))
            .transpose()?;
        Ok(InterestedUsers::new(star))
    }

    async fn on_update(&self, args: &OnUpdate) -> Result<UpdateWindow, ModuleError> {
        note(json!([
            "on_update",
            args.update_name,
            args.database_name,
            args.one_shot
        ]));
        let name = args.update_name.clone();
        Ok(UpdateWindow::new(100, None).on_exit(async move |failed| {
            note(json!(["on_update: over", name, failed]));
            Ok(())
        }))
    }

    async fn default_batch_size(&self, args: &DefaultBatchSize) -> Result<i64, ModuleError> {
        note(json!(["default_batch_size", args.update_name, args.database_name]));
        Ok(100)
    }

    async fn on_account_data_updated(&self, args: &OnAccountDataUpdated) -> Result<(), ModuleError> {
        let callback = "on_account_data_updated";
        note(json!([
            callback,
            args.user_id,
            args.room_id,
            args.account_data_type,
            args.content
        ]));
        fail_if_told(&args.account_data_type)
    }

    async fn add_field_to_unsigned(&self, args: &AddFieldToUnsigned) -> Result<JsonObject, ModuleError> {
        let stamp = text(&args.event.content, "org.example.stamp");
        let mut fields = JsonObject::new();
        if !stamp.is_empty() {
            fail_if_told(stamp)?;
            fields.insert(
                "org.example.stamp".into(),
                json!({ "of": args.event.sender, "says": stamp }),
            );
            fields.insert("age".into(), json!("the homeserver's own wins"));
        }
        Ok(fields)
    }

    async fn get_media_config_for_user(
        &self,
        args: &GetMediaConfigForUser,
    ) -> Result<Option<MediaConfig>, ModuleError> {
        let config = || MediaConfig::new(json!({ "m.upload.size": 70_000, "org.example.plan": "small" }));
        Ok((args.user_id.localpart() == "small").then(config))
    }

    async fn is_user_allowed_to_upload_media_of_size(
        &self,
        args: &IsUserAllowedToUploadMediaOfSize,
    ) -> Result<Verdict, ModuleError> {
        note(json!([
            "is_user_allowed_to_upload_media_of_size",
            args.user_id,
            args.size
        ]));
        Ok(unless(args.user_id.localpart() == "small" && args.size > 70_000))
    }

    async fn get_media_upload_limits_for_user(
        &self,
        args: &GetMediaUploadLimitsForUser,
    ) -> Result<Option<MediaUploadLimits>, ModuleError> {
        if !args.user_id.localpart().starts_with("metered") {
            return Ok(None);
        }
        let hour = 3_600_000;
        let plans = "https://example.com/plans".to_owned();
        Ok(Some(MediaUploadLimits::new(vec![
            MediaUploadLimit::new(1000, hour, plans, true),
            MediaUploadLimit::new(5000, 24 * hour, None, false),
        ])))
    }

    async fn on_media_upload_limit_exceeded(&self, args: &OnMediaUploadLimitExceeded) -> Result<(), ModuleError> {
        let callback = "on_media_upload_limit_exceeded";
        note(json!([
            callback,
            args.user_id,
            args.limit,
            args.sent_bytes,
            args.attempted_bytes
        ]));
        fail_if_told(args.user_id.localpart())
    }

    async fn get_ratelimit_override_for_user(
        &self,
        args: &GetRatelimitOverrideForUser,
    ) -> Result<Option<RatelimitOverride>, ModuleError> {
        let user = args.user_id.localpart();
        if user.starts_with("hasty") {
            return Ok(Some(RatelimitOverride::new(1000.0, 1000)));
        }
        if user.starts_with("boundless") {
            return Ok(Some(RatelimitOverride::new(0.0, 1)));
        }
        Ok(user.starts_with("slow").then(|| RatelimitOverride::new(0.001, 2)))
    }
}
